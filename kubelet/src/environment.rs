//! A container's environment: `env`, `envFrom`, the downward API, service variables and `$(NAME)` expansion
//! (reference, 3.9).

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVar, EnvVarSource, Pod, ResourceFieldSelector, Secret, Service,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What the environment is made of, fetched beforehand.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// ConfigMaps of the namespace that the container mentions, by name.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// Secrets of the namespace that the container mentions, by name.
    pub secrets: BTreeMap<String, Secret>,
    /// Services of the namespace, and `kubernetes` of the default one.
    pub services: Vec<Service>,
    /// The pod's address.
    pub pod_ip: Option<IpAddr>,
    /// The node's address.
    pub host_ip: String,
    /// The node's name.
    pub node_name: String,
    /// What a resource without a limit may use: (milli-CPUs, bytes of memory).
    pub allocatable: (i64, i64),
    /// Where the API server is for pods: host and port.
    pub api_server: Option<(String, u16)>,
}

/// The environment of a container and its command line, both expanded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// In the order in which they were made; the last of a name counts.
    pub variables: Vec<(String, String)>,
    /// Keys of `envFrom` that are no variable names: (source, keys), for a warning event.
    pub skipped: Vec<(String, Vec<String>)>,
}

pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Environment {
    /// Make it. `extra` are variables that come first: those of the image. The error is the message of
    /// `CreateContainerConfigError`.
    pub fn build(
        pod: &Pod,
        container: &Container,
        extra: &[(String, String)],
        sources: &Sources,
    ) -> Result<Self, String> {
        let mut this = Self::default();
        this.set("PATH", PATH);
        this.set("HOSTNAME", hostname(pod));
        if let Some(ip) = sources.pod_ip {
            this.set("PETSET_POD_IP", ip.to_string());
        }
        for (name, value) in extra {
            this.set(name, value.clone());
        }
        let links = pod
            .spec
            .as_ref()
            .and_then(|s| s.enable_service_links)
            .unwrap_or(true);
        for (name, value) in service_variables(pod, sources, links) {
            this.set(&name, value);
        }
        this.add_env_from(container, sources)?;
        for variable in container.env.iter().flatten() {
            if let Some(value) = value_of(pod, container, variable, sources, &this)? {
                this.set(&variable.name, value);
            }
        }
        Ok(this)
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables
            .iter()
            .rev()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// Set a variable; an earlier one of that name is replaced where it stands.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        match self.variables.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = value.into(),
            None => self.variables.push((name.into(), value.into())),
        }
    }

    /// `$(NAME)` replaced by its value; an unknown name stays, `$$(NAME)` is `$(NAME)` to the letter.
    pub fn expand(&self, text: &str) -> String {
        let mut expanded = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            expanded.push_str(&rest[..at]);
            rest = &rest[at..];
            if rest.starts_with("$$") {
                expanded.push('$');
                rest = &rest[2..];
            } else if let Some((name, after)) = rest.strip_prefix("$(").and_then(|r| r.split_once(')')) {
                match self.get(name) {
                    Some(value) => expanded.push_str(value),
                    None => expanded.push_str(&rest[..name.len() + 3]),
                }
                rest = after;
            } else {
                expanded.push('$');
                rest = &rest[1..];
            }
        }
        expanded + rest
    }

    fn add_env_from(&mut self, container: &Container, sources: &Sources) -> Result<(), String> {
        for from in container.env_from.iter().flatten() {
            let prefix = from.prefix.as_deref().unwrap_or_default();
            let (label, data) = if let Some(map) = &from.config_map_ref {
                let data = match sources.config_maps.get(&map.name) {
                    Some(found) => found.data.clone().unwrap_or_default(),
                    None if map.optional == Some(true) => continue,
                    None => return Err(format!("configmap {:?} not found", map.name)),
                };
                (format!("ConfigMap {}", map.name), data)
            } else if let Some(secret) = &from.secret_ref {
                let data = match sources.secrets.get(&secret.name) {
                    Some(found) => texts(found),
                    None if secret.optional == Some(true) => continue,
                    None => return Err(format!("secret {:?} not found", secret.name)),
                };
                (format!("Secret {}", secret.name), data)
            } else {
                continue;
            };
            let mut skipped = Vec::new();
            for (key, value) in data {
                let name = format!("{prefix}{key}");
                if is_variable_name(&name) {
                    self.set(&name, value)
                } else {
                    skipped.push(key)
                }
            }
            if !skipped.is_empty() {
                self.skipped.push((label, skipped));
            }
        }
        Ok(())
    }
}

/// The pod's host name: `spec.hostname`, else its own name (at most 63 bytes).
pub fn hostname(pod: &Pod) -> String {
    let set = pod
        .spec
        .as_ref()
        .and_then(|s| s.hostname.clone())
        .filter(|h| !h.is_empty());
    let mut name = set.or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    name.truncate(63);
    name.trim_end_matches(['-', '.']).to_owned()
}

/// Upstream's relaxed rule: printable ASCII without `=`.
fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=')
}

fn texts(secret: &Secret) -> BTreeMap<String, String> {
    let data = secret.data.iter().flatten();
    data.map(|(key, value)| (key.clone(), String::from_utf8_lossy(&value.0).into_owned()))
        .collect()
}

fn value_of(
    pod: &Pod,
    container: &Container,
    variable: &EnvVar,
    sources: &Sources,
    so_far: &Environment,
) -> Result<Option<String>, String> {
    match &variable.value_from {
        None => Ok(Some(so_far.expand(variable.value.as_deref().unwrap_or_default()))),
        Some(from) => value_from(pod, container, from, sources),
    }
}

fn value_from(
    pod: &Pod,
    container: &Container,
    from: &EnvVarSource,
    sources: &Sources,
) -> Result<Option<String>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(field) = &from.field_ref {
        return field_value(pod, &field.field_path, sources).map(Some);
    }
    if let Some(resource) = &from.resource_field_ref {
        return resource_value(pod, container, resource, sources).map(Some);
    }
    if let Some(key) = &from.config_map_key_ref {
        let optional = key.optional == Some(true);
        let Some(map) = sources.config_maps.get(&key.name) else {
            return if optional {
                Ok(None)
            } else {
                Err(format!("configmap {:?} not found", key.name))
            };
        };
        return match map.data.iter().flatten().find(|(k, _)| **k == key.key) {
            Some((_, value)) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(format!(
                "couldn't find key {} in ConfigMap {namespace}/{}",
                key.key, key.name
            )),
        };
    }
    if let Some(key) = &from.secret_key_ref {
        let optional = key.optional == Some(true);
        let Some(secret) = sources.secrets.get(&key.name) else {
            return if optional {
                Ok(None)
            } else {
                Err(format!("secret {:?} not found", key.name))
            };
        };
        return match texts(secret).remove(&key.key) {
            Some(value) => Ok(Some(value)),
            None if optional => Ok(None),
            None => Err(format!(
                "couldn't find key {} in Secret {namespace}/{}",
                key.key, key.name
            )),
        };
    }
    Ok(Some(String::new()))
}

/// A field of the pod, by the paths that the downward API knows.
pub fn field_value(pod: &Pod, path: &str, sources: &Sources) -> Result<String, String> {
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let ip = || sources.pod_ip.map(|ip| ip.to_string()).unwrap_or_default();
    Ok(match path {
        "metadata.name" => text(&metadata.name),
        "metadata.namespace" => text(&metadata.namespace),
        "metadata.uid" => text(&metadata.uid),
        "metadata.labels" => pairs(metadata.labels.as_ref()),
        "metadata.annotations" => pairs(metadata.annotations.as_ref()),
        "spec.nodeName" => sources.node_name.clone(),
        "spec.serviceAccountName" => spec.map(|s| text(&s.service_account_name)).unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => sources.host_ip.clone(),
        "status.podIP" | "status.podIPs" => ip(),
        _ => {
            let (map, key) = path
                .split_once("['")
                .and_then(|(map, rest)| Some((map, rest.strip_suffix("']")?)))
                .ok_or_else(|| format!("unsupported fieldPath: {path}"))?;
            let map = match map {
                "metadata.labels" => metadata.labels.as_ref(),
                "metadata.annotations" => metadata.annotations.as_ref(),
                _ => return Err(format!("unsupported fieldPath: {path}")),
            };
            map.and_then(|m| m.get(key)).cloned().unwrap_or_default()
        }
    })
}

/// `key="value"` lines, as in a downwardAPI volume.
fn pairs(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    lines.join("\n")
}

/// A container's request or limit, divided and rounded up.
pub fn resource_value(
    pod: &Pod,
    container: &Container,
    selector: &ResourceFieldSelector,
    sources: &Sources,
) -> Result<String, String> {
    let named = selector.container_name.as_deref().filter(|n| !n.is_empty());
    let spec = pod.spec.as_ref();
    let container = match named {
        None => container,
        Some(name) => spec
            .and_then(|s| {
                s.containers
                    .iter()
                    .chain(s.init_containers.iter().flatten())
                    .find(|c| c.name == name)
            })
            .ok_or_else(|| format!("container {name} not found"))?,
    };
    let (kind, resource) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported resource: {}", selector.resource))?;
    let resources = container.resources.as_ref();
    let set = match kind {
        "limits" => resources.and_then(|r| r.limits.as_ref()),
        "requests" => resources.and_then(|r| r.requests.as_ref()),
        _ => return Err(format!("unsupported resource: {}", selector.resource)),
    };
    let is_cpu = resource == "cpu";
    let unset = match (kind, is_cpu) {
        ("limits", true) => f64::from(i32::try_from(sources.allocatable.0).unwrap_or(i32::MAX)) / 1000.0,
        ("limits", false) if resource == "memory" => sources.allocatable.1 as f64,
        _ => 0.0,
    };
    let amount = match set.and_then(|s| s.get(resource)) {
        Some(quantity) => amount(quantity).ok_or_else(|| format!("{:?} is no quantity", quantity.0))?,
        None => unset,
    };
    let divisor = selector
        .divisor
        .as_ref()
        .and_then(amount_of_divisor)
        .unwrap_or(1.0);
    Ok(format!("{:.0}", (amount / divisor).ceil()))
}

fn amount_of_divisor(quantity: &Quantity) -> Option<f64> {
    amount(quantity).filter(|divisor| *divisor > 0.0)
}

/// A quantity as a number: `500m` is 0.5, `1Gi` is 2^30.
pub fn amount(quantity: &Quantity) -> Option<f64> {
    let text = quantity.0.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '-' | '+'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        exponent => 10f64.powi(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    Some(number * factor)
}

/// `NAME_SERVICE_HOST` and `NAME_SERVICE_PORT…` for Services with a cluster IP; `kubernetes` always.
fn service_variables(pod: &Pod, sources: &Sources, links: bool) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    if let Some((host, port)) = &sources.api_server {
        variables.extend(api_variables(host, *port));
    }
    let namespace = &pod.metadata.namespace;
    // That one's are those above: where it really answers.
    let is_api = |service: &Service| {
        let metadata = &service.metadata;
        (metadata.namespace.as_deref(), metadata.name.as_deref()) == (Some("default"), Some("kubernetes"))
    };
    for service in sources
        .services
        .iter()
        .filter(|s| links && s.metadata.namespace == *namespace && !is_api(s))
    {
        let Some(spec) = &service.spec else { continue };
        let Some(ip) = spec
            .cluster_ip
            .as_ref()
            .filter(|ip| !ip.is_empty() && *ip != "None")
        else {
            continue;
        };
        let name = constant(service.metadata.name.as_deref().unwrap_or_default());
        variables.push((format!("{name}_SERVICE_HOST"), ip.clone()));
        for (n, port) in spec.ports.iter().flatten().enumerate() {
            if n == 0 {
                variables.push((format!("{name}_SERVICE_PORT"), port.port.to_string()));
            }
            if let Some(port_name) = port.name.as_ref().filter(|p| !p.is_empty()) {
                variables.push((
                    format!("{name}_SERVICE_PORT_{}", constant(port_name)),
                    port.port.to_string(),
                ));
            }
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
            let url = format!("{}://{ip}:{}", protocol.to_lowercase(), port.port);
            if n == 0 {
                variables.push((format!("{name}_PORT"), url.clone()));
            }
            let prefix = format!("{name}_PORT_{}_{protocol}", port.port);
            variables.push((prefix.clone(), url));
            variables.push((format!("{prefix}_PROTO"), protocol.to_lowercase()));
            variables.push((format!("{prefix}_PORT"), port.port.to_string()));
            variables.push((format!("{prefix}_ADDR"), ip.clone()));
        }
    }
    variables
}

/// The variables of the Service `default/kubernetes`, which has port 443; where nothing carries the traffic of its cluster
/// IP, their values are those of the API server's own listener.
fn api_variables(host: &str, port: u16) -> Vec<(String, String)> {
    let bracketed = match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    };
    let url = format!("tcp://{bracketed}:{port}");
    let host = host.trim_matches(['[', ']']);
    [
        ("SERVICE_HOST", host),
        ("SERVICE_PORT", &port.to_string()),
        ("SERVICE_PORT_HTTPS", &port.to_string()),
        ("PORT", &url),
        ("PORT_443_TCP", &url),
        ("PORT_443_TCP_PROTO", "tcp"),
        ("PORT_443_TCP_PORT", &port.to_string()),
        ("PORT_443_TCP_ADDR", host),
    ]
    .map(|(name, value)| (format!("KUBERNETES_{name}"), value.to_owned()))
    .into()
}

fn constant(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn build(pod: Value, sources: &Sources) -> Result<Environment, String> {
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let container = pod.spec.as_ref().expect("spec").containers[0].clone();
        Environment::build(&pod, &container, &[], sources)
    }

    fn pod(env: Value) -> Value {
        json!({"metadata": {"name": "web-1", "namespace": "default", "labels": {"apps.kubernetes.io/pod-index": "1"}},
            "spec": {"hostname": "web-1", "containers": [{"name": "c", "env": env,
            "resources": {"limits": {"memory": "64Mi"}, "requests": {"cpu": "250m"}}}]}})
    }

    #[test]
    fn earlier_variables_expand_and_unknown_or_escaped_ones_stay() {
        let env = json!([
            {"name": "A", "value": "1"},
            {"name": "B", "value": "$(A)-$(LATER)-$$(A)-$x-$("},
            {"name": "LATER", "value": "2"},
        ]);
        let environment = build(pod(env), &Sources::default()).expect("built");
        assert_eq!(environment.get("B"), Some("1-$(LATER)-$(A)-$x-$("));
        assert_eq!(environment.expand("$(HOSTNAME):$(LATER)"), "web-1:2");
    }

    #[test]
    fn the_downward_api_tells_identity_address_and_resources() {
        let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
        let env = json!([
            {"name": "NAME", "valueFrom": field("metadata.name")},
            {"name": "INDEX", "valueFrom": field("metadata.labels['apps.kubernetes.io/pod-index']")},
            {"name": "IP", "valueFrom": field("status.podIP")},
            {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}},
        ]);
        let sources = Sources {
            pod_ip: Some("127.244.0.2".parse().expect("ip")),
            ..Sources::default()
        };
        let environment = build(pod(env), &sources).expect("built");
        for (name, value) in [
            ("NAME", "web-1"),
            ("INDEX", "1"),
            ("IP", "127.244.0.2"),
            ("MEMORY", "64"),
            ("CPU", "250"),
        ] {
            assert_eq!(environment.get(name), Some(value), "{name}");
        }
    }

    #[test]
    fn the_api_is_where_it_answers_whatever_its_services_address_is() {
        let service = json!({"metadata": {"name": "kubernetes", "namespace": "default"},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]}});
        let other = json!({"metadata": {"name": "my-db", "namespace": "default"},
            "spec": {"clusterIP": "10.96.0.7", "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}]}});
        let services = [service, other].map(|each| serde_json::from_value(each).expect("a Service"));
        let sources = Sources {
            api_server: Some(("127.0.0.1".into(), 6443)),
            services: services.into(),
            ..Sources::default()
        };
        let environment = build(pod(json!([])), &sources).expect("built");
        for (name, value) in [
            ("KUBERNETES_SERVICE_HOST", "127.0.0.1"),
            ("KUBERNETES_SERVICE_PORT", "6443"),
            ("KUBERNETES_SERVICE_PORT_HTTPS", "6443"),
            ("KUBERNETES_PORT", "tcp://127.0.0.1:6443"),
            ("KUBERNETES_PORT_443_TCP_ADDR", "127.0.0.1"),
            ("KUBERNETES_PORT_443_TCP_PORT", "6443"),
            ("MY_DB_SERVICE_HOST", "10.96.0.7"),
            ("MY_DB_SERVICE_PORT_SQL", "5432"),
            ("MY_DB_PORT_5432_TCP", "tcp://10.96.0.7:5432"),
        ] {
            assert_eq!(environment.get(name), Some(value), "{name}");
        }
        let mut unlinked = pod(json!([]));
        unlinked["spec"]["enableServiceLinks"] = false.into();
        let environment = build(unlinked, &sources).expect("built");
        assert_eq!(environment.get("KUBERNETES_SERVICE_PORT"), Some("6443"));
        assert_eq!(environment.get("MY_DB_SERVICE_HOST"), None);
    }

    #[test]
    fn a_missing_source_is_named_unless_it_is_optional() {
        let env = |optional: bool| json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": optional}}}]);
        let missing = build(pod(env(false)), &Sources::default());
        assert_eq!(missing, Err("secret \"s\" not found".into()));
        let optional = build(pod(env(true)), &Sources::default()).expect("built");
        assert_eq!(optional.get("A"), None);
    }

    #[test]
    fn only_services_with_an_address_are_variables() {
        let service = |name: &str, ip: &str| -> Service {
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": "default"},
                "spec": {"clusterIP": ip, "ports": [{"name": "http-api", "port": 80}]}}))
            .expect("a service")
        };
        let services = vec![service("my-api", "10.96.0.9"), service("headless", "None")];
        let environment = build(
            pod(json!([])),
            &Sources {
                services,
                ..Sources::default()
            },
        )
        .expect("built");
        assert_eq!(environment.get("MY_API_SERVICE_HOST"), Some("10.96.0.9"));
        assert_eq!(environment.get("MY_API_SERVICE_PORT_HTTP_API"), Some("80"));
        assert_eq!(environment.get("MY_API_PORT_80_TCP"), Some("tcp://10.96.0.9:80"));
        assert!(
            !environment
                .variables
                .iter()
                .any(|(name, _)| name.starts_with("HEADLESS"))
        );
    }
}
