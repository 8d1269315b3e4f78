//! The cluster whose names all servers serve: headless Services with hand-made EndpointSlices, the zones that follow from
//! them, and the questions that are asked.

use anyhow::Context;
use dns::table::Table;
use dns::zone::Zone;
use dns::{Config, Options};
use hickory_proto::rr::Name;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// Endpoints in each of the big slices, as many as the EndpointSlice controller puts into one.
pub const IN_SLICE: usize = 100;
/// Beside the big Services there are small ones of three endpoints: SRV is asked of these, as it is in practice, since a
/// hundred targets fit in no datagram.
const SMALL: usize = 100;
const IN_SMALL: usize = 3;
const DOMAIN: &str = "default.svc.cluster.local";
/// The range of all endpoints' addresses.
pub const RANGE: &str = "127.0.0.0/8";

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The address of an endpoint that exists.
    A,
    /// An endpoint that its Service has not.
    Nxdomain,
    /// Of ten questions four A, two AAAA where there is only A, one SRV, one PTR, two names that do not exist.
    Mix,
}

impl Shape {
    /// As it is given on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::Nxdomain => "nxdomain",
            Self::Mix => "mix",
        }
    }
}

/// A cluster of so many endpoints.
#[derive(Clone, Copy, Debug)]
pub struct Cluster {
    /// A multiple of a hundred.
    pub endpoints: usize,
}

impl Cluster {
    fn big(self) -> usize {
        self.endpoints / IN_SLICE
    }

    /// Every Service, headless and without selector.
    pub fn services(self) -> anyhow::Result<Vec<Service>> {
        let names = (0..self.big()).map(big).chain((0..SMALL).map(small));
        let service = |name: String| -> anyhow::Result<Service> {
            let spec = json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]});
            let metadata = json!({"name": name, "namespace": "default"});
            Ok(serde_json::from_value(
                json!({"metadata": metadata, "spec": spec}),
            )?)
        };
        names.map(service).collect()
    }

    /// One slice of every Service.
    pub fn slices(self) -> anyhow::Result<Vec<EndpointSlice>> {
        let slices = (0..self.big()).map(|n| slice(&big(n), IN_SLICE, |k| address(n * IN_SLICE + k)));
        let smalls =
            (0..SMALL).map(|n| slice(&small(n), IN_SMALL, move |k| format!("127.200.{n}.{}", k + 1)));
        slices.chain(smalls).collect()
    }

    /// A file of questions for dnsperf, each name once in an order that jumps about.
    pub fn questions(self, shape: Shape, directory: &Path) -> anyhow::Result<PathBuf> {
        let mut text = String::new();
        for (n, (name, type_)) in self.ask(shape).enumerate() {
            debug_assert!(n < self.endpoints);
            writeln!(text, "{name} {type_}")?;
        }
        let file = directory.join(format!("{}-{}.txt", shape.name(), self.endpoints));
        std::fs::write(&file, text)?;
        Ok(file)
    }

    /// Name and type of each question.
    pub fn ask(self, shape: Shape) -> impl Iterator<Item = (String, &'static str)> {
        // A prime that is no factor of the number: every endpoint comes once, far from the one before.
        let order = (0..self.endpoints).map(move |n| n * 7919 % self.endpoints);
        order.enumerate().map(move |(n, endpoint)| match (shape, n % 10) {
            (Shape::A, _) | (Shape::Mix, 0..=3) => (endpoint_name(endpoint), "A"),
            (Shape::Mix, 4..=5) => (endpoint_name(endpoint), "AAAA"),
            (Shape::Mix, 6) => (format!("_http._tcp.{}.{DOMAIN}", small(endpoint % SMALL)), "SRV"),
            (Shape::Mix, 7) => (reverse(&address(endpoint)), "PTR"),
            (Shape::Nxdomain | Shape::Mix, _) => (
                format!("nobody-{endpoint}.{}.{DOMAIN}", big(endpoint / IN_SLICE)),
                "A",
            ),
        })
    }

    /// Write a file for each zone that petset makes of these objects, so that all servers serve the same; the zones'
    /// apexes and the files.
    pub fn zone_files(self, directory: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
        let options = Options {
            reverse_ranges: vec![RANGE.into()],
            ..Options::default()
        };
        let config = Arc::new(Config::new(&options)?);
        let mut table = Table::new(config.clone());
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "default"}}))?;
        table.namespace(&(String::new(), "default".into()), Some(&namespace));
        let key = |name: &Option<String>| ("default".to_owned(), name.clone().unwrap_or_default());
        for service in self.services()? {
            table.service(&key(&service.metadata.name), Some(&service));
        }
        for slice in self.slices()? {
            table.slice(&key(&slice.metadata.name), Some(&slice));
        }
        let records = Zone::new(&config, table.commit(), true).records();
        let mut files = Vec::new();
        for apex in config.apexes().map(ToString::to_string) {
            let zone = Name::from_str(&apex)?;
            let mut text = String::new();
            for record in records.iter().filter(|record| zone.zone_of(&record.name)) {
                writeln!(text, "{record}")?;
            }
            let file = directory.join(format!("{apex}zone"));
            std::fs::write(&file, text).with_context(|| file.display().to_string())?;
            files.push((apex, file));
        }
        Ok(files)
    }
}

fn big(n: usize) -> String {
    format!("web-{n}")
}

fn small(n: usize) -> String {
    format!("db-{n}")
}

/// The full name of an endpoint of the big Services.
pub fn endpoint_name(endpoint: usize) -> String {
    let service = big(endpoint / IN_SLICE);
    format!("{service}-{}.{service}.{DOMAIN}", endpoint % IN_SLICE)
}

/// The address of an endpoint of the big Services.
pub fn address(endpoint: usize) -> String {
    format!(
        "127.{}.{}.{}",
        64 + endpoint / 40_000,
        endpoint / 200 % 200,
        endpoint % 200 + 1
    )
}

fn reverse(address: &str) -> String {
    let octets: Vec<&str> = address.rsplit('.').collect();
    format!("{}.in-addr.arpa", octets.join("."))
}

fn slice(service: &str, length: usize, address: impl Fn(usize) -> String) -> anyhow::Result<EndpointSlice> {
    let endpoints: Vec<Value> = (0..length)
        .map(|n| json!({"addresses": [address(n)], "hostname": format!("{service}-{n}"), "conditions": {"ready": true}}))
        .collect();
    let labels = json!({"kubernetes.io/service-name": service});
    let slice = json!({
        "metadata": {"name": service, "namespace": "default", "labels": labels},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    });
    Ok(serde_json::from_value(slice)?)
}
