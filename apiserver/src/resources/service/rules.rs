//! Validation of Services. Fields that defaulting always fills are not checked for being there.

use super::prepare::{
    externally_accessible, has_cluster_ip, is_external_name, is_headless, is_load_balancer,
    needs_health_check,
};
use crate::resources::endpoints::{port_number, protocol};
use crate::resources::{address, parts};
use crate::validation::{Invalid, Path, metadata, names, numbers};
use serde_json::{Value, json};
use std::net::IpAddr;

/// The most seconds that a client may stick to an endpoint: a day.
const MAX_AFFINITY_SECONDS: i64 = 86_400;

/// The annotation that older manifests use for `loadBalancerSourceRanges`.
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// Everything that must hold for a Service by itself.
pub fn service(object: &Value) -> Vec<Invalid> {
    let spec = &object["spec"];
    let ports: Vec<&Value> = parts::items(&spec["ports"]).collect();
    let mut invalid = Vec::new();
    if ports.is_empty() && !is_headless(spec) && !is_external_name(spec) {
        invalid.push(Invalid::required("spec.ports", ""));
    }
    invalid.extend(addresses_of_type(spec));
    invalid.extend(check_ports(&ports));
    invalid.extend(metadata::labels(
        &spec["selector"],
        &Path::new("spec").child("selector"),
    ));
    invalid.extend(session_affinity(spec));
    if !is_external_name(spec) {
        invalid.extend(cluster_ips(spec));
    }
    for (i, text) in parts::texts(&spec["externalIPs"]).enumerate() {
        let field = format!("spec.externalIPs[{i}]");
        match address::parse(&field, text) {
            Err(error) => invalid.push(error),
            Ok(ip) => invalid.extend(address::special(&field, ip)),
        }
    }
    let types = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    invalid.extend(one_of("spec.type", &spec["type"], &types));
    if spec["type"] == "ClusterIP" {
        for (i, _) in ports.iter().enumerate().filter(|(_, port)| node_port(port) != 0) {
            let detail = "may not be used when `type` is 'ClusterIP'";
            invalid.push(Invalid::forbidden(format!("spec.ports[{i}].nodePort"), detail));
        }
    }
    invalid.extend(duplicate_ports(&ports));
    invalid.extend(source_ranges(object));
    if !spec["allocateLoadBalancerNodePorts"].is_null() && !is_load_balancer(spec) {
        let detail = "may only be used when `type` is 'LoadBalancer'";
        invalid.push(Invalid::forbidden("spec.allocateLoadBalancerNodePorts", detail));
    }
    invalid.extend(load_balancer_class(spec));
    invalid.extend(traffic_policies(spec));
    if has_cluster_ip(spec) {
        invalid.extend(families_of_the_cluster(spec));
    }
    invalid
}

/// What an update may not change.
pub fn changes(new: &Value, old: &Value) -> Vec<Invalid> {
    let mut invalid = Vec::new();
    if !is_external_name(new) && !is_external_name(old) {
        if !(is_headless(new) && is_headless(old)) {
            invalid.extend(changed_list(new, old, "clusterIPs", "clusterIP"));
        }
        if !is_headless(new) && !is_headless(old) {
            invalid.extend(changed_list(new, old, "ipFamilies", "ipFamily"));
        }
    }
    if is_load_balancer(new) && is_load_balancer(old) && new["loadBalancerClass"] != old["loadBalancerClass"]
    {
        let class = new["loadBalancerClass"].clone();
        invalid.push(Invalid::malformed(
            "spec.loadBalancerClass",
            class,
            "may not change once set",
        ));
    }
    invalid.extend(load_balancer_class(new));
    let port = "healthCheckNodePort";
    if needs_health_check(new) && needs_health_check(old) && new[port] != old[port] {
        invalid.push(Invalid::forbidden(format!("spec.{port}"), "field is immutable"));
    }
    invalid
}

/// What a load balancer may be said to have given.
pub fn load_balancer_status(status: &Value) -> Vec<Invalid> {
    let mut invalid = Vec::new();
    for (i, ingress) in parts::items(&status["ingress"]).enumerate() {
        let field = |name: &str| format!("status.loadBalancer.ingress[{i}].{name}");
        let text = |name: &str| ingress[name].as_str().unwrap_or_default();
        let (ip, hostname) = (text("ip"), text("hostname"));
        if !ip.is_empty() {
            invalid.extend(address::parse(&field("ip"), ip).err());
        }
        let mode = &ingress["ipMode"];
        if !mode.is_null() && ip.is_empty() {
            let detail = "may not be specified when `ip` is not set";
            invalid.push(Invalid::forbidden(field("ipMode"), detail));
        } else if !mode.is_null() {
            invalid.extend(one_of(&field("ipMode"), mode, &["Proxy", "VIP"]));
        }
        if !hostname.is_empty() {
            invalid.extend(Invalid::each(
                field("hostname"),
                hostname,
                names::dns1123_subdomain(hostname),
            ));
            if hostname.parse::<IpAddr>().is_ok() {
                let detail = "must be a DNS name, not an IP address";
                invalid.push(Invalid::malformed(field("hostname"), hostname, detail));
            }
        }
    }
    invalid
}

fn one_of(field: &str, value: &Value, choices: &[&str]) -> Option<Invalid> {
    let known = choices.iter().any(|choice| value == choice);
    (!known).then(|| Invalid::not_supported(field, value.clone(), choices))
}

fn node_port(port: &Value) -> i64 {
    port["nodePort"].as_i64().unwrap_or_default()
}

fn addresses_of_type(spec: &Value) -> Vec<Invalid> {
    match spec["type"].as_str().unwrap_or_default() {
        kind @ ("LoadBalancer" | "NodePort") if is_headless(spec) => {
            let detail = format!("may not be set to 'None' for {kind} services");
            vec![Invalid::malformed("spec.clusterIPs[0]", "None", detail)]
        }
        "ExternalName" => {
            let set = ["clusterIPs", "ipFamilies", "ipFamilyPolicy"]
                .iter()
                .filter(|field| !spec[**field].is_null());
            let detail = "may not be set for ExternalName services";
            let mut invalid: Vec<Invalid> = set
                .map(|field| Invalid::forbidden(format!("spec.{field}"), detail))
                .collect();
            // A trailing dot says that the name is fully qualified.
            let name = spec["externalName"].as_str().unwrap_or_default();
            let name = name.strip_suffix('.').unwrap_or(name);
            if name.is_empty() {
                invalid.push(Invalid::required("spec.externalName", ""));
            } else {
                invalid.extend(Invalid::each(
                    "spec.externalName",
                    name,
                    names::dns1123_subdomain(name),
                ));
            }
            invalid
        }
        _ => Vec::new(),
    }
}

fn check_ports(ports: &[&Value]) -> Vec<Invalid> {
    let mut invalid = Vec::new();
    let mut seen = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let path = Path::new("spec").child("ports").index(i);
        let text = |name: &str| port[name].as_str().unwrap_or_default();
        let name = text("name");
        if !name.is_empty() {
            invalid.extend(Invalid::each(
                path.child("name"),
                name,
                names::dns1123_label(name),
            ));
            if seen.contains(&name) {
                invalid.push(Invalid::duplicate(path.child("name"), name));
            }
            seen.push(name);
        } else if ports.len() > 1 {
            invalid.push(Invalid::required(path.child("name"), ""));
        }
        invalid.extend(port_number(&path.child("port").to_string(), &port["port"]));
        invalid.extend(protocol(&path.child("protocol").to_string(), text("protocol")));
        invalid.extend(numbers::port_number_or_name(
            &port["targetPort"],
            &path.child("targetPort"),
        ));
        if let Some(app) = port["appProtocol"].as_str() {
            invalid.extend(Invalid::each(
                path.child("appProtocol"),
                app,
                names::qualified_name(app),
            ));
        }
    }
    invalid
}

/// No two ports may share protocol and node port, nor protocol and port.
fn duplicate_ports(ports: &[&Value]) -> Vec<Invalid> {
    let mut invalid = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let taken = |name: &str| {
            let same = |p: &&Value| p["protocol"] == port["protocol"] && p[name] == port[name];
            ports[..i].iter().any(same)
        };
        if node_port(port) != 0 && taken("nodePort") {
            invalid.push(Invalid::duplicate(
                format!("spec.ports[{i}].nodePort"),
                node_port(port),
            ));
        }
    }
    for (i, port) in ports.iter().enumerate() {
        let same = |p: &&Value| p["protocol"] == port["protocol"] && p["port"] == port["port"];
        if ports[..i].iter().any(same) {
            // Upstream shows its internal type with only these two fields set.
            let shown = json!({
                "Name": "", "Protocol": port["protocol"], "AppProtocol": null, "Port": port["port"],
                "TargetPort": 0, "NodePort": 0,
            });
            invalid.push(Invalid::duplicate(format!("spec.ports[{i}]"), shown));
        }
    }
    invalid
}

fn session_affinity(spec: &Value) -> Vec<Invalid> {
    let field = "spec.sessionAffinity";
    let timeout = &spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
    let mut invalid: Vec<Invalid> = one_of(field, &spec["sessionAffinity"], &["ClientIP", "None"])
        .into_iter()
        .collect();
    let in_range = |n: i64| n > 0 && n <= MAX_AFFINITY_SECONDS;
    if spec["sessionAffinity"] == "ClientIP" && !timeout.as_i64().is_some_and(in_range) {
        let detail = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
        let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        invalid.push(Invalid::malformed(field, timeout.clone(), detail));
    }
    invalid
}

fn cluster_ips(spec: &Value) -> Vec<Invalid> {
    let field = "spec.clusterIPs";
    let ips: Vec<&str> = parts::texts(&spec["clusterIPs"]).collect();
    let all = || spec["clusterIPs"].clone();
    let mut invalid = Vec::new();
    match spec["clusterIP"].as_str().unwrap_or_default() {
        "" if ips.is_empty() => {}
        "" => {
            let detail = "must be empty when `clusterIP` is not specified";
            invalid.push(Invalid::malformed(field, all(), detail));
        }
        _ if ips.is_empty() => invalid.push(Invalid::required(field, "")),
        first if first != ips[0] => {
            invalid.push(Invalid::malformed(
                field,
                all(),
                "first value must match `clusterIP`",
            ));
        }
        _ => {}
    }
    let families: Vec<&str> = parts::texts(&spec["ipFamilies"]).collect();
    for (i, family) in families.iter().enumerate() {
        let field = format!("spec.ipFamilies[{i}]");
        invalid.extend(one_of(&field, &(*family).into(), &["IPv4", "IPv6"]));
        if families[..i].contains(family) {
            invalid.push(Invalid::duplicate(field, *family));
        }
    }
    if !spec["ipFamilyPolicy"].is_null() {
        let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
        invalid.extend(one_of("spec.ipFamilyPolicy", &spec["ipFamilyPolicy"], &policies));
    }
    let mut parsed = Vec::new();
    for (i, ip) in ips.iter().enumerate() {
        if i == 0 && *ip == "None" {
            if ips.len() > 1 {
                let detail = "'None' must be the first and only value";
                invalid.push(Invalid::malformed(field, all(), detail));
            }
            continue;
        }
        match address::parse(&format!("{field}[{i}]"), ip) {
            Ok(ip) => parsed.push(ip),
            Err(error) => invalid.push(error),
        }
    }
    if ips.len() > 2 {
        invalid.push(Invalid::malformed(field, all(), "may only hold up to 2 values"));
    }
    // Of addresses that are none, nothing more can be said.
    if parsed.len() == ips.len() {
        invalid.extend(address_families(&parsed, &families, spec));
    }
    invalid
}

fn address_families(ips: &[IpAddr], families: &[&str], spec: &Value) -> Vec<Invalid> {
    let field = "spec.clusterIPs";
    let mut invalid = Vec::new();
    let v4 = ips.iter().filter(|ip| ip.is_ipv4()).count();
    if ips.len() > 1 && (v4 == 0 || v4 == ips.len()) {
        let detail = "may specify no more than one IP for each IP family";
        invalid.push(Invalid::malformed(field, spec["clusterIPs"].clone(), detail));
    }
    for (i, (ip, family)) in ips.iter().zip(families).enumerate() {
        if ip.is_ipv4() != (*family == "IPv4") {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            invalid.push(Invalid::malformed(
                format!("{field}[{i}]"),
                ip.to_string(),
                detail,
            ));
        }
    }
    invalid
}

/// This cluster has IPv4 addresses only; a headless Service without a selector allocates none.
fn families_of_the_cluster(spec: &Value) -> Vec<Invalid> {
    if is_headless(spec) && parts::size(&spec["selector"]) == 0 {
        return Vec::new();
    }
    let mut invalid = Vec::new();
    if spec["ipFamilyPolicy"] == "RequireDualStack" {
        let detail = "this cluster is not configured for dual-stack services";
        invalid.push(Invalid::malformed(
            "spec.ipFamilyPolicy",
            "RequireDualStack",
            detail,
        ));
    }
    for (i, _) in parts::texts(&spec["ipFamilies"])
        .enumerate()
        .filter(|(_, f)| *f == "IPv6")
    {
        let detail = "not configured on this cluster";
        invalid.push(Invalid::malformed(
            format!("spec.ipFamilies[{i}]"),
            "IPv6",
            detail,
        ));
    }
    invalid
}

fn source_ranges(object: &Value) -> Vec<Invalid> {
    let spec = &object["spec"];
    let annotation = object["metadata"]["annotations"][SOURCE_RANGES].as_str();
    let ranges: Vec<&str> = parts::texts(&spec["loadBalancerSourceRanges"]).collect();
    let (field, ranges): (String, Vec<(String, &str)>) = if ranges.is_empty() {
        let Some(annotation) = annotation else {
            return Vec::new();
        };
        let field = format!("metadata.annotations[{SOURCE_RANGES}]");
        let ranges = annotation.split(',').filter(|_| !annotation.trim().is_empty());
        (
            field.clone(),
            ranges.map(|range| (field.clone(), range)).collect(),
        )
    } else {
        // The capital letter is upstream's.
        let field = "spec.LoadBalancerSourceRanges".to_owned();
        let indexed = ranges.into_iter().enumerate();
        let ranges = indexed
            .map(|(i, range)| (format!("{field}[{i}]"), range))
            .collect();
        (field, ranges)
    };
    let mut invalid = Vec::new();
    if !is_load_balancer(spec) {
        let detail = "may only be used when `type` is 'LoadBalancer'";
        invalid.push(Invalid::forbidden(field, detail));
    }
    invalid.extend(
        ranges
            .iter()
            .filter_map(|(field, range)| address::cidr(field, range.trim())),
    );
    invalid
}

fn load_balancer_class(spec: &Value) -> Vec<Invalid> {
    let field = "spec.loadBalancerClass";
    match spec["loadBalancerClass"].as_str() {
        None => Vec::new(),
        Some(class) if is_load_balancer(spec) => Invalid::each(field, class, names::qualified_name(class)),
        Some(_) => vec![Invalid::forbidden(
            field,
            "may only be used when `type` is 'LoadBalancer'",
        )],
    }
}

fn traffic_policies(spec: &Value) -> Vec<Invalid> {
    let mut invalid = Vec::new();
    let external = &spec["externalTrafficPolicy"];
    let field = "spec.externalTrafficPolicy";
    if externally_accessible(spec) {
        invalid.extend(one_of(field, external, &["Cluster", "Local"]));
    } else if !external.is_null() {
        let detail = "may only be set for externally-accessible services";
        invalid.push(Invalid::malformed(field, external.clone(), detail));
    }
    let health = spec["healthCheckNodePort"].as_i64().unwrap_or_default();
    let field = "spec.healthCheckNodePort";
    if health != 0 && needs_health_check(spec) {
        invalid.extend(port_number(field, &health.into()));
    } else if health != 0 {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        invalid.push(Invalid::malformed(field, health, detail));
    }
    let optional = [
        ("internalTrafficPolicy", &["Cluster", "Local"][..]),
        (
            "trafficDistribution",
            &["PreferClose", "PreferSameNode", "PreferSameZone"][..],
        ),
    ];
    for (name, choices) in optional {
        if !spec[name].is_null() {
            invalid.extend(one_of(&format!("spec.{name}"), &spec[name], choices));
        }
    }
    invalid
}

/// The first of a Service's addresses or families stays; a second may come, and may go with the policy
/// `SingleStack`.
fn changed_list(new: &Value, old: &Value, list: &str, one: &str) -> Vec<Invalid> {
    let (before, after): (Vec<&str>, Vec<&str>) = (
        parts::texts(&old[list]).collect(),
        parts::texts(&new[list]).collect(),
    );
    let field = |i: usize| format!("spec.{list}[{i}]");
    let all = || new.get(list).cloned().unwrap_or_default();
    let mut invalid = Vec::new();
    if before.len() == after.len() {
        for i in (0..before.len()).filter(|i| before[*i] != after[*i]) {
            // Upstream names the first family whichever changed.
            let i = if list == "clusterIPs" { i } else { 0 };
            invalid.push(Invalid::malformed(field(i), all(), "may not change once set"));
        }
        return invalid;
    }
    if after.is_empty() {
        invalid.push(Invalid::malformed(
            field(0),
            all(),
            format!("primary {one} can not be unset"),
        ));
    }
    if let (Some(first_before), Some(first_after)) = (before.first(), after.first())
        && first_before != first_after
    {
        invalid.push(Invalid::malformed(field(0), all(), "may not change once set"));
    }
    if before.len() > after.len() && after.len() == 1 && new["ipFamilyPolicy"] != "SingleStack" {
        let detail = format!("must be set to 'SingleStack' when releasing the secondary {one}");
        invalid.push(Invalid::malformed(
            "spec.ipFamilyPolicy",
            new["ipFamilyPolicy"].clone(),
            detail,
        ));
    }
    invalid
}

#[cfg(test)]
mod tests {
    use super::super::{Service, prepare};
    use super::*;
    use crate::resource::Kind;

    fn created(spec: &Value) -> Value {
        let mut object = json!({"metadata": {"name": "s"}, "spec": spec});
        Service.set_defaults(&mut object);
        Service.prepare_create(&mut object);
        object
    }

    fn fields(spec: &Value) -> Vec<String> {
        service(&created(spec)).into_iter().map(|i| i.field).collect()
    }

    #[test]
    fn good_services_pass() {
        for spec in [
            json!({"clusterIP": "None"}),
            json!({"clusterIP": "None", "selector": {"a": "b"}, "ports": [{"port": 1}]}),
            json!({"ports": [{"port": 80}], "clusterIP": "10.0.0.1", "externalIPs": ["1.2.3.4"]}),
            json!({"ports": [{"port": 80}], "sessionAffinity": "ClientIP", "ipFamilyPolicy": "PreferDualStack"}),
            json!({"ports": [{"name": "a", "port": 53}, {"name": "b", "port": 53, "protocol": "UDP"}]}),
            json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}),
            json!({"type": "LoadBalancer", "ports": [{"port": 80}], "loadBalancerSourceRanges": [" 10.0.0.0/8"]}),
            json!({"type": "ExternalName", "externalName": "example.com."}),
        ] {
            assert_eq!(fields(&spec), [""; 0], "{spec}");
        }
    }

    #[test]
    fn bad_services_are_told_where() {
        let table = [
            (json!({}), vec!["spec.ports"]),
            (
                json!({"type": "NodePort", "clusterIP": "None"}),
                vec!["spec.clusterIPs[0]"],
            ),
            (
                json!({"type": "ExternalName", "clusterIP": "None"}),
                vec!["spec.clusterIPs", "spec.externalName"],
            ),
            (
                json!({"ports": [{"port": 80, "nodePort": 30001}]}),
                vec!["spec.ports[0].nodePort"],
            ),
            (
                json!({"ports": [{"name": "a", "port": 80}, {"name": "a", "port": 80}]}),
                vec!["spec.ports[1].name", "spec.ports[1]"],
            ),
            (
                json!({"type": "NodePort", "ports": [
                    {"name": "a", "port": 80, "nodePort": 30001}, {"name": "b", "port": 81, "nodePort": 30001}]}),
                vec!["spec.ports[1].nodePort"],
            ),
            (
                json!({"ports": [{"port": 80}], "clusterIP": "x"}),
                vec!["spec.clusterIPs[0]"],
            ),
            (
                json!({"ports": [{"port": 80}], "clusterIPs": ["10.0.0.1"]}),
                vec!["spec.clusterIPs"],
            ),
            (
                json!({"ports": [{"port": 80}], "externalIPs": ["127.0.0.1"]}),
                vec!["spec.externalIPs[0]"],
            ),
            (
                json!({"ports": [{"port": 80}], "ipFamilies": ["IPv6"]}),
                vec!["spec.ipFamilies[0]"],
            ),
            (
                json!({"ports": [{"port": 80}], "ipFamilyPolicy": "RequireDualStack"}),
                vec!["spec.ipFamilyPolicy"],
            ),
            (
                json!({"ports": [{"port": 80}], "externalTrafficPolicy": "Local"}),
                vec!["spec.externalTrafficPolicy"],
            ),
            (
                json!({"ports": [{"port": 80}], "loadBalancerClass": "a"}),
                vec!["spec.loadBalancerClass"],
            ),
            (
                json!({"ports": [{"port": 80}], "loadBalancerSourceRanges": ["x"]}),
                vec![
                    "spec.LoadBalancerSourceRanges",
                    "spec.LoadBalancerSourceRanges[0]",
                ],
            ),
            (
                json!({"ports": [{"port": 80}], "trafficDistribution": "Far"}),
                vec!["spec.trafficDistribution"],
            ),
            (
                json!({"ports": [{"port": 80}], "sessionAffinity": "ClientIP",
                       "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}),
                vec!["spec.sessionAffinityConfig.clientIP.timeoutSeconds"],
            ),
        ];
        for (spec, expected) in table {
            assert_eq!(fields(&spec), expected, "{spec}");
        }
    }

    #[test]
    fn an_address_stays_once_set() {
        let old = created(&json!({"ports": [{"port": 80}], "clusterIP": "10.0.0.1"}));
        let mut new = old.clone();
        new["spec"]["clusterIP"] = "10.0.0.2".into();
        prepare::update(&mut new["spec"], &old["spec"]);
        assert_eq!(
            changes(&new["spec"], &old["spec"]),
            [Invalid::malformed(
                "spec.clusterIPs[0]",
                json!(["10.0.0.2"]),
                "may not change once set"
            )]
        );
        let mut headless = old.clone();
        headless["spec"]["clusterIP"] = "None".into();
        prepare::update(&mut headless["spec"], &old["spec"]);
        assert_eq!(changes(&headless["spec"], &old["spec"]).len(), 1);
    }
}
