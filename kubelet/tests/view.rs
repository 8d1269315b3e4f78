//! A container's root directory, rights and limits, as its own processes find them: built by root and by an ordinary
//! user, each in namespaces that the test makes.

use kubelet::shim::protocol::{Limits, Mount, Root, Sandbox, Security, Spec};
use kubelet::shim::{cgroup, confine, view};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Uid, fork, getgid, getuid};
use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use tempfile::TempDir;

/// An id that no account needs to have.
const ORDINARY: u32 = 54321;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, spec] = arguments.as_slice()
        && command == "inside"
    {
        return match inside(spec) {
            Ok(code) => ExitCode::from(code),
            Err(message) => {
                eprintln!("{message}");
                ExitCode::from(125)
            }
        };
    }
    let mut trials = Vec::new();
    let users = if getuid().is_root() {
        vec![User::Root, User::Ordinary]
    } else {
        vec![User::Own]
    };
    for user in users {
        for (name, test) in TESTS {
            trials.push(Trial::test(
                format!("{name}_as_{user:?}").to_lowercase(),
                move || {
                    test(user);
                    Ok::<(), Failed>(())
                },
            ));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

type Test = (&'static str, fn(User));

const TESTS: [Test; 15] = [
    ("what_is_written_stays_inside", written_inside),
    ("what_the_host_has_mounted_is_seen_and_stays_as_it_is", mounted),
    ("a_volume_appears_at_any_path", volume_anywhere),
    ("a_container_sees_its_own_processes_and_devices", own_system),
    ("petsets_own_directory_is_empty_inside", hidden),
    ("a_read_only_root_can_be_written_in_volumes_only", read_only_root),
    (
        "an_images_layers_lie_over_each_other_and_are_never_written",
        layers,
    ),
    ("links_in_an_image_do_not_lead_out_of_it", hostile_layers),
    ("a_sub_path_is_the_volumes_own", sub_path),
    ("a_sub_path_that_leads_out_is_refused", sub_path_outside),
    ("a_program_runs_as_the_user_that_is_wanted", run_as),
    ("capabilities_and_no_new_privileges_are_what_is_wanted", rights),
    (
        "dangerous_system_calls_are_refused_with_the_default_profile",
        filtered,
    ),
    ("a_fork_bomb_meets_its_limit", fork_bomb),
    ("a_memory_limit_is_held_where_there_is_a_cgroup", memory),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum User {
    /// The tests run as root, and so does this.
    Root,
    /// The tests run as root, and this does not.
    Ordinary,
    /// The tests do not run as root.
    Own,
}

/// What the child process does: make namespaces as petset's holder and shim do, then be the container.
fn inside(spec: &str) -> Result<u8, String> {
    let spec: Spec = serde_json::from_str(spec).map_err(|e| e.to_string())?;
    let (uid, gid) = (getuid(), getgid());
    let mut flags = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWNET;
    flags.set(CloneFlags::CLONE_NEWUSER, !uid.is_root());
    unshare(flags).map_err(|e| format!("unshare: {e}"))?;
    if !uid.is_root() {
        let map = || {
            fs::write("/proc/self/setgroups", "deny")?;
            fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
            fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
        };
        map().map_err(|e: std::io::Error| format!("map: {e}"))?;
    }
    let sandbox = Sandbox {
        uid: format!("test{}", std::process::id()),
        ..Sandbox::default()
    };
    let (group, _) = cgroup::create(&sandbox, "c", &spec.limits);
    // SAFETY: this process has one thread.
    let child = match unsafe { fork() }.map_err(|e| format!("fork: {e}"))? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let error = become_container(&spec, group.as_ref()).err().unwrap_or_default();
            eprintln!("{error}");
            std::process::exit(126);
        }
    };
    let ended = waitpid(child, None).map_err(|e| e.to_string())?;
    if let Some(group) = group {
        if cgroup::was_oom_killed(&group) {
            let _ = writeln!(std::io::stdout(), "OOM");
        }
        cgroup::remove(group);
    }
    Ok(match ended {
        WaitStatus::Exited(_, code) => code as u8,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as u8,
        _ => 124,
    })
}

fn become_container(spec: &Spec, group: Option<&cgroup::Cgroup>) -> Result<(), String> {
    // Its own: the parent still has to remove the group, with the host's mounts.
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| format!("unshare: {e}"))?;
    if let Some(group) = group {
        cgroup::enter(group)?;
    }
    if let Some((_, place)) = spec.env.iter().find(|(name, _)| name == MOUNTED) {
        mount_at(Path::new(place)).map_err(|e| format!("{place}: {e}"))?;
    }
    view::build(spec).map_err(|e| e.to_string())?;
    std::env::set_current_dir(spec.working_dir.as_deref().unwrap_or(Path::new("/")))
        .map_err(|e| e.to_string())?;
    confine::apply(spec, group.map_or(&spec.limits, |group| group.left()), false)?;
    let text = |text: &String| CString::new(text.as_str()).map_err(|e| e.to_string());
    let argv = spec.argv.iter().map(text).collect::<Result<Vec<_>, _>>()?;
    let env = [c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"];
    let Err(error) = nix::unistd::execvpe(&argv[0], &argv, &env);
    Err(format!("{}: {error}", spec.argv[0]))
}

/// The variable that says where the host is to have another file system, with the file `there`.
const MOUNTED: &str = "MOUNTED";

fn mount_at(place: &Path) -> std::io::Result<()> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), none)?;
    fs::write(place.join("there"), "on another disk")
}

/// A directory of the test's, and a container to be.
struct World {
    directory: TempDir,
    user: User,
    spec: Spec,
}

impl World {
    fn new(user: User) -> Self {
        let directory = tempfile::tempdir().expect("tempdir");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("opened up");
        let world = Self {
            spec: Spec {
                scratch: directory.path().join("scratch"),
                security: Security {
                    container_capabilities: true,
                    ..Security::default()
                },
                ..Spec::default()
            },
            directory,
            user,
        };
        world.directory("scratch");
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A directory that belongs to who runs the container.
    fn directory(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("made");
        self.give(&path);
        path
    }

    fn give(&self, path: &Path) {
        if self.user == User::Ordinary {
            chown(path, Some(ORDINARY), Some(ORDINARY)).expect("given");
        }
    }

    fn mount(&mut self, name: &str, target: &str) -> &mut Mount {
        let source = self.directory(name);
        self.spec.mounts.push(Mount {
            source,
            sub_path: None,
            target: target.into(),
            read_only: false,
        });
        self.spec.mounts.last_mut().expect("just pushed")
    }

    fn run(&self, script: &str) -> Output {
        let mut spec = self.spec.clone();
        spec.argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        let mut command = Command::new(std::env::current_exe().expect("the test knows its own path"));
        command
            .arg("inside")
            .arg(serde_json::to_string(&spec).expect("plain data"));
        if self.user == User::Ordinary {
            command.uid(ORDINARY).gid(ORDINARY);
        }
        command.output().expect("it starts")
    }

    /// What a script says that succeeds.
    fn says(&self, script: &str) -> String {
        let output = self.run(script);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {:?} {errors}", output.status);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

fn written_inside(user: User) {
    let world = World::new(user);
    let said = world.says(
        "echo x >/new-file && mkdir -p /usr/new-directory /tmp/t /run/r /etc/new && echo y >/etc/new/file && cat /etc/new/file",
    );
    assert_eq!(said, "y");
    for path in ["/new-file", "/usr/new-directory", "/etc/new", "/run/r"] {
        assert!(!Path::new(path).exists(), "{path}");
    }
    assert_eq!(
        world.says("ls -A /tmp; ls /etc/new 2>/dev/null || echo fresh"),
        "fresh"
    );
}

fn mounted(user: User) {
    let mut world = World::new(user);
    world.spec.env.push((MOUNTED.to_owned(), "/mnt".to_owned()));
    let said = world.says("cat /mnt/there && echo x >/mnt/there && cat /mnt/there && ls -A /mnt");
    assert_eq!(said, "on another diskx\nthere");
    assert!(!Path::new("/mnt/there").exists());
}

fn volume_anywhere(user: User) {
    let mut world = World::new(user);
    world.mount("html", "/usr/share/nginx-of-petset/html");
    world.mount("top", "/data-of-petset/deep");
    world.mount("run", "/var/run/x");
    world
        .mount("secret", "/usr/share/nginx-of-petset/html/.secret")
        .read_only = true;
    fs::write(world.path("secret/key"), "k").expect("written");
    let file = world.path("hosts");
    fs::write(&file, "its own\n").expect("written");
    world.mount("html", "/etc/hosts").source = file;
    let said = world.says(
        "cat /etc/hosts /usr/share/nginx-of-petset/html/.secret/key; echo a >/usr/share/nginx-of-petset/html/index.html; \
         echo b >/data-of-petset/deep/b; echo c >/run/x/c; echo d >/usr/share/nginx-of-petset/html/.secret/d || echo refused",
    );
    assert_eq!(said, "its own\nkrefused");
    for (path, text) in [("html/index.html", "a\n"), ("top/b", "b\n"), ("run/c", "c\n")] {
        assert_eq!(fs::read_to_string(world.path(path)).expect(path), text);
    }
    assert!(!Path::new("/usr/share/nginx-of-petset").exists() && !Path::new("/data-of-petset").exists());
}

fn own_system(user: User) {
    let world = World::new(user);
    let said = world.says(
        "echo $$; ls /proc | grep -c '^[0-9]'; echo x >/dev/null; head -c 3 /dev/zero | wc -c; test -c /dev/ptmx && echo ptmx; \
         echo s >/dev/shm/s && cat /dev/shm/s; ls /dev/sda* /dev/vda* 2>/dev/null | wc -l; touch /sys/x 2>/dev/null || echo read-only; \
         (echo b >/proc/sysrq-trigger) 2>/dev/null || echo covered; test -L /dev/stdout && echo out",
    );
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "1", "{said}");
    assert!(lines[1].parse::<u32>().expect("a count") < 10, "{said}");
    assert_eq!(lines[2..], ["3", "ptmx", "s", "0", "read-only", "covered", "out"]);
}

fn hidden(user: User) {
    let base = tempfile::Builder::new()
        .prefix("petset-view-")
        .tempdir_in("/var")
        .or_else(|_| tempfile::tempdir_in("."));
    let base = base.expect("tempdir").keep();
    fs::set_permissions(&base, fs::Permissions::from_mode(0o755)).expect("opened up");
    fs::write(base.join("ca.key"), "secret").expect("written");
    let base = base.canonicalize().expect("there");
    let mut world = World::new(user);
    let seen = world.says(&format!("cat {}/ca.key", base.display()));
    world.spec.hidden = vec![base.clone()];
    let hidden = world.says(&format!("ls -A {}", base.display()));
    fs::remove_dir_all(&base).expect("removed");
    assert_eq!((seen.as_str(), hidden.as_str()), ("secret", ""));
}

fn read_only_root(user: User) {
    let mut world = World::new(user);
    world.mount("data", "/data-of-petset");
    world.spec.security.read_only_root = true;
    let said = world.says(
        "for d in / /tmp /etc /usr /var/lib; do touch $d/x 2>/dev/null && echo $d; done; touch /data-of-petset/x /dev/shm/x && echo fine",
    );
    assert_eq!(said, "fine");
    assert!(world.path("data/x").exists());
}

/// Layers with what a shell needs, from the host.
fn image(world: &mut World) -> PathBuf {
    let (lower, upper) = (world.directory("lower"), world.directory("upper"));
    for name in ["bin", "usr", "lib", "lib64"] {
        let source = Path::new("/").join(name).canonicalize();
        let Ok(source) = source else { continue };
        world.spec.mounts.push(Mount {
            source,
            sub_path: None,
            target: Path::new("/").join(name),
            read_only: true,
        });
    }
    world.directory("lower/etc");
    for (path, text) in [
        ("lower/etc/os", "lower"),
        ("lower/etc/both", "lower"),
        ("upper/top", "top"),
    ] {
        fs::write(world.path(path), text).expect("written");
        world.give(&world.path(path));
    }
    world.directory("upper/etc");
    fs::write(upper.join("etc/both"), "upper").expect("written");
    world.spec.root = Root::Layers(vec![upper, lower.clone()]);
    lower
}

fn layers(user: User) {
    let mut world = World::new(user);
    image(&mut world);
    world.spec.working_dir = Some("/made/for/it".into());
    let said = world.says(
        "pwd; cat /etc/os /etc/both /top; echo changed >/etc/os; rm /etc/both; touch /new; cat /etc/os",
    );
    assert_eq!(said, "/made/for/it\nloweruppertopchanged");
    assert_eq!(
        fs::read_to_string(world.path("lower/etc/os")).expect("there"),
        "lower"
    );
    assert!(world.path("upper/etc/both").exists() && !world.path("upper/new").exists());
    // A second instance begins afresh.
    assert_eq!(
        world.says("cat /etc/os; test -e /new || echo fresh"),
        "lowerfresh"
    );
}

fn hostile_layers(user: User) {
    let mut world = World::new(user);
    let lower = image(&mut world);
    let outside = world.directory("outside");
    symlink(&outside, lower.join("data")).expect("linked");
    symlink("../../../../../..", lower.join("up")).expect("linked");
    world.mount("volume", "/data/volume");
    world.mount("volume", "/up/second");
    assert_eq!(
        world.says("ls -d /data/volume /up/second /second; echo x >/data/volume/x"),
        "/data/volume\n/second\n/up/second"
    );
    assert!(world.path("volume/x").exists());
    for name in ["proc", "sys", "dev"] {
        symlink(&outside, lower.join(name)).expect("linked");
        let output = world.run("true");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && errors.contains("it is a link"),
            "{name}: {errors}"
        );
        fs::remove_file(lower.join(name)).expect("removed");
    }
    assert_eq!(
        fs::read_dir(&outside).expect("there").count(),
        0,
        "something was made outside"
    );
}

fn sub_path(user: User) {
    let mut world = World::new(user);
    world.directory("volume/a/real");
    symlink("real", world.path("volume/a/link")).expect("linked");
    world.mount("volume", "/one").sub_path = Some("a/link".into());
    world.mount("volume", "/two").sub_path = Some("made/deep".into());
    fs::write(world.path("volume/file"), "text").expect("written");
    world.mount("volume", "/etc/three").sub_path = Some("file".into());
    assert_eq!(world.says("touch /one/1 /two/2; cat /etc/three"), "text");
    assert!(world.path("volume/a/real/1").exists() && world.path("volume/made/deep/2").exists());
}

fn sub_path_outside(user: User) {
    for target in ["/etc", "..", "a/../../../etc"] {
        let mut world = World::new(user);
        world.directory("volume/a");
        symlink(target, world.path("volume/link")).expect("linked");
        world.mount("volume", "/one").sub_path = Some("link".into());
        let output = world.run("ls /one");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && errors.contains("leads out of the volume"),
            "{target}: {errors}"
        );
    }
}

fn run_as(user: User) {
    let mut world = World::new(user);
    world.mount("data", "/data-of-petset");
    fs::set_permissions(world.path("data"), fs::Permissions::from_mode(0o2777)).expect("changed");
    let own = match user {
        User::Root => 0,
        User::Ordinary => ORDINARY,
        User::Own => Uid::current().as_raw(),
    };
    assert_eq!(world.says("id -u"), own.to_string());
    (world.spec.user, world.spec.group, world.spec.groups) = (Some(999), Some(998), vec![997]);
    let said = world.says("id -u; id -g; touch /data-of-petset/x && stat -c %u /data-of-petset/x");
    assert_eq!(said, "999\n998\n999");
    if user == User::Root {
        assert_eq!(world.says("id -G; echo x >/dev/stdout"), "998 997\nx");
        assert_ne!(world.run("touch /etc/x").status.code(), Some(0));
    }
    world.spec.user = Some(0);
    assert_eq!(world.says("id -u; stat -c %u /data-of-petset"), "0\n0");
}

fn rights(user: User) {
    let mut world = World::new(user);
    world.spec.user = Some(0);
    let status = "grep -E 'CapEff|NoNewPrivs' /proc/self/status | cut -f 2 | paste -sd ' '";
    assert_eq!(world.says(status), "00000000a80425fb 0");
    world.spec.security.drop_capabilities = vec!["ALL".into()];
    world.spec.security.add_capabilities = vec!["NET_BIND_SERVICE".into()];
    world.spec.security.no_new_privileges = true;
    assert_eq!(world.says(status), "0000000000000400 1");
    world.spec.user = Some(1234);
    assert_eq!(world.says(status), "0000000000000000 1");
}

fn filtered(user: User) {
    let mut world = World::new(user);
    world.spec.user = Some(0);
    world.spec.security.seccomp_default = true;
    let said = world.says("grep Seccomp: /proc/self/status | cut -f 2; unshare -U true 2>&1; ls / >/dev/null && (sleep 0 & wait) && echo fine");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        (lines.first(), lines.last()),
        (Some(&"2"), Some(&"fine")),
        "{said}"
    );
    assert!(said.contains("Operation not permitted"), "{said}");
}

fn fork_bomb(user: User) {
    let mut world = World::new(user);
    world.spec.limits = Limits {
        processes: Some(20),
        ..Limits::default()
    };
    let output = world.run("i=0; while [ $i -lt 100 ]; do sleep 5 & i=$((i+1)); done; echo done");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("fork") || errors.contains("esource"), "{errors}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("done"));
}

fn memory(user: User) {
    let mut world = World::new(user);
    world.spec.limits = Limits {
        memory: Some(32 << 20),
        ..Limits::default()
    };
    let sandbox = Sandbox {
        uid: format!("probe{}", std::process::id()),
        ..Sandbox::default()
    };
    // As the ordinary user may have no cgroup; then the limit is the machine's matter.
    let held = user != User::Ordinary && {
        let (group, said) = cgroup::create(&sandbox, "c", &world.spec.limits);
        let held = said.is_empty();
        group.into_iter().for_each(cgroup::remove);
        held
    };
    let output = world.run("head -c 200000000 /dev/zero | tail | wc -c; echo on");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said.contains("OOM"), held, "{said}");
}
