//! The DNS protocol end to end: every row of the reference's acceptance table on the real binary, asked with dig, kdig
//! and nslookup over UDP and TCP, and with packets by hand where no tool sends such.
//!
//! `petset apiserver`, `controller` and `dns` are processes of their own, and no kubelet runs: this test says in the
//! status of pods what one would, so that it knows the addresses and who is ready.

mod people;
mod rfc8906;
mod rows;
mod said;
mod sizes;
mod tools;
mod wire;

use e2e::binary::{Cluster, PATIENCE, eventually, repository};
use rows::{Row, rows};
use said::{Record, Said};
use serde_json::{Value, json};
use tools::{TOOLS, Tool, WAYS, Way, ask};

/// Pods, their addresses and whether they are ready.
const PODS: [(&str, &str, bool); 6] = [
    ("web-0", "127.244.0.10", true),
    ("web-1", "127.244.0.11", true),
    ("web-2", "127.244.0.12", false),
    ("raft-0", "127.244.0.20", false),
    ("raft-1", "127.244.0.21", false),
    ("raft-2", "127.244.0.22", false),
];

/// Start everything; the cluster, and where its DNS server is.
fn start() -> (Cluster, String) {
    let mut cluster = Cluster::api_alone();
    let kubeconfig = cluster.data("kubeconfig");
    cluster.spawn_beside("controller", &["controller", "--kubeconfig", &kubeconfig]);
    let every_loopback = "127.0.0.0/8";
    cluster.spawn_beside(
        "dns",
        &["dns", "--kubeconfig", &kubeconfig, "--pod-cidr", every_loopback],
    );
    let manifest = repository("e2e/manifests/names.yaml").display().to_string();
    cluster.kubectl(&format!("create -f {manifest}"));
    cluster.create(&big_slice());
    for (name, ip, is_ready) in PODS {
        set_status(&cluster, name, ip, is_ready);
    }
    let server = eventually("the DNS server says where it is", PATIENCE, || {
        let said = std::fs::read_to_string(cluster.log("dns")).unwrap_or_default();
        let address = said
            .strip_prefix("DNS at ")
            .and_then(|rest| rest.split_whitespace().next());
        address.map(ToOwned::to_owned).ok_or(said)
    });
    // Each kind of object is watched on its own: the last ones of each.
    let last = [
        ("127-244-0-22.default.pod.cluster.local.", "A"),
        ("_peer._udp.raft.default.svc.cluster.local.", "SRV"),
        ("nginx.default.svc.cluster.local.", "A"),
        ("n-99.big.default.svc.cluster.local.", "A"),
    ];
    eventually("all names are there", PATIENCE, || {
        let said = ask(&cluster, &server, Tool::Dig, Way::Tcp, &last);
        let numbers: Vec<usize> = said.iter().map(|s| s.answer.len()).collect();
        (numbers == [1, 3, 2, 1])
            .then_some(())
            .ok_or_else(|| format!("{said:#?}"))
    });
    (cluster, server)
}

/// What a kubelet would say of a pod.
fn set_status(cluster: &Cluster, pod: &str, ip: &str, is_ready: bool) {
    let condition = json!({"type": "Ready", "status": if is_ready { "True" } else { "False" }});
    let status = json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [condition]});
    let patch = json!({"status": status}).to_string();
    let arguments = [
        "patch",
        "pod",
        pod,
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ];
    eventually("the pod is there to be patched", PATIENCE, || {
        let ran = e2e::binary::run(&mut cluster.kubectl_command(&arguments));
        ran.status.success().then_some(()).ok_or_else(|| ran.to_string())
    });
}

/// A hundred endpoints, more than a datagram holds.
fn big_slice() -> Value {
    let endpoint =
        |n: u8| json!({"addresses": [format!("127.77.0.{}", n + 1)], "hostname": format!("n-{n}")});
    let endpoints: Vec<Value> = (0..100).map(endpoint).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "big", "labels": {"kubernetes.io/service-name": "big"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 80}], "endpoints": endpoints,
    })
}

#[test]
fn every_row_of_the_table_is_answered_right_to_everybody_over_every_transport() {
    let (cluster, server) = start();
    let mut wrong = Vec::new();
    let rows = rows();
    let questions: Vec<(&str, &str)> = rows.iter().map(|row| (row.name.as_str(), row.type_)).collect();
    for tool in TOOLS {
        for way in WAYS {
            let answers = ask(&cluster, &server, tool, way, &questions);
            for (row, said) in rows.iter().zip(&answers) {
                let complaints = check(row, said, tool, way);
                if !complaints.is_empty() {
                    wrong.push(format!(
                        "{} {} {}, {tool:?} {way:?}: {complaints:?} in\n{}",
                        row.id, row.name, row.type_, said.text
                    ));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} answers are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );

    people::look_around(&server);
    sizes::what_is_too_long_is_cut(&cluster, &server);
    sizes::each_address_comes_first(&cluster, &server);
    rfc8906::every_line_holds(&server);
    wire::odd_packets(&server);
    wire::streams(&server);
    a_pod_goes_and_comes_back(&cluster, &server);
}

/// What is wrong with an answer.
fn check(row: &Row, said: &Said, tool: Tool, way: Way) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut expect = |is_so: bool, what: &str| {
        if !is_so {
            wrong.push(what.to_owned());
        }
    };
    expect(said.status == row.status, row.status);
    let has_authority = row.status != "REFUSED";
    expect(
        said.is("qr") && said.is("rd") && said.is("aa") == has_authority,
        "flags qr, rd and aa",
    );
    expect(
        !["tc", "ra", "ad", "cd"].iter().any(|flag| said.is(flag)),
        "no flag tc, ra, ad, cd",
    );
    expect(is_set(&said.answer, &row.answers), "the set of answers");
    expect(
        is_set(&said.additional, &row.glue),
        "the addresses of what is pointed to",
    );
    let is_alias = |record: &Record| record.data.starts_with("CNAME ");
    let aliases = said.answer.iter().take_while(|r| is_alias(r)).count();
    expect(!said.answer[aliases..].iter().any(is_alias), "aliases come first");
    // kdig asks in lower case, whatever it is told.
    let asked = match tool {
        Tool::Dig => row.name.clone(),
        Tool::Kdig => row.name.to_lowercase(),
    };
    expect(
        said.question.first() == Some(&asked),
        "the question as it was asked",
    );
    expect(
        said.answer.first().is_none_or(|record| record.owner == asked),
        "the answer's owner as it was asked",
    );
    let ttl = |record: &Record| record.ttl == 5 || record.data.starts_with("TXT ") && record.ttl <= 28_800;
    expect(
        [&said.answer, &said.authority, &said.additional]
            .into_iter()
            .flatten()
            .all(ttl),
        "TTL 5",
    );
    match row.soa {
        Some(zone) => {
            let data = "SOA ns.dns.cluster.local. hostmaster.cluster.local. * 7200 1800 86400 5";
            expect(is_set(&said.authority, &[data.to_owned()]), "one SOA");
            expect(said.authority.iter().all(|soa| soa.owner == zone), zone);
        }
        None => expect(said.authority.is_empty(), "no authority"),
    }
    let edns = said.edns.as_deref();
    expect(
        edns.is_some() == (way == Way::Edns),
        "OPT if and only if there was one",
    );
    let limit = match way {
        Way::Plain => 512,
        Way::Edns => 1232,
        Way::Tcp => 65_535,
    };
    expect(said.size <= limit, "the size");
    wrong
}

/// Whether the records are those, in any order; `*` is any word.
fn is_set(records: &[Record], expected: &[String]) -> bool {
    let is_it = |data: &str, pattern: &str| {
        let (data, pattern): (Vec<&str>, Vec<&str>) =
            (data.split(' ').collect(), pattern.split(' ').collect());
        data.len() == pattern.len() && data.iter().zip(&pattern).all(|(a, b)| a == b || *b == "*")
    };
    let mut left: Vec<&Record> = records.iter().collect();
    for pattern in expected {
        let Some(found) = left.iter().position(|record| is_it(&record.data, pattern)) else {
            return false;
        };
        left.swap_remove(found);
    }
    left.is_empty()
}

/// V63.
fn a_pod_goes_and_comes_back(cluster: &Cluster, server: &str) {
    let questions = [
        ("nginx.default.svc.cluster.local.", "A"),
        ("web-1.nginx.default.svc.cluster.local.", "A"),
        ("11.0.244.127.in-addr.arpa.", "PTR"),
        ("30.0.244.127.in-addr.arpa.", "PTR"),
    ];
    let until = |what: &str, addresses: &[&str], others: [usize; 3]| {
        eventually(what, PATIENCE, || {
            let said = ask(cluster, server, Tool::Dig, Way::Plain, &questions);
            let expected: Vec<String> = addresses.iter().map(|ip| format!("A {ip}")).collect();
            let numbers: Vec<usize> = said[1..].iter().map(|s| s.answer.len()).collect();
            let is_so = is_set(&said[0].answer, &expected) && numbers == others;
            is_so.then_some(()).ok_or_else(|| format!("{said:#?}"))
        });
    };
    let before = cluster.get("pod web-1")["metadata"]["uid"].clone();
    cluster.kubectl("delete pod web-1 --wait=false");
    until("web-1 leaves", &["127.244.0.10"], [0, 0, 0]);
    cluster.until("pod web-1", |pod| pod["metadata"]["uid"] != before);
    set_status(cluster, "web-1", "127.244.0.30", true);
    until("web-1 is back", &["127.244.0.10", "127.244.0.30"], [1, 0, 4]);
}
