//! Node: a machine that runs pods.

use super::{parts, quantities};
use crate::resource::{Column, Kind, Names, Subresource};
use crate::validation::{Invalid, names};
use serde_json::{Value, json};

/// The taint that a node carries until it is ready.
const NOT_READY: &str = "node.kubernetes.io/not-ready";

static NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    categories: &[],
    namespaced: false,
    schema: "io.k8s.api.core.v1.Node",
    storage_group: "",
};

static COLUMNS: [Column; 10] = [
    parts::NAME,
    parts::column("Status", "The status of the node"),
    parts::column("Roles", "The roles of the node"),
    parts::AGE,
    parts::column("Version", "schema:status.nodeInfo.kubeletVersion"),
    parts::wide("Internal-IP", "schema:status.addresses"),
    parts::wide("External-IP", "schema:status.addresses"),
    parts::wide("OS-Image", "schema:status.nodeInfo.osImage"),
    parts::wide("Kernel-Version", "schema:status.nodeInfo.kernelVersion"),
    parts::wide(
        "Container-Runtime",
        "schema:status.nodeInfo.containerRuntimeVersion",
    ),
];

/// See [the module](self).
pub struct Node;

impl Kind for Node {
    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn subresources(&self) -> &'static [Subresource] {
        &[Subresource::Proxy, Subresource::Status]
    }

    fn set_defaults(&self, object: &mut Value) {
        let status = &object["status"];
        if status["allocatable"].is_null() && !status["capacity"].is_null() {
            object["status"]["allocatable"] = status["capacity"].clone();
        }
    }

    // A node brings its status along when it is created.
    fn prepare_create(&self, object: &mut Value) {
        let taints = &object["spec"]["taints"];
        if parts::items(taints).any(|taint| taint["key"] == NOT_READY) {
            return;
        }
        let mut all: Vec<Value> = parts::items(taints).cloned().collect();
        all.push(json!({ "key": NOT_READY, "effect": "NoSchedule" }));
        object["spec"]["taints"] = all.into();
    }

    fn validate_create(&self, object: &Value) -> Vec<Invalid> {
        let mut invalid = taints(&object["spec"]["taints"]);
        invalid.extend(resources(object));
        invalid.extend(pod_cidrs(&object["spec"]["podCIDRs"]));
        invalid
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<Invalid> {
        let mut invalid = self.validate_create(new);
        invalid.extend(changes(new, old));
        invalid
    }

    fn validate_status(&self, new: &Value, old: &Value) -> Vec<Invalid> {
        changes(new, old)
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let deprecated = [
            (
                "externalID",
                "spec.externalID: this field is deprecated, and is unused by Kubernetes",
            ),
            (
                "configSource",
                "spec.configSource: the spec.configSource field is deprecated as of v1.22, and is unused by Kubernetes",
            ),
        ];
        let used = deprecated
            .iter()
            .filter(|(field, _)| !object["spec"][*field].is_null());
        used.map(|(_, text)| (*text).to_owned()).collect()
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let unschedulable = object["spec"]["unschedulable"] == true;
        vec![("spec.unschedulable", unschedulable.to_string())]
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn cells(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let info = &object["status"]["nodeInfo"];
        vec![
            parts::name(object),
            status(object).into(),
            roles(&object["metadata"]["labels"]),
            parts::age(object, now),
            parts::text(&info["kubeletVersion"]),
            address(object, "InternalIP"),
            address(object, "ExternalIP"),
            parts::text_or(&info["osImage"], "<unknown>"),
            parts::text_or(&info["kernelVersion"], "<unknown>"),
            parts::text_or(&info["containerRuntimeVersion"], "<unknown>"),
        ]
    }
}

fn status(object: &Value) -> String {
    let ready = parts::items(&object["status"]["conditions"]).find(|c| c["type"] == "Ready");
    let mut status = match ready {
        Some(condition) if condition["status"] == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if object["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    status
}

/// Roles are told by labels: `node-role.kubernetes.io/ROLE`, or the older `kubernetes.io/role=ROLE`.
fn roles(labels: &Value) -> Value {
    let mut roles: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role),
                None if key == "kubernetes.io/role" => value.as_str(),
                None => None,
            },
        )
        .filter(|role| !role.is_empty())
        .map(str::to_owned)
        .collect();
    roles.sort();
    roles.dedup();
    parts::joined_or(&roles, "<none>")
}

fn address(object: &Value, address_type: &str) -> Value {
    let found = parts::items(&object["status"]["addresses"]).find(|a| a["type"] == address_type);
    parts::text_or(found.map_or(&Value::Null, |a| &a["address"]), "<none>")
}

/// The path says `metadata` because upstream's does.
fn taints(taints: &Value) -> Vec<Invalid> {
    let mut invalid = Vec::new();
    let mut seen = Vec::new();
    for (i, taint) in parts::items(taints).enumerate() {
        let field = format!("metadata.taints[{i}]");
        let text = |name: &str| taint[name].as_str().unwrap_or_default();
        let (key, value, effect) = (text("key"), text("value"), text("effect"));
        invalid.extend(Invalid::each(
            format!("{field}.key"),
            key,
            names::qualified_name(key),
        ));
        let messages = names::label_value(value);
        if !messages.is_empty() {
            invalid.push(Invalid::malformed(
                format!("{field}.value"),
                value,
                messages.join(";"),
            ));
        }
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        if effect.is_empty() {
            invalid.push(Invalid::required(format!("{field}.effect"), ""));
        } else if !effects.contains(&effect) {
            invalid.push(Invalid::not_supported(
                format!("{field}.effect"),
                effect,
                &effects,
            ));
        }
        if seen.contains(&(key, effect)) {
            invalid.push(Invalid::duplicate(field, taint.clone()));
        }
        seen.push((key, effect));
    }
    invalid
}

fn resources(object: &Value) -> Vec<Invalid> {
    let mut invalid = Vec::new();
    for list in ["capacity", "allocatable"] {
        for (name, quantity) in quantities::entries(&object["status"][list]) {
            let field = format!("status.{list}.{name}");
            invalid.extend(quantities::not_negative(&field, &quantity));
            if counts_whole_things(name) && quantity.milli_value() % 1000 != 0 {
                invalid.push(Invalid::malformed(
                    field,
                    quantity.to_string(),
                    "must be an integer",
                ));
            }
        }
    }
    invalid
}

/// Resources that are counted rather than measured: pods, and what vendors add.
fn counts_whole_things(name: &str) -> bool {
    match name.split_once('/') {
        None => name == "pods",
        Some((domain, _)) => !domain.ends_with("kubernetes.io"),
    }
}

fn pod_cidrs(list: &Value) -> Vec<Invalid> {
    let cidrs: Vec<&str> = parts::texts(list).collect();
    let mut invalid = Vec::new();
    for (i, cidr) in cidrs.iter().enumerate() {
        invalid.extend(super::address::cidr(&format!("spec.podCIDRs[{i}]"), cidr));
    }
    let families = |v6: bool| cidrs.iter().filter(|c| c.contains(':') == v6).count();
    if families(false) > 1 || families(true) > 1 {
        let detail = "may specify no more than one CIDR for each IP family";
        invalid.push(Invalid::malformed("spec.podCIDRs", list.clone(), detail));
    }
    for (i, cidr) in cidrs.iter().enumerate() {
        if cidrs[..i].contains(cidr) {
            invalid.push(Invalid::duplicate(format!("spec.podCIDRs[{i}]"), *cidr));
        }
    }
    invalid
}

/// What an update of either the node or its status may not do.
fn changes(new: &Value, old: &Value) -> Vec<Invalid> {
    let mut invalid = resources(new);
    let addresses: Vec<&Value> = parts::items(&new["status"]["addresses"]).collect();
    for (i, address) in addresses.iter().enumerate() {
        if addresses[..i].contains(address) {
            invalid.push(Invalid::duplicate(
                format!("status.addresses[{i}]"),
                (*address).clone(),
            ));
        }
    }
    let fixed = |name: &str| {
        let (new, old) = (&new["spec"][name], &old["spec"][name]);
        !old.is_null() && new != old
    };
    if fixed("podCIDRs") {
        let detail = r#"node updates may not change podCIDR except from "" to valid"#;
        invalid.push(Invalid::forbidden("spec.podCIDRs", detail));
    }
    if fixed("providerID") {
        let detail = r#"node updates may not change providerID except from "" to valid"#;
        invalid.push(Invalid::forbidden("spec.providerID", detail));
    }
    invalid.extend(taints(&new["spec"]["taints"]));
    if new["spec"]["externalID"] != old["spec"]["externalID"] {
        invalid.push(Invalid::forbidden("spec.externalID", "may not be updated"));
    }
    invalid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_node_is_not_ready_yet() {
        let mut object = json!({"metadata": {"name": "n"}});
        Node.prepare_create(&mut object);
        assert_eq!(
            object["spec"]["taints"],
            json!([{"key": NOT_READY, "effect": "NoSchedule"}])
        );
        Node.prepare_create(&mut object);
        assert_eq!(object["spec"]["taints"].as_array().map(Vec::len), Some(1));
        assert_eq!(Node.validate_create(&object), []);
    }

    #[test]
    fn the_table_tells_condition_cordon_roles_and_addresses() {
        let object = json!({
            "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/b": "", "kubernetes.io/role": "a"}},
            "spec": {"unschedulable": true},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            },
        });
        let cells = Node.cells(&object, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(cells[1], "Ready,SchedulingDisabled");
        assert_eq!(cells[2], "a,b");
        assert_eq!(cells[5..8], ["10.0.0.1", "<none>", "<unknown>"]);
    }

    #[test]
    fn what_is_allocatable_is_the_capacity_unless_said_otherwise() {
        let mut object = json!({"status": {"capacity": {"memory": "1Mi"}}});
        Node.set_defaults(&mut object);
        assert_eq!(object["status"]["allocatable"], json!({"memory": "1Mi"}));
    }

    #[test]
    fn a_provider_id_is_set_once() {
        let node = |id: Value| json!({"spec": {"providerID": id}});
        assert_eq!(Node.validate_update(&node("a".into()), &node(Value::Null)), []);
        assert_eq!(
            Node.validate_update(&node("b".into()), &node("a".into())).len(),
            1
        );
    }

    #[test]
    fn taints_are_checked_and_unique() {
        let taint = json!({"key": "a", "effect": "NoExecute"});
        let object = json!({"spec": {"taints": [taint, taint, {"key": "b"}]}});
        let fields: Vec<String> = Node
            .validate_create(&object)
            .into_iter()
            .map(|i| i.field)
            .collect();
        assert_eq!(fields, ["metadata.taints[1]", "metadata.taints[2].effect"]);
    }
}
