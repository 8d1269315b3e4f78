//! What pods find by name: peers by short names, and the world through the servers that `--pod-dns-upstream` names; and
//! that whoever asks at the host's address does not get there.
//!
//! These tests need port 53 on loopback addresses of their own and namespaces for pods: root, or
//! `sysctl net.ipv4.ip_unprivileged_port_start=53` and user namespaces. Without that they fail and say so.

use e2e::binary::{Cluster, PATIENCE, eventually, run};
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde_json::Value;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A DNS server that knows `www.example.com` and nothing else.
struct World {
    address: SocketAddr,
    /// Questions about it, of type A.
    asked: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl World {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let waits = socket.set_read_timeout(Some(Duration::from_millis(100)));
        waits.expect("a time-out");
        let address = socket.local_addr().expect("bound");
        let (asked, ends) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (asked.clone(), ends.clone());
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !end.load(Ordering::SeqCst) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                let query = Message::from_vec(&buffer[..length]).expect("a query");
                let reply = reply(&query, &count).to_vec().expect("encoded");
                let _ = socket.send_to(&reply, from);
            }
        });
        Self {
            address,
            asked,
            ends,
            thread: Some(thread),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn reply(query: &Message, asked: &AtomicUsize) -> Message {
    let name = |text: &str| Name::from_ascii(text).expect("a name");
    let question = query.queries.first().expect("a question").clone();
    let mut reply = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    reply.metadata.recursion_available = true;
    let is_known = *question.name() == name("www.example.com.");
    if is_known && question.query_type() == RecordType::A {
        asked.fetch_add(1, Ordering::SeqCst);
        let data = RData::A(A::new(192, 0, 2, 80));
        reply
            .answers
            .push(Record::from_rdata(question.name().clone(), 300, data));
    } else {
        let soa = SOA::new(name("ns.example."), name("hostmaster.example."), 1, 2, 3, 4, 60);
        reply
            .authorities
            .push(Record::from_rdata(Name::root(), 60, RData::SOA(soa)));
    }
    if !is_known {
        reply.metadata.response_code = ResponseCode::NXDomain;
    }
    reply.queries.push(question);
    reply
}

const PEERS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: nginx}
spec:
  clusterIP: None
  selector: {app: web}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  replicas: 2
  serviceName: nginx
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: shell
        image: busybox
        command:
        - sh
        - -c
        - |
          echo "full name: $(hostname -f)"
          until getent hosts web-0.nginx && getent hosts web-1.nginx; do sleep 0.1; done
          nslookup web-1.nginx.default.svc.cluster.local
          echo "world: $(getent hosts www.example.com)"
          echo "again: $(getent hosts www.example.com)"
          echo "nowhere: $(getent hosts nowhere.example.com)"
          echo done
          exec sleep 1000
"#;

const ALONE: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: alone}
spec:
  restartPolicy: Never
  dnsPolicy: None
  dnsConfig:
    nameservers: [192.0.2.1]
    searches: [my.dns.search.suffix]
    options: [{name: ndots, value: "2"}, {name: edns0}]
  hostAliases:
  - {ip: 192.0.2.9, hostnames: [foo.remote, bar.remote]}
  containers:
  - name: shell
    image: busybox
    command: [sh, -c, "cat /etc/resolv.conf; getent hosts foo.remote"]
"#;

fn status(cluster: &Cluster) -> Value {
    let text = run(&mut cluster.petset(&["status", "-o", "json"])).ok();
    serde_json::from_str(&text).expect("JSON")
}

/// `127.17.4.1`
fn pod_dns(cluster: &Cluster) -> String {
    let status = status(cluster);
    let address = status["podDns"]["at"].as_str().unwrap_or_else(|| {
        panic!(
            "this test needs port 53 on a loopback address (run it as root): {}",
            status["podDns"]
        )
    });
    address.trim_end_matches(":53").to_owned()
}

#[test]
fn pods_find_their_peers_and_the_world_by_name_and_the_host_does_not_get_there() {
    let world = World::start();
    let mut cluster = Cluster::new();
    let upstream = world.address.to_string();
    cluster.start(&["--pod-dns-upstream", &upstream]);
    let server = pod_dns(&cluster);
    cluster.write("peers.yaml", PEERS);
    cluster.kubectl("apply -f peers.yaml");
    cluster.until_available("web", 2);
    let addresses = ["web-0", "web-1"].map(|pod| {
        let pod = cluster.get(&format!("pod {pod}"));
        pod["status"]["podIP"].as_str().expect("an address").to_owned()
    });
    for (pod, address) in ["web-0", "web-1"].iter().zip(&addresses) {
        let log = eventually(&format!("{pod} has asked"), PATIENCE, || {
            let log = cluster.kubectl(&format!("logs {pod}"));
            if log.ends_with("done\n") {
                Ok(log)
            } else {
                Err(log)
            }
        });
        let line = |start: &str| {
            let found = log.lines().find(|line| line.starts_with(start));
            found.unwrap_or_else(|| panic!("no line {start:?}:\n{log}"))
        };
        assert_eq!(
            line("full name:"),
            format!("full name: {pod}.nginx.default.svc.cluster.local")
        );
        for (peer, peers) in ["web-0", "web-1"].iter().zip(&addresses) {
            let found = line(&format!("{peers} "));
            assert!(
                found.contains(&format!("{peer}.nginx.default.svc.cluster.local")),
                "{found}"
            );
        }
        assert!(line("Server:").ends_with(&server), "{log}");
        assert!(log.contains(&format!("Address: {}\n", addresses[1])), "{log}");
        for start in ["world:", "again:"] {
            let words: Vec<&str> = line(start).split_whitespace().collect();
            assert_eq!(words, [start, "192.0.2.80", "www.example.com"]);
        }
        assert_eq!(line("nowhere:").trim(), "nowhere:");
        assert!(!addresses.contains(&server), "{address} is the DNS server's");
    }
    let asked = world.asked.load(Ordering::SeqCst);
    assert_eq!(asked, 1, "one question for both pods, the rest is remembered");

    let refused = cluster.dig("www.example.com", "A");
    assert_eq!(refused.status, "REFUSED", "{}", refused.text);
    assert_eq!(world.asked.load(Ordering::SeqCst), asked);
}

#[test]
fn a_pod_may_have_settings_and_aliases_of_its_own() {
    let cluster = Cluster::up();
    pod_dns(&cluster);
    cluster.write("alone.yaml", ALONE);
    cluster.kubectl("apply -f alone.yaml");
    cluster.until("pod alone", |pod| pod["status"]["phase"] == "Succeeded");
    let log = cluster.kubectl("logs alone");
    let (settings, found) = log.split_once("192.0.2.9").expect("the alias is found");
    assert_eq!(
        settings,
        "nameserver 192.0.2.1\nsearch my.dns.search.suffix\noptions ndots:2 edns0\n"
    );
    assert_eq!(
        found.split_whitespace().collect::<Vec<_>>(),
        ["foo.remote", "bar.remote"]
    );
}

#[test]
fn a_second_petset_on_the_same_range_has_no_dns_for_pods_and_one_that_was_asked_for_must_be() {
    let first = Cluster::up();
    let server = pod_dns(&first);
    let range = format!("{}/24", server.trim_end_matches('1').to_owned() + "0");
    let mut second = Cluster::new();
    second.start(&["--pod-cidr", &range]);
    let why = status(&second)["podDns"]["missing"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(why.contains(&format!("cannot listen on {server}:53")), "{why}");
    let text = run(&mut second.petset(&["status"])).ok();
    assert!(text.contains("Pod DNS     none, pods use the host's"), "{text}");
    second.terminate();

    let refused = run(&mut second.petset(&["up", "--pod-dns", &server])).fails();
    assert!(
        refused.contains(&format!(
            "cannot listen on {server}:53 for the pods' DNS, as --pod-dns says"
        )),
        "{refused}"
    );
    second.start(&["--pod-dns", "none"]);
    let why = status(&second)["podDns"]["missing"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(why.contains("--pod-dns none"), "{why}");
}
