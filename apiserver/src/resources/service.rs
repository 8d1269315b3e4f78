//! Service: a name and perhaps an address for a set of pods.

mod prepare;
mod rules;

use super::parts;
use crate::resource::{Allocation, Column, Kind, Names, Subresource};
use crate::validation::{Invalid, names};
use serde_json::{Value, json};

static NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "Service",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    namespaced: true,
    schema: "io.k8s.api.core.v1.Service",
    storage_group: "",
};

static COLUMNS: [Column; 7] = [
    parts::NAME,
    parts::column("Type", "schema:spec.type"),
    parts::column("Cluster-IP", "schema:spec.clusterIP"),
    parts::column("External-IP", "schema:spec.externalIPs"),
    parts::column("Port(s)", "schema:spec.ports"),
    parts::AGE,
    parts::wide("Selector", "schema:spec.selector"),
];

/// See [the module](self).
pub struct Service;

impl Kind for Service {
    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn subresources(&self) -> &'static [Subresource] {
        &[Subresource::Proxy, Subresource::Status]
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Value) {
        prepare::set_defaults(&mut object["spec"]);
        let ingress = object.pointer_mut("/status/loadBalancer/ingress");
        for point in ingress.and_then(Value::as_array_mut).into_iter().flatten() {
            if point["ipMode"].is_null() && point["ip"].is_string() {
                point["ipMode"] = "VIP".into();
            }
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({ "loadBalancer": {} });
        prepare::create(&mut object["spec"]);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        prepare::update(&mut new["spec"], &old["spec"]);
    }

    fn validate_create(&self, object: &Value) -> Vec<Invalid> {
        rules::service(object)
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<Invalid> {
        let mut invalid = rules::changes(&new["spec"], &old["spec"]);
        invalid.extend(rules::service(new));
        invalid
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<Invalid> {
        rules::load_balancer_status(&new["status"]["loadBalancer"])
    }

    // A label, which unlike upstream's older rule may begin with a digit.
    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_label(name)
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let spec = &object["spec"];
        if spec["clusterIP"] != "None" {
            return Vec::new();
        }
        let ignored = [
            ("loadBalancerIP", !spec["loadBalancerIP"].is_null()),
            ("externalIPs", parts::items(&spec["externalIPs"]).next().is_some()),
            ("SessionAffinity", spec["sessionAffinity"] == "ClientIP"),
        ];
        let set = ignored.iter().filter(|(_, set)| *set);
        set.map(|(field, _)| format!("spec.{field} is ignored for headless services"))
            .collect()
    }

    fn allocation(&self) -> Allocation {
        Allocation::Service
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let text = |field: &str| object["spec"][field].as_str().unwrap_or_default().to_owned();
        vec![("spec.clusterIP", text("clusterIP")), ("spec.type", text("type"))]
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn cells(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        vec![
            parts::name(object),
            parts::text(&spec["type"]),
            parts::text_or(&spec["clusterIPs"][0], "<none>"),
            external_ip(object),
            ports(&spec["ports"]),
            parts::age(object, now),
            parts::labels(&spec["selector"]),
        ]
    }
}

fn external_ip(object: &Value) -> Value {
    let spec = &object["spec"];
    let set = || parts::texts(&spec["externalIPs"]).map(str::to_owned);
    match spec["type"].as_str().unwrap_or_default() {
        "ClusterIP" | "NodePort" => parts::joined_or(&set().collect::<Vec<_>>(), "<none>"),
        "LoadBalancer" => {
            let ingress = parts::items(&object["status"]["loadBalancer"]["ingress"]);
            let mut given: Vec<String> = ingress
                .filter_map(|i| [&i["ip"], &i["hostname"]].into_iter().find_map(Value::as_str))
                .map(str::to_owned)
                .collect();
            given.sort();
            given.dedup();
            given.extend(set());
            parts::joined_or(&given, "<pending>")
        }
        "ExternalName" => parts::text(&spec["externalName"]),
        _ => "<unknown>".into(),
    }
}

fn ports(list: &Value) -> Value {
    let ports: Vec<String> = parts::items(list)
        .map(|port| {
            let protocol = port["protocol"].as_str().unwrap_or_default();
            match port["nodePort"].as_i64().unwrap_or_default() {
                0 => format!("{}/{protocol}", port["port"]),
                node_port => format!("{}:{node_port}/{protocol}", port["port"]),
            }
        })
        .collect();
    parts::joined_or(&ports, "<none>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(object: &Value) -> Vec<Value> {
        Service.cells(object, jiff::Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_table_tells_addresses_by_type() {
        let service = |spec: Value| json!({"metadata": {"name": "s"}, "spec": spec});
        let headless = service(json!({"type": "ClusterIP", "clusterIPs": ["None"]}));
        assert_eq!(row(&headless)[1..5], ["ClusterIP", "None", "<none>", "<none>"]);
        let named = service(json!({"type": "ExternalName", "externalName": "example.com"}));
        assert_eq!(row(&named)[2..4], ["<none>", "example.com"]);
        let mut balanced = service(json!({
            "type": "LoadBalancer", "clusterIPs": ["10.0.0.1"], "selector": {"a": "b"},
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}, {"port": 53, "protocol": "UDP"}],
        }));
        assert_eq!(row(&balanced)[3..5], ["<pending>", "80:30001/TCP,53/UDP"]);
        balanced["status"]["loadBalancer"]["ingress"] = json!([{"ip": "10.1.0.1"}, {"hostname": "b"}]);
        balanced["spec"]["externalIPs"] = json!(["10.2.0.1"]);
        assert_eq!(row(&balanced)[3], "10.1.0.1,b,10.2.0.1");
        assert_eq!(row(&balanced)[6], "a=b");
    }

    #[test]
    fn a_headless_service_is_warned_about_what_it_ignores() {
        let object = json!({"spec": {"clusterIP": "None", "sessionAffinity": "ClientIP"}});
        assert_eq!(
            Service.warnings(&object),
            ["spec.SessionAffinity is ignored for headless services"]
        );
    }
}
