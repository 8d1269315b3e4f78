//! Removing one leftover, exactly as it was observed: the API refuses when the object is another or was changed.

use super::inventory::inventory;
use super::item::{Item, What};
use super::observe::observe;
use crate::data::DataDir;
use anyhow::{Context, anyhow, bail};
use controller::volume::directory;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use kube::runtime::wait::{await_condition, conditions};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;

/// How long an object may take to go before somebody has to look why.
const GOING: Duration = Duration::from_secs(20);

/// Remove it; what was done, for the user.
pub async fn remove(client: &kube::Client, data: &DataDir, item: &Item) -> anyhow::Result<String> {
    match item.what {
        What::Claim => {
            let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), item.namespace());
            delete(&claims, item).await?;
            claim_removed(client, item).await
        }
        What::Volume => {
            delete(&Api::<PersistentVolume>::all(client.clone()), item).await?;
            if item.own_data {
                remove_directory(client, data, item).await?;
            }
            Ok(format!("removed {item}: {}", item.consequence()))
        }
        What::Directory => {
            remove_directory(client, data, item).await?;
            Ok(format!("removed {item}"))
        }
    }
}

/// What has become of a claim's volume.
async fn claim_removed(client: &kube::Client, item: &Item) -> anyhow::Result<String> {
    let Some(volume) = &item.volume else {
        return Ok(format!("removed {item}"));
    };
    if item.reclaim_policy.as_deref() != Some("Delete") {
        return Ok(format!(
            "removed {item}; its volume and data stay, to remove them: petset volumes prune pv/{volume}"
        ));
    }
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    // It goes by the controller's hand, and its directory before it.
    let gone = await_condition(volumes.clone(), volume, |volume: Option<&PersistentVolume>| {
        volume.is_none()
    });
    match tokio::time::timeout(GOING, gone).await {
        Ok(gone) => {
            gone.with_context(|| format!("cannot see what becomes of volume {volume}"))?;
            Ok(format!("removed {item} with volume {volume} and its data"))
        }
        Err(_) => Ok(format!(
            "removed {item}; its volume {volume} is still there, see why: kubectl describe pv {volume}"
        )),
    }
}

/// Delete exactly what was observed, and wait until it is gone.
async fn delete<K>(api: &Api<K>, item: &Item) -> anyhow::Result<()>
where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let observed = Preconditions {
        uid: item.uid.clone(),
        resource_version: item.resource_version.clone(),
    };
    let params = DeleteParams::default().preconditions(observed);
    match api.delete(&item.name, &params).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => bail!("{item} is gone already"),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            bail!("{item} is kept: it was changed meanwhile; look again with petset volumes")
        }
        Err(kube::Error::Api(status)) => bail!("{item}: {}", status.message),
        Err(error) => return Err(error).with_context(|| item.to_string()),
    }
    let uid = item.uid.clone().unwrap_or_default();
    let gone = await_condition(api.clone(), &item.name, conditions::is_deleted(&uid));
    match tokio::time::timeout(GOING, gone).await {
        Ok(gone) => gone
            .map(drop)
            .with_context(|| format!("{item} is being deleted, but cannot be watched")),
        Err(_) => {
            let held = api
                .get_opt(&item.name)
                .await?
                .and_then(|object| object.meta().finalizers.clone());
            Err(anyhow!(
                "{item} is deleted but not gone: it waits for its finalizers ({}), and its data is kept so long",
                held.unwrap_or_default().join(", ")
            ))
        }
    }
}

/// Remove a directory that nobody has begun to need since it was observed.
async fn remove_directory(client: &kube::Client, data: &DataDir, item: &Item) -> anyhow::Result<()> {
    let path = item
        .path
        .clone()
        .ok_or_else(|| anyhow!("{item} has no directory"))?;
    let observed = observe(client, data).await?;
    let name = path.file_name().unwrap_or_default();
    if observed
        .directories
        .iter()
        .all(|directory| name != directory.name.as_str())
    {
        // The controller was quicker.
        return Ok(());
    }
    let free = inventory(&observed).into_iter().any(|found| {
        found.what == What::Directory && found.path.as_ref() == Some(&path) && found.standing.is_leftover()
    });
    if !free {
        bail!(
            "{} is kept: somebody has begun to need it meanwhile",
            path.display()
        );
    }
    let removed = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || directory::remove(&path)).await?
    };
    removed.with_context(|| format!("cannot remove {}", path.display()))
}
