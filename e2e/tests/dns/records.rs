//! Looking at the names: `petset dns records`, zone transfers, metrics and the log of questions.

use e2e::binary::{Cluster, PATIENCE, Ran, eventually, repository, run};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

/// A record as text: name, TTL, type and data.
type Line = (String, String, String, String);

fn records(cluster: &Cluster, arguments: &[&str]) -> Ran {
    run(&mut cluster.petset(&[&["dns", "records"], arguments].concat()))
}

fn json(cluster: &Cluster, arguments: &[&str]) -> Vec<Value> {
    let text = records(cluster, &[&["-o", "json"], arguments].concat()).ok();
    let value: Value = serde_json::from_str(&text).expect("JSON");
    value["items"].as_array().expect("items").clone()
}

/// The data of a name's records.
fn data(cluster: &Cluster, name: &str) -> Vec<String> {
    let items = json(cluster, &[name]);
    let text = |item: &Value| item["data"].as_str().expect("text").to_owned();
    items.iter().map(text).collect()
}

/// The records of a zone file in which each is on a line of its own, as dig and petset write them.
fn lines(file: &str) -> Vec<Line> {
    let records = file
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with([';', '$']));
    let record = |line: &str| {
        let mut words = line.split_whitespace();
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (name, ttl, _class, type_) = (word(), word(), word(), word());
        (name, ttl, type_, words.collect::<Vec<_>>().join(" "))
    };
    records.map(record).collect()
}

/// What dig prints, over TCP.
fn dig(cluster: &Cluster, zone: &str, type_: &str) -> String {
    let address = cluster.address("dns");
    let (host, port) = address.rsplit_once(':').expect("it has a port");
    let server = format!("@{host}");
    let fixed = ["-r", &server, "-p", port, "+tcp", "+noidnout", "+time=10"];
    run(Command::new("dig").args(fixed).args([zone, type_])).ok()
}

#[test]
fn every_zone_is_printed_as_other_servers_load_it() {
    let cluster = Cluster::up_with_two_shells();
    let names = repository("e2e/manifests/names.yaml");
    cluster.kubectl(&format!("apply -f {}", names.display()));
    let db = eventually("both shells have their names", PATIENCE, || {
        let items = json(&cluster, &["db"]);
        let addresses = items.iter().filter(|item| item["type"] == "A").count();
        (addresses == 2)
            .then(|| items.clone())
            .ok_or_else(|| format!("{items:?}"))
    });
    assert_eq!(db.iter().filter(|item| item["type"] == "SRV").count(), 2);

    let all = json(&cluster, &[]);
    let zones: BTreeSet<&str> = all.iter().filter_map(|item| item["zone"].as_str()).collect();
    assert!(zones.len() > 2 && zones.contains("cluster.local."), "{zones:?}");
    let mut printed = 0;
    for zone in zones {
        let file = records(&cluster, &["-o", "zone", "--zone", zone]).ok();
        printed += lines(&file).len();
        let path = cluster.write("exported.zone", &file).display().to_string();
        // All checks that need no other server are errors.
        let strict = [
            "-i", "local", "-k", "fail", "-m", "fail", "-n", "fail", "-r", "fail", "-S", "fail",
        ];
        let checked = run(Command::new("named-checkzone").args(strict).args([zone, &path])).ok();
        assert!(checked.ends_with("OK\n"), "{checked}");
    }
    assert_eq!(printed, json(&cluster, &[]).len());
    // Without a word it is the cluster's.
    let file = records(&cluster, &["-o", "zone"]).ok();
    assert!(file.starts_with("$ORIGIN cluster.local.\n"), "{file}");

    // What has been served is what the objects say.
    let computed = eventually("the server follows", PATIENCE, || {
        let without_serial = |items: Vec<Value>| -> Vec<Value> {
            items.into_iter().filter(|item| item["type"] != "SOA").collect()
        };
        let kubeconfig = cluster.data("kubeconfig");
        let computed = without_serial(json(&cluster, &["--kubeconfig", &kubeconfig]));
        let served = without_serial(json(&cluster, &[]));
        (computed == served)
            .then_some(computed.len())
            .ok_or_else(|| format!("{computed:#?}\n{served:#?}"))
    });
    assert!(computed > 10);
}

#[test]
fn a_name_is_looked_up_as_a_pod_would_and_an_address_by_its_reverse_name() {
    let mut cluster = Cluster::up_with_two_shells();
    let address = eventually("db-0 has its name", PATIENCE, || {
        let found = records(&cluster, &["db-0.db", "-o", "json"]);
        let found: Value = serde_json::from_str(&found.out).map_err(|_| found.to_string())?;
        Ok(found["items"][0]["data"].as_str().expect("text").to_owned())
    });
    assert_eq!(
        data(&cluster, "db-0.db.default.svc.cluster.local."),
        [address.as_str()]
    );
    assert_eq!(data(&cluster, &address), ["db-0.db.default.svc.cluster.local."]);
    let table = records(&cluster, &["DB-0.db"]).ok();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let name = "db-0.db.default.svc.cluster.local.";
    assert_eq!(
        rows,
        [
            vec!["NAME", "TTL", "TYPE", "DATA"],
            vec![name, "5", "A", &address]
        ]
    );

    let error = records(&cluster, &["db-0.db", "-n", "shop"]).fails();
    assert!(
        error.contains("db-0.db has no records (looked for db-0.db.shop.svc.cluster.local., "),
        "{error}"
    );
    let error = records(&cluster, &["--zone", "example.com"]).fails();
    assert!(error.contains("there is no zone example.com."), "{error}");
    cluster.terminate();
    let error = records(&cluster, &[]).fails();
    assert!(error.contains("nothing runs on"), "{error}");
    assert!(!cluster.data_dir().join("dns.sock").exists());
}

#[test]
fn a_whole_zone_is_for_those_whom_a_flag_allows() {
    for refusing in [&[][..], &["--dns-allow-transfer", "192.0.2.0/24,::/0"]] {
        let mut cluster = Cluster::new();
        cluster.start(refusing);
        let said = dig(&cluster, "cluster.local", "AXFR");
        assert!(said.contains("Transfer failed."), "{said}");
        assert_eq!(lines(&said), []);
    }

    let mut cluster = Cluster::new();
    let manifest = repository("e2e/manifests/shells.yaml").display().to_string();
    cluster.start(&["--dns-allow-transfer", "192.0.2.7,127.0.0.0/8", "-f", &manifest]);
    eventually("the manifest is applied", PATIENCE, || cluster.look("sts db"));
    cluster.until_available("db", 2);
    for zone in ["cluster.local.", "96.10.in-addr.arpa."] {
        let soa = eventually("what is transferred is what is printed", PATIENCE, || {
            let transferred = lines(&dig(&cluster, zone, "AXFR"));
            let mut printed = lines(&records(&cluster, &["-o", "zone", "--zone", zone]).ok());
            let soa = printed[0].clone();
            printed.push(soa.clone());
            let is_it = |lines: &[Line]| {
                let mut inner = lines[1..lines.len().max(2) - 1].to_vec();
                inner.sort();
                (lines.first().cloned(), inner, lines.last().cloned())
            };
            if !transferred.is_empty() && is_it(&transferred) == is_it(&printed) {
                Ok(soa)
            } else {
                Err(format!("{transferred:#?}\nis not\n{printed:#?}"))
            }
        });
        assert_eq!((soa.0.as_str(), soa.2.as_str()), (zone, "SOA"));
    }
    let names: BTreeSet<String> = lines(&dig(&cluster, "cluster.local", "AXFR"))
        .into_iter()
        .map(|line| line.0)
        .collect();
    assert!(names.contains("db-1.db.default.svc.cluster.local."), "{names:?}");
    // Who has the newest version is told only that (RFC 1995).
    let serial = lines(&dig(&cluster, "cluster.local", "SOA"))[0]
        .3
        .split(' ')
        .nth(2)
        .map(str::to_owned);
    let serial = serial.expect("a serial number");
    let newest = dig(&cluster, "cluster.local", &format!("IXFR={serial}"));
    assert_eq!(lines(&newest).len(), 1, "{newest}");
    // No zone begins there.
    let said = dig(&cluster, "svc.cluster.local", "AXFR");
    assert!(said.contains("Transfer failed."), "{said}");
}

#[test]
fn questions_are_counted_and_on_request_logged() {
    let mut cluster = Cluster::new();
    let manifest = repository("e2e/manifests/shells.yaml").display().to_string();
    cluster.start(&["--dns-log", "--dns-metrics", "127.0.0.1:0", "-f", &manifest]);
    let url = cluster.address("dnsMetrics");
    let metric = |name: &str| -> f64 {
        let reply = cluster.curl(&[&url]);
        assert!(
            reply.headers.contains("content-type: text/plain; version=0.0.4"),
            "{reply:?}"
        );
        let line = reply
            .body
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    };
    eventually("the names are there", PATIENCE, || {
        let dug = cluster.dig("db.default.svc.cluster.local", "A");
        (dug.answer.len() == 2).then_some(()).ok_or(dug.text)
    });
    let answers = |proto: &str, rcode: &str, type_: &str| {
        metric(&format!(
            "petset_dns_responses_total{{proto=\"{proto}\",rcode=\"{rcode}\",type=\"{type_}\"}}"
        ))
    };
    let before = answers("udp", "NXDOMAIN", "AAAA");
    let took = metric("petset_dns_request_duration_seconds_count");
    cluster.dig("nobody.default.svc.cluster.local", "AAAA");
    assert_eq!(answers("udp", "NXDOMAIN", "AAAA"), before + 1.0);
    assert!(metric("petset_dns_request_duration_seconds_count") > took);
    let before = answers("tcp", "NOERROR", "SOA");
    dig(&cluster, "cluster.local", "SOA");
    assert_eq!(answers("tcp", "NOERROR", "SOA"), before + 1.0);

    // The table and how fast it follows: both shells became ready after the start.
    assert_eq!(metric("petset_dns_records"), json(&cluster, &[]).len() as f64);
    assert!(metric("petset_dns_names") > 10.0);
    assert!(metric("petset_dns_serial") > 1.0);
    assert!(metric("petset_dns_update_duration_seconds_count") > 1.0);
    assert!(metric("petset_dns_programming_duration_seconds_count") >= 1.0);
    // Names are for the owner.
    assert_eq!(cluster.curl(&[&url.replace("/metrics", "/zone")]).code, 404);

    let said = cluster.said();
    let logged = |parts: &[&str]| {
        said.lines()
            .any(|line| parts.iter().all(|part| line.contains(part)))
    };
    let name = "name=nobody.default.svc.cluster.local.";
    assert!(
        logged(&[
            "dns::query",
            "type=AAAA",
            name,
            "proto=\"udp\"",
            "rcode=NXDOMAIN",
            "flags=qr,aa,rd"
        ]),
        "{said}"
    );
    assert!(
        logged(&[
            "dns::query",
            "type=SOA",
            "name=cluster.local.",
            "proto=\"tcp\"",
            "rcode=NOERROR"
        ]),
        "{said}"
    );
}

#[test]
fn without_a_word_no_question_is_logged() {
    let cluster = Cluster::up();
    cluster.dig("cluster.local", "SOA");
    let said = cluster.said();
    assert!(!said.contains("dns::query"), "{said}");
}
