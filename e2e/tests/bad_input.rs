//! Input that no API and no DNS server should get: each piece is answered as upstream answers it, the server stays
//! up, and nothing is stored half.

use e2e::binary::{Cluster, PATIENCE, Reply, eventually};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SETS: &str = "/apis/apps/v1/namespaces/default/statefulsets";

fn send(cluster: &Cluster, method: &str, path: &str, content_type: &str, body: &str) -> Reply {
    let file = cluster.write("body", body).display().to_string();
    cluster.curl(&[
        "--unix-socket",
        &cluster.data("api.sock"),
        "-X",
        method,
        "-H",
        &format!("content-type: {content_type}"),
        "--data-binary",
        &format!("@{file}"),
        &format!("http://petset{path}"),
    ])
}

fn post(cluster: &Cluster, path: &str, body: &Value) -> Reply {
    send(cluster, "POST", path, "application/json", &body.to_string())
}

#[track_caller]
fn refused(reply: &Reply, code: u16, reason: &str, message: &str) -> Value {
    let status = reply.expect(code);
    assert_eq!(status["kind"], "Status", "{status:#}");
    assert_eq!(status["status"], "Failure", "{status:#}");
    assert_eq!(status["reason"], reason, "{status:#}");
    let said = status["message"].as_str().unwrap_or_default();
    assert!(said.contains(message), "no {message:?} in {said:?}");
    status
}

/// Names and versions of everything that is stored and does not change by itself. (The Service `kubernetes` follows the
/// API's port, which is another one after a restart.)
fn stored(cluster: &Cluster) -> String {
    let columns = "custom-columns=:.kind,:.metadata.namespace,:.metadata.name,:.metadata.resourceVersion";
    let kinds = "sts,cm,svc,pvc,pv,pods,sa,ns,secrets,sc";
    cluster.kubectl(&format!(
        "get {kinds} -A -o {columns} --field-selector metadata.name!=kubernetes"
    ))
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

fn set() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"},
        "spec": {"serviceName": "db", "replicas": 0, "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}}})
}

#[test]
fn the_api_refuses_as_upstream_does_and_stores_nothing() {
    let mut cluster = Cluster::up();
    cluster.until("cm kube-root-ca.crt", |_| true);
    cluster.until("sa default", |_| true);
    let kept = post(&cluster, MAPS, &map("kept")).expect(201);
    let before = stored(&cluster);

    bodies_that_do_not_parse(&cluster);
    kinds_and_fields_that_do_not_exist(&cluster);
    values_that_are_wrong(&cluster);
    let large = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "large"},
        "data": {"a": "x".repeat(3 * 1024 * 1024)}});
    let limit = "Request entity too large: limit is 3145728";
    refused(&post(&cluster, MAPS, &large), 413, "RequestEntityTooLarge", limit);

    assert_eq!(stored(&cluster), before);
    versions_that_are_stale(&cluster, kept);
    let before = stored(&cluster);
    cluster.terminate();
    cluster.start(&[]);
    assert_eq!(stored(&cluster), before, "the disk holds the same");
}

fn bodies_that_do_not_parse(cluster: &Cluster) {
    let truncated = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}"#;
    let types = ["application/json", "application/yaml"];
    for (body, message) in [
        (
            truncated,
            ["unexpected end of JSON input", "error converting YAML to JSON"],
        ),
        (
            "\u{0}\u{1}\u{2}",
            [
                "couldn't get version/kind; json parse error",
                "error converting YAML to JSON",
            ],
        ),
        (
            "[1, 2",
            [
                "couldn't get version/kind; json parse error",
                "error converting YAML to JSON",
            ],
        ),
    ] {
        for (content_type, message) in types.into_iter().zip(message) {
            let reply = send(cluster, "POST", MAPS, content_type, body);
            refused(&reply, 400, "BadRequest", message);
        }
    }
    refused(
        &send(cluster, "POST", MAPS, "text/rtf", "{}"),
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format",
    );
    let patch =
        |content_type: &str, body: &str| send(cluster, "PATCH", &format!("{MAPS}/kept"), content_type, body);
    refused(&patch("application/merge-patch+json", "{"), 400, "BadRequest", "");
    refused(
        &patch("application/json-patch+json", r#"[{"op":"fly","path":"/a"}]"#),
        422,
        "Invalid",
        "",
    );
    refused(&patch("text/plain", "{}"), 415, "UnsupportedMediaType", "");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let nested =
        format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"deep"}},"data":{deep}}}"#);
    for content_type in types {
        let reply = send(cluster, "POST", MAPS, content_type, &nested);
        refused(&reply, 400, "BadRequest", "");
    }
    // Every level doubles what the one before it stands for.
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let before = level - 1;
        bomb += &format!(
            "a{level}: &a{level} [{}]\n",
            vec![format!("*a{before}"); 9].join(", ")
        );
    }
    refused(
        &send(cluster, "POST", MAPS, "application/yaml", &bomb),
        400,
        "BadRequest",
        "",
    );
}

fn kinds_and_fields_that_do_not_exist(cluster: &Cluster) {
    let mut other = map("a");
    other["kind"] = json!("Pets");
    refused(
        &post(cluster, MAPS, &other),
        400,
        "BadRequest",
        "no kind \"Pets\" is registered for version \"v1\"",
    );
    let nowhere = "/api/v1/namespaces/default/pets";
    refused(
        &post(cluster, nowhere, &other),
        404,
        "NotFound",
        "the server could not find the requested resource",
    );
    let file = cluster
        .write("pets.json", &other.to_string())
        .display()
        .to_string();
    let said = cluster.try_kubectl(&format!("create -f {file}")).fails();
    assert!(
        said.contains(r#"no matches for kind "Pets" in version "v1""#),
        "{said}"
    );

    let mut unknown = set();
    unknown["spec"]["replikas"] = json!(1);
    // A dry run answers as the real one does, and keeps what is stored as it is.
    let validated = |how: &str| {
        post(
            cluster,
            &format!("{SETS}?dryRun=All&fieldValidation={how}"),
            &unknown,
        )
    };
    let strict = "strict decoding error: unknown field \"spec.replikas\"";
    refused(&validated("Strict"), 400, "BadRequest", strict);
    let warned = validated("Warn");
    assert_eq!(warned.code, 201, "{warned:?}");
    assert!(
        warned
            .headers
            .contains(r#"warning: 299 - "unknown field \"spec.replikas\"""#),
        "{}",
        warned.headers
    );
    assert!(warned.json()["spec"]["replikas"].is_null(), "{warned:?}");
    let ignored = validated("Ignore");
    assert_eq!(ignored.code, 201, "{ignored:?}");
    assert!(!ignored.headers.contains("warning:"), "{}", ignored.headers);
    refused(&validated("Sometimes"), 422, "Invalid", "fieldValidation");
    let twice = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","name":"b"}}"#;
    let strictly = format!("{MAPS}?fieldValidation=Strict");
    let reply = send(cluster, "POST", &strictly, "application/json", twice);
    refused(&reply, 400, "BadRequest", "duplicate field \"metadata.name\"");
}

fn values_that_are_wrong(cluster: &Cluster) {
    let mut wrong = set();
    wrong["spec"]["replicas"] = json!("three");
    let message =
        "json: cannot unmarshal string into Go struct field StatefulSetSpec.spec.replicas of type int32";
    refused(&post(cluster, SETS, &wrong), 400, "BadRequest", message);
    let mut negative = set();
    negative["spec"]["replicas"] = json!(-1);
    let status = refused(
        &post(cluster, SETS, &negative),
        422,
        "Invalid",
        "spec.replicas: Invalid value: -1",
    );
    assert_eq!(
        status["details"]["causes"][0]["field"], "spec.replicas",
        "{status:#}"
    );
    let mut selector = set();
    selector["spec"]["template"]["metadata"]["labels"]["app"] = json!("other");
    refused(
        &post(cluster, SETS, &selector),
        422,
        "Invalid",
        "`selector` does not match template `labels`",
    );

    let service = |name: &str| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    let services = "/api/v1/namespaces/default/services";
    for name in ["-a", "A", "a_b", "a.b", &"a".repeat(64)] {
        let status = refused(
            &post(cluster, services, &service(name)),
            422,
            "Invalid",
            "metadata.name: Invalid value",
        );
        assert_eq!(
            status["details"]["causes"][0]["field"], "metadata.name",
            "{status:#}"
        );
    }
    let mut dotted = set();
    dotted["metadata"]["name"] = json!("a.b");
    let status = post(cluster, SETS, &dotted).json();
    assert_eq!(status["reason"], "Invalid", "{status:#}");
    for name in ["Not_A.name", "../../etc/passwd", "a/b", &"a".repeat(254)] {
        refused(
            &post(cluster, MAPS, &map(name)),
            422,
            "Invalid",
            "metadata.name: Invalid value",
        );
    }
    refused(
        &post(cluster, MAPS, &map("")),
        422,
        "Invalid",
        "name or generateName is required",
    );
}

fn versions_that_are_stale(cluster: &Cluster, mut kept: Value) {
    let path = format!("{MAPS}/kept");
    kept["data"] = json!({"by": "the first"});
    let put = |object: &Value| send(cluster, "PUT", &path, "application/json", &object.to_string());
    put(&kept).expect(200);
    kept["data"] = json!({"by": "the second, who has not seen the first"});
    let message =
        "the object has been modified; please apply your changes to the latest version and try again";
    refused(&put(&kept), 409, "Conflict", message);
    kept["metadata"]["resourceVersion"] = json!("soon");
    assert!(
        [400, 409, 422].contains(&put(&kept).code),
        "a version that is no number"
    );
    refused(
        &post(cluster, MAPS, &map("kept")),
        409,
        "AlreadyExists",
        "configmaps \"kept\" already exists",
    );
    assert_eq!(cluster.get("cm kept")["data"]["by"], "the first");
}

/// Bytes that look random and are the same in every run (xorshift64*).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn bytes(&mut self, longest: u64) -> Vec<u8> {
        let length = self.next() % (longest + 1);
        (0..length).map(|_| self.next().to_be_bytes()[0]).collect()
    }
}

/// Write and read to the end; the other side may hang up at any time.
fn say(stream: &mut (impl Read + Write), bytes: &[u8], end: impl Fn()) {
    let _ = stream.write_all(bytes);
    end();
    let _ = stream.read_to_end(&mut Vec::new());
}

const SOON: Option<Duration> = Some(Duration::from_secs(5));

#[test]
fn random_bytes_leave_dns_and_the_api_as_they_were() {
    let cluster = Cluster::up();
    let dns = cluster.address("dns");
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "plain"},
        "spec": {"ports": [{"port": 80}]}});
    post(&cluster, "/api/v1/namespaces/default/services", &service).expect(201);
    let service = cluster.get("svc plain")["spec"]["clusterIP"].clone();
    eventually("its name", PATIENCE, || {
        let dug = cluster.dig("plain.default.svc.cluster.local", "A");
        (!dug.answer.is_empty()).then_some(()).ok_or(dug.text)
    });
    let mut noise = Noise(0x5eed);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    for round in 0..2000 {
        let mut packet = noise.bytes(600);
        if round % 2 == 0 && packet.len() > 12 {
            // A header that passes for one question, so that the rest is read as well.
            packet[2..12].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        }
        socket.send_to(&packet, &dns).expect("it can be sent");
    }
    for _ in 0..100 {
        let bytes = noise.bytes(300);
        let mut framed = u16::try_from(bytes.len())
            .expect("it is short")
            .to_be_bytes()
            .to_vec();
        framed.extend(&bytes);
        for bytes in [bytes, framed] {
            let mut stream = TcpStream::connect(&dns).expect("it listens");
            stream.set_read_timeout(SOON).expect("a timeout");
            let half = stream.try_clone().expect("one more descriptor");
            say(&mut stream, &bytes, || drop(half.shutdown(Shutdown::Write)));
        }
    }
    let dug = cluster.dig("plain.default.svc.cluster.local", "A");
    assert_eq!(
        dug.data(),
        [service.as_str().expect("it has one")],
        "{}",
        dug.text
    );

    let api = cluster.address("api");
    let api = api.trim_start_matches("https://");
    for round in 0..100 {
        let mut bytes = noise.bytes(400);
        if round % 2 == 0 {
            bytes.splice(0..0, *b"GET /api/v1/pods?");
        }
        let mut stream = TcpStream::connect(api).expect("it listens");
        stream.set_read_timeout(SOON).expect("a timeout");
        let half = stream.try_clone().expect("one more descriptor");
        say(&mut stream, &bytes, || drop(half.shutdown(Shutdown::Write)));
        let mut stream = UnixStream::connect(cluster.data_dir().join("api.sock")).expect("it listens");
        stream.set_read_timeout(SOON).expect("a timeout");
        let half = stream.try_clone().expect("one more descriptor");
        say(&mut stream, &bytes, || drop(half.shutdown(Shutdown::Write)));
    }
    assert_eq!(cluster.kubectl("get --raw /readyz"), "ok");
    assert!(!cluster.said().contains("panicked"), "{}", cluster.said());
}
