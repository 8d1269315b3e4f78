//! What becomes of a Service's spec before it is validated: defaults, the IP families, and on an update what
//! the old one was given and what no longer applies to the new type.

use crate::resources::parts;
use serde_json::{Value, json};
use std::net::IpAddr;

/// Upstream's defaulting of the spec.
pub fn set_defaults(spec: &mut Value) {
    default_text(spec, "sessionAffinity", "None");
    if spec["sessionAffinity"] == "None" {
        remove(spec, "sessionAffinityConfig");
    } else if spec["sessionAffinity"] == "ClientIP" {
        let timeout = &mut spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
        if timeout.is_null() {
            *timeout = 10_800.into();
        }
    }
    default_text(spec, "type", "ClusterIP");
    for port in spec
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        default_text(port, "protocol", "TCP");
        let target = &port["targetPort"];
        if target.is_null() || target == 0 || target == "" {
            port["targetPort"] = port["port"].clone();
        }
    }
    if !is_external_name(spec) && has_known_type(spec) && spec["internalTrafficPolicy"].is_null() {
        spec["internalTrafficPolicy"] = "Cluster".into();
    }
    if externally_accessible(spec) {
        default_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if is_load_balancer(spec) && spec["allocateLoadBalancerNodePorts"].is_null() {
        spec["allocateLoadBalancerNodePorts"] = true.into();
    }
}

/// A new Service: `clusterIPs` follows `clusterIP`, and the IP families are settled.
pub fn create(spec: &mut Value) {
    sync_cluster_ips(spec);
    settle_families(spec);
}

/// A changed Service keeps what it was given and did not mention, and loses what its new type has no use for.
pub fn update(new: &mut Value, old: &Value) {
    if has_cluster_ip(old) && has_cluster_ip(new) {
        keep(new, old, "clusterIP");
        if new["clusterIP"] == old["clusterIP"] {
            keep(new, old, "clusterIPs");
        }
        keep(new, old, "ipFamilies");
        keep(new, old, "ipFamilyPolicy");
    }
    if has_node_ports(old) && has_node_ports(new) {
        keep_node_ports(new, old);
    }
    if needs_health_check(old) && needs_health_check(new) {
        keep(new, old, "healthCheckNodePort");
    }
    if new["clusterIP"] != old["clusterIP"] && new["clusterIPs"] == old["clusterIPs"] {
        // Only the one field was changed; the other follows.
        remove(new, "clusterIPs");
    }
    drop_what_the_type_lost(new, old);
    create(new);
}

/// Whether the type is one of the three that live at an address in the cluster.
pub fn has_cluster_ip(spec: &Value) -> bool {
    has_known_type(spec) && !is_external_name(spec)
}

/// Whether traffic from outside reaches it.
pub fn externally_accessible(spec: &Value) -> bool {
    let has_external_ips = parts::items(&spec["externalIPs"]).next().is_some();
    match spec["type"].as_str() {
        Some("LoadBalancer" | "NodePort") => true,
        Some("ClusterIP") => has_external_ips,
        _ => false,
    }
}

/// Whether a load balancer must be told which nodes have endpoints.
pub fn needs_health_check(spec: &Value) -> bool {
    is_load_balancer(spec) && spec["externalTrafficPolicy"] == "Local"
}

/// Whether it has no address of its own by its own wish.
pub fn is_headless(spec: &Value) -> bool {
    spec["clusterIPs"] == json!(["None"])
}

/// Whether it is of the type LoadBalancer.
pub fn is_load_balancer(spec: &Value) -> bool {
    spec["type"] == "LoadBalancer"
}

/// Whether it is of the type ExternalName.
pub fn is_external_name(spec: &Value) -> bool {
    spec["type"] == "ExternalName"
}

fn has_known_type(spec: &Value) -> bool {
    matches!(
        spec["type"].as_str(),
        Some("ClusterIP" | "NodePort" | "LoadBalancer" | "ExternalName")
    )
}

fn has_node_ports(spec: &Value) -> bool {
    spec["type"] == "NodePort" || (is_load_balancer(spec) && spec["allocateLoadBalancerNodePorts"] != false)
}

fn default_text(object: &mut Value, field: &str, default: &str) {
    if object[field].as_str().unwrap_or_default().is_empty() {
        object[field] = default.into();
    }
}

fn remove(object: &mut Value, field: &str) {
    if let Some(object) = object.as_object_mut() {
        object.remove(field);
    }
}

/// Unset, or set to nothing.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        _ => false,
    }
}

fn keep(new: &mut Value, old: &Value, field: &str) {
    if is_unset(&new[field]) && !is_unset(&old[field]) {
        new[field] = old[field].clone();
    }
}

/// A port keeps its node port as long as its protocol and number stay and nobody else asks for it.
fn keep_node_ports(new: &mut Value, old: &Value) {
    let mut taken: Vec<i64> = parts::items(&new["ports"])
        .map(node_port)
        .filter(|p| *p != 0)
        .collect();
    for port in new
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if node_port(port) != 0 {
            continue;
        }
        let same = |before: &&Value| before["port"] == port["port"] && before["protocol"] == port["protocol"];
        let before = parts::items(&old["ports"]).find(same).map_or(0, node_port);
        if before != 0 && !taken.contains(&before) {
            port["nodePort"] = before.into();
            taken.push(before);
        }
    }
}

fn node_port(port: &Value) -> i64 {
    port["nodePort"].as_i64().unwrap_or_default()
}

/// A field that only the old type needs goes, unless the update changes it: then validation speaks.
fn drop_what_the_type_lost(new: &mut Value, old: &Value) {
    let drop = |new: &mut Value, fields: &[&str]| {
        if fields.iter().all(|field| new[*field] == old[*field]) {
            fields.iter().for_each(|field| remove(new, field));
        }
    };
    if has_cluster_ip(old) && !has_cluster_ip(new) {
        drop(new, &["clusterIP", "clusterIPs"]);
        drop(new, &["ipFamilies"]);
        drop(new, &["ipFamilyPolicy"]);
    }
    let node_ports = |spec: &Value| -> Vec<i64> { parts::items(&spec["ports"]).map(node_port).collect() };
    if has_node_ports(old) && !has_node_ports(new) && node_ports(new) == node_ports(old) {
        for port in new
            .get_mut("ports")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            remove(port, "nodePort");
        }
    }
    if needs_health_check(old) && !needs_health_check(new) {
        drop(new, &["healthCheckNodePort"]);
    }
    if externally_accessible(old) && !externally_accessible(new) {
        drop(new, &["externalTrafficPolicy"]);
    }
    if is_load_balancer(old) && !is_load_balancer(new) {
        drop(new, &["allocateLoadBalancerNodePorts"]);
        drop(new, &["loadBalancerClass"]);
    }
}

fn sync_cluster_ips(spec: &mut Value) {
    if !is_unset(&spec["clusterIP"]) && is_unset(&spec["clusterIPs"]) {
        spec["clusterIPs"] = json!([spec["clusterIP"]]);
    }
}

/// Which IP families the Service has, and whether it must have both. The cluster itself has IPv4 only, so
/// every Service ends with that unless its addresses or its own words say otherwise, which validation refuses;
/// a headless Service without a selector is the exception: its endpoints come from elsewhere, of any family.
fn settle_families(spec: &mut Value) {
    if !has_cluster_ip(spec) {
        return;
    }
    let foreign = is_headless(spec) && parts::size(&spec["selector"]) == 0;
    let mut families: Vec<String> = parts::texts(&spec["ipFamilies"]).map(str::to_owned).collect();
    for address in parts::texts(&spec["clusterIPs"]).skip(families.len()) {
        match address.parse() {
            Ok(IpAddr::V4(_)) => families.push("IPv4".to_owned()),
            Ok(IpAddr::V6(_)) => families.push("IPv6".to_owned()),
            Err(_) => {}
        }
    }
    if is_unset(&spec["ipFamilyPolicy"]) {
        let policy = if foreign || families.len() == 2 {
            "RequireDualStack"
        } else {
            "SingleStack"
        };
        spec["ipFamilyPolicy"] = policy.into();
    }
    if families.is_empty() {
        families.push("IPv4".to_owned());
    }
    if foreign && families.len() == 1 && spec["ipFamilyPolicy"] != "SingleStack" {
        let other = if families[0] == "IPv4" { "IPv6" } else { "IPv4" };
        families.push(other.to_owned());
    }
    spec["ipFamilies"] = families.into();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created(mut spec: Value) -> Value {
        set_defaults(&mut spec);
        create(&mut spec);
        spec
    }

    #[test]
    fn a_headless_service_without_selector_has_both_families() {
        let spec = created(json!({"clusterIP": "None"}));
        assert_eq!(spec["clusterIPs"], json!(["None"]));
        assert_eq!(spec["ipFamilies"], json!(["IPv4", "IPv6"]));
        assert_eq!(spec["ipFamilyPolicy"], "RequireDualStack");
        let spec = created(json!({"clusterIP": "None", "selector": {"a": "b"}}));
        assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
        assert_eq!(spec["ipFamilyPolicy"], "SingleStack");
    }

    #[test]
    fn a_target_port_is_the_port_unless_said_otherwise() {
        let ports =
            json!([{"port": 80}, {"port": 81, "targetPort": "web"}, {"port": 82, "targetPort": 8082}]);
        let spec = created(json!({ "ports": ports }));
        let targets: Vec<&Value> = parts::items(&spec["ports"]).map(|p| &p["targetPort"]).collect();
        assert_eq!(targets, [&json!(80), &json!("web"), &json!(8082)]);
    }

    #[test]
    fn policies_go_with_the_type() {
        let policies = |kind: &str| {
            let spec = created(json!({ "type": kind }));
            (
                spec["internalTrafficPolicy"].clone(),
                spec["externalTrafficPolicy"].clone(),
            )
        };
        assert_eq!(policies("ClusterIP"), (json!("Cluster"), Value::Null));
        assert_eq!(policies("NodePort"), (json!("Cluster"), json!("Cluster")));
        assert_eq!(policies("ExternalName"), (Value::Null, Value::Null));
        assert_eq!(
            created(json!({"type": "LoadBalancer"}))["allocateLoadBalancerNodePorts"],
            true
        );
    }

    #[test]
    fn an_update_keeps_the_addresses_and_node_ports_it_does_not_mention() {
        let old = json!({
            "type": "NodePort", "clusterIP": "10.0.0.9", "clusterIPs": ["10.0.0.9"],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}],
        });
        let mut new = json!({"type": "NodePort", "ports": [
            {"name": "a", "port": 80, "protocol": "TCP"}, {"name": "b", "port": 81, "protocol": "TCP"}]});
        set_defaults(&mut new);
        update(&mut new, &old);
        assert_eq!(new["clusterIP"], "10.0.0.9");
        assert_eq!(new["clusterIPs"], json!(["10.0.0.9"]));
        assert_eq!(new["ports"][0]["nodePort"], 30080);
        assert_eq!(new["ports"][1]["nodePort"], Value::Null);
    }

    #[test]
    fn a_change_of_type_drops_what_the_new_one_has_no_use_for() {
        let old = created(json!({
            "type": "NodePort", "clusterIP": "10.0.0.9", "ports": [{"port": 80, "nodePort": 30080}]}));
        let mut new = old.clone();
        new["type"] = "ClusterIP".into();
        update(&mut new, &old);
        assert_eq!(new["ports"][0].get("nodePort"), None);
        assert_eq!(new.get("externalTrafficPolicy"), None);
        assert_eq!(new["clusterIP"], "10.0.0.9");
        let mut new = old.clone();
        new["type"] = "ExternalName".into();
        update(&mut new, &old);
        for gone in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            assert_eq!(new.get(gone), None, "{gone}");
        }
    }
}
