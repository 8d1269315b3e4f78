//! Cluster IPs and node ports of Services: free ones for those that ask for none, and only free ones for
//! those that ask.

use crate::call::Call;
use crate::error::Error;
use crate::metadata;
use crate::server::Options;
use crate::validation::Invalid;
use rand::Rng;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::net::Ipv4Addr;
use tokio::sync::MutexGuard;

/// What other Services use.
#[derive(Default)]
struct Used {
    addresses: HashSet<Ipv4Addr>,
    ports: HashSet<u64>,
}

/// Give `service` what it lacks. The guard is held until it is stored.
pub async fn allocate<'a>(
    call: &'a Call,
    service: &mut Value,
    old: Option<&Value>,
) -> Result<MutexGuard<'a, ()>, Error> {
    let guard = call.server.allocating.lock().await;
    let page = call.server.store.list("/core/services/", None, 0, None).await?;
    let own = call.key_of(metadata::text(service, "name"));
    let mut used = Used::default();
    for entry in page.entries.iter().filter(|entry| entry.key != own) {
        let other: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
        let addresses = other["spec"]["clusterIPs"].as_array().into_iter().flatten();
        used.addresses.extend(
            addresses
                .filter_map(Value::as_str)
                .filter_map(|text| text.parse::<Ipv4Addr>().ok()),
        );
        used.ports.extend(node_ports(&other));
    }
    let problems = assign(service, old, &mut used, &call.server.options);
    metadata::refuse(call.kind_target(metadata::text(service, "name")), problems)?;
    Ok(guard)
}

fn node_ports(service: &Value) -> impl Iterator<Item = u64> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let check = service["spec"]["healthCheckNodePort"].as_u64();
    ports
        .filter_map(|port| port["nodePort"].as_u64())
        .chain(check)
        .filter(|port| *port != 0)
}

/// Give `service` what it lacks of what is not used.
fn assign(service: &mut Value, old: Option<&Value>, used: &mut Used, options: &Options) -> Vec<Invalid> {
    let kind = service["spec"]["type"]
        .as_str()
        .unwrap_or("ClusterIP")
        .to_string();
    if kind == "ExternalName" {
        if let Some(spec) = service["spec"].as_object_mut() {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                spec.remove(field);
            }
        }
        return Vec::new();
    }
    if let Some(old) = old {
        keep(service, old, &kind);
    }
    let mut problems = address(&mut service["spec"], used, options.service_network);
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        problems.extend(ports(&mut service["spec"], old, used, &kind, &options.node_ports));
    }
    problems
}

/// An update that leaves allocated values out keeps them.
fn keep(service: &mut Value, old: &Value, kind: &str) {
    let spec = &mut service["spec"];
    let before = &old["spec"];
    if spec["clusterIP"].as_str().unwrap_or_default().is_empty() && before["clusterIP"].is_string() {
        spec["clusterIP"] = before["clusterIP"].clone();
        spec["clusterIPs"] = before["clusterIPs"].clone();
    }
    let exposed = matches!(kind, "NodePort" | "LoadBalancer");
    let old_ports = before["ports"].as_array();
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten().filter(|_| exposed) {
        let same = |other: &&Value| {
            ["port", "protocol", "name"]
                .iter()
                .all(|field| other[field] == port[field])
        };
        let known = old_ports
            .into_iter()
            .flatten()
            .find(same)
            .map(|other| other["nodePort"].clone());
        if port["nodePort"].as_u64().unwrap_or(0) == 0
            && let Some(known) = known.filter(|known| !known.is_null())
        {
            port["nodePort"] = known;
        }
    }
}

fn address(spec: &mut Value, used: &mut Used, network: (Ipv4Addr, u8)) -> Vec<Invalid> {
    let listed = spec["clusterIPs"][0].as_str();
    let asked = spec["clusterIP"]
        .as_str()
        .filter(|text| !text.is_empty())
        .or(listed);
    let asked = asked.unwrap_or_default().to_string();
    let (base, length) = network;
    let size = 1u32 << (32 - u32::from(length.clamp(2, 30)));
    let base = u32::from(base) & !(size - 1);
    if asked == "None" {
        spec["clusterIP"] = "None".into();
        spec["clusterIPs"] = json!(["None"]);
        return Vec::new();
    }
    let refuse = |why: String| {
        let why = format!("failed to allocate IP {asked}: {why}");
        vec![Invalid::malformed("spec.clusterIPs", json!([asked]), why)]
    };
    let chosen = match asked.parse::<Ipv4Addr>() {
        Ok(address) => {
            let offset = u32::from(address).wrapping_sub(base);
            if offset == 0 || offset >= size - 1 {
                let range = Ipv4Addr::from(base);
                return refuse(format!(
                    "the provided IP ({asked}) is not in the valid range. The range of valid IPs is {range}/{length}"
                ));
            }
            if used.addresses.contains(&address) {
                return refuse("provided IP is already allocated".into());
            }
            address
        }
        // Another family's address: the kind's validation has its say, this server has no such network.
        Err(_) if !asked.is_empty() => {
            return refuse("this cluster has no network of that family".into());
        }
        Err(_) => {
            // The first address of the network is kubernetes.default's.
            let first = rand::rng().random_range(2..size - 1);
            let mut candidates = (first..size - 1)
                .chain(2..first)
                .map(|n| Ipv4Addr::from(base + n));
            match candidates.find(|address| !used.addresses.contains(address)) {
                Some(address) => address,
                None => {
                    let why = "failed to allocate a serviceIP: range is full";
                    return vec![Invalid::malformed("spec.clusterIPs", Value::Null, why)];
                }
            }
        }
    };
    used.addresses.insert(chosen);
    spec["clusterIP"] = chosen.to_string().into();
    if !spec["clusterIPs"].is_array() {
        spec["clusterIPs"] = json!([chosen.to_string()]);
    }
    Vec::new()
}

fn ports(
    spec: &mut Value,
    old: Option<&Value>,
    used: &Used,
    kind: &str,
    range: &std::ops::RangeInclusive<u16>,
) -> Vec<Invalid> {
    if kind == "LoadBalancer" && spec["allocateLoadBalancerNodePorts"] == false {
        return Vec::new();
    }
    let own: HashSet<u64> = old.into_iter().flat_map(node_ports).collect();
    let asked = spec["ports"].as_array().into_iter().flatten();
    let mut given: HashSet<u64> = asked.filter_map(|port| port["nodePort"].as_u64()).collect();
    let (low, high) = (u64::from(*range.start()), u64::from(*range.end()));
    let mut problems = Vec::new();
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
    for (i, port) in ports.into_iter().flatten().enumerate() {
        let field = format!("spec.ports[{i}].nodePort");
        match port["nodePort"].as_u64().unwrap_or(0) {
            0 => {
                let first = rand::rng().random_range(low..=high);
                let mut candidates = (first..=high).chain(low..first);
                match candidates.find(|port| !used.ports.contains(port) && !given.contains(port)) {
                    Some(free) => {
                        given.insert(free);
                        port["nodePort"] = free.into();
                    }
                    None => {
                        let why = "failed to allocate a nodePort: range is full";
                        problems.push(Invalid::malformed(field, Value::Null, why));
                    }
                }
            }
            asked if used.ports.contains(&asked) => {
                problems.push(Invalid::malformed(
                    field,
                    asked,
                    "provided port is already allocated",
                ));
            }
            asked if !(low..=high).contains(&asked) && !own.contains(&asked) => {
                let why = format!(
                    "provided port is not in the valid range. The range of valid ports is {low}-{high}"
                );
                problems.push(Invalid::malformed(field, asked, why));
            }
            _ => {}
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assign_new(service: &mut Value, used: &mut Used) -> Vec<String> {
        let problems = assign(service, None, used, &Options::default());
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_service_gets_an_address_that_nobody_has() {
        let mut used = Used::default();
        for _ in 0..100 {
            let before = used.addresses.len();
            let mut service = json!({"spec": {"type": "ClusterIP"}});
            assert_eq!(assign_new(&mut service, &mut used), [] as [&str; 0]);
            assert_eq!(used.addresses.len(), before + 1);
            let text = service["spec"]["clusterIP"].as_str().unwrap_or_default();
            assert!(text.starts_with("10."), "{text}");
            assert_eq!(service["spec"]["clusterIPs"], json!([text]));
        }
    }

    #[test]
    fn taken_and_foreign_addresses_are_refused() {
        let mut used = Used::default();
        let mut service = json!({"spec": {"clusterIP": "10.96.0.9"}});
        assert_eq!(assign_new(&mut service, &mut used), [] as [&str; 0]);
        assert_eq!(
            assign_new(&mut service, &mut used),
            [
                "spec.clusterIPs: Invalid value: [\"10.96.0.9\"]: failed to allocate IP 10.96.0.9: provided IP is already allocated"
            ]
        );
        let mut foreign = json!({"spec": {"clusterIP": "1.2.3.4"}});
        assert_eq!(
            assign_new(&mut foreign, &mut used),
            [
                "spec.clusterIPs: Invalid value: [\"1.2.3.4\"]: failed to allocate IP 1.2.3.4: the provided IP (1.2.3.4) is not in the valid range. The range of valid IPs is 10.96.0.0/12"
            ]
        );
    }

    #[test]
    fn node_ports_are_given_and_kept() {
        let mut used = Used::default();
        let mut service = json!({"spec": {"type": "NodePort", "ports": [{"port": 80}, {"port": 81}]}});
        assert_eq!(assign_new(&mut service, &mut used), [] as [&str; 0]);
        let ports: HashSet<u64> = node_ports(&service).collect();
        assert_eq!(ports.len(), 2);
        let mut changed = json!({"spec": {"type": "NodePort", "ports": [{"port": 81}]}});
        let problems = assign(
            &mut changed,
            Some(&service),
            &mut Used::default(),
            &Options::default(),
        );
        assert_eq!(problems, []);
        assert_eq!(
            changed["spec"]["ports"][0]["nodePort"],
            service["spec"]["ports"][1]["nodePort"]
        );
        assert_eq!(changed["spec"]["clusterIP"], service["spec"]["clusterIP"]);
    }

    #[test]
    fn a_headless_service_has_no_address() {
        let mut service = json!({"spec": {"clusterIP": "None"}});
        assert_eq!(assign_new(&mut service, &mut Used::default()), [] as [&str; 0]);
        assert_eq!(service["spec"]["clusterIPs"], json!(["None"]));
    }
}
