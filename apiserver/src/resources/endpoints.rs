//! Endpoints: the older list of a Service's addresses; EndpointSlices replace it.

use super::{address, parts};
use crate::resource::{Column, Kind, Names};
use crate::validation::{Invalid, names, numbers};
use serde_json::Value;

static NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "Endpoints",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    categories: &[],
    namespaced: true,
    schema: "io.k8s.api.core.v1.Endpoints",
    storage_group: "",
};

static COLUMNS: [Column; 3] = [
    parts::NAME,
    parts::column("Endpoints", "schema:subsets"),
    parts::AGE,
];

/// See [the module](self).
pub struct Endpoints;

impl Kind for Endpoints {
    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Value) {
        for subset in object
            .get_mut("subsets")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            for port in subset
                .get_mut("ports")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                if port["protocol"].as_str().unwrap_or_default().is_empty() {
                    port["protocol"] = "TCP".into();
                }
            }
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<Invalid> {
        parts::items(&object["subsets"])
            .enumerate()
            .flat_map(|(i, subset)| check_subset(&format!("subsets[{i}]"), subset))
            .collect()
    }

    fn warnings(&self, _object: &Value) -> Vec<String> {
        vec!["v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_owned()]
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn cells(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let shown: Vec<String> = parts::items(&object["subsets"])
            .flat_map(ready_endpoints)
            .collect();
        vec![
            parts::name(object),
            parts::first_few(&shown, 3, "<none>"),
            parts::age(object, now),
        ]
    }
}

/// `address:port` for every port and ready address; the bare addresses where there are no ports.
fn ready_endpoints(subset: &Value) -> Vec<String> {
    let addresses = || parts::items(&subset["addresses"]).filter_map(|a| a["ip"].as_str());
    let ports: Vec<&Value> = parts::items(&subset["ports"]).collect();
    if ports.is_empty() {
        return addresses().map(str::to_owned).collect();
    }
    let host = |ip: &str| {
        if ip.contains(':') {
            format!("[{ip}]")
        } else {
            ip.to_owned()
        }
    };
    ports
        .iter()
        .flat_map(|port| addresses().map(move |ip| format!("{}:{}", host(ip), port["port"])))
        .collect()
}

fn check_subset(field: &str, subset: &Value) -> Vec<Invalid> {
    let mut invalid = Vec::new();
    let lists = ["addresses", "notReadyAddresses"];
    if lists
        .iter()
        .all(|list| parts::items(&subset[*list]).next().is_none())
    {
        let detail = "must specify `addresses` or `notReadyAddresses`";
        invalid.push(Invalid::required(field, detail));
    }
    for list in lists {
        for (i, address) in parts::items(&subset[list]).enumerate() {
            invalid.extend(check_address(&format!("{field}.{list}[{i}]"), address));
        }
    }
    let ports: Vec<&Value> = parts::items(&subset["ports"]).collect();
    for (i, port) in ports.iter().enumerate() {
        invalid.extend(check_port(&format!("{field}.ports[{i}]"), port, ports.len() > 1));
    }
    invalid
}

fn check_address(field: &str, address: &Value) -> Vec<Invalid> {
    let text = |name: &str| address[name].as_str();
    let ip_field = format!("{field}.ip");
    let parsed = address::parse(&ip_field, text("ip").unwrap_or_default());
    let mut invalid: Vec<Invalid> = parsed.clone().err().into_iter().collect();
    if let Some(hostname) = text("hostname").filter(|h| !h.is_empty()) {
        let messages = names::dns1123_label(hostname);
        invalid.extend(Invalid::each(format!("{field}.hostname"), hostname, messages));
    }
    if let Some(node) = text("nodeName") {
        let messages = names::dns1123_subdomain(node);
        invalid.extend(Invalid::each(format!("{field}.nodeName"), node, messages));
    }
    if let Ok(ip) = parsed {
        invalid.extend(address::special_but_loopback(&ip_field, ip));
    }
    invalid
}

fn check_port(field: &str, port: &Value, require_name: bool) -> Vec<Invalid> {
    let text = |name: &str| port[name].as_str().unwrap_or_default();
    let mut invalid = Vec::new();
    match text("name") {
        "" if require_name => invalid.push(Invalid::required(format!("{field}.name"), "")),
        "" => {}
        name => invalid.extend(Invalid::each(
            format!("{field}.name"),
            name,
            names::dns1123_label(name),
        )),
    }
    invalid.extend(port_number(&format!("{field}.port"), &port["port"]));
    invalid.extend(protocol(&format!("{field}.protocol"), text("protocol")));
    if let Some(app) = port["appProtocol"].as_str() {
        let messages = names::qualified_name(app);
        invalid.extend(Invalid::each(format!("{field}.appProtocol"), app, messages));
    }
    invalid
}

/// A port must lie in 1 to 65535.
pub fn port_number(field: &str, port: &Value) -> Option<Invalid> {
    let number = port.as_i64().unwrap_or_default();
    let message = numbers::port(number).pop()?;
    Some(Invalid::malformed(field, number, message))
}

/// A protocol must be one of the three that Kubernetes knows.
pub fn protocol(field: &str, protocol: &str) -> Option<Invalid> {
    match protocol {
        "" => Some(Invalid::required(field, "")),
        "SCTP" | "TCP" | "UDP" => None,
        other => Some(Invalid::not_supported(field, other, &["SCTP", "TCP", "UDP"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_table_pairs_ready_addresses_with_ports() {
        let object = json!({"metadata": {"name": "e"}, "subsets": [
            {"addresses": [{"ip": "10.0.0.1"}, {"ip": "2001:db8::1"}], "notReadyAddresses": [{"ip": "10.0.0.3"}],
             "ports": [{"port": 80}]},
            {"addresses": [{"ip": "10.0.0.4"}]},
        ]});
        let cells = Endpoints.cells(&object, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(cells[1], "10.0.0.1:80,[2001:db8::1]:80,10.0.0.4");
    }

    #[test]
    fn a_subset_has_addresses_and_named_ports() {
        let object = json!({"subsets": [
            {"ports": [{"port": 80, "protocol": "TCP"}, {"name": "b", "port": 0, "protocol": "X"}]},
            {"addresses": [{"ip": "127.1.2.3"}, {"ip": "x", "hostname": "A"}]},
        ]});
        let fields: Vec<String> = Endpoints
            .validate_create(&object)
            .into_iter()
            .map(|i| i.field)
            .collect();
        assert_eq!(
            fields,
            [
                "subsets[0]",
                "subsets[0].ports[0].name",
                "subsets[0].ports[1].port",
                "subsets[0].ports[1].protocol",
                "subsets[1].addresses[1].ip",
                "subsets[1].addresses[1].hostname",
            ]
        );
    }
}
