//! Images are not required: what an image name stands for on this machine.
//!
//! An image that was loaded ([`store`]) runs as anywhere. For others a container's `command` is a program of the host, and
//! for one without, the name is looked up in a catalog: the user's `images.yaml` over the built-in one. There a name
//! is compared without registry, tag and digest: `k8s.gcr.io/nginx-slim:0.8` is `nginx-slim`; a pattern with a slash is
//! compared with the whole repository, and `*` stands for any text.

pub mod archive;
pub mod compressed;
pub mod config;
pub mod digest;
pub mod entries;
pub mod reference;
pub mod store;
#[cfg(test)]
pub mod testing;
pub mod unpack;
pub mod user;

use crate::shim::protocol::Root;
use config::Config;
use digest::Digest;
use k8s_openapi::api::core::v1::Container;
use reference::Reference;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use store::{Image, Store};

/// What the catalog says about images that fit a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// For example `nginx`, `*/postgres`, `registry.example.com/team/*`.
    pub image: String,
    /// The program that stands for the image's entry point; needed unless there is another root.
    #[serde(default)]
    pub command: Vec<String>,
    /// Arguments where the container gives none.
    #[serde(default)]
    pub args: Vec<String>,
    /// Variables that the image would bring along.
    #[serde(default)]
    pub env: std::collections::BTreeMap<String, String>,
    /// A directory that is the container's root; from `images.yaml`'s directory on, if relative. It is never written to.
    pub rootfs: Option<PathBuf>,
    /// A loaded image that it runs from, under its own name.
    pub loaded: Option<String>,
}

/// The user's file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    images: Vec<Entry>,
}

/// What to run for a container, and in words what that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Program and arguments, before `$(VAR)` expansion.
    pub argv: Vec<String>,
    /// Variables from the catalog.
    pub env: Vec<(String, String)>,
    /// Told in the `Pulled` event and as `imageID`.
    pub what: String,
    /// Set for petset's own web server: the port it is to listen on.
    pub web_port: Option<u16>,
    /// What the container's root is made of.
    pub root: Root,
    /// Variables of a root of its own, for which the container's stand; `$(VAR)` does not see them.
    pub defaults: Vec<(String, String)>,
    /// Where the program starts, unless the container says so.
    pub working_dir: Option<String>,
    /// `USER[:GROUP]` in the image's own words; `None` is petset's own user.
    pub user: Option<String>,
    /// The loaded image that is in use, to be held ([`Store::hold`]).
    pub image: Option<Digest>,
}

impl Resolved {
    /// A program of the host.
    fn host(argv: Vec<String>, what: String) -> Self {
        Self {
            argv,
            env: Vec::new(),
            what,
            web_port: None,
            root: Root::Host,
            defaults: Vec::new(),
            working_dir: None,
            user: None,
            image: None,
        }
    }

    /// The message of the `Pulled` event, upstream's for what is an image.
    pub fn pulled(&self, image: &str) -> String {
        match self.image {
            Some(_) => {
                format!("Container image {image:?} already present on machine and can be accessed by the pod")
            }
            None => format!("Nothing to pull: {image:?} is {}", self.what),
        }
    }
}

/// Why there is nothing to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// `ErrImagePull`: nobody knows the image.
    Unknown(String),
    /// `ErrImageNeverPull`: the same, where nobody was to look for it.
    NeverPull(String),
    /// `InvalidImageName`: it cannot be one.
    InvalidName(String),
    /// `CreateContainerConfigError`: it is known, but does not do.
    Config(String),
}

/// The catalog.
#[derive(Clone, Debug)]
pub struct Catalog {
    store: Store,
    file: PathBuf,
    executable: PathBuf,
}

/// A document root, and the images whose web server has it.
const WEB: [(&str, &[&str]); 2] = [
    (
        "/usr/share/nginx/html",
        &["nginx", "nginx-slim", "nginx-unprivileged"],
    ),
    ("/usr/local/apache2/htdocs", &["httpd"]),
];

/// Images of whole distributions: the host's shell.
const SHELLS: [&str; 7] = [
    "busybox", "alpine", "debian", "ubuntu", "fedora", "centos", "bash",
];

/// Servers that are run when the host has them, bound to the pod's own address.
const SERVERS: [(&str, &[&str]); 4] = [
    (
        "redis",
        &[
            "redis-server",
            "--bind",
            "$(PETSET_POD_IP)",
            "--protected-mode",
            "no",
        ],
    ),
    ("memcached", &["memcached", "-l", "$(PETSET_POD_IP)"]),
    (
        "etcd",
        &[
            "etcd",
            "--listen-client-urls=http://$(PETSET_POD_IP):2379",
            "--advertise-client-urls=http://$(PETSET_POD_IP):2379",
            "--listen-peer-urls=http://$(PETSET_POD_IP):2380",
        ],
    ),
    ("postgres", &["postgres", "-h", "$(PETSET_POD_IP)", "-k", "/tmp"]),
];

impl Catalog {
    /// The images and `images.yaml` of a data directory over the built-in catalog; read again at each use. `executable` is
    /// petset.
    pub fn new(data: &Path, executable: PathBuf) -> Self {
        Self {
            store: Store::new(data),
            file: data.join("images.yaml"),
            executable,
        }
    }

    /// Where loaded images are.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What to run for `container`.
    pub fn resolve(&self, container: &Container) -> Result<Resolved, Unresolved> {
        let image = container.image.as_deref().unwrap_or_default();
        let command = container.command.clone().unwrap_or_default();
        let args = container.args.clone().unwrap_or_default();
        // A name that cannot be a reference may still be the catalog's.
        let reference = image.parse::<Reference>().map(drop);
        let is_name = reference.is_ok() || image.parse::<Digest>().is_ok();
        if is_name && let Some(loaded) = self.find(image)? {
            return self.loaded(&loaded, loaded.config.clone(), &command, &args);
        }
        let entries = self.entries().map_err(Unresolved::Config)?;
        let entry = entries.into_iter().find(|entry| fits(&entry.image, image));
        match entry {
            Some(entry) if entry.rootfs.is_some() || entry.loaded.is_some() => {
                return self.with_root(entry, &command, &args);
            }
            _ if !command.is_empty() => {
                let what = format!("the host's {}", command[0]);
                return Ok(Resolved::host([command, args].concat(), what));
            }
            Some(entry) => {
                let args = if args.is_empty() { entry.args } else { args };
                let what = format!("{} from {}", entry.command.join(" "), self.file.display());
                return Ok(Resolved {
                    env: entry.env.into_iter().collect(),
                    ..Resolved::host([entry.command, args].concat(), what)
                });
            }
            None => {}
        }
        self.built_in(container, image, args)
            .map_err(|message| match reference {
                Err(why) => {
                    Unresolved::InvalidName(format!("Failed to apply default image tag {image:?}: {why}"))
                }
                Ok(()) if container.image_pull_policy.as_deref() == Some("Never") => Unresolved::NeverPull(
                    format!("Container image {image:?} is not present with pull policy of Never"),
                ),
                Ok(()) => Unresolved::Unknown(message),
            })
    }

    fn find(&self, image: &str) -> Result<Option<Image>, Unresolved> {
        self.store
            .find(image)
            .map_err(|error| Unresolved::Config(error.to_string()))
    }

    /// `config` is the image's, or what the catalog makes of it.
    fn loaded(
        &self,
        image: &Image,
        config: Config,
        command: &[String],
        args: &[String],
    ) -> Result<Resolved, Unresolved> {
        let argv = config.argv(command, args);
        if argv.is_empty() {
            return Err(Unresolved::Config("no command specified".to_owned()));
        }
        Ok(Resolved {
            defaults: config.environment(),
            root: Root::Layers(self.store.layers(image)),
            working_dir: Some(config.working_dir.clone()).filter(|directory| !directory.is_empty()),
            user: Some(config.user),
            image: Some(image.id.clone()),
            ..Resolved::host(argv, image.image_id())
        })
    }

    /// An entry of the user's that says what the root is.
    fn with_root(&self, entry: Entry, command: &[String], args: &[String]) -> Result<Resolved, Unresolved> {
        let overlaid = |config: Config| Config {
            entrypoint: if entry.command.is_empty() {
                config.entrypoint
            } else {
                entry.command.clone()
            },
            cmd: if entry.command.is_empty() && entry.args.is_empty() {
                config.cmd
            } else {
                entry.args.clone()
            },
            // What comes last counts.
            env: [
                config.env,
                entry
                    .env
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect(),
            ]
            .concat(),
            ..config
        };
        if let Some(name) = &entry.loaded {
            let image = self.find(name)?.ok_or_else(|| {
                Unresolved::Unknown(format!(
                    "{} says that {:?} runs from {name}, which is not loaded (petset image pull {name})",
                    self.file.display(),
                    entry.image
                ))
            })?;
            let config = overlaid(image.config.clone());
            return self.loaded(&image, config, command, args);
        }
        let rootfs = entry.rootfs.clone().unwrap_or_default();
        let rootfs = self.file.parent().unwrap_or(&self.file).join(rootfs);
        if !rootfs.is_dir() {
            return Err(Unresolved::Config(format!(
                "{}: the rootfs of {:?}, {}, is no directory",
                self.file.display(),
                entry.image,
                rootfs.display()
            )));
        }
        let config = overlaid(Config::default());
        let argv = config.argv(command, args);
        if argv.is_empty() {
            return Err(Unresolved::Config("no command specified".to_owned()));
        }
        Ok(Resolved {
            defaults: config.environment(),
            user: Some(String::new()),
            root: Root::Layers(vec![rootfs.clone()]),
            ..Resolved::host(argv, format!("{} from {}", rootfs.display(), self.file.display()))
        })
    }

    fn entries(&self) -> Result<Vec<Entry>, String> {
        let text = match std::fs::read_to_string(&self.file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(format!("cannot read {}: {error}", self.file.display())),
        };
        let file: Option<File> =
            serde_yaml_ng::from_str(&text).map_err(|e| format!("{}: {e}", self.file.display()))?;
        let images = file.unwrap_or_default().images;
        for entry in &images {
            let wrong = match (&entry.rootfs, &entry.loaded) {
                (Some(_), Some(_)) => "has both rootfs and loaded",
                (None, None) if entry.command.is_empty() => "has an empty command",
                _ => continue,
            };
            return Err(format!(
                "{}: image {:?} {wrong}",
                self.file.display(),
                entry.image
            ));
        }
        Ok(images)
    }

    fn built_in(&self, container: &Container, image: &str, args: Vec<String>) -> Result<Resolved, String> {
        let name = short_name(image);
        if let Some((root, _)) = WEB.iter().find(|(_, names)| names.contains(&name)) {
            return Ok(self.web_server(container, root));
        }
        if SHELLS.contains(&name) {
            let argv = if args.is_empty() {
                vec!["sh".to_owned()]
            } else {
                args
            };
            let what = format!("the host's {}", argv[0]);
            return Ok(Resolved::host(argv, what));
        }
        if let Some((_, command)) = SERVERS.iter().find(|(server, _)| *server == name) {
            let program = command[0];
            if find_on_host(program).is_none() {
                return Err(format!(
                    "image {image:?} stands for the host's {program}, which is not installed: install it, give the \
                     container a command, or say what to run in {}",
                    self.file.display()
                ));
            }
            // Arguments that start with a dash are for the image's own program, as its entry point would do.
            let given = match args.first() {
                None => Vec::new(),
                Some(first) if first.starts_with('-') => args,
                Some(_) => {
                    let what = format!("the host's {}", args[0]);
                    return Ok(Resolved::host(args, what));
                }
            };
            let argv = command.iter().map(|s| (*s).to_owned()).chain(given).collect();
            return Ok(Resolved::host(argv, format!("the host's {program}")));
        }
        Err(format!(
            "image {image:?} is not loaded and stands for no program of this machine: load it (petset image pull \
             {image}), give the container a command, or say what to run for it in {} (images: [{{image: {name}, \
             command: [...]}}])",
            self.file.display()
        ))
    }

    fn web_server(&self, container: &Container, root: &str) -> Resolved {
        let port = container
            .ports
            .iter()
            .flatten()
            .next()
            .map_or(80, |p| p.container_port);
        let port = u16::try_from(port).unwrap_or(80);
        let served = container
            .volume_mounts
            .iter()
            .flatten()
            .any(|m| Path::new(root).starts_with(&m.mount_path));
        let mut argv = vec![
            self.executable.display().to_string(),
            "web".into(),
            "--listen".into(),
            format!("$(PETSET_POD_IP):{port}"),
            "--root".into(),
            // Without namespaces a volume is found through the environment.
            root.into(),
        ];
        if !served {
            argv.push("--welcome".into());
        }
        Resolved {
            web_port: Some(port),
            ..Resolved::host(
                argv,
                format!("petset's own static web server on port {port}, serving {root}"),
            )
        }
    }
}

/// The last part of an image's repository: `nginx-slim` of `k8s.gcr.io/nginx-slim:0.8`.
fn short_name(image: &str) -> &str {
    let repository = repository(image);
    repository.rsplit_once('/').map_or(repository, |(_, name)| name)
}

/// An image without tag and digest. A colon before the last slash belongs to a registry's port.
fn repository(image: &str) -> &str {
    let image = image.split_once('@').map_or(image, |(name, _)| name);
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    }
}

fn fits(pattern: &str, image: &str) -> bool {
    let whole = pattern.contains('/');
    let tagged = repository(pattern) != pattern;
    let image = match (whole, tagged) {
        (true, true) => image,
        (true, false) => repository(image),
        (false, true) => image.rsplit_once('/').map_or(image, |(_, name)| name),
        (false, false) => short_name(image),
    };
    glob(pattern, image)
}

/// `*` stands for any text, also none.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).any(|n| rest.is_char_boundary(n) && glob(after, &rest[n..]))
        }),
    }
}

/// Where the host has a program, by the kubelet's own `PATH`.
fn find_on_host(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{ContainerPort, VolumeMount};

    fn container(image: &str) -> Container {
        Container {
            name: "c".into(),
            image: Some(image.into()),
            ..Container::default()
        }
    }

    fn catalog(file: &str) -> (tempfile::TempDir, Catalog) {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("images.yaml");
        if !file.is_empty() {
            std::fs::write(&path, file).expect("written");
        }
        let catalog = Catalog::new(directory.path(), "/bin/petset".into());
        (directory, catalog)
    }

    #[test]
    fn a_command_runs_as_it_is_whatever_the_image() {
        let (_directory, catalog) = catalog("");
        let resolved = catalog
            .resolve(&Container {
                command: Some(vec!["sh".into(), "-c".into()]),
                args: Some(vec!["echo".into()]),
                ..container("whatever:1")
            })
            .expect("resolved");
        assert_eq!(resolved.argv, ["sh", "-c", "echo"]);
        assert_eq!(resolved.what, "the host's sh");
    }

    #[test]
    fn nginx_under_any_registry_and_tag_is_the_web_server_on_the_declared_port() {
        let (_directory, catalog) = catalog("");
        let images = [
            "nginx",
            "k8s.gcr.io/nginx-slim:0.8",
            "r.example.com:5000/x/nginx@sha256:00",
        ];
        for image in images {
            let mut container = container(image);
            container.ports = Some(vec![ContainerPort {
                container_port: 8080,
                ..ContainerPort::default()
            }]);
            container.volume_mounts = Some(vec![VolumeMount {
                mount_path: "/usr/share/nginx/html".into(),
                ..VolumeMount::default()
            }]);
            let resolved = catalog.resolve(&container).expect(image);
            assert_eq!(resolved.web_port, Some(8080));
            let argv = [
                "/bin/petset",
                "web",
                "--listen",
                "$(PETSET_POD_IP):8080",
                "--root",
            ];
            assert_eq!(resolved.argv[..5], argv);
            assert!(!resolved.argv.contains(&"--welcome".into()));
        }
    }

    #[test]
    fn the_users_file_comes_before_the_built_in_catalog() {
        let yaml = "images:\n- image: nginx\n  command: [my-server]\n  args: [--fast]\n  env: {A: b}\n";
        let (_directory, catalog) = catalog(yaml);
        let resolved = catalog
            .resolve(&container("docker.io/library/nginx:1.27"))
            .expect("resolved");
        assert_eq!(resolved.argv, ["my-server", "--fast"]);
        assert_eq!(resolved.env, [("A".to_owned(), "b".to_owned())]);
    }

    #[test]
    fn an_unknown_image_names_the_file_to_edit_and_a_bad_file_its_fault() {
        let (directory, unknown) = catalog("");
        let Err(Unresolved::Unknown(message)) = unknown.resolve(&container("example.com/thing:2")) else {
            panic!("it is known")
        };
        assert!(
            message.contains(&directory.path().join("images.yaml").display().to_string()),
            "{message}"
        );
        let (_directory, bad) = catalog("images:\n- image: x\n  comand: [y]\n");
        let Err(Unresolved::Config(message)) = bad.resolve(&container("x")) else {
            panic!("it is good")
        };
        assert!(
            message.contains("images.yaml") && message.contains("comand"),
            "{message}"
        );
    }

    #[test]
    fn what_nobody_was_to_pull_and_what_is_no_name_have_reasons_of_their_own() {
        let (_directory, catalog) = catalog("");
        let never = Container {
            image_pull_policy: Some("Never".into()),
            ..container("thing:2")
        };
        let message = "Container image \"thing:2\" is not present with pull policy of Never";
        assert_eq!(
            catalog.resolve(&never),
            Err(Unresolved::NeverPull(message.into()))
        );
        let message = "Failed to apply default image tag \"Thing:2\": couldn't parse image name \"Thing:2\": \
                       repository name must be lowercase";
        assert_eq!(
            catalog.resolve(&container("Thing:2")),
            Err(Unresolved::InvalidName(message.into()))
        );
    }

    #[test]
    fn an_entry_may_name_a_root_directory_and_the_container_what_runs_there() {
        let yaml = "images:\n- {image: tree, rootfs: root, command: [/bin/serve], args: [a], env: {A: b}}\n";
        let (directory, catalog) = catalog(yaml);
        let resolved = catalog.resolve(&container("tree:1"));
        assert!(matches!(resolved, Err(Unresolved::Config(_))), "{resolved:?}");
        let root = directory.path().join("root");
        std::fs::create_dir(&root).expect("made");
        let resolved = catalog.resolve(&container("tree:1")).expect("resolved");
        assert_eq!(resolved.argv, ["/bin/serve", "a"]);
        assert_eq!(resolved.root, Root::Layers(vec![root]));
        assert!(resolved.defaults.contains(&("A".into(), "b".into())));
        let resolved = catalog.resolve(&Container {
            command: Some(vec!["/bin/sh".into()]),
            ..container("tree")
        });
        assert_eq!(resolved.expect("resolved").argv, ["/bin/sh"]);
    }

    #[test]
    fn patterns_fit_names_repositories_and_tags() {
        for (pattern, image, expected) in [
            ("nginx", "a/b/nginx:1", true),
            ("nginx*", "nginx-slim:0.8", true),
            ("nginx:1", "x/nginx:1", true),
            ("nginx:1", "x/nginx:2", false),
            ("x/*", "x/y:1", true),
            ("x/*", "z/y", false),
            ("*", "anything/at:all", true),
        ] {
            assert_eq!(fits(pattern, image), expected, "{pattern} {image}");
        }
    }
}
