//! What every cluster has from the start, made when the server starts and repaired while it runs.

pub(crate) mod access;
pub mod kubernetes_service;

use crate::error::Error;
use crate::server::Server;
use crate::stored;
use serde_json::Value;

/// Write what `wanted` makes of the stored object (null if there is none) unless it is that already.
async fn repair(server: &Server, key: &str, wanted: impl Fn(&Value) -> Value) -> Result<(), Error> {
    loop {
        let entry = server.store.get(key).await?;
        let old: Value = entry
            .as_ref()
            .and_then(|entry| serde_json::from_slice(&entry.value).ok())
            .unwrap_or_default();
        let mut new = wanted(&old);
        if new == old {
            return Ok(());
        }
        let written = match entry {
            Some(entry) => {
                server
                    .store
                    .update(key, stored::encode(&new), entry.modified)
                    .await
            }
            None => {
                new["metadata"]["uid"] = uuid::Uuid::new_v4().to_string().into();
                new["metadata"]["creationTimestamp"] = server.now().to_string().into();
                server.store.create(key, stored::encode(&new)).await
            }
        };
        match written {
            Ok(_) | Err(store::Error::Exists(_) | store::Error::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
