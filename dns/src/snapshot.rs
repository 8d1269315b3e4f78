//! The names as they are now, from what the API holds now: what a server would serve, without one.

use crate::table::{Key, Table};
use crate::zone::Zone;
use crate::{Config, Error, Options};
use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// An option is wrong.
    #[error(transparent)]
    Option(#[from] Error),
    /// A list failed.
    #[error("cannot list {0}: {1}")]
    List(String, #[source] Box<kube::Error>),
}

impl Failure {
    fn is_forbidden(&self) -> bool {
        match self {
            Self::List(_, error) => matches!(&**error, kube::Error::Api(status) if status.code == 403),
            Self::Option(_) => false,
        }
    }
}

/// The names, and what could not be seen of them.
#[derive(Debug)]
pub struct Snapshot {
    /// Every name of what could be listed.
    pub zone: Zone,
    /// Lists that are forbidden: their own names are left out.
    pub forbidden: Vec<Failure>,
}

/// List everything that names come from. Without the right to see Pods or Namespaces only their own names are missing, as
/// for a server that watches.
pub async fn take(client: &kube::Client, options: &Options) -> Result<Snapshot, Failure> {
    let config = Arc::new(Config::new(options)?);
    let mut table = Table::new(config.clone());
    put(client, &mut table, Table::service).await?;
    put(client, &mut table, Table::slice).await?;
    let mut forbidden = Vec::new();
    for listed in [
        put(client, &mut table, Table::pod).await,
        put(client, &mut table, Table::namespace).await,
    ] {
        match listed {
            Err(failure) if failure.is_forbidden() => forbidden.push(failure),
            listed => listed?,
        }
    }
    let zone = Zone::new(&config, table.commit(), true);
    Ok(Snapshot { zone, forbidden })
}

async fn put<K>(
    client: &kube::Client,
    table: &mut Table,
    put: fn(&mut Table, &Key, Option<&K>),
) -> Result<(), Failure>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let all: Api<K> = Api::all(client.clone());
    let listed = all.list(&ListParams::default()).await;
    let listed = listed.map_err(|error| Failure::List(K::plural(&()).into_owned(), Box::new(error)))?;
    for object in listed {
        let key = (object.namespace().unwrap_or_default(), object.name_any());
        put(table, &key, Some(&object));
    }
    Ok(())
}
