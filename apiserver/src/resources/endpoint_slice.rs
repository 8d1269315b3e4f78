//! EndpointSlice: some of a Service's addresses, all of one family, with their conditions and ports.

use super::changes::immutable;
use super::endpoints::protocol;
use super::{address, parts};
use crate::resource::{Column, Kind, Names};
use crate::validation::{Invalid, names};
use serde_json::Value;
use std::net::IpAddr;

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_ZONE_HINTS: usize = 8;

static NAMES: Names = Names {
    group: "discovery.k8s.io",
    version: "v1",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    short_names: &[],
    categories: &[],
    namespaced: true,
    schema: "io.k8s.api.discovery.v1.EndpointSlice",
    storage_group: "discovery.k8s.io",
};

static COLUMNS: [Column; 5] = [
    parts::NAME,
    parts::column("AddressType", "schema:addressType"),
    parts::column("Ports", "schema:ports"),
    parts::column("Endpoints", "schema:endpoints"),
    parts::AGE,
];

/// See [the module](self).
pub struct EndpointSlice;

impl Kind for EndpointSlice {
    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn has_generation(&self) -> bool {
        true
    }

    // There is no spec: everything counts but the metadata, and of that the labels.
    fn raises_generation(&self, new: &Value, old: &Value) -> bool {
        let lists = ["addressType", "endpoints", "ports"];
        let labels = |object: &Value| object["metadata"]["labels"].clone();
        lists.iter().any(|field| new[*field] != old[*field]) || labels(new) != labels(old)
    }

    fn set_defaults(&self, object: &mut Value) {
        for port in list_mut(object, "ports") {
            if port["name"].is_null() {
                port["name"] = "".into();
            }
            if port["protocol"].is_null() {
                port["protocol"] = "TCP".into();
            }
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        drop_topology(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        if new["endpoints"] != old["endpoints"] {
            drop_topology(new);
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<Invalid> {
        check_slice(object, &["FQDN", "IPv4", "IPv6"])
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<Invalid> {
        // Slices of the type IP, which is gone, may still be stored.
        let mut invalid = check_slice(new, &["FQDN", "IP", "IPv4", "IPv6"]);
        invalid.extend(immutable("addressType", &new["addressType"], &old["addressType"]));
        invalid
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn cells(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let ports: Vec<String> = parts::items(&object["ports"])
            .map(|port| match (port["port"].as_i64(), port["name"].as_str()) {
                (Some(number), _) => number.to_string(),
                (None, Some(name)) => name.to_owned(),
                (None, None) => "*".to_owned(),
            })
            .collect();
        let addresses: Vec<String> = parts::items(&object["endpoints"])
            .flat_map(|endpoint| parts::texts(&endpoint["addresses"]).map(str::to_owned))
            .collect();
        vec![
            parts::name(object),
            parts::text(&object["addressType"]),
            parts::first_few(&ports, 3, "<unset>"),
            parts::first_few(&addresses, 3, "<unset>"),
            parts::age(object, now),
        ]
    }
}

fn list_mut<'a>(object: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> {
    object
        .get_mut(list)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

/// `deprecatedTopology` belongs to v1beta1; v1 clears it in silence.
fn drop_topology(object: &mut Value) {
    for endpoint in list_mut(object, "endpoints") {
        if let Some(endpoint) = endpoint.as_object_mut() {
            endpoint.remove("deprecatedTopology");
        }
    }
}

fn check_slice(object: &Value, address_types: &[&str]) -> Vec<Invalid> {
    let mut invalid = Vec::new();
    let address_type = object["addressType"].as_str().unwrap_or_default();
    if address_type.is_empty() {
        invalid.push(Invalid::required("addressType", ""));
    } else if !address_types.contains(&address_type) {
        invalid.push(Invalid::not_supported("addressType", address_type, address_types));
    }
    let endpoints: Vec<&Value> = parts::items(&object["endpoints"]).collect();
    if endpoints.len() > MAX_ENDPOINTS {
        invalid.push(Invalid::too_many("endpoints", endpoints.len(), MAX_ENDPOINTS));
    } else {
        for (i, endpoint) in endpoints.iter().enumerate() {
            invalid.extend(check_endpoint(&format!("endpoints[{i}]"), endpoint, address_type));
        }
    }
    let ports: Vec<&Value> = parts::items(&object["ports"]).collect();
    if ports.len() > MAX_PORTS {
        invalid.push(Invalid::too_many("ports", ports.len(), MAX_PORTS));
    } else {
        invalid.extend(check_ports(&ports));
    }
    invalid
}

fn check_endpoint(field: &str, endpoint: &Value, address_type: &str) -> Vec<Invalid> {
    let mut invalid = Vec::new();
    let addresses: Vec<&str> = parts::texts(&endpoint["addresses"]).collect();
    if addresses.is_empty() {
        let detail = "must contain at least 1 address";
        invalid.push(Invalid::required(format!("{field}.addresses"), detail));
    } else if addresses.len() > MAX_ADDRESSES {
        let count = addresses.len();
        invalid.push(Invalid::too_many(
            format!("{field}.addresses"),
            count,
            MAX_ADDRESSES,
        ));
    }
    for (i, address) in addresses.iter().enumerate() {
        invalid.extend(check_address(
            &format!("{field}.addresses[{i}]"),
            address,
            address_type,
        ));
    }
    if let Some(node) = endpoint["nodeName"].as_str() {
        let messages = names::dns1123_subdomain(node);
        invalid.extend(Invalid::each(format!("{field}.nodeName"), node, messages));
    }
    if let Some(hostname) = endpoint["hostname"].as_str() {
        let messages = names::dns1123_label(hostname);
        invalid.extend(Invalid::each(format!("{field}.hostname"), hostname, messages));
    }
    invalid.extend(check_zone_hints(
        &format!("{field}.hints.forZones"),
        &endpoint["hints"]["forZones"],
    ));
    invalid
}

fn check_address(field: &str, address: &str, address_type: &str) -> Vec<Invalid> {
    match address_type {
        "IPv4" | "IPv6" => match address::parse(field, address) {
            Err(invalid) => vec![invalid],
            Ok(ip) => {
                let mut invalid = Vec::new();
                if matches!(ip, IpAddr::V4(_)) != (address_type == "IPv4") {
                    invalid.push(Invalid::malformed(
                        field,
                        address,
                        format!("must be an {address_type} address"),
                    ));
                }
                invalid.extend(address::special_but_loopback(field, ip));
                invalid
            }
        },
        "IP" => address::parse(field, address).err().into_iter().collect(),
        "FQDN" => fully_qualified(field, address),
        // An unknown type is reported once, for the slice.
        _ => Vec::new(),
    }
}

fn fully_qualified(field: &str, name: &str) -> Vec<Invalid> {
    if name.is_empty() {
        return vec![Invalid::required(field, "")];
    }
    let bare = name.strip_suffix('.').unwrap_or(name);
    let messages = names::dns1123_subdomain(bare);
    if !messages.is_empty() {
        return vec![Invalid::malformed(field, bare, messages.join(","))];
    }
    if !bare.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        return vec![Invalid::malformed(field, bare, detail)];
    }
    Vec::new()
}

fn check_zone_hints(field: &str, zones: &Value) -> Vec<Invalid> {
    let zones: Vec<&Value> = parts::items(zones).collect();
    if zones.len() > MAX_ZONE_HINTS {
        return vec![Invalid::too_many(field, zones.len(), MAX_ZONE_HINTS)];
    }
    let mut seen = Vec::new();
    let mut invalid = Vec::new();
    for (i, zone) in zones.iter().enumerate() {
        let field = format!("{field}[{i}].name");
        let name = zone["name"].as_str().unwrap_or_default();
        if seen.contains(&name) {
            invalid.push(Invalid::duplicate(&field, name));
        }
        seen.push(name);
        invalid.extend(Invalid::each(&field, name, names::label_value(name)));
    }
    invalid
}

fn check_ports(ports: &[&Value]) -> Vec<Invalid> {
    let mut seen = Vec::new();
    let mut invalid = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let name = port["name"].as_str().unwrap_or_default();
        let name_field = format!("ports[{i}].name");
        if !name.is_empty() {
            invalid.extend(Invalid::each(&name_field, name, names::dns1123_label(name)));
        }
        if seen.contains(&name) {
            invalid.push(Invalid::duplicate(name_field, name));
        }
        seen.push(name);
        let wanted = port["protocol"].as_str().unwrap_or_default();
        invalid.extend(protocol(&format!("ports[{i}].protocol"), wanted));
        if let Some(app) = port["appProtocol"].as_str() {
            let messages = names::qualified_name(app);
            invalid.extend(Invalid::each(format!("ports[{i}].appProtocol"), app, messages));
        }
    }
    invalid
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(object: &Value) -> Vec<String> {
        EndpointSlice
            .validate_create(object)
            .into_iter()
            .map(|i| i.field)
            .collect()
    }

    #[test]
    fn ports_get_a_name_and_a_protocol() {
        let mut object = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 1}]});
        EndpointSlice.set_defaults(&mut object);
        assert_eq!(
            object["ports"],
            json!([{"name": "", "port": 1, "protocol": "TCP"}])
        );
        assert_eq!(fields(&object), [""; 0]);
    }

    #[test]
    fn addresses_have_the_type_of_the_slice() {
        let slice = |address_type: &str, address: &str| {
            fields(&json!({"addressType": address_type, "endpoints": [{"addresses": [address]}]})).len()
        };
        let table = [
            ("IPv4", "10.0.0.1", 0),
            ("IPv4", "127.1.1.1", 0),
            ("IPv4", "2001:db8::1", 1),
            ("IPv6", "10.0.0.1", 1),
            ("IPv6", "fe80::1", 1),
            ("FQDN", "example.com.", 0),
            ("FQDN", "example", 1),
            ("FQDN", "", 1),
            ("IP", "10.0.0.1", 1),
            ("", "10.0.0.1", 1),
        ];
        for (address_type, address, expected) in table {
            assert_eq!(slice(address_type, address), expected, "{address_type} {address}");
        }
    }

    #[test]
    fn two_unnamed_ports_are_duplicates() {
        let object = json!({"addressType": "IPv4", "ports": [
            {"name": "", "protocol": "TCP"}, {"name": "", "protocol": "TCP"}]});
        assert_eq!(fields(&object), ["ports[1].name"]);
    }

    #[test]
    fn the_address_type_stays() {
        let old = json!({"addressType": "IPv4"});
        let new = json!({"addressType": "IPv6"});
        assert_eq!(
            EndpointSlice.validate_update(&new, &old),
            [Invalid::malformed("addressType", "IPv6", "field is immutable")]
        );
    }
}
