//! Asking what there is: the directories first, then the API.

use super::inventory::{Directory, Observed};
use crate::data::DataDir;
use anyhow::Context;
use jiff::Timestamp;
use kube::api::{Api, ListParams};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::fs;
use std::io;
use std::path::Path;

/// Everything that an inventory is made of.
pub async fn observe(client: &kube::Client, data: &DataDir) -> anyhow::Result<Observed> {
    let volumes_dir = data.volumes();
    let directories =
        directories(&volumes_dir).with_context(|| format!("cannot read {}", volumes_dir.display()))?;
    Ok(Observed {
        directories,
        claims: all(client).await?,
        volumes: all(client).await?,
        pods: all(client).await?,
        sets: all(client).await?,
        volumes_dir,
    })
}

/// Every object of a kind, in all namespaces.
pub async fn all<K>(client: &kube::Client) -> anyhow::Result<Vec<K>>
where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let listed = Api::<K>::all(client.clone()).list(&ListParams::default()).await;
    Ok(listed
        .with_context(|| format!("cannot list {}", K::plural(&())))?
        .items)
}

fn directories(path: &Path) -> io::Result<Vec<Directory>> {
    let entries = match fs::read_dir(path) {
        // It is made with the first volume.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let (Ok(metadata), Ok(name)) = (entry.metadata(), entry.file_name().into_string()) else {
            continue;
        };
        if metadata.is_dir() {
            let made = metadata
                .created()
                .ok()
                .and_then(|time| Timestamp::try_from(time).ok());
            found.push(Directory { name, made });
        }
    }
    Ok(found)
}
