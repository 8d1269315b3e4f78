//! A pod's volumes as directories of this machine, and where they appear in its containers (reference, 3.10).

mod group;
pub mod payload;
pub mod remove;
pub mod token;
mod write;

use crate::environment::{Environment, Sources, amount};
use crate::shim::protocol::{Memory, Mount};
use crate::shim::view::walk::{self, Above, Make};
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, HostPathVolumeSource, PersistentVolume, PersistentVolumeClaim, Pod,
    ProjectedVolumeSource, Secret, Volume,
};
use kube::api::Api;
use payload::{File, Payload};
use rustix::fs::Mode;
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// A volume that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Where, on the host.
    pub path: PathBuf,
    /// Whether the source itself forbids writing.
    pub read_only: bool,
    /// Whether it is in memory, and so to be seen by the pod's processes only.
    pub in_memory: bool,
}

/// Why a volume is not there (yet): the text of the `FailedMount` event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady {
    /// The volume's name.
    pub volume: String,
    /// Why.
    pub message: String,
    /// Whether that is a normal wait, not worth an event.
    pub waiting: bool,
}

impl NotReady {
    /// The event's message, as upstream words it.
    pub fn event_message(&self) -> String {
        format!(
            "MountVolume.SetUp failed for volume {:?} : {}",
            self.volume, self.message
        )
    }
}

/// Makes the volumes of one pod below `directory`, its own.
pub struct Volumes<'a> {
    /// For what the volumes refer to.
    pub client: &'a kube::Client,
    /// Whose volumes.
    pub pod: &'a Pod,
    /// The pod's directory.
    pub directory: &'a Path,
    /// For downward API files.
    pub sources: &'a Sources,
    /// Service account tokens that were asked for before.
    pub tokens: &'a token::Tokens,
    /// What time it is.
    pub now: jiff::Timestamp,
    /// Whether no container of the pod has used them yet.
    pub is_first: bool,
}

impl Volumes<'_> {
    /// Make them all, or bring their files up to date; by volume name.
    pub async fn make(&self) -> Result<BTreeMap<String, Ready>, NotReady> {
        let mut ready = BTreeMap::new();
        for volume in self.pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
            let made = self.make_one(volume).await;
            ready.insert(volume.name.clone(), made.map_err(|e| e.of(&volume.name))?);
        }
        Ok(ready)
    }

    /// Whether any of them has files that follow other objects.
    pub fn follow_objects(pod: &Pod) -> bool {
        pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).any(|v| {
            v.config_map.is_some() || v.secret.is_some() || v.projected.is_some() || v.downward_api.is_some()
        })
    }

    async fn make_one(&self, volume: &Volume) -> Result<Ready, Failure> {
        let own = self.own(&volume.name)?;
        let writable = |path: PathBuf| Ready {
            path,
            read_only: false,
            in_memory: false,
        };
        if let Some(empty_dir) = &volume.empty_dir {
            let is_new = !own.exists();
            make_directory(&own)?;
            if is_new {
                open_to_all(&own)?;
                self.give_to_group(&own, false)?;
            }
            return Ok(Ready {
                in_memory: empty_dir.medium.as_deref() == Some("Memory"),
                ..writable(own)
            });
        }
        if let Some(host_path) = &volume.host_path {
            check_host_path(host_path)?;
            return Ok(writable(host_path.path.clone().into()));
        }
        if let Some(claim) = &volume.persistent_volume_claim {
            let path = self.claim_path(&claim.claim_name).await?;
            let read_only = claim.read_only == Some(true);
            if self.is_first && !read_only {
                self.give_to_group(&path, false)?;
            }
            return Ok(Ready {
                read_only,
                ..writable(path)
            });
        }
        let mut payload = match self.payload(volume).await? {
            Some(payload) => payload,
            None => {
                return Err(Failure::new(
                    "this kind of volume is not supported; petset has emptyDir, hostPath, configMap, secret, \
                     downwardAPI, projected and persistentVolumeClaim",
                ));
            }
        };
        if self.group().is_some() {
            payload.values_mut().for_each(|file| file.mode |= 0o440);
        }
        write::write(&own, &payload)
            .map_err(|e| Failure::new(format!("cannot write {}: {e}", own.display())))?;
        self.give_to_group(&own, true)?;
        Ok(writable(own))
    }

    /// The directory of a volume that is the pod's own. The API server lets no other names through; this is where they would
    /// do harm.
    fn own(&self, name: &str) -> Result<PathBuf, Failure> {
        match Path::new(name).components().collect::<Vec<_>>().as_slice() {
            [Component::Normal(_)] => Ok(self.directory.join("volumes").join(name)),
            _ => Err(Failure::new(format!("{name:?} is no name for a volume"))),
        }
    }

    /// `fsGroup`, where it can be given: only root has more groups than its own. To an ordinary user every file of a pod
    /// belongs to whoever its containers run as.
    fn group(&self) -> Option<u32> {
        let context = self.pod.spec.as_ref()?.security_context.as_ref()?;
        let group = context.fs_group.and_then(|group| u32::try_from(group).ok());
        group.filter(|_| nix::unistd::Uid::effective().is_root())
    }

    fn give_to_group(&self, directory: &Path, read_only: bool) -> Result<(), Failure> {
        let Some(group) = self.group() else { return Ok(()) };
        let context = self.pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
        let policy = context.and_then(|c| c.fs_group_change_policy.as_deref());
        group::give(directory, group, read_only, policy == Some("OnRootMismatch"))
            .map_err(|e| Failure::new(format!("applyFSGroup failed for {}: {e}", directory.display())))
    }

    /// The files of a volume that is made of other objects.
    async fn payload(&self, volume: &Volume) -> Result<Option<Payload>, Failure> {
        if let Some(source) = &volume.config_map {
            let map = self.config_map(&source.name, source.optional).await?;
            let items = source.items.as_deref();
            return Ok(Some(payload::config_map(
                map.as_ref(),
                items,
                source.default_mode,
                source.optional,
            )?));
        }
        if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or_default();
            let secret = self.secret(name, source.optional).await?;
            let items = source.items.as_deref();
            return Ok(Some(payload::secret(
                secret.as_ref(),
                items,
                source.default_mode,
                source.optional,
            )?));
        }
        if let Some(source) = &volume.downward_api {
            let items = source.items.as_deref().unwrap_or_default();
            return Ok(Some(payload::downward_api(
                self.pod,
                items,
                source.default_mode,
                self.sources,
            )?));
        }
        match &volume.projected {
            Some(source) => self.projected(source).await.map(Some),
            None => Ok(None),
        }
    }

    async fn projected(&self, source: &ProjectedVolumeSource) -> Result<Payload, Failure> {
        let mode = source.default_mode;
        let mut files = Payload::new();
        for each in source.sources.iter().flatten() {
            if let Some(map) = &each.config_map {
                let found = self.config_map(&map.name, map.optional).await?;
                files.extend(payload::config_map(
                    found.as_ref(),
                    map.items.as_deref(),
                    mode,
                    map.optional,
                )?);
            }
            if let Some(secret) = &each.secret {
                let found = self.secret(&secret.name, secret.optional).await?;
                files.extend(payload::secret(
                    found.as_ref(),
                    secret.items.as_deref(),
                    mode,
                    secret.optional,
                )?);
            }
            if let Some(downward) = &each.downward_api {
                let items = downward.items.as_deref().unwrap_or_default();
                files.extend(payload::downward_api(self.pod, items, mode, self.sources)?);
            }
            if let Some(token) = &each.service_account_token {
                let audience = token.audience.as_deref();
                let wanted = token::Wanted::new(self.pod, audience, token.expiration_seconds);
                let text = self.tokens.get(self.client, wanted, self.now).await?;
                files.insert(token.path.clone(), File::new(text, mode));
            }
        }
        Ok(files)
    }

    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    async fn config_map(&self, name: &str, optional: Option<bool>) -> Result<Option<ConfigMap>, Failure> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.namespace());
        match api.get_opt(name).await? {
            None if optional != Some(true) => Err(Failure::new(format!("configmap {name:?} not found"))),
            found => Ok(found),
        }
    }

    async fn secret(&self, name: &str, optional: Option<bool>) -> Result<Option<Secret>, Failure> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), self.namespace());
        match api.get_opt(name).await? {
            None if optional != Some(true) => Err(Failure::new(format!("secret {name:?} not found"))),
            found => Ok(found),
        }
    }

    /// The directory behind a claim, once the claim is bound.
    async fn claim_path(&self, name: &str) -> Result<PathBuf, Failure> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), self.namespace());
        let claim = claims.get_opt(name).await?;
        let claim = claim.ok_or_else(|| Failure::new(format!("persistentvolumeclaim {name:?} not found")))?;
        let bound = claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
        let Some(volume) = claim.spec.and_then(|s| s.volume_name).filter(|_| bound) else {
            let message = format!("persistentvolumeclaim {name:?} is not bound yet");
            return Err(Failure {
                message,
                waiting: true,
            });
        };
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let found = volumes.get_opt(&volume).await?;
        let spec = found.and_then(|v| v.spec).ok_or_else(|| {
            Failure::new(format!("persistentvolume {volume:?} of claim {name:?} not found"))
        })?;
        if let Some(host_path) = &spec.host_path {
            check_host_path(host_path)?;
            Ok(host_path.path.clone().into())
        } else if let Some(local) = &spec.local {
            let path = PathBuf::from(&local.path);
            if path.is_dir() {
                Ok(path)
            } else {
                Err(Failure::new(format!("path {:?} does not exist", local.path)))
            }
        } else {
            Err(Failure::new(format!(
                "persistentvolume {volume:?} is neither hostPath nor local"
            )))
        }
    }
}

/// What a step towards a volume failed with.
struct Failure {
    message: String,
    waiting: bool,
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            waiting: false,
        }
    }

    fn of(self, volume: &str) -> NotReady {
        NotReady {
            volume: volume.into(),
            message: self.message,
            waiting: self.waiting,
        }
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

/// As upstream makes an emptyDir: whoever the containers run as may use it. Others of the host do not come this far.
fn open_to_all(path: &Path) -> Result<(), Failure> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))
        .map_err(|e| Failure::new(format!("cannot set the mode of {}: {e}", path.display())))
}

/// The pod's emptyDirs that are to be in memory: made by its shim, because only the pod's own processes see them.
pub fn in_memory(pod: &Pod, directory: &Path) -> Vec<Memory> {
    let spec = pod.spec.iter();
    let group = pod
        .spec
        .as_ref()
        .and_then(|s| s.security_context.as_ref()?.fs_group);
    let volumes = spec.flat_map(|s| s.volumes.iter().flatten());
    let memory = |volume: &Volume| {
        let empty_dir = volume.empty_dir.as_ref()?;
        let limit = empty_dir
            .size_limit
            .as_ref()
            .and_then(amount)
            .filter(|limit| *limit > 0.0);
        (empty_dir.medium.as_deref() == Some("Memory")).then(|| Memory {
            path: directory.join("volumes").join(&volume.name),
            size: limit.map(|limit| limit.ceil() as u64),
            group: group.and_then(|group| u32::try_from(group).ok()),
        })
    };
    volumes.filter_map(memory).collect()
}

fn make_directory(path: &Path) -> Result<(), Failure> {
    fs::create_dir_all(path).map_err(|e| Failure::new(format!("cannot create {}: {e}", path.display())))
}

/// `hostPath.type`: what must be there, or is to be made.
fn check_host_path(source: &HostPathVolumeSource) -> Result<(), Failure> {
    let path = Path::new(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    let failed = |what: &str| {
        Err(Failure::new(format!(
            "hostPath type check failed: {} is not {what}",
            source.path
        )))
    };
    let file_type = || fs::metadata(path).map(|m| m.file_type());
    match kind {
        "" => Ok(()),
        "DirectoryOrCreate" if !path.exists() => make_directory(path),
        "FileOrCreate" if !path.exists() => {
            fs::write(path, "").map_err(|e| Failure::new(format!("cannot create {}: {e}", source.path)))
        }
        "Directory" | "DirectoryOrCreate" if !path.is_dir() => failed("a directory"),
        "File" | "FileOrCreate" if !path.is_file() => failed("a file"),
        "Socket" if !file_type().is_ok_and(|t| t.is_socket()) => failed("a socket file"),
        "CharDevice" if !file_type().is_ok_and(|t| t.is_char_device()) => failed("a character device"),
        "BlockDevice" if !file_type().is_ok_and(|t| t.is_block_device()) => failed("a block device"),
        _ => Ok(()),
    }
}

/// Where the volumes appear in a container. The error is the message of `CreateContainerConfigError`.
pub fn mounts(
    container: &Container,
    ready: &BTreeMap<String, Ready>,
    environment: &Environment,
) -> Result<Vec<Mount>, String> {
    let mut mounts = Vec::new();
    for each in container.volume_mounts.iter().flatten() {
        let volume = ready
            .get(&each.name)
            .ok_or_else(|| format!("volume {:?} not found", each.name))?;
        let expression = each.sub_path_expr.as_ref().map(|e| environment.expand(e));
        let sub_path = expression
            .or_else(|| each.sub_path.clone())
            .filter(|p| !p.is_empty());
        if let Some(sub_path) = &sub_path {
            check_sub_path(volume, Path::new(sub_path)).map_err(|why| {
                format!(
                    "failed to prepare subPath for volumeMount {:?} of container {:?}: {why}",
                    each.name, container.name
                )
            })?;
        }
        mounts.push(Mount {
            source: volume.path.clone(),
            sub_path: sub_path.map(PathBuf::from),
            target: each.mount_path.clone().into(),
            read_only: volume.read_only || each.read_only == Some(true),
        });
    }
    Ok(mounts)
}

/// Whether a `subPath` stays in its volume as that is now. Whoever uses it walks there once more, step by step, because
/// a container may change links meanwhile.
fn check_sub_path(volume: &Ready, sub_path: &Path) -> Result<(), String> {
    let is_inside = |c: Component| matches!(c, Component::Normal(_) | Component::CurDir);
    if !sub_path.components().all(is_inside) {
        return Err(format!(
            "{} must be a relative path without '..'",
            sub_path.display()
        ));
    }
    if volume.in_memory {
        return Ok(());
    }
    let place =
        walk::place(&volume.path).map_err(|e| format!("cannot open {}: {e}", volume.path.display()))?;
    match walk::walk(
        place.as_fd(),
        sub_path,
        Make::Nothing,
        Mode::empty(),
        Above::Refused,
    ) {
        Err(error) if error.raw_os_error() == Some(libc::EXDEV) => {
            Err(format!("{} leads out of the volume", sub_path.display()))
        }
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("cannot enter {}: {error}", sub_path.display()))
        }
        _ => Ok(()),
    }
}

/// What a mount shows, as a path of the host: for containers without a view of their own, whose volumes are links. Missing
/// directories of a `subPath` are made.
pub fn source(mount: &Mount) -> std::io::Result<PathBuf> {
    let Some(sub_path) = &mount.sub_path else {
        return Ok(mount.source.clone());
    };
    let volume = walk::place(&mount.source)?;
    let mode = Mode::from_raw_mode(0o755);
    let found = walk::walk(volume.as_fd(), sub_path, Make::Directory, mode, Above::Refused)?;
    fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_empty_dir_in_memory_has_its_size_and_group_and_others_are_none() {
        let pod = json!({"spec": {
            "containers": [],
            "securityContext": {"fsGroup": 7},
            "volumes": [
                {"name": "a", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "b", "emptyDir": {"sizeLimit": "1Mi"}},
                {"name": "c", "emptyDir": {"medium": "Memory"}},
            ]
        }});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let memory = |name: &str, size| Memory {
            path: Path::new("/pod/volumes").join(name),
            size,
            group: Some(7),
        };
        assert_eq!(
            in_memory(&pod, Path::new("/pod")),
            [memory("a", Some(1 << 20)), memory("c", None)]
        );
    }

    #[test]
    fn a_sub_path_stays_in_its_volume() {
        let base = tempfile::tempdir().expect("tempdir");
        let volume = Ready {
            path: base.path().to_path_buf(),
            read_only: false,
            in_memory: false,
        };
        fs::create_dir(base.path().join("in")).expect("made");
        for (link, target) in [("fine", "in"), ("out", "/etc"), ("up", "..")] {
            std::os::unix::fs::symlink(target, base.path().join(link)).expect("linked");
        }
        for (sub_path, refusal) in [
            ("in/new", None),
            ("fine/new", None),
            ("../x", Some("must be a relative path")),
            ("/etc", Some("must be a relative path")),
            ("out/passwd", Some("leads out of the volume")),
            ("up", Some("leads out of the volume")),
        ] {
            let found = check_sub_path(&volume, Path::new(sub_path)).err();
            let fits = match (&found, refusal) {
                (Some(found), Some(refusal)) => found.contains(refusal),
                (found, refusal) => found.is_none() && refusal.is_none(),
            };
            assert!(fits, "{sub_path}: {found:?}");
        }
    }
}
