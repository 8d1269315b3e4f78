//! Keys, tokens and kubeconfigs are their owner's alone.

use e2e::binary::{Cluster, run};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn mode(path: &Path) -> u32 {
    let metadata =
        std::fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    metadata.permissions().mode() & 0o777
}

fn check(cluster: &Cluster) {
    let data = cluster.data_dir();
    assert_eq!(mode(&data), 0o700);
    assert_eq!(mode(&data.join("pki")), 0o700);
    assert_eq!(mode(&data.join("store")), 0o700);
    for file in ["kubeconfig", "api.sock", "running.json"] {
        assert_eq!(mode(&data.join(file)) & 0o077, 0, "{file}");
    }
    for entry in std::fs::read_dir(data.join("pki")).expect("a directory") {
        let path = entry.expect("an entry").path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[test]
fn whatever_the_umask_only_the_owner_can_read_what_is_secret() {
    for umask in ["0", "022", "077"] {
        let mut cluster = Cluster::new();
        // A umask is inherited: this one is set for the shell that becomes petset.
        cluster.start_through(&format!("umask {umask}; exec \"$0\" \"$@\""), &["apiserver"]);
        check(&cluster);
    }
}

#[test]
fn keys_that_others_could_read_are_repaired_or_refused() {
    let mut cluster = Cluster::new();
    cluster.start_as(&["apiserver"]);
    cluster.terminate();
    let pki = cluster.data_dir().join("pki");
    let open = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    open(&pki.join("admin.key"), 0o644);
    open(&cluster.data_dir().join("kubeconfig"), 0o644);
    cluster.start_as(&["apiserver"]);
    check(&cluster);
    cluster.terminate();
    open(&pki, 0o755);
    let refused = run(&mut cluster.petset(&["apiserver"])).fails();
    assert!(refused.contains("chmod 700"), "{refused}");
}
