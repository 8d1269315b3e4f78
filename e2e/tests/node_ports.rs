//! Node ports and host ports: ways from the host to pods, through petset's own listeners. They are the same in every isolation.

use e2e::binary::{Cluster, Level, PATIENCE, Reply, eventually};
use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// A port of the node's range that nobody listens on now, another one for each test.
fn free_node_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(30_000);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(port < 32_768, "no port is free");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A set whose pods answer TCP and UDP with their name, and its Service.
fn manifest(tcp: u16, udp: u16, host: u16) -> String {
    let program = "import os,socket,threading\n\
        at=(os.environ['PETSET_POD_IP'],7000)\n\
        name=(os.environ['HOSTNAME']+'\\n').encode()\n\
        u=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); u.bind(at)\n\
        def answer():\n\
        \x20 while True: u.sendto(name,u.recvfrom(99)[1])\n\
        threading.Thread(target=answer,daemon=True).start()\n\
        t=socket.create_server(at)\n\
        while True:\n\
        \x20 c=t.accept()[0]\n\
        \x20 try: c.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\n'+name); c.shutdown(1); c.recv(999)\n\
        \x20 except OSError: pass\n\
        \x20 c.close()\n";
    let program = serde_json::Value::from(program);
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: echo}}
spec:
  type: NodePort
  selector: {{app: echo}}
  ports:
  - {{name: tcp, port: 7, targetPort: 7000, nodePort: {tcp}}}
  - {{name: udp, port: 7, targetPort: 7000, nodePort: {udp}, protocol: UDP}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: echo}}
spec:
  serviceName: echo
  replicas: 1
  selector: {{matchLabels: {{app: echo}}}}
  template:
    metadata: {{labels: {{app: echo}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: echo
        image: python
        command: [python3, -c, {program}]
        ports: [{{containerPort: 7000, hostPort: {host}}}]
        readinessProbe: {{tcpSocket: {{port: 7000}}, periodSeconds: 1}}
"
    )
}

fn get(port: u16) -> Reply {
    e2e::binary::curl(&[&format!("http://127.0.0.1:{port}/")])
}

fn is_refused(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port))
        .is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
}

#[test]
fn node_ports_and_host_ports_lead_to_pods_with_mounts_of_their_own() {
    node_ports_and_host_ports_lead_to_pods_while_there_are_any(Level::MOUNTS);
}

#[test]
fn node_ports_and_host_ports_lead_to_pods_in_namespaces_of_root() {
    node_ports_and_host_ports_lead_to_pods_while_there_are_any(Level::ROOT);
}

#[test]
fn node_ports_and_host_ports_lead_to_pods_in_namespaces_of_an_ordinary_user() {
    node_ports_and_host_ports_lead_to_pods_while_there_are_any(Level::ORDINARY);
}

#[test]
fn node_ports_and_host_ports_lead_to_plain_processes() {
    node_ports_and_host_ports_lead_to_pods_while_there_are_any(Level::PLAIN);
}

fn node_ports_and_host_ports_lead_to_pods_while_there_are_any(level: Level) {
    let mut cluster = Cluster::at(level);
    cluster.start(&[]);
    let tcp = free_node_port();
    // Any free one does: it is not the node's range that decides here.
    let host = TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a free port")
        .port();
    let file = cluster.write("echo.yaml", &manifest(tcp, tcp, host));
    cluster.kubectl(&format!("apply -f {}", file.display()));
    cluster.until_available("echo", 1);
    for port in [tcp, host] {
        let body = eventually("the port leads to the pod", PATIENCE, || {
            if is_refused(port) {
                Err(format!("{port} is refused"))
            } else {
                Ok(get(port).body)
            }
        });
        assert_eq!(body, "echo-0\n");
    }
    let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    client.connect(("127.0.0.1", tcp)).expect("an address");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    for _ in 0..2 {
        client.send(b"?").expect("sent");
        let mut answer = [0; 99];
        let length = client.recv(&mut answer).expect("an answer");
        assert_eq!(&answer[..length], b"echo-0\n");
    }
    cluster.kubectl("scale sts echo --replicas=0");
    for port in [tcp, host] {
        eventually("nobody answers any more", PATIENCE, || {
            if is_refused(port) {
                Ok(())
            } else {
                Err(format!("{port} is open"))
            }
        });
    }
}

#[test]
fn a_node_port_that_somebody_else_has_is_told_and_taken_when_it_is_free() {
    let cluster = Cluster::up();
    let port = free_node_port();
    let taken = TcpListener::bind(("127.0.0.1", port)).expect("it is free");
    let host = TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a free port")
        .port();
    let file = cluster.write("echo.yaml", &manifest(port, port, host));
    cluster.kubectl(&format!("apply -f {}", file.display()));
    let events = "events --field-selector involvedObject.kind=Service,reason=FailedToOpenPort";
    let told = cluster.until(events, |events| {
        events["items"].as_array().is_some_and(|items| !items.is_empty())
    });
    let message = told["items"][0]["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(
        message.starts_with(&format!("cannot open node port 127.0.0.1:{port}/TCP: ")),
        "{message}"
    );
    drop(taken);
    eventually("the port leads to the pod", PATIENCE, || {
        if is_refused(port) {
            Err("it is refused".to_owned())
        } else {
            Ok(())
        }
    });
    assert_eq!(get(port).body, "echo-0\n");
}
