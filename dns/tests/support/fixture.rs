//! The cluster that the tables of answers are about: Services of every sort and the slices that belong to them.

use dns::table::Table;
use dns::{Config, Options};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use std::sync::Arc;

/// The server's settings.
pub fn config() -> Arc<Config> {
    let options = Options {
        reverse_ranges: ["127.244.0.0/16", "192.0.2.0/24", "10.96.0.0/16"]
            .map(Into::into)
            .into(),
        ..Options::default()
    };
    Arc::new(Config::new(&options).expect("options"))
}

/// The whole cluster.
pub fn table() -> Table {
    let mut table = Table::new(config());
    for name in ["default", "shop", "void"] {
        let namespace = json!({"metadata": {"name": name}});
        let namespace: Namespace = serde_json::from_value(namespace).expect("a Namespace");
        table.namespace(&(String::new(), name.into()), Some(&namespace));
    }
    for (name, spec) in services() {
        let service = json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
        let service: Service = serde_json::from_value(service).expect("a Service");
        table.service(&key(name), Some(&service));
    }
    for (n, (service, ports, endpoints)) in slices().into_iter().enumerate() {
        let name = format!("{service}-{n}");
        table.slice(&key(&name), Some(&slice(&name, service, ports, endpoints)));
    }
    for (name, ip) in PODS {
        let pod = json!({
            "metadata": {"name": name, "namespace": "default"},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
        });
        let pod: Pod = serde_json::from_value(pod).expect("a Pod");
        table.pod(&key(name), Some(&pod));
    }
    table
}

const PODS: [(&str, &str); 3] = [
    ("web-0", "127.244.0.10"),
    ("web-1", "127.244.0.11"),
    ("web-2", "127.244.0.12"),
];

/// A key in the namespace `default`.
pub fn key(name: &str) -> (String, String) {
    ("default".into(), name.into())
}

/// A slice of a Service in the namespace `default`.
pub fn slice(name: &str, service: &str, ports: Value, endpoints: Value) -> EndpointSlice {
    let labels = json!({"kubernetes.io/service-name": service});
    let slice = json!({
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    });
    serde_json::from_value(slice).expect("an EndpointSlice")
}

fn services() -> Vec<(&'static str, Value)> {
    let headless = json!({"clusterIP": "None", "clusterIPs": ["None"]});
    let names = [
        "nginx",
        "nginx-all",
        "raft",
        "portless",
        "ghost",
        "plain",
        "manual",
        "big",
    ];
    let mut services: Vec<_> = names.map(|name| (name, headless.clone())).into();
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]);
    services.push((
        "api",
        json!({"type": "ClusterIP", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ports": ports}),
    ));
    for (name, target) in [
        ("ext", "www.example.com"),
        ("ext-in", "nginx.default.svc.cluster.local"),
        ("ext-gone", "nosuch.default.svc.cluster.local"),
        ("loop-a", "loop-b.default.svc.cluster.local"),
        ("loop-b", "loop-a.default.svc.cluster.local"),
    ] {
        services.push((name, json!({"type": "ExternalName", "externalName": target})));
    }
    services
}

/// Service, ports and endpoints of each slice.
fn slices() -> Vec<(&'static str, Value, Value)> {
    let port =
        |name: &str, port: u16, protocol: &str| json!({"name": name, "port": port, "protocol": protocol});
    let endpoint = |ip: &str, ready: bool| json!({"addresses": [ip], "conditions": {"ready": ready}});
    let named = |ip: &str, hostname: &str, ready: bool| json!({"addresses": [ip], "hostname": hostname, "conditions": {"ready": ready}});
    let http = json!([port("http", 8080, "TCP")]);
    let pods = |ready| {
        let all = PODS.map(|(name, ip)| endpoint(ip, ready || name != "web-2"));
        json!(all)
    };
    let web = PODS.map(|(name, ip)| named(ip, name, name != "web-2"));
    let raft = [0, 1, 2].map(|n| named(&format!("127.244.0.2{n}"), &format!("raft-{n}"), true));
    let big: Vec<Value> = (0..100)
        .map(|n| named(&format!("127.77.0.{}", n + 1), &format!("n-{n}"), true))
        .collect();
    let pg = json!([port("pg", 5432, "TCP")]);
    vec![
        (
            "nginx",
            json!([port("http", 8080, "TCP"), port("metrics", 9090, "TCP")]),
            json!(web),
        ),
        ("nginx-all", http.clone(), pods(true)),
        ("raft", json!([port("peer", 7000, "UDP")]), json!(raft)),
        ("portless", json!([]), pods(false)),
        ("plain", json!([port("", 5432, "TCP")]), pods(false)),
        ("api", http, pods(false)),
        (
            "manual",
            pg.clone(),
            json!([named("192.0.2.10", "db", true), named("192.0.2.11", "db", true)]),
        ),
        (
            "manual",
            pg.clone(),
            json!([{"addresses": ["192.0.2.12"]}, named("192.0.2.13", "dead", false)]),
        ),
        ("manual", pg, json!([named("fd00::10", "db", true)])),
        ("big", json!([port("http", 80, "TCP")]), json!(big)),
    ]
}
