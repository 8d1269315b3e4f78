//! ServiceAccount: who a pod is towards the API.

use super::parts;
use crate::resource::{Column, Kind, Names, Subresource};
use serde_json::{Value, json};

static NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    categories: &[],
    namespaced: true,
    schema: "io.k8s.api.core.v1.ServiceAccount",
    storage_group: "",
};

static COLUMNS: [Column; 2] = [parts::NAME, parts::AGE];

/// See [the module](self).
pub struct ServiceAccount;

impl Kind for ServiceAccount {
    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn subresources(&self) -> &'static [Subresource] {
        &[Subresource::Token]
    }

    fn prepare_create(&self, object: &mut Value) {
        // A secret that an account may use is known by its name alone.
        for secret in object
            .get_mut("secrets")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            *secret = match secret["name"].as_str().unwrap_or_default() {
                "" => json!({}),
                name => json!({ "name": name }),
            };
        }
    }

    fn prepare_update(&self, new: &mut Value, _old: &Value) {
        self.prepare_create(new);
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn cells(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![parts::name(object), parts::age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_reference_keeps_only_its_name() {
        let mut object = json!({"secrets": [{"name": "a", "namespace": "b", "kind": "Secret"}]});
        ServiceAccount.prepare_create(&mut object);
        assert_eq!(object, json!({"secrets": [{"name": "a"}]}));
    }

    #[test]
    fn an_account_without_secrets_is_left_alone() {
        let mut object = json!({"metadata": {"name": "a"}});
        ServiceAccount.prepare_create(&mut object);
        assert_eq!(object, json!({"metadata": {"name": "a"}}));
    }
}
