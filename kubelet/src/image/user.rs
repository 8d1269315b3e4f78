//! Who an image's program runs as: numbers for the names in the image's own `/etc/passwd` and `/etc/group`.

use k8s_openapi::api::core::v1::{Container, Pod};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A user with its groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub uid: u32,
    /// The id of its group.
    pub gid: u32,
    /// Ids of the groups that have it as a member.
    pub groups: Vec<u32>,
    /// Its home directory; `/` if nobody says.
    pub home: String,
}

/// Longest file that is looked at.
const LONGEST: u64 = 1 << 20;

/// The user to look for, and the group if the pod names one: what `securityContext` says, or else what the image says.
pub fn wanted(pod: &Pod, container: &Container, of_image: &str) -> (String, Option<u32>) {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let own = container.security_context.as_ref();
    let user = own
        .and_then(|own| own.run_as_user)
        .or(of_pod.and_then(|of_pod| of_pod.run_as_user));
    let group = own
        .and_then(|own| own.run_as_group)
        .or(of_pod.and_then(|of_pod| of_pod.run_as_group));
    let user = user.map_or_else(|| of_image.to_owned(), |user| user.to_string());
    (user, group.and_then(|group| u32::try_from(group).ok()))
}

/// Whether `runAsNonRoot` is kept, as upstream judges it: by numbers only. Programs of the host (`of_image` is `None`) run as
/// whoever petset is, which no manifest can know.
pub fn check_non_root(pod: &Pod, container: &Container, of_image: Option<&str>) -> Result<(), String> {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let own = container.security_context.as_ref();
    let non_root = own
        .and_then(|own| own.run_as_non_root)
        .or(of_pod.and_then(|of_pod| of_pod.run_as_non_root));
    if non_root != Some(true) {
        return Ok(());
    }
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let metadata = &pod.metadata;
    let (name, namespace, uid) = (
        text(&metadata.name),
        text(&metadata.namespace),
        text(&metadata.uid),
    );
    let place = format!(
        "(pod: \"{name}_{namespace}({uid})\", container: {})",
        container.name
    );
    let user = own
        .and_then(|own| own.run_as_user)
        .or(of_pod.and_then(|of_pod| of_pod.run_as_user));
    if let Some(user) = user {
        return match user {
            0 => Err(format!("container's runAsUser breaks non-root policy {place}")),
            _ => Ok(()),
        };
    }
    let Some(of_image) = of_image else {
        return Ok(());
    };
    let user = of_image.split(':').next().unwrap_or_default();
    match user.parse::<u32>() {
        Ok(0) => Err(format!(
            "container has runAsNonRoot and image will run as root {place}"
        )),
        Ok(_) => Ok(()),
        Err(_) if user.is_empty() => Err(format!(
            "container has runAsNonRoot and image will run as root {place}"
        )),
        Err(_) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root {place}"
        )),
    }
}

/// Who `USER[:GROUP]` is in an image with these layers, the first on top.
pub fn find(layers: &[PathBuf], user: &str) -> Result<User, String> {
    let read = |name: &str| {
        read(layers, name).map_err(|error| format!("cannot read the image's /etc/{name}: {error}"))
    };
    resolve(user, &read("passwd")?, &read("group")?)
}

/// The same with the texts of these files. Rules and messages are containerd's.
fn resolve(user: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (name, of_group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let number = |text: Option<&String>| text.and_then(|text| text.parse::<u32>().ok());
    let id = name.parse::<u32>().ok();
    let entry = passwd.lines().map(fields).find(|line| match id {
        Some(id) => number(line.get(2)) == Some(id),
        None => line.first().is_some_and(|first| first == name),
    });
    let uid = match id.or_else(|| number(entry.as_ref().and_then(|line| line.get(2)))) {
        Some(uid) => uid,
        None => {
            return Err(format!(
                "unable to find user {name}: no matching entries in passwd file"
            ));
        }
    };
    let gid = match of_group {
        None => number(entry.as_ref().and_then(|line| line.get(3))).unwrap_or(0),
        Some(wanted) => match wanted.parse() {
            Ok(gid) => gid,
            Err(_) => group
                .lines()
                .map(fields)
                .find(|line| line.first().is_some_and(|first| first == wanted))
                .and_then(|line| number(line.get(2)))
                .ok_or_else(|| format!("unable to find group {wanted}: no matching entries in group file"))?,
        },
    };
    let login = entry.as_ref().and_then(|line| line.first());
    let is_member = |line: &Vec<String>| {
        let mut members = line.get(3).into_iter().flat_map(|members| members.split(','));
        login.is_some_and(|login| members.any(|member| member.trim() == login))
    };
    let groups = group.lines().map(fields).filter(is_member);
    let home = entry
        .as_ref()
        .and_then(|line| line.get(5))
        .filter(|home| home.starts_with('/'));
    Ok(User {
        home: home.cloned().unwrap_or_else(|| "/".to_owned()),
        uid,
        gid,
        groups: groups.filter_map(|line| number(line.get(2))).collect(),
    })
}

/// A file of `/etc` as the container will see it; empty if there is none.
fn read(layers: &[PathBuf], name: &str) -> io::Result<String> {
    for layer in layers {
        match look(layer, &format!("etc/{name}"))? {
            Found::File(file) => {
                let mut text = Vec::new();
                file.take(LONGEST).read_to_end(&mut text)?;
                return Ok(String::from_utf8_lossy(&text).into_owned());
            }
            Found::Hidden => break,
            Found::Nothing if hides_what_is_below(layer)? => break,
            Found::Nothing => {}
        }
    }
    Ok(String::new())
}

/// What a layer has at a path.
enum Found {
    File(File),
    /// A whiteout, or something that is no file.
    Hidden,
    Nothing,
}

/// Links are followed as if the layer were `/`, and nothing is opened that is no plain file.
fn look(layer: &Path, path: &str) -> io::Result<Found> {
    let root = File::open(layer)?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let found: File = match openat2(&root, path, how) {
        Ok(found) => found.into(),
        Err(Errno::ENOENT) => return Ok(Found::Nothing),
        Err(Errno::ENOTDIR | Errno::ELOOP) => return Ok(Found::Hidden),
        Err(error) => return Err(error.into()),
    };
    if !found.metadata()?.is_file() {
        return Ok(Found::Hidden);
    }
    File::open(format!("/proc/self/fd/{}", found.as_raw_fd())).map(Found::File)
}

/// Whether `/etc` of a layer is a whiteout or opaque.
fn hides_what_is_below(layer: &Path) -> io::Result<bool> {
    let etc = layer.join("etc");
    let metadata = match etc.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if !metadata.is_dir() {
        return Ok(metadata.file_type().is_char_device() && metadata.rdev() == 0);
    }
    let directory = File::open(etc)?;
    let has = |name: &std::ffi::CStr| {
        let mut value = [0u8; 1];
        // SAFETY: the descriptor is open, the name ends with a zero byte, and the buffer is as long as is said.
        let length = unsafe {
            libc::fgetxattr(
                directory.as_raw_fd(),
                name.as_ptr(),
                value.as_mut_ptr().cast(),
                value.len(),
            )
        };
        length == 1 && value == *b"y"
    };
    Ok(has(c"user.overlay.opaque") || has(c"trusted.overlay.opaque"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnginx:x:101:102::/:/bin/false\n\nbroken\n";
    const GROUP: &str = "root:x:0:\nwww:x:33:nginx,other\ntape:x:26:nginx\n";

    #[test]
    fn users_and_groups_are_found_by_name_and_number() {
        for (user, uid, gid, groups) in [
            ("", 0, 0, &[][..]),
            ("root", 0, 0, &[]),
            ("nginx", 101, 102, &[33, 26]),
            ("101", 101, 102, &[33, 26]),
            ("101:7", 101, 7, &[33, 26]),
            ("nginx:www", 101, 33, &[33, 26]),
            ("999", 999, 0, &[]),
            ("999:www", 999, 33, &[]),
            (":www", 0, 33, &[]),
        ] {
            let found = resolve(user, PASSWD, GROUP).expect(user);
            assert_eq!(
                (found.uid, found.gid, &*found.groups),
                (uid, gid, groups),
                "{user:?}"
            );
        }
        for (user, home) in [("root", "/root"), ("nginx", "/"), ("999", "/")] {
            assert_eq!(resolve(user, PASSWD, GROUP).expect(user).home, home);
        }
        let refused = resolve("nobody", PASSWD, GROUP).expect_err("unknown");
        assert_eq!(
            refused,
            "unable to find user nobody: no matching entries in passwd file"
        );
        assert!(resolve("root:none", PASSWD, GROUP).is_err());
    }

    #[test]
    fn run_as_non_root_is_kept_by_numbers() {
        let pod = |user: Option<i64>| -> Pod {
            let pod = serde_json::json!({
                "metadata": {"name": "p", "namespace": "n", "uid": "u"},
                "spec": {"containers": [], "securityContext": {"runAsNonRoot": true, "runAsUser": user}},
            });
            serde_json::from_value(pod).expect("pod")
        };
        let container = Container {
            name: "c".into(),
            ..Container::default()
        };
        for (user, of_image, expected) in [
            (None, Some("7:8"), None),
            (None, None, None),
            (Some(7), Some(""), None),
            (
                Some(0),
                Some("7"),
                Some("container's runAsUser breaks non-root policy"),
            ),
            (
                None,
                Some(""),
                Some("container has runAsNonRoot and image will run as root"),
            ),
            (
                None,
                Some("0:5"),
                Some("container has runAsNonRoot and image will run as root"),
            ),
            (
                None,
                Some("nginx:nginx"),
                Some(
                    "container has runAsNonRoot and image has non-numeric user (nginx), cannot verify user is non-root",
                ),
            ),
        ] {
            let refused = check_non_root(&pod(user), &container, of_image).err();
            let expected = expected.map(|text| format!("{text} (pod: \"p_n(u)\", container: c)"));
            assert_eq!(refused, expected, "{user:?} {of_image:?}");
            assert!(check_non_root(&Pod::default(), &container, of_image).is_ok());
        }
        assert_eq!(wanted(&pod(Some(5)), &container, "nginx"), ("5".into(), None));
        assert_eq!(
            wanted(&pod(None), &container, "nginx:www"),
            ("nginx:www".into(), None)
        );
    }

    #[test]
    fn the_topmost_file_counts_and_a_hidden_one_does_not() {
        let directory = tempfile::tempdir().expect("tempdir");
        let layer = |name: &str, passwd: Option<&str>| {
            let path = directory.path().join(name);
            fs::create_dir_all(path.join("etc")).expect("made");
            if let Some(passwd) = passwd {
                fs::write(path.join("etc/passwd"), passwd).expect("written");
            }
            path
        };
        let (top, empty) = (layer("top", Some("a:x:1:1::/:\n")), layer("empty", None));
        let bottom = layer("bottom", Some("a:x:2:2::/:\nb:x:3:3::/:\n"));
        assert_eq!(find(&[top, bottom.clone()], "a").expect("found").uid, 1);
        assert_eq!(find(&[empty, bottom.clone()], "b").expect("found").uid, 3);
        // A link out of the image leads back into it; a FIFO is not waited for.
        let link = directory.path().join("link");
        fs::create_dir_all(link.join("etc")).expect("made");
        std::os::unix::fs::symlink(bottom.join("etc/passwd"), link.join("etc/passwd")).expect("linked");
        assert!(find(std::slice::from_ref(&link), "b").is_err());
        let fifo = layer("fifo", None);
        nix::unistd::mkfifo(&fifo.join("etc/passwd"), nix::sys::stat::Mode::S_IRWXU).expect("made");
        assert!(find(&[fifo, bottom], "b").is_err());
    }
}
