//! Starting a container: what its image stands for, its environment and mounts, its process and log.

mod rooted;

use crate::Kubelet;
use crate::console::Console;
use crate::environment::{Environment, Sources};
use crate::handler::{Handler, Target};
use crate::image::user::User;
use crate::image::{Resolved, Unresolved};
use crate::process::Container as Process;
use crate::security::{self, Confinement, Facts};
use crate::shim::protocol::{Isolation, Log, MainStdio, Mount, ROOT_VARIABLE, Spec};
use crate::volume::{self, Ready};
use crate::{log, names, privilege, sandbox};
use events::EventType;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Service};
use kube::api::{Api, ListParams};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Why a container could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Its image stands for nothing: `ErrImagePull`.
    Image(String),
    /// The same, and nobody was to look for it: `ErrImageNeverPull`.
    NeverPull(String),
    /// Its image's name cannot be one: `InvalidImageName`.
    ImageName(String),
    /// Something it refers to is missing or cannot be: `CreateContainerConfigError`.
    Config(String),
    /// What it shares with the pod's other containers could not be made.
    Sandbox(String),
    /// Its program does not run: it counts as an instance that has ended (`StartError`, exit code 128).
    Start(String),
    /// Its postStart hook failed; it has been killed.
    Hook(String),
}

impl From<Unresolved> for Failure {
    fn from(why: Unresolved) -> Self {
        match why {
            Unresolved::Unknown(message) => Self::Image(message),
            Unresolved::NeverPull(message) => Self::NeverPull(message),
            Unresolved::InvalidName(message) => Self::ImageName(message),
            Unresolved::Config(message) => Self::Config(message),
        }
    }
}

/// A container that runs.
pub struct Running {
    pub process: Process,
    pub console: Arc<Console>,
    pub image: Resolved,
}

/// What one start needs to know.
pub struct Start {
    pub kubelet: Arc<Kubelet>,
    pub pod: Arc<Pod>,
    pub container: Container,
    pub volumes: BTreeMap<String, Ready>,
    pub address: Option<IpAddr>,
    /// 0 for the first, then the restart count.
    pub instance: i32,
    /// When the pod is to be stopped, whatever its hook does.
    pub ending: CancellationToken,
}

/// The id of a container in the API.
pub(crate) fn container_id(process: &Process) -> String {
    let known = &process.known;
    format!(
        "petset://{}-{}-{}",
        known.pid,
        known.name,
        known.started.as_millisecond()
    )
}

/// What its main process's standard streams are.
pub(crate) fn stdio(container: &Container) -> MainStdio {
    match (container.tty, container.stdin) {
        (Some(true), _) => MainStdio::Terminal,
        (_, Some(true)) => MainStdio::Input,
        _ => MainStdio::NoInput,
    }
}

impl Kubelet {
    /// What environments and downward API files are made of, without the objects that a container mentions.
    pub(crate) fn sources(&self, address: Option<IpAddr>) -> Sources {
        Sources {
            pod_ip: address,
            host_ip: self.options.host_ip.to_string(),
            node_name: self.options.node_name.clone(),
            allocatable: crate::node::capacity(),
            api_server: self.api_server(),
            ..Sources::default()
        }
    }
}

impl Start {
    pub async fn run(self) -> Result<Running, Failure> {
        let image = self.kubelet.catalog.resolve(&self.container)?;
        self.check_ports(&image)?;
        let sources = self.sources().await.map_err(Failure::Config)?;
        let built = Environment::build(&self.pod, &self.container, &image.env, &sources);
        let environment = built.map_err(Failure::Config)?;
        for (source, keys) in &environment.skipped {
            let message = format!(
                "Keys [{}] from the EnvFrom {source} were skipped since they are considered invalid environment variable names.",
                keys.join(", ")
            );
            self.tell(EventType::Warning, "InvalidEnvironmentVariableNames", message);
        }
        let spec = self.spec(&image, environment).await.map_err(Failure::Config)?;
        self.tell(EventType::Normal, "Pulled", image.pulled(self.image()));
        self.tell(EventType::Normal, "Created", "Container created".to_owned());
        let isolation = self.kubelet.launcher.isolation();
        let (pod, name) = (&self.pod, self.container.name.as_str());
        let sandbox = self.kubelet.sandbox(pod, name, self.address, isolation);
        let held = self
            .kubelet
            .launcher
            .pod(&sandbox)
            .await
            .map_err(Failure::Sandbox)?;
        let stdio = spec.stdio;
        let started = held.start(name, self.instance, spec).await;
        let process = started.map_err(Failure::Start)?;
        self.tell_unenforced(&process.known.warnings);
        let once = self.container.stdin_once == Some(true);
        let console = Console::new(process.clone(), stdio, once);
        self.tell(EventType::Normal, "Started", "Container started".to_owned());
        self.post_start(&process).await?;
        Ok(Running {
            process,
            console,
            image,
        })
    }

    fn image(&self) -> &str {
        self.container.image.as_deref().unwrap_or_default()
    }

    fn tell(&self, event_type: EventType, reason: &'static str, message: String) {
        self.kubelet
            .events
            .tell(&self.pod, Some(&self.container.name), event_type, reason, message);
    }

    fn directory(&self) -> PathBuf {
        self.kubelet
            .pod_directory(&self.pod)
            .join("containers")
            .join(&self.container.name)
    }

    /// Petset's own web server on a port that it cannot have would only crash again and again; a program of the
    /// user's may know what to do, so there it is but said.
    fn check_ports(&self, image: &Resolved) -> Result<(), Failure> {
        // There every port is everybody's.
        if self.kubelet.options.cluster_network.is_some() {
            return Ok(());
        }
        if let Some(message) = image.web_port.and_then(privilege::remedy) {
            return Err(Failure::Config(message));
        }
        let ports = self
            .container
            .ports
            .iter()
            .flatten()
            .filter_map(|p| u16::try_from(p.container_port).ok());
        if let Some(message) = ports.filter_map(privilege::remedy).next() {
            self.tell(EventType::Warning, "PrivilegedPort", message);
        }
        Ok(())
    }

    /// Everything that the container's environment may mention.
    async fn sources(&self) -> Result<Sources, String> {
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
        let client = &self.kubelet.client;
        let (mut maps, mut secrets) = (BTreeSet::new(), BTreeSet::new());
        for from in self.container.env_from.iter().flatten() {
            maps.extend(from.config_map_ref.as_ref().map(|m| m.name.clone()));
            secrets.extend(from.secret_ref.as_ref().map(|s| s.name.clone()));
        }
        for from in self
            .container
            .env
            .iter()
            .flatten()
            .filter_map(|v| v.value_from.as_ref())
        {
            maps.extend(from.config_map_key_ref.as_ref().map(|m| m.name.clone()));
            secrets.extend(from.secret_key_ref.as_ref().map(|s| s.name.clone()));
        }
        let mut sources = self.kubelet.sources(self.address);
        let failed = |error: kube::Error| error.to_string();
        for name in maps {
            let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
            let found = api.get_opt(&name).await.map_err(failed)?;
            sources.config_maps.extend(found.map(|map| (name, map)));
        }
        for name in secrets {
            let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
            let found = api.get_opt(&name).await.map_err(failed)?;
            sources.secrets.extend(found.map(|secret| (name, secret)));
        }
        let services: Api<Service> = Api::namespaced(client.clone(), namespace);
        sources.services = services.list(&ListParams::default()).await.map_err(failed)?.items;
        Ok(sources)
    }

    async fn spec(&self, image: &Resolved, mut environment: Environment) -> Result<Spec, String> {
        let directory = self.directory();
        let scratch = directory.join("view");
        fs::create_dir_all(&scratch).map_err(|e| format!("cannot create {}: {e}", scratch.display()))?;
        let mut mounts = volume::mounts(&self.container, &self.volumes, &environment)?;
        mounts.push(self.termination_log(&directory)?);
        log::prepare(&directory, self.instance)
            .map_err(|e| format!("cannot write to {}: {e}", directory.display()))?;
        let isolation = self.kubelet.launcher.isolation();
        if isolation > Isolation::None {
            mounts.extend(self.names()?);
            mounts.extend(self.shared_memory(isolation));
            mounts.extend(self.own_program(image));
        } else {
            self.link_volumes(&mut environment, &mounts)?;
        }
        let argv = image.argv.iter().map(|a| environment.expand(a)).collect();
        let stdio = stdio(&self.container);
        let has_term = environment.variables.iter().any(|(name, _)| name == "TERM");
        if stdio == MainStdio::Terminal && !has_term {
            environment.set("TERM", "xterm");
        }
        let mut spec = Spec {
            argv,
            env: environment.variables,
            working_dir: self
                .container
                .working_dir
                .clone()
                .filter(|d| !d.is_empty())
                .map(PathBuf::from),
            mounts,
            scratch,
            hidden: vec![self.kubelet.options.data_dir.clone()],
            stdio,
            log: Some(Log {
                path: log::path(&directory, self.instance),
                max_size: self.kubelet.options.log_max_size,
                max_files: self.kubelet.options.log_max_files,
            }),
            ..Spec::default()
        };
        let user = self.image_user(image)?;
        let said = self.confinement(isolation, user.as_ref())?.fill(&mut spec);
        self.tell_unenforced(&said);
        self.rooted(image, user, isolation, &mut spec)?;
        Ok(spec)
    }

    /// What the pod's security contexts and resources ask for here.
    fn confinement(&self, isolation: Isolation, user: Option<&User>) -> Result<Confinement, String> {
        let facts = Facts {
            isolation,
            image_user: (user.map(|user| user.uid), user.map(|user| user.gid)),
            is_root: nix::unistd::Uid::effective().is_root(),
            most_processes: self.kubelet.options.most_processes,
        };
        security::confinement(&self.pod, &self.container, &facts)
    }

    /// Said once, not at each restart.
    fn tell_unenforced(&self, sentences: &[String]) {
        if self.instance == 0 && !sentences.is_empty() {
            self.tell(EventType::Warning, "NotEnforced", sentences.join(". "));
        }
    }

    /// The pod's own resolv.conf and its like.
    fn names(&self) -> Result<Vec<Mount>, String> {
        let cluster = &self.kubelet.options.cluster_dns;
        let directory = self.kubelet.pod_directory(&self.pod);
        let (mounts, warnings) =
            names::prepare(&self.pod, &self.container, self.address, cluster, &directory)?;
        for warning in warnings {
            let events = &self.kubelet.events;
            events.tell(&self.pod, None, EventType::Warning, "DNSConfigForming", warning);
        }
        Ok(mounts)
    }

    /// The `/dev/shm` of the pod, unless a volume or the host's takes its place.
    fn shared_memory(&self, isolation: Isolation) -> Option<Mount> {
        let mut volumes = self.container.volume_mounts.iter().flatten();
        let host_ipc = self.pod.spec.as_ref().is_some_and(|s| s.host_ipc == Some(true));
        let target = PathBuf::from("/dev/shm");
        let is_taken = volumes.any(|each| Path::new(&each.mount_path) == target);
        (isolation == Isolation::Namespaces && !is_taken).then(|| Mount {
            source: if host_ipc {
                target.clone()
            } else {
                sandbox::shared_memory(&self.kubelet.pod_directory(&self.pod))
            },
            sub_path: None,
            target,
            read_only: false,
        })
    }

    /// Petset itself, where it is the container's program: it may lie where pods have directories of their own, in `/tmp`
    /// for example.
    fn own_program(&self, image: &Resolved) -> Option<Mount> {
        let executable = &self.kubelet.options.executable;
        // A binary that was replaced meanwhile has no path any more.
        let web_port = image.web_port.filter(|_| !executable.starts_with("/proc"));
        web_port.map(|_| Mount {
            source: executable.clone(),
            sub_path: None,
            target: executable.clone(),
            read_only: true,
        })
    }

    /// The file behind `terminationMessagePath`, empty for every instance.
    fn termination_log(&self, directory: &Path) -> Result<Mount, String> {
        let source = directory.join("termination-log");
        fs::write(&source, "").map_err(|e| format!("cannot create {}: {e}", source.display()))?;
        let target = self
            .container
            .termination_message_path
            .as_deref()
            .unwrap_or("/dev/termination-log");
        Ok(Mount {
            source,
            sub_path: None,
            target: target.into(),
            read_only: false,
        })
    }

    /// Without namespaces a volume is a link below the pod's root, and the environment says where.
    fn link_volumes(&self, environment: &mut Environment, mounts: &[Mount]) -> Result<(), String> {
        let root = self.directory().join("root");
        for mount in mounts {
            let link = root.join(mount.target.strip_prefix("/").unwrap_or(&mount.target));
            let parent = link.parent().unwrap_or(&root);
            fs::create_dir_all(parent).map_err(|e| format!("cannot create {}: {e}", parent.display()))?;
            let _ = fs::remove_file(&link);
            let source =
                volume::source(mount).map_err(|e| format!("cannot use {}: {e}", mount.source.display()))?;
            std::os::unix::fs::symlink(&source, &link)
                .map_err(|e| format!("cannot create {}: {e}", link.display()))?;
        }
        environment.set(ROOT_VARIABLE, root.display().to_string());
        for each in self.container.volume_mounts.iter().flatten() {
            let name = each.name.to_uppercase().replace('-', "_");
            let link = root.join(each.mount_path.trim_start_matches('/'));
            environment.set(&format!("PETSET_VOLUME_{name}"), link.display().to_string());
        }
        let message = format!(
            "No namespaces here: volumes are below {} ({ROOT_VARIABLE})",
            root.display()
        );
        self.tell(EventType::Warning, "NoMountNamespace", message);
        Ok(())
    }

    async fn post_start(&self, process: &Process) -> Result<(), Failure> {
        let hook = self
            .container
            .lifecycle
            .as_ref()
            .and_then(|l| l.post_start.as_ref());
        let Some(handler) = hook.and_then(Handler::of_hook) else {
            return Ok(());
        };
        let target = Target {
            process: process.clone(),
            address: self.address,
            network: self.kubelet.options.network.clone(),
        };
        let ran = tokio::select! {
            ran = handler.run(&self.container, &target) => ran,
            () = self.ending.cancelled() => Ok(()),
        };
        let Err(message) = ran else { return Ok(()) };
        // As upstream's, the events do not say why: the answer of a hook may hold what is not for everybody.
        let text = |text: &str| text.to_owned();
        self.tell(
            EventType::Warning,
            "FailedPostStartHook",
            text("PostStartHook failed"),
        );
        self.tell(EventType::Normal, "Killing", text("FailedPostStartHook"));
        process.kill().await;
        process.gone().await;
        Err(Failure::Hook(format!("PostStartHook failed: {message}")))
    }
}
