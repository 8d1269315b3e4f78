//! Who is meant by the name in a proxy's path.

use super::super::connect::get;
use crate::error::Error;
use crate::path::ResourcePath;
use crate::resource::Kind;
use crate::server::Server;
use rand::seq::IndexedRandom;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};

/// The port of upstream's kubelets: the kubelet itself, here as well.
const KUBELET: &str = "10250";

/// Whom a request goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The kubelet of a node.
    Kubelet(String),
    /// A server.
    Address {
        /// Whether it speaks TLS.
        tls: bool,
        /// Where it is.
        address: SocketAddr,
    },
}

/// `[SCHEME:]NAME[:PORT]`
#[derive(Clone, Debug, PartialEq, Eq)]
struct Id<'a> {
    tls: bool,
    name: &'a str,
    port: &'a str,
}

impl<'a> Id<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        let known = matches!(scheme, "" | "http" | "https") && !name.is_empty();
        known.then_some(Self {
            tls: scheme == "https",
            name,
            port,
        })
    }
}

/// Find out; the errors are upstream's.
pub async fn find(server: &Server, kind: &dyn Kind, path: &ResourcePath) -> Result<Target, Error> {
    let text = path.name.as_deref().unwrap_or_default();
    let singular = kind.names().singular;
    let id =
        Id::parse(text).ok_or_else(|| Error::BadRequest(format!("invalid {singular} request {text:?}")))?;
    let object = get(server, kind, path, id.name).await?;
    let address = match singular {
        "node" if matches!(id.port, "" | KUBELET) => return Ok(Target::Kubelet(id.name.into())),
        "node" => return Err(Error::BadRequest("address not allowed".into())),
        "pod" => of_pod(&object, &id)?,
        _ => {
            let port = port_name(&object, &id)?;
            let endpoints = server.kind("", "v1", "endpoints");
            let endpoints = endpoints.ok_or_else(|| Error::Internal("no Endpoints are served".into()))?;
            let endpoints = match get(server, endpoints, path, id.name).await {
                Err(Error::NotFound(_)) => Value::Null,
                found => found?,
            };
            let all = addresses(&endpoints, &port);
            let chosen = all.choose(&mut rand::rng()).copied();
            // With no endpoint at all upstream names the Service, with none of this port what was asked for.
            let asked = if endpoints["subsets"].as_array().is_none_or(Vec::is_empty) {
                id.name
            } else {
                text
            };
            chosen
                .ok_or_else(|| Error::Unavailable(format!("no endpoints available for service {asked:?}")))?
        }
    };
    Ok(Target::Address { tls: id.tls, address })
}

fn of_pod(pod: &Value, id: &Id<'_>) -> Result<SocketAddr, Error> {
    let not_allowed = || Error::BadRequest("address not allowed".into());
    let ip: Option<IpAddr> = pod["status"]["podIP"].as_str().and_then(|ip| ip.parse().ok());
    let ip = ip.ok_or_else(not_allowed)?;
    let port = match id.port {
        "" => {
            let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
            let first = containers
                .filter_map(|container| container["ports"][0]["containerPort"].as_u64())
                .next();
            let usual = if id.tls { 443 } else { 80 };
            u16::try_from(first.unwrap_or(usual)).ok()
        }
        text => text.parse().ok(),
    };
    let port = port.ok_or_else(|| {
        Error::Unavailable(format!(
            "error trying to reach service: dial tcp: lookup tcp/{}: unknown port",
            id.port
        ))
    })?;
    Ok(SocketAddr::new(ip, port))
}

/// The name of the Service's port that is asked for by name or by number.
fn port_name(service: &Value, id: &Id<'_>) -> Result<String, Error> {
    let Ok(number) = id.port.parse::<i64>() else {
        return Ok(id.port.to_owned());
    };
    let mut ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let port = ports.find(|port| port["port"] == number);
    let port = port.ok_or_else(|| {
        Error::Unavailable(format!(
            "no service port {number} found for service {:?}",
            id.name
        ))
    })?;
    Ok(port["name"].as_str().unwrap_or_default().to_owned())
}

/// Where a port of this name is served.
fn addresses(endpoints: &Value, port: &str) -> Vec<SocketAddr> {
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut all = Vec::new();
    for subset in items(&endpoints["subsets"]) {
        let ports = items(&subset["ports"]);
        let port = ports
            .iter()
            .find(|p| p["name"].as_str().unwrap_or_default() == port);
        let port = port.and_then(|port| u16::try_from(port["port"].as_u64()?).ok());
        let Some(port) = port else { continue };
        let ips = items(&subset["addresses"]).into_iter();
        let ips = ips.filter_map(|address| address["ip"].as_str()?.parse::<IpAddr>().ok());
        all.extend(ips.map(|ip| SocketAddr::new(ip, port)));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_name_may_have_a_port_and_a_scheme() {
        let parse = |text| Id::parse(text).map(|id| (id.tls, id.name.to_owned(), id.port.to_owned()));
        let id = |tls, name: &str, port: &str| Some((tls, name.to_owned(), port.to_owned()));
        assert_eq!(parse("web"), id(false, "web", ""));
        assert_eq!(parse("web:http"), id(false, "web", "http"));
        assert_eq!(parse("https:web:443"), id(true, "web", "443"));
        assert_eq!(parse(":web:"), id(false, "web", ""));
        for bad in ["", "ftp:web:21", "a:b:c:d", "http::80"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    fn message<T: std::fmt::Debug>(answer: Result<T, Error>) -> String {
        answer.expect_err("refused").status()["message"]
            .as_str()
            .unwrap_or_default()
            .into()
    }

    #[test]
    fn a_pods_first_port_is_its_port() {
        let pod = json!({
            "spec": {"containers": [{"name": "a"}, {"name": "b", "ports": [{"containerPort": 8080}]}]},
            "status": {"podIP": "127.1.2.3"},
        });
        let of = |text, pod: &Value| of_pod(pod, &Id::parse(text).expect("an id"));
        assert_eq!(of("p", &pod), Ok("127.1.2.3:8080".parse().expect("an address")));
        assert_eq!(of("p:81", &pod), Ok("127.1.2.3:81".parse().expect("an address")));
        assert_eq!(
            of("p", &json!({"status": {"podIP": "::1"}})),
            Ok("[::1]:80".parse().expect("an address"))
        );
        assert_eq!(message(of("p", &json!({}))), "address not allowed");
    }

    #[test]
    fn a_services_port_is_found_by_number_or_name() {
        let service =
            json!({"spec": {"ports": [{"port": 80, "name": "http"}, {"port": 443, "name": "tls"}]}});
        let of = |text| port_name(&service, &Id::parse(text).expect("an id"));
        assert_eq!(of("s:443"), Ok("tls".into()));
        assert_eq!(of("s:http"), Ok("http".into()));
        assert_eq!(of("s"), Ok(String::new()));
        assert_eq!(message(of("s:81")), "no service port 81 found for service \"s\"");
        let endpoints = json!({"subsets": [
            {"addresses": [{"ip": "127.0.0.2"}, {"ip": "127.0.0.3"}], "ports": [{"name": "http", "port": 8080}]},
            {"notReadyAddresses": [{"ip": "127.0.0.4"}], "ports": [{"name": "http", "port": 8080}]},
        ]});
        let found: Vec<String> = addresses(&endpoints, "http")
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, ["127.0.0.2:8080", "127.0.0.3:8080"]);
        assert!(addresses(&endpoints, "").is_empty());
    }
}
