//! What the plans for claims and volumes ask for, done: requests to the API and directories on disk.

use super::action::Action;
use super::{Concern, Error, Volumes, directory, matching, provision, reclaim};
use crate::runtime::Key;
use events::EventType;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Resource, ResourceExt};
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};

impl Volumes {
    /// Take one step for `object`, the claim or volume that the plan is about.
    pub(super) async fn act<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        action: Action,
    ) -> Result<(), Error> {
        let namespace = object.namespace().unwrap_or_default();
        let patched = PatchParams::default();
        match action {
            Action::PatchClaim(patch) => {
                let claims = self.claim_api(&namespace);
                claims
                    .patch(&object.name_any(), &patched, &Patch::Merge(patch))
                    .await?;
            }
            Action::PatchClaimStatus(patch) => {
                let claims = self.claim_api(&namespace);
                claims
                    .patch_status(&object.name_any(), &patched, &Patch::Merge(patch))
                    .await?;
            }
            Action::PatchVolume { name, patch } => {
                self.volume_api()
                    .patch(&name, &patched, &Patch::Merge(patch))
                    .await?;
            }
            Action::PatchVolumeStatus { name, patch } => {
                self.volume_api()
                    .patch_status(&name, &patched, &Patch::Merge(patch))
                    .await?;
            }
            Action::Provision(volume) => self.provision(object, &volume).await?,
            Action::Expand {
                name,
                directory,
                patch,
            } => self.expand(object, &name, directory, patch).await?,
            Action::Reclaim { directory } => self.reclaim(object, directory).await?,
            Action::LookAtClaim { namespace, name } => {
                self.queue.add(Concern::Claim(Key::new(namespace, name)));
            }
            Action::Tell {
                event_type,
                reason,
                message,
            } => self.teller.tell(&reference(object), event_type, reason, message),
        }
        Ok(())
    }

    /// Make the directory, then the volume that names it.
    async fn provision<K: Resource<DynamicType = ()>>(
        &self,
        claim: &K,
        volume: &PersistentVolume,
    ) -> Result<(), Error> {
        if let Some(path) = provision::directory(volume, &self.context.options.volumes_dir)
            && let Err(source) = on_disk(path.clone(), directory::make).await
        {
            let error = Error::Make { path, source };
            let class = matching::volume_class(volume);
            let text = format!("failed to provision volume with StorageClass \"{class}\": {error}");
            self.warn(claim, "ProvisioningFailed", text);
            return Err(error);
        }
        self.volume_api().create(&PostParams::default(), volume).await?;
        Ok(())
    }

    /// See that the directory can hold more, then write the new capacity into the volume.
    async fn expand<K: Resource<DynamicType = ()>>(
        &self,
        claim: &K,
        name: &str,
        path: PathBuf,
        patch: Value,
    ) -> Result<(), Error> {
        if let Err(source) = on_disk(path.clone(), directory::check).await {
            let error = Error::Expand { path, source };
            let text = format!("resize volume \"{name}\" failed: {error}");
            self.warn(claim, "VolumeResizeFailed", text);
            return Err(error);
        }
        let volumes = self.volume_api();
        volumes
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    /// Remove the directory, then the volume; the volume says so if that fails.
    async fn reclaim<K: Resource<DynamicType = ()>>(&self, volume: &K, path: PathBuf) -> Result<(), Error> {
        let volumes = self.volume_api();
        if let Err(source) = on_disk(path.clone(), directory::remove).await {
            let error = Error::Remove { path, source };
            // As it is now: the step before may have changed the phase.
            if let Some(current) = volumes.get_opt(&volume.name_any()).await? {
                for action in reclaim::fail(&current, "VolumeFailedDelete", &error.to_string()) {
                    Box::pin(self.act(volume, action)).await?;
                }
            }
            return Err(error);
        }
        let exactly = Preconditions {
            uid: volume.meta().uid.clone(),
            resource_version: None,
        };
        let params = DeleteParams::default().preconditions(exactly);
        volumes.delete(&volume.name_any(), &params).await?;
        Ok(())
    }

    fn warn<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &'static str, text: String) {
        self.teller
            .tell(&reference(object), EventType::Warning, reason, text);
    }
}

/// Do something with a directory where it does not keep others from running.
async fn on_disk(path: PathBuf, act: fn(&Path) -> io::Result<()>) -> io::Result<()> {
    match tokio::task::spawn_blocking(move || act(&path)).await {
        Ok(outcome) => outcome,
        Err(lost) => Err(io::Error::other(lost)),
    }
}

fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    object.object_ref(&())
}
