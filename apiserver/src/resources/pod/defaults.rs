//! Upstream's defaults for pods: those of every pod spec, and those that only a pod gets, not a template.

use super::super::claim_spec;
use super::super::json::{default, default_text, integer, items_mut, set, text};
use super::image;
use crate::validation::quantity::Quantity;
use serde_json::{Value, json};

/// The lists of containers in a pod spec.
pub const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// The defaults of a pod spec, be it a pod's or a template's.
pub fn pod_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    default_text(spec, "dnsPolicy", "ClusterFirst");
    default_text(spec, "restartPolicy", "Always");
    default(spec, "securityContext", json!({}));
    default(spec, "terminationGracePeriodSeconds", 30);
    default_text(spec, "schedulerName", "default-scheduler");
    // The old name of the field is always answered along with the new one.
    if text(spec, "serviceAccountName").is_empty() && !text(spec, "serviceAccount").is_empty() {
        set(spec, "serviceAccountName", spec["serviceAccount"].clone());
    }
    if !text(spec, "serviceAccountName").is_empty() {
        set(spec, "serviceAccount", spec["serviceAccountName"].clone());
    }
    for volume in items_mut(spec, "volumes") {
        self::volume(volume);
    }
    for list in CONTAINERS {
        for container in items_mut(spec, list) {
            self::container(container);
        }
    }
    canonical_quantities(spec.get_mut("overhead"));
    resources(spec);
}

/// What only a pod gets: host ports on the host's network, requests from limits, service links.
pub fn pod_only(spec: &mut Value) {
    let host_network = spec["hostNetwork"] == true;
    for list in ["containers", "initContainers"] {
        for container in items_mut(spec, list) {
            if host_network {
                for port in items_mut(container, "ports") {
                    if integer(port, "hostPort") == 0 {
                        set(port, "hostPort", port["containerPort"].clone());
                    }
                }
            }
            requests_from_limits(container);
        }
    }
    default(spec, "enableServiceLinks", true);
}

fn requests_from_limits(container: &mut Value) {
    let Some(limits) = container["resources"]["limits"].as_object().cloned() else {
        return;
    };
    let resources = &mut container["resources"];
    default(resources, "requests", json!({}));
    for (name, limit) in limits {
        default(&mut resources["requests"], &name, limit);
    }
}

fn container(container: &mut Value) {
    let pull = image::default_pull_policy(text(container, "image"));
    default_text(container, "imagePullPolicy", pull);
    default_text(container, "terminationMessagePath", "/dev/termination-log");
    default_text(container, "terminationMessagePolicy", "File");
    default(container, "resources", json!({}));
    resources(container);
    for port in items_mut(container, "ports") {
        default_text(port, "protocol", "TCP");
    }
    for env in items_mut(container, "env") {
        if let Some(source) = env.get_mut("valueFrom") {
            field_reference(source);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if container[probe].is_object() {
            self::probe(&mut container[probe]);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(handler) = container.pointer_mut(&format!("/lifecycle/{hook}")) {
            http_get(handler);
        }
    }
}

/// Downward API references: the version of a field's path, the divisor of a resource.
fn field_reference(source: &mut Value) {
    if let Some(field) = source.get_mut("fieldRef") {
        default_text(field, "apiVersion", "v1");
    }
    if let Some(resource) = source.get_mut("resourceFieldRef") {
        default(resource, "divisor", "0");
        if let Ok(divisor) = Quantity::from_json(&resource["divisor"]) {
            set(resource, "divisor", divisor.to_string());
        }
    }
}

fn probe(probe: &mut Value) {
    for (field, seconds) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        if integer(probe, field) == 0 {
            set(probe, field, seconds);
        }
    }
    http_get(probe);
    if let Some(grpc) = probe.get_mut("grpc") {
        default(grpc, "service", "");
    }
}

fn http_get(handler: &mut Value) {
    if let Some(get) = handler.get_mut("httpGet") {
        default_text(get, "path", "/");
        default_text(get, "scheme", "HTTP");
    }
}

fn resources(holder: &mut Value) {
    let Some(resources) = holder.get_mut("resources") else {
        return;
    };
    canonical_quantities(resources.get_mut("limits"));
    canonical_quantities(resources.get_mut("requests"));
}

fn canonical_quantities(map: Option<&mut Value>) {
    for (_, value) in map.and_then(Value::as_object_mut).into_iter().flatten() {
        if let Ok(quantity) = Quantity::from_json(value) {
            *value = quantity.to_string().into();
        }
    }
}

/// The default permissions of files in a volume made from API objects: 0644.
const FILE_MODE: i32 = 0o644;

fn volume(volume: &mut Value) {
    let has_source = volume
        .as_object()
        .is_some_and(|v| v.keys().any(|key| key != "name"));
    if !has_source {
        set(volume, "emptyDir", json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source) {
            default(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(empty) = volume.get_mut("emptyDir")
        && let Ok(limit) = Quantity::from_json(&empty["sizeLimit"])
    {
        set(empty, "sizeLimit", limit.to_string());
    }
    if let Some(host_path) = volume.get_mut("hostPath") {
        default(host_path, "type", "");
    }
    if let Some(image) = volume.get_mut("image") {
        let pull = image::default_pull_policy(text(image, "reference"));
        default_text(image, "pullPolicy", pull);
    }
    if let Some(files) = volume.get_mut("downwardAPI") {
        items_mut(files, "items").iter_mut().for_each(field_reference);
    }
    if let Some(projected) = volume.get_mut("projected") {
        for source in items_mut(projected, "sources") {
            if let Some(token) = source.get_mut("serviceAccountToken") {
                default(token, "expirationSeconds", 3600);
            }
            if let Some(files) = source.get_mut("downwardAPI") {
                items_mut(files, "items").iter_mut().for_each(field_reference);
            }
        }
    }
    if let Some(spec) = volume.pointer_mut("/ephemeral/volumeClaimTemplate/spec") {
        claim_spec::set_defaults(spec);
    }
    remote_volume(volume);
}

/// Volumes of storage systems: nothing here mounts them, but manifests that name them read back as upstream's.
fn remote_volume(volume: &mut Value) {
    let defaults: [(&str, &[(&str, Value)]); 4] = [
        ("iscsi", &[("iscsiInterface", json!("default"))]),
        (
            "rbd",
            &[
                ("pool", json!("rbd")),
                ("user", json!("admin")),
                ("keyring", json!("/etc/ceph/keyring")),
            ],
        ),
        (
            "azureDisk",
            &[
                ("cachingMode", json!("ReadWrite")),
                ("kind", json!("Shared")),
                ("fsType", json!("ext4")),
                ("readOnly", json!(false)),
            ],
        ),
        (
            "scaleIO",
            &[
                ("storageMode", json!("ThinProvisioned")),
                ("fsType", json!("xfs")),
            ],
        ),
    ];
    for (source, fields) in defaults {
        if let Some(source) = volume.get_mut(source) {
            for (field, value) in fields {
                default(source, field, value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_gets_its_defaults_and_keeps_what_it_has() {
        let mut spec = json!({"containers": [{
            "name": "c", "image": "a:1", "terminationMessagePath": "/x",
            "ports": [{"containerPort": 1}, {"containerPort": 2, "protocol": "UDP"}],
            "env": [{"name": "A"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1000m"}}}],
            "resources": {"limits": {"cpu": "0.5", "memory": 1024}},
            "readinessProbe": {"httpGet": {"port": 80}, "periodSeconds": 3},
            "lifecycle": {"preStop": {"httpGet": {"port": 1, "path": "/bye"}}},
        }]});
        pod_spec(&mut spec);
        assert_eq!(
            spec["containers"][0],
            json!({
                "name": "c", "image": "a:1", "terminationMessagePath": "/x", "terminationMessagePolicy": "File",
                "imagePullPolicy": "IfNotPresent",
                "ports": [{"containerPort": 1, "protocol": "TCP"}, {"containerPort": 2, "protocol": "UDP"}],
                "env": [{"name": "A"}, {"name": "B", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}},
                        {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1"}}}],
                "resources": {"limits": {"cpu": "500m", "memory": "1024"}},
                "readinessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "periodSeconds": 3,
                                   "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3},
                "lifecycle": {"preStop": {"httpGet": {"port": 1, "path": "/bye", "scheme": "HTTP"}}},
            })
        );
    }

    #[test]
    fn a_template_has_fewer_defaults_than_a_pod() {
        let mut spec = json!({"hostNetwork": true, "containers": [{"name": "c", "image": "a", "ports": [{"containerPort": 80}],
                              "resources": {"limits": {"cpu": "1"}}}]});
        pod_spec(&mut spec);
        assert_eq!(spec["enableServiceLinks"], Value::Null);
        assert_eq!(spec["containers"][0]["ports"][0]["hostPort"], Value::Null);
        pod_only(&mut spec);
        assert_eq!(spec["enableServiceLinks"], true);
        assert_eq!(spec["containers"][0]["ports"][0]["hostPort"], 80);
        assert_eq!(
            spec["containers"][0]["resources"]["requests"],
            json!({"cpu": "1"})
        );
    }

    #[test]
    fn volumes_get_modes_and_a_missing_source_is_an_empty_directory() {
        let mut spec = json!({"volumes": [
            {"name": "n"}, {"name": "c", "configMap": {"name": "a"}}, {"name": "h", "hostPath": {"path": "/x"}},
            {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
        ]});
        pod_spec(&mut spec);
        assert_eq!(
            spec["volumes"],
            json!([
                {"name": "n", "emptyDir": {}}, {"name": "c", "configMap": {"name": "a", "defaultMode": 420}},
                {"name": "h", "hostPath": {"path": "/x", "type": ""}},
                {"name": "p", "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}]}},
            ])
        );
    }
}
