//! What goes through the API server to servers in pods, behind Services, and to kubelets: `proxy`.

use e2e::binary::{Cluster, Level, Lines, PATIENCE, eventually};
use std::process::Stdio;

/// A server that says back what it was asked: method, path and headers, and the body behind them.
const MIRROR: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: mirror}
spec: {clusterIP: None, selector: {app: mirror}, ports: [{name: http, port: 80, targetPort: 7080}]}
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec: {clusterIP: None, selector: {app: nobody}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: mirror, labels: {app: mirror}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: python
    ports: [{containerPort: 7080}]
    readinessProbe: {tcpSocket: {port: 7080}, periodSeconds: 1}
    command:
    - python3
    - -c
    - |
      import http.server, os
      class Mirror(http.server.BaseHTTPRequestHandler):
          protocol_version = "HTTP/1.1"
          def answer(self):
              body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
              said = f"{self.command} {self.path}\n{self.headers}\n".encode() + body
              if self.path.startswith("/upgrade"):
                  self.send_response(101)
                  self.send_header("Connection", "Upgrade")
                  self.send_header("Upgrade", "echo")
                  self.end_headers()
                  while data := self.rfile.read1(4096): self.wfile.write(data)
                  return
              self.send_response(302 if self.path.startswith("/away") else 200)
              self.send_header("Location", "/elsewhere")
              self.send_header("Access-Control-Allow-Origin", "*")
              self.send_header("Content-Length", str(len(said)))
              self.end_headers()
              self.wfile.write(said)
          do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer
      http.server.ThreadingHTTPServer((os.environ["PETSET_POD_IP"], 7080), Mirror).serve_forever()
"#;

fn mirror(level: Level) -> Cluster {
    let mut cluster = Cluster::at(level);
    cluster.start(&[]);
    let manifest = cluster.write("mirror.yaml", MIRROR);
    cluster.kubectl(&format!("apply -f {}", manifest.display()));
    cluster.kubectl("wait --for=condition=Ready pod/mirror --timeout=60s");
    cluster.until("endpoints mirror", |endpoints| {
        endpoints["subsets"][0]["addresses"][0].is_object()
    });
    cluster
}

/// All of it in one cluster, where nothing is in the others' way.
fn everything(level: Level) {
    let cluster = mirror(level);
    requests_go_to_pods_services_and_kubelets_without_credentials(&cluster);
    who_cannot_be_reached_is_told_in_kubernetes_words(&cluster);
    kubectl_proxy_serves_the_api_and_what_is_behind_it(&cluster);
}

#[test]
fn proxies_lead_to_pods_with_mounts_of_their_own() {
    everything(Level::MOUNTS);
}

#[test]
fn proxies_lead_to_pods_in_namespaces_of_root() {
    everything(Level::ROOT);
}

#[test]
fn proxies_lead_to_pods_in_namespaces_of_an_ordinary_user() {
    everything(Level::ORDINARY);
}

#[test]
fn proxies_lead_to_plain_processes() {
    everything(Level::PLAIN);
}

fn requests_go_to_pods_services_and_kubelets_without_credentials(cluster: &Cluster) {
    let namespace = "/api/v1/namespaces/default";
    for name in [
        "pods/mirror",
        "pods/mirror:7080",
        "pods/http:mirror:7080",
        "services/mirror:80",
        "services/mirror:http",
    ] {
        let said = cluster.kubectl(&format!("get --raw {namespace}/{name}/proxy/b/c?d=e"));
        assert!(said.starts_with("GET /b/c?d=e\n"), "{name}: {said}");
    }
    let token = std::fs::read_to_string(cluster.data("pki/admin.token")).expect("there is a token");
    let (authority, url) = (cluster.data("pki/ca.crt"), cluster.address("api"));
    let ask = |path: &str, more: &[&str]| {
        let bearer = format!("Authorization: Bearer {}", token.trim());
        let url = format!("{url}{namespace}/{path}");
        cluster.curl(&[&["--cacert", &authority, "-H", &bearer, &url], more].concat())
    };
    let posted = ask("pods/mirror/proxy/post", &["-d", "some words", "-X", "PATCH"]);
    assert_eq!(posted.code, 200, "{posted:?}");
    assert!(
        posted.body.starts_with("PATCH /post\n") && posted.body.ends_with("some words"),
        "{posted:?}"
    );
    assert!(
        !posted.body.to_lowercase().contains("authorization"),
        "{posted:?}"
    );
    assert!(
        posted
            .body
            .contains(&format!("{namespace}/pods/mirror/proxy/post")),
        "{posted:?}"
    );
    assert!(!posted.headers.contains("access-control"), "{posted:?}");

    let encoded = ask("pods/mirror/proxy/a%2Fb//c/?d=e&f", &[]);
    assert!(encoded.body.starts_with("GET /a%2Fb//c/?d=e&f\n"), "{encoded:?}");

    let slash = ask("pods/mirror/proxy?a=b", &[]);
    assert_eq!(slash.code, 301);
    assert!(
        slash
            .headers
            .contains(&format!("location: {namespace}/pods/mirror/proxy/?a=b")),
        "{slash:?}"
    );
    let away = ask("pods/mirror/proxy/away", &[]);
    assert_eq!(away.code, 302);
    assert!(
        away.headers
            .contains(&format!("location: {namespace}/pods/mirror/proxy/elsewhere")),
        "{away:?}"
    );

    let node = cluster.get("nodes")["items"][0]["metadata"]["name"].clone();
    let node = node.as_str().expect("a name");
    assert_eq!(
        cluster.kubectl(&format!("get --raw /api/v1/nodes/{node}/proxy/healthz")),
        "ok"
    );
}

fn who_cannot_be_reached_is_told_in_kubernetes_words(cluster: &Cluster) {
    let socket = cluster.data("api.sock");
    let ask = |path: &str, code| {
        let url = format!("http://petset/api/v1/namespaces/default/{path}");
        let status = cluster.curl(&["--unix-socket", &socket, &url]).expect(code);
        format!(
            "{}: {}",
            status["reason"].as_str().unwrap_or_default(),
            status["message"].as_str().unwrap_or_default()
        )
    };
    for (path, code, words) in [
        (
            "services/nobody/proxy/",
            503,
            "ServiceUnavailable: no endpoints available for service \"nobody\"",
        ),
        (
            "services/mirror:81/proxy/",
            503,
            "ServiceUnavailable: no service port 81 found for service \"mirror\"",
        ),
        (
            "services/mirror:x/proxy/",
            503,
            "ServiceUnavailable: no endpoints available for service \"mirror:x\"",
        ),
        (
            "services/missing/proxy/",
            404,
            "NotFound: services \"missing\" not found",
        ),
        (
            "services/a:b:c/proxy/",
            400,
            "BadRequest: invalid service request \"a:b:c\"",
        ),
        ("pods/missing/proxy/", 404, "NotFound: pods \"missing\" not found"),
    ] {
        assert_eq!(ask(path, code), words, "{path}");
    }
    let refused = ask("pods/mirror:7081/proxy/", 503);
    let pod = cluster.get("pod mirror");
    let ip = pod["status"]["podIP"].as_str().expect("an address");
    assert_eq!(
        refused,
        format!(
            "ServiceUnavailable: error trying to reach service: dial tcp {ip}:7081: connect: connection refused"
        )
    );
}

fn kubectl_proxy_serves_the_api_and_what_is_behind_it(cluster: &Cluster) {
    let mut kubectl = cluster.kubectl_command(&["proxy", "--port=0"]);
    let proxy = Lines::of(kubectl.stdin(Stdio::null()));
    let port = std::cell::Cell::new(0_u16);
    proxy.until("it serves", |line| {
        let found = line.rsplit(':').next().and_then(|port| port.trim().parse().ok());
        port.set(found.unwrap_or_default());
        port.get() > 0
    });
    let url = format!("http://127.0.0.1:{}/api/v1/namespaces/default", port.get());
    let pods = eventually("the proxy answers", PATIENCE, || {
        Ok::<_, String>(cluster.curl(&[&format!("{url}/pods")]).expect(200))
    });
    assert_eq!(pods["items"][0]["metadata"]["name"], "mirror");
    let said = cluster.curl(&[&format!("{url}/services/mirror:http/proxy/page")]);
    assert!(said.body.starts_with("GET /page\n"), "{said:?}");
    // Another protocol, through both proxies.
    let upgraded = upgrade(port.get(), "/api/v1/namespaces/default/pods/mirror/proxy/upgrade");
    assert_eq!(upgraded, "words come back");
}

/// Speak `echo` behind a path; what comes back of some words.
fn upgrade(port: u16, path: &str) -> String {
    use std::io::{BufRead, BufReader, Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    )
    .expect("it is taken");
    let mut reader = BufReader::new(stream.try_clone().expect("one more descriptor"));
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).expect("a head") > 0, "{head}");
    }
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let words = b"words come back";
    stream.write_all(words).expect("it is taken");
    let mut back = vec![0; words.len()];
    reader.read_exact(&mut back).expect("it comes back");
    String::from_utf8(back).expect("text")
}
