//! Images are not required: what an image name stands for on this machine.
//!
//! A container with a `command` runs that program from the host. For one without, the name is looked up in a
//! catalog: the user's `images.yaml` over the built-in one. A name is compared without registry, tag and digest:
//! `k8s.gcr.io/nginx-slim:0.8` is `nginx-slim`; a pattern with a slash is compared with the whole repository, and
//! `*` stands for any text.

use k8s_openapi::api::core::v1::Container;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// What the catalog says about images that fit a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// For example `nginx`, `*/postgres`, `registry.example.com/team/*`.
    pub image: String,
    /// The program that stands for the image's entry point.
    pub command: Vec<String>,
    /// Arguments where the container gives none.
    #[serde(default)]
    pub args: Vec<String>,
    /// Variables that the image would bring along.
    #[serde(default)]
    pub env: std::collections::BTreeMap<String, String>,
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
}

/// The catalog.
#[derive(Clone, Debug)]
pub struct Catalog {
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
    /// The built-in catalog with `file` over it, if that exists; read again at each use. `executable` is petset.
    pub fn new(file: PathBuf, executable: PathBuf) -> Self {
        Self { file, executable }
    }

    /// What to run for `container`. `Err` is the message for `ErrImagePull`.
    pub fn resolve(&self, container: &Container) -> Result<Resolved, String> {
        let image = container.image.as_deref().unwrap_or_default();
        let args = container.args.clone().unwrap_or_default();
        if let Some(command) = container.command.as_ref().filter(|c| !c.is_empty()) {
            return Ok(Resolved {
                argv: [command.clone(), args].concat(),
                env: Vec::new(),
                what: format!("the host's {}", command[0]),
                web_port: None,
            });
        }
        if let Some(entry) = self.entries()?.iter().find(|e| fits(&e.image, image)) {
            let args = if args.is_empty() { entry.args.clone() } else { args };
            return Ok(Resolved {
                argv: [entry.command.clone(), args].concat(),
                env: entry.env.clone().into_iter().collect(),
                what: format!("{} from {}", entry.command.join(" "), self.file.display()),
                web_port: None,
            });
        }
        self.built_in(container, image, args)
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
        match images.iter().find(|e| e.command.is_empty()) {
            Some(entry) => Err(format!(
                "{}: image {:?} has an empty command",
                self.file.display(),
                entry.image
            )),
            None => Ok(images),
        }
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
            return Ok(Resolved {
                what: format!("the host's {}", argv[0]),
                argv,
                env: Vec::new(),
                web_port: None,
            });
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
                    return Ok(Resolved {
                        what: format!("the host's {}", args[0]),
                        argv: args,
                        env: Vec::new(),
                        web_port: None,
                    });
                }
            };
            let argv = command.iter().map(|s| (*s).to_owned()).chain(given).collect();
            return Ok(Resolved {
                argv,
                env: Vec::new(),
                what: format!("the host's {program}"),
                web_port: None,
            });
        }
        Err(format!(
            "petset runs no images and knows no program for {image:?}: give the container a command, or say what \
             to run for it in {} (images: [{{image: {name}, command: [...]}}])",
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
            argv,
            env: Vec::new(),
            what: format!("petset's own static web server on port {port}, serving {root}"),
            web_port: Some(port),
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
        (directory, Catalog::new(path, "/bin/petset".into()))
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
        let message = unknown
            .resolve(&container("example.com/thing:2"))
            .expect_err("unknown");
        assert!(
            message.contains(&directory.path().join("images.yaml").display().to_string()),
            "{message}"
        );
        let (_directory, bad) = catalog("images:\n- image: x\n  comand: [y]\n");
        let message = bad.resolve(&container("x")).expect_err("bad");
        assert!(
            message.contains("images.yaml") && message.contains("comand"),
            "{message}"
        );
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
