//! The reference's acceptance table on DNS (V01 to V64, as far as a row is one question) and some rows more that its
//! sections give (§). `Z` is the cluster's domain.

/// What is asked and what is to come back.
pub struct Row {
    /// `V01`
    pub id: &'static str,
    /// The name as it is asked.
    pub name: String,
    /// `A`, `CH TXT`, …
    pub type_: &'static str,
    /// `NOERROR`, …
    pub status: &'static str,
    /// The answer section, a set: `A 127.0.0.1`, with `*` for a word that may be any.
    pub answers: Vec<String>,
    /// The zone whose SOA is the authority section; none in an answer that is complete or a refusal.
    pub soa: Option<&'static str>,
    /// The additional section, a set.
    pub glue: Vec<String>,
}

/// Where `127.0.0.0/8` is read backwards.
const REVERSE: &str = "127.in-addr.arpa.";

const WEB_0: &str = "A 127.244.0.10";
const WEB_1: &str = "A 127.244.0.11";
const WEB_2: &str = "A 127.244.0.12";

fn zone(text: &str) -> String {
    match text.strip_suffix('Z') {
        Some(rest) => format!("{rest}cluster.local."),
        None => text.to_owned(),
    }
}

fn row(id: &'static str, name: &str, type_: &'static str, status: &'static str) -> Row {
    Row {
        id,
        name: zone(name),
        type_,
        status,
        answers: Vec::new(),
        soa: None,
        glue: Vec::new(),
    }
}

fn set(id: &'static str, name: &str, type_: &'static str, answers: &[&str]) -> Row {
    let answers = answers.iter().map(|answer| zone(answer)).collect();
    Row {
        answers,
        ..row(id, name, type_, "NOERROR")
    }
}

fn with_glue(id: &'static str, name: &str, type_: &'static str, answers: &[&str], glue: &[&str]) -> Row {
    let glue = glue.iter().map(|address| (*address).to_owned()).collect();
    Row {
        glue,
        ..set(id, name, type_, answers)
    }
}

fn no_data(id: &'static str, name: &str, type_: &'static str) -> Row {
    Row {
        soa: Some("cluster.local."),
        ..row(id, name, type_, "NOERROR")
    }
}

fn nobody(id: &'static str, name: &str, type_: &'static str) -> Row {
    Row {
        soa: Some("cluster.local."),
        ..row(id, name, type_, "NXDOMAIN")
    }
}

fn refused(id: &'static str, name: &str, type_: &'static str) -> Row {
    row(id, name, type_, "REFUSED")
}

/// All rows.
pub fn rows() -> Vec<Row> {
    [
        headless(),
        by_hand(),
        zones(),
        aliases_and_addresses(),
        reverse(),
        others(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn headless() -> Vec<Row> {
    let http = |n: u8| format!("SRV 0 * 8080 web-{n}.nginx.default.svc.Z");
    let metrics = |n: u8| format!("SRV 0 * 9090 web-{n}.nginx.default.svc.Z");
    let [http_0, http_1, metrics_0, metrics_1] = [http(0), http(1), metrics(0), metrics(1)];
    let peers = ["raft-0", "raft-1", "raft-2"].map(|pod| format!("SRV 0 * 7000 {pod}.raft.default.svc.Z"));
    let peers = peers.each_ref().map(String::as_str);
    let rafts = ["A 127.244.0.20", "A 127.244.0.21", "A 127.244.0.22"];
    let plain = ["0", "1"].map(|n| format!("SRV 0 * 5432 127-244-0-1{n}.plain.default.svc.Z"));
    let plain = plain.each_ref().map(String::as_str);
    vec![
        set("V01", "nginx.default.svc.Z", "A", &[WEB_0, WEB_1]),
        no_data("V02", "nginx.default.svc.Z", "AAAA"),
        set("V03", "web-0.nginx.default.svc.Z", "A", &[WEB_0]),
        nobody("V04", "web-2.nginx.default.svc.Z", "A"),
        nobody("V05", "web-2.nginx.default.svc.Z", "AAAA"),
        set("V06", "nginx-all.default.svc.Z", "A", &[WEB_0, WEB_1, WEB_2]),
        set("§1", "127-244-0-12.nginx-all.default.svc.Z", "A", &[WEB_2]),
        nobody("§1", "web-0.nginx-all.default.svc.Z", "A"),
        nobody("§1", "127-244-0-10.nginx.default.svc.Z", "A"),
        set("V07", "raft-1.raft.default.svc.Z", "A", &[rafts[1]]),
        set("V08", "raft.default.svc.Z", "A", &rafts),
        with_glue(
            "V09",
            "_http._tcp.nginx.default.svc.Z",
            "SRV",
            &[&http_0, &http_1],
            &[WEB_0, WEB_1],
        ),
        with_glue(
            "V10",
            "_metrics._tcp.nginx.default.svc.Z",
            "SRV",
            &[&metrics_0, &metrics_1],
            &[WEB_0, WEB_1],
        ),
        with_glue("V11", "_peer._udp.raft.default.svc.Z", "SRV", &peers, &rafts),
        nobody("V12", "_peer._tcp.raft.default.svc.Z", "SRV"),
        nobody("V13", "_nope._tcp.nginx.default.svc.Z", "SRV"),
        with_glue(
            "V14",
            "nginx.default.svc.Z",
            "SRV",
            &[&http_0, &http_1, &metrics_0, &metrics_1],
            &[WEB_0, WEB_1],
        ),
        set("V15", "portless.default.svc.Z", "A", &[WEB_0, WEB_1]),
        no_data("§2", "portless.default.svc.Z", "SRV"),
        with_glue("§2", "plain.default.svc.Z", "SRV", &plain, &[WEB_0, WEB_1]),
        no_data("§2", "_http._tcp.nginx.default.svc.Z", "A"),
        no_data("§3", "_tcp.nginx.default.svc.Z", "SRV"),
        nobody("§3", "x.web-0.nginx.default.svc.Z", "A"),
        nobody("V16", "ghost.default.svc.Z", "A"),
        nobody("V16", "ghost.default.svc.Z", "AAAA"),
    ]
}

fn by_hand() -> Vec<Row> {
    let (ten, eleven, twelve) = ("A 192.0.2.10", "A 192.0.2.11", "A 192.0.2.12");
    vec![
        set("V17", "manual.default.svc.Z", "A", &[ten, eleven, twelve]),
        set("V18", "manual.default.svc.Z", "AAAA", &["AAAA fd00::10"]),
        set("V19", "db.manual.default.svc.Z", "A", &[ten, eleven]),
        set("V20", "db.manual.default.svc.Z", "AAAA", &["AAAA fd00::10"]),
        set("V21", "192-0-2-12.manual.default.svc.Z", "A", &[twelve]),
        nobody("V22", "dead.manual.default.svc.Z", "A"),
        with_glue(
            "§2",
            "_pg._tcp.manual.default.svc.Z",
            "SRV",
            &[
                "SRV 0 * 5432 db.manual.default.svc.Z",
                "SRV 0 * 5432 192-0-2-12.manual.default.svc.Z",
            ],
            &[ten, eleven, twelve, "AAAA fd00::10"],
        ),
        nobody("V23", "nosuch.default.svc.Z", "A"),
        nobody("V24", "nginx.nosuchns.svc.Z", "A"),
        nobody("V25", "nginx.shop.svc.Z", "A"),
        no_data("V26", "nginx.default.svc.Z", "TXT"),
        no_data("V26", "nginx.default.svc.Z", "MX"),
        no_data("V26", "nginx.default.svc.Z", "HTTPS"),
        no_data("V27", "nginx.default.svc.Z", "TYPE1000"),
    ]
}

fn zones() -> Vec<Row> {
    let mut soa = set("V28", "Z", "SOA", &[]);
    soa.answers
        .push("SOA ns.dns.cluster.local. hostmaster.cluster.local. * 7200 1800 86400 5".into());
    vec![
        soa,
        with_glue("V29", "Z", "NS", &["NS ns.dns.Z"], &["A 127.0.0.1"]),
        set("V30", "ns.dns.Z", "A", &["A 127.0.0.1"]),
        no_data("V31", "Z", "A"),
        no_data("V31", "Z", "MX"),
        no_data("V31", "Z", "SRV"),
        set("V32", "dns-version.Z", "TXT", &["TXT \"1.1.0\""]),
        no_data("§8", "dns-version.Z", "A"),
        no_data("V33", "svc.Z", "A"),
        no_data("V33", "default.svc.Z", "A"),
        no_data("§3", "pod.Z", "A"),
        no_data("§3", "dns.Z", "A"),
        no_data("§3", "void.svc.Z", "A"),
        no_data("§3", "void.pod.Z", "AAAA"),
        nobody("V34", "foo.Z", "A"),
        nobody("V34", "foo.Z", "NS"),
        no_data("V35", "svc.Z", "NS"),
        no_data("V35", "nginx.default.svc.Z", "SOA"),
    ]
}

fn aliases_and_addresses() -> Vec<Row> {
    let inside = "CNAME nginx.default.svc.Z";
    let mut gone = nobody("§4", "ext-gone.default.svc.Z", "A");
    gone.answers.push(zone("CNAME nosuch.default.svc.Z"));
    let mut no_such_type = no_data("§4", "ext-in.default.svc.Z", "AAAA");
    no_such_type.answers.push(zone(inside));
    let circle = ["CNAME loop-a.default.svc.Z", "CNAME loop-b.default.svc.Z"];
    vec![
        set("V39", "ext.default.svc.Z", "CNAME", &["CNAME www.example.com."]),
        set("V40", "ext.default.svc.Z", "A", &["CNAME www.example.com."]),
        set("V41", "ext-in.default.svc.Z", "A", &[inside, WEB_0, WEB_1]),
        gone,
        no_such_type,
        set("§4", "loop-a.default.svc.Z", "A", &circle),
        nobody("V42", "_http._tcp.ext.default.svc.Z", "SRV"),
        set("V43", "api.default.svc.Z", "A", &["A 10.96.0.7"]),
        with_glue(
            "V44",
            "_http._tcp.api.default.svc.Z",
            "SRV",
            &["SRV 0 100 80 api.default.svc.Z"],
            &["A 10.96.0.7"],
        ),
        set("V45", "127-244-0-12.default.pod.Z", "A", &[WEB_2]),
        nobody("V46", "127-244-0-10.shop.pod.Z", "A"),
    ]
}

fn reverse() -> Vec<Row> {
    let web_0 = [
        "web-0.nginx",
        "127-244-0-10.nginx-all",
        "127-244-0-10.portless",
        "127-244-0-10.plain",
    ];
    let web_0 = web_0.map(|name| format!("PTR {name}.default.svc.Z"));
    let web_0 = web_0.each_ref().map(String::as_str);
    let elsewhere = |row: Row| Row {
        soa: Some(REVERSE),
        ..row
    };
    vec![
        set("V36", "10.0.244.127.in-addr.arpa.", "PTR", &web_0),
        // Of a range that is not the pods': out of all zones.
        refused("V37", "12.2.0.192.in-addr.arpa.", "PTR"),
        set(
            "V37",
            "1.0.77.127.in-addr.arpa.",
            "PTR",
            &["PTR n-0.big.default.svc.Z"],
        ),
        set("§5", "7.0.96.10.in-addr.arpa.", "PTR", &["PTR api.default.svc.Z"]),
        elsewhere(nobody("V38", "99.0.244.127.in-addr.arpa.", "PTR")),
        elsewhere(nobody("§5", "010.0.244.127.in-addr.arpa.", "PTR")),
        elsewhere(nobody("§5", "256.0.244.127.in-addr.arpa.", "PTR")),
        elsewhere(no_data("§3", "244.127.in-addr.arpa.", "PTR")),
    ]
}

fn others() -> Vec<Row> {
    vec![
        refused("V47", "www.example.com.", "A"),
        set("V48", "WEB-0.NgInX.default.svc.Z", "A", &[WEB_0]),
        nobody("V49", "*.nginx.default.svc.Z", "A"),
        nobody("V49", "*.default.svc.Z", "SRV"),
        refused("V51", "version.bind.", "CH TXT"),
        set("V64", "web-0.nginx.default.svc.Z", "ANY", &[WEB_0]),
    ]
}
