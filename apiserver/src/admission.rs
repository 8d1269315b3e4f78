//! What upstream's built-in admission plugins do: namespaces must exist and live, pods get their service
//! account, claims their storage class.

use crate::authorization::escalation;
use crate::call::Call;
use crate::error::{Error, Target};
use crate::metadata;
use crate::stored;
use crate::validation::quantity::Quantity;
use serde_json::{Value, json};

/// Where a pod finds its service account's token.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How long that token is valid, in seconds; upstream's odd number marks tokens that nobody asked for.
const TOKEN_SECONDS: u32 = 3607;

/// The annotation that makes a StorageClass the default one, and its older name.
const DEFAULT_CLASS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

/// The annotation that named a claim's class before there was a field, and still wins.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Admit a new object.
pub async fn create(call: &Call, object: &mut Value) -> Result<(), Error> {
    if let Some(namespace) = call.namespace() {
        live_namespace(call, namespace, metadata::text(object, "name")).await?;
    }
    escalation::check(call, object).await?;
    match resource(call) {
        ("", "pods") => service_account(call, object).await,
        ("", "persistentvolumeclaims") => default_class(call, object).await,
        _ => Ok(()),
    }
}

/// Admit a changed object.
pub async fn update(call: &Call, new: &mut Value, old: &Value) -> Result<(), Error> {
    if !escalation::is_collection(new, old) {
        escalation::check(call, new).await?;
    }
    match resource(call) {
        ("", "persistentvolumeclaims") => expansion(call, new, old).await,
        _ => Ok(()),
    }
}

/// Admit a deletion.
pub fn delete(call: &Call, name: &str) -> Result<(), Error> {
    if resource(call) == ("", "namespaces") && IMMORTAL.contains(&name) {
        let why = "this namespace may not be deleted";
        return Err(Error::Forbidden(call.target(name), why.into()));
    }
    Ok(())
}

fn resource(call: &Call) -> (&'static str, &'static str) {
    let names = call.kind.names();
    (names.group, names.plural)
}

async fn live_namespace(call: &Call, namespace: &str, name: &str) -> Result<(), Error> {
    let entry = call.server.store.get(&stored::namespace_key(namespace)).await?;
    let Some(entry) = entry else {
        return Err(Error::NotFound(Target {
            resource: "namespaces".into(),
            name: namespace.into(),
            ..Target::default()
        }));
    };
    let object: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
    if object["status"]["phase"] == "Terminating" {
        return Err(Error::NamespaceTerminating(call.target(name), namespace.into()));
    }
    Ok(())
}

/// An object of the core group in the call's namespace (or of the cluster).
async fn lookup(call: &Call, key: &str) -> Result<Option<Value>, Error> {
    let entry = call.server.store.get(key).await?;
    Ok(entry.and_then(|entry| serde_json::from_slice(&entry.value).ok()))
}

async fn service_account(call: &Call, pod: &mut Value) -> Result<(), Error> {
    let mirror = &pod["metadata"]["annotations"]["kubernetes.io/config.mirror"];
    if !mirror.is_null() || !pod["spec"].is_object() {
        return Ok(());
    }
    let named = pod["spec"]["serviceAccountName"]
        .as_str()
        .filter(|name| !name.is_empty());
    let name = named.unwrap_or("default").to_string();
    let namespace = call.namespace().unwrap_or_default();
    let Some(account) = lookup(call, &format!("/core/serviceaccounts/{namespace}/{name}")).await? else {
        let why =
            format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
        return Err(Error::Forbidden(call.target(metadata::text(pod, "name")), why));
    };
    let spec = &mut pod["spec"];
    spec["serviceAccountName"] = name.as_str().into();
    spec["serviceAccount"] = name.into();
    let has_secrets = spec["imagePullSecrets"]
        .as_array()
        .is_some_and(|list| !list.is_empty());
    if !has_secrets
        && account["imagePullSecrets"]
            .as_array()
            .is_some_and(|list| !list.is_empty())
    {
        spec["imagePullSecrets"] = account["imagePullSecrets"].clone();
    }
    let mounts = [
        &spec["automountServiceAccountToken"],
        &account["automountServiceAccountToken"],
    ];
    if mounts.into_iter().find_map(Value::as_bool).unwrap_or(true) {
        mount_token(spec, &metadata::suffix());
    }
    Ok(())
}

/// Add the volume with the token and mount it in every container that has nothing there.
fn mount_token(spec: &mut Value, suffix: &str) {
    let volumes = spec["volumes"].as_array();
    let existing = volumes.into_iter().flatten().find_map(|volume| {
        let name = volume["name"].as_str()?;
        name.starts_with("kube-api-access-").then(|| name.to_string())
    });
    let name = existing
        .clone()
        .unwrap_or_else(|| format!("kube-api-access-{suffix}"));
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let mounts = container["volumeMounts"].as_array();
            if mounts
                .into_iter()
                .flatten()
                .any(|mount| mount["mountPath"] == TOKEN_PATH)
            {
                continue;
            }
            let mount = json!({"name": name, "readOnly": true, "mountPath": TOKEN_PATH});
            push(&mut container["volumeMounts"], mount);
            mounted = true;
        }
    }
    if !mounted || existing.is_some() {
        return;
    }
    let volume = json!({
        "name": name,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap": {
                    "name": "kube-root-ca.crt",
                    "items": [{"key": "ca.crt", "path": "ca.crt"}],
                }},
                {"downwardAPI": {"items": [{
                    "path": "namespace",
                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                }]}},
            ],
            "defaultMode": 420,
        },
    });
    push(&mut spec["volumes"], volume);
}

fn push(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(list) => list.push(item),
        None => *list = vec![item].into(),
    }
}

async fn default_class(call: &Call, claim: &mut Value) -> Result<(), Error> {
    let annotation = &claim["metadata"]["annotations"][CLASS_ANNOTATION];
    if !annotation.is_null() || claim["spec"]["storageClassName"].is_string() {
        return Ok(());
    }
    let page = call
        .server
        .store
        .list("/storage.k8s.io/storageclasses/", None, 0, None)
        .await?;
    let classes = page
        .entries
        .iter()
        .filter_map(|entry| serde_json::from_slice::<Value>(&entry.value).ok())
        .filter(|class| {
            let annotations = &class["metadata"]["annotations"];
            DEFAULT_CLASS.iter().any(|key| annotations[*key] == "true")
        });
    // Of several the newest, of equally old ones the first by name.
    let newest = classes.min_by_key(|class| {
        let created = metadata::text(class, "creationTimestamp").to_string();
        (
            std::cmp::Reverse(created),
            metadata::text(class, "name").to_string(),
        )
    });
    if let Some(class) = newest {
        claim["spec"]["storageClassName"] = class["metadata"]["name"].clone();
    }
    Ok(())
}

async fn expansion(call: &Call, new: &Value, old: &Value) -> Result<(), Error> {
    let size = |claim: &Value| {
        let storage = &claim["spec"]["resources"]["requests"]["storage"];
        Quantity::from_json(storage).map_or(0, |quantity| quantity.value())
    };
    if size(new) <= size(old) {
        return Ok(());
    }
    let forbidden = |why: &str| Err(Error::Forbidden(call.target(call.name()), why.into()));
    if old["status"]["phase"] != "Bound" {
        return forbidden("Only bound persistent volume claims can be expanded");
    }
    let annotated = new["metadata"]["annotations"][CLASS_ANNOTATION].as_str();
    let class = annotated.or_else(|| new["spec"]["storageClassName"].as_str());
    let class = class.unwrap_or_default();
    let class = lookup(call, &format!("/storage.k8s.io/storageclasses/{class}")).await?;
    if class.is_some_and(|class| class["allowVolumeExpansion"] == true) {
        return Ok(());
    }
    forbidden(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_mounted_once_in_every_container_without_one() {
        let mut spec = json!({
            "containers": [{"name": "a"}, {"name": "b", "volumeMounts": [{"mountPath": TOKEN_PATH}]}],
        });
        mount_token(&mut spec, "abcde");
        assert_eq!(
            spec["containers"][0]["volumeMounts"][0]["name"],
            "kube-api-access-abcde"
        );
        assert_eq!(
            spec["containers"][1]["volumeMounts"].as_array().map(Vec::len),
            Some(1)
        );
        let once = spec.clone();
        mount_token(&mut spec, "fghij");
        assert_eq!(spec, once);
    }
}
