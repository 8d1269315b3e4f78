//! A small replicated store whose members find each other by their names in the headless Service, as clustered
//! databases do.

use crate::sets::{cluster, create, scale, set, text};
use e2e::binary::{Cluster, PATIENCE, eventually};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Answers `set KEY VALUE`, `get KEY` and `peers`, one request a connection. A write goes to this member's volume and to
/// every other member that the Service's SRV records name; a read is this member's own.
const PROGRAM: &str = r#"
import os, signal, socket, subprocess, sys
me, service, port = os.environ["HOSTNAME"], os.environ["SERVICE"], 7070

def lookup(name, type):
    host, dns_port = os.environ["DNS"].rsplit(":", 1)
    asked = ["dig", "-r", "+short", "+tries=1", "@" + host, "-p", dns_port, name, type]
    return subprocess.run(asked, capture_output=True, text=True).stdout.splitlines()

def peers():
    return sorted(line.split()[3] for line in lookup("_peer._tcp." + service, "SRV"))

def ask(peer, request):
    for address in lookup(peer, "A"):
        with socket.create_connection((address, port), timeout=5) as there:
            there.sendall(request.encode())
            there.shutdown(socket.SHUT_WR)
            return there.makefile().read()
    raise OSError("no address for " + peer)

def keep(key, value):
    with open("/data/" + key, "w") as file:
        file.write(value)

def answer(words):
    if words[0] == "peers":
        return " ".join(peer.split(".")[0] for peer in peers())
    if words[0] == "get":
        try:
            return open("/data/" + words[1]).read()
        except FileNotFoundError:
            return "none"
    keep(words[1], words[2])
    if words[0] == "set":
        others = [peer for peer in peers() if not peer.startswith(me + ".")]
        return " ".join(ask(peer, "keep " + " ".join(words[1:])) for peer in others)
    return me

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
server = socket.create_server((os.environ["POD_IP"], port), reuse_port=True)
while True:
    client, _ = server.accept()
    with client:
        words = client.makefile().read().split()
        if words:
            try:
                client.sendall(answer(words).encode())
            except OSError as error:
                client.sendall(str(error).encode())
"#;

const SERVICE: &str = "web.default.svc.cluster.local";

/// Ask a member.
fn ask(cluster: &Cluster, pod: &str, request: &str) -> Result<String, String> {
    let pod = cluster.get(&format!("pod {pod}"));
    let connected = TcpStream::connect((text(&pod["status"]["podIP"]), 7070));
    let exchange = |mut stream: TcpStream| {
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(request.as_bytes())?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    connected.and_then(exchange).map_err(|error| error.to_string())
}

fn until_says(cluster: &Cluster, pod: &str, request: &str, expected: &str) {
    eventually(&format!("{pod} answers {request}"), PATIENCE, || {
        let answer = ask(cluster, pod, request)?;
        if answer == expected { Ok(()) } else { Err(answer) }
    });
}

/// E16 to E19.
#[test]
fn what_is_written_through_member_0_is_read_through_member_2_after_a_restart_of_the_set() {
    let cluster = cluster();
    let mut set = set(&cluster, json!({"replicas": 3}));
    let container = &mut set["spec"]["template"]["spec"]["containers"][0];
    container["command"] = json!(["python3", "-c", PROGRAM]);
    container["env"] = json!([
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "DNS", "value": cluster.address("dns")},
        {"name": "SERVICE", "value": SERVICE},
    ]);
    container["ports"] = json!([{"name": "peer", "containerPort": 7070}]);
    container["readinessProbe"] = json!({"tcpSocket": {"port": "peer"}, "periodSeconds": 1});
    create(&cluster, &set);
    cluster.until_available("web", 3);
    for pod in ["web-0", "web-1", "web-2"] {
        until_says(&cluster, pod, "peers", "web-0 web-1 web-2");
    }
    until_says(&cluster, "web-2", "get foo", "none");
    until_says(&cluster, "web-0", "set foo bar", "web-1 web-2");
    until_says(&cluster, "web-2", "get foo", "bar");

    scale(&cluster, 0);
    cluster.until_available("web", 0);
    scale(&cluster, 3);
    cluster.until_available("web", 3);
    until_says(&cluster, "web-2", "get foo", "bar");
    // And they are one cluster again, from every member's point of view.
    for pod in ["web-0", "web-1", "web-2"] {
        until_says(&cluster, pod, "peers", "web-0 web-1 web-2");
    }
    until_says(&cluster, "web-2", "set foo baz", "web-0 web-1");
    until_says(&cluster, "web-0", "get foo", "baz");
}
