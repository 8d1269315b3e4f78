//! Every kind there is, found by asking the API: what is to be done for all kinds needs no list of them.

use kube::api::DynamicObject;
use kube::core::PartialObjectMeta;
use kube::discovery::{ApiResource, Discovery, Scope, verbs};
use kube::{Api, Client};

/// An object of any kind, only its metadata.
pub type Metadata = PartialObjectMeta<DynamicObject>;

/// One kind.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Its names.
    pub resource: ApiResource,
    /// Do its objects live in namespaces?
    pub namespaced: bool,
    /// The verbs it knows.
    pub operations: Vec<String>,
}

impl Kind {
    /// Does it know the verb?
    pub fn can(&self, verb: &str) -> bool {
        self.operations.iter().any(|operation| operation == verb)
    }

    /// The way to its objects in `namespace`, which counts only where there are namespaces; `None` for
    /// those everywhere.
    pub fn api(&self, client: &Client, namespace: Option<&str>) -> Api<Metadata> {
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &self.resource),
            None => Api::all_with(client.clone(), &self.resource),
        }
    }
}

/// Every kind that can be listed and deleted, in its preferred version.
pub async fn discover(client: &Client) -> Result<Vec<Kind>, kube::Error> {
    let discovery = Discovery::new(client.clone()).run().await?;
    let resources = discovery.groups().flat_map(|group| group.recommended_resources());
    let kinds = resources.map(|(resource, capabilities)| Kind {
        resource,
        namespaced: capabilities.scope == Scope::Namespaced,
        operations: capabilities.operations,
    });
    Ok(kinds
        .filter(|kind| kind.can(verbs::LIST) && kind.can(verbs::DELETE))
        .collect())
}
