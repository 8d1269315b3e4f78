//! kubectl exec, attach, cp and port-forward, over both wires: WebSocket, which kubectl prefers, and SPDY.

use e2e::binary::{Cluster, PATIENCE, Ran, eventually, within};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Both wires: what makes kubectl take it.
const WIRES: [&str; 2] = ["true", "false"];

fn on_wire<'a>(command: &'a mut Command, websocket: &str) -> &'a mut Command {
    command
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websocket)
        .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websocket)
}

/// Run a command with this on its standard input; it must come to an end.
#[track_caller]
fn fed(command: &mut Command, input: &[u8]) -> Ran {
    let line = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_vec();
    // It may read no more than it likes.
    let feeding = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("it ends");
    feeding.join().expect("no panic");
    Ran {
        line,
        status: output.status,
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn exec(cluster: &Cluster, websocket: &str, options: &[&str], command: &[&str]) -> Command {
    let arguments = [&["exec"], options, &["db-0", "--"], command].concat();
    let mut kubectl = cluster.kubectl_command(&arguments);
    on_wire(&mut kubectl, websocket);
    kubectl
}

/// Bytes in which nothing repeats soon.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let bytes = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    });
    bytes.take(length).collect()
}

fn checksum(cluster: &Cluster, bytes: &[u8]) -> String {
    let path = cluster.home().join("summed");
    std::fs::write(&path, bytes).expect("the home directory can be written to");
    let summed = e2e::binary::run(Command::new("sha256sum").arg(&path)).ok();
    summed.split_whitespace().next().expect("a sum").to_owned()
}

#[test]
fn exec_keeps_outputs_apart_and_tells_the_exit_code() {
    let cluster = Cluster::with_two_shells();
    for wire in WIRES {
        let ran = fed(
            &mut exec(
                &cluster,
                wire,
                &[],
                &["sh", "-c", "echo out; echo err >&2; exit 7"],
            ),
            b"",
        );
        assert_eq!(ran.status.code(), Some(7), "{ran}");
        assert_eq!(ran.out, "out\n");
        assert!(ran.err.starts_with("err\n"), "{ran}");
        assert!(ran.err.contains("command terminated with exit code 7"), "{ran}");
        let ran = fed(&mut exec(&cluster, wire, &[], &["true"]), b"");
        assert_eq!((ran.out.as_str(), ran.status.code()), ("", Some(0)), "{ran}");
        let ran = fed(&mut exec(&cluster, wire, &[], &["/no/such/program"]), b"");
        assert!(
            !ran.status.success() && ran.err.contains("no such file or directory"),
            "{ran}"
        );
    }
}

#[test]
fn exec_carries_megabytes_both_ways_and_the_end_of_the_input() {
    let cluster = Cluster::with_two_shells();
    let input = noise(6 << 20);
    let sum = checksum(&cluster, &input);
    let path = cluster.home().join("summed").display().to_string();
    for wire in WIRES {
        let ran = fed(&mut exec(&cluster, wire, &["-i"], &["sha256sum"]), &input);
        assert_eq!(ran.out.split_whitespace().next(), Some(sum.as_str()), "{ran}");
        let output = exec(&cluster, wire, &[], &["cat", &path])
            .output()
            .expect("kubectl runs");
        assert_eq!(
            output.stdout,
            input,
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        // A program that does not read its input ends nonetheless.
        let ran = fed(&mut exec(&cluster, wire, &["-i"], &["echo", "done"]), &input);
        assert_eq!(ran.out, "done\n", "{ran}");
    }
}

#[test]
fn exec_refuses_in_kubernetes_words() {
    let cluster = Cluster::with_two_shells();
    for wire in WIRES {
        let refused = |arguments: &[&str]| {
            let mut kubectl = cluster.kubectl_command(arguments);
            fed(on_wire(&mut kubectl, wire), b"").fails()
        };
        let missing = refused(&["exec", "nobody", "--", "true"]);
        assert_eq!(
            missing,
            "Error from server (NotFound): pods \"nobody\" not found\n"
        );
        let container = refused(&["exec", "db-0", "-c", "other", "--", "true"]);
        assert!(
            container.contains("container other is not valid for pod db-0")
                || container.contains("container not found"),
            "{container}"
        );
    }
    let socket = cluster.data("api.sock");
    let ask = |path: &str| {
        let url = format!("http://petset/api/v1/namespaces/default/pods/db-0/{path}");
        cluster.curl(&["--unix-socket", &socket, &url])
    };
    let plain = ask("exec?command=true&stdout=1").expect(400);
    assert_eq!(plain["message"], "Upgrade request required");
    assert_eq!(plain["reason"], "BadRequest");
    let plain = ask("portforward").expect(400);
    assert_eq!(plain["message"], "Upgrade request required");
}

#[test]
fn a_terminal_is_one_and_has_the_clients_size() {
    let cluster = Cluster::with_two_shells();
    for wire in WIRES {
        let kubectl = exec(
            &cluster,
            wire,
            &["-it"],
            &[
                "sh",
                "-c",
                "tty; until [ \"$(stty size)\" = '31 97' ]; do sleep 0.1; done; stty size; exit 5",
            ],
        );
        let line: Vec<String> = std::iter::once(kubectl.get_program())
            .chain(kubectl.get_args())
            .map(|word| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''")))
            .collect();
        // `script` gives kubectl a terminal, whose size is set before kubectl starts.
        let line = format!("stty rows 31 cols 97; {}", line.join(" "));
        let mut script = Command::new("script");
        script.args(["-qefc", &line, "/dev/null"]);
        for (name, value) in kubectl.get_envs() {
            script.env(name, value.expect("it is set"));
        }
        let ran = fed(script.env("SHELL", "/bin/sh").current_dir(cluster.home()), b"");
        assert_eq!(ran.status.code(), Some(5), "{ran}");
        assert!(ran.out.contains("/dev/pts/"), "{ran}");
        assert!(ran.out.contains("31 97\r\n"), "{ran}");
    }
}

#[test]
fn cp_carries_directories_and_large_files_both_ways() {
    let cluster = Cluster::with_two_shells();
    let from = cluster.home().join("from");
    std::fs::create_dir_all(from.join("sub")).expect("a directory");
    let large = noise(8 << 20);
    std::fs::write(from.join("large"), &large).expect("a file");
    std::fs::write(from.join("sub/small"), "small\n").expect("a file");
    for wire in WIRES {
        let there = cluster.home().join(format!("there-{wire}"));
        let back = cluster.home().join(format!("back-{wire}"));
        let copy = |from: &str, to: &str| {
            let mut kubectl = cluster.kubectl_command(&["cp", from, to]);
            fed(on_wire(&mut kubectl, wire), b"").ok();
        };
        let inside = |path: &Path| format!("db-0:{}", path.display());
        copy(&from.display().to_string(), &inside(&there));
        assert_eq!(
            std::fs::read(there.join("large")).expect("it has been copied"),
            large
        );
        copy(&inside(&there), &back.display().to_string());
        assert_eq!(
            std::fs::read(back.join("large")).expect("it has been copied"),
            large
        );
        assert_eq!(
            std::fs::read(back.join("sub/small")).expect("it has been copied"),
            b"small\n"
        );
    }
}

#[test]
fn attach_shows_what_the_main_process_says_and_feeds_it() {
    let cluster = Cluster::up();
    let manifest = cluster.write(
        "reader.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: reader}\nspec:\n  restartPolicy: Never\n  containers:\n  \
         - name: c\n    image: busybox\n    stdin: true\n    stdinOnce: true\n    \
         command: [sh, -c, 'while read line; do echo \"heard $line\"; done; echo over']\n",
    );
    cluster.kubectl(&format!("apply -f {}", manifest.display()));
    cluster.kubectl("wait --for=condition=Ready pod/reader --timeout=60s");
    let ran = fed(
        &mut cluster.kubectl_command(&["attach", "-i", "reader"]),
        b"one\ntwo\n",
    );
    assert!(ran.out.contains("heard one\nheard two\n"), "{ran}");
    cluster.until("pod reader", |pod| pod["status"]["phase"] == "Succeeded");
}

/// `kubectl port-forward`, until it is dropped.
struct Forward {
    kubectl: Child,
    /// Where each port is here.
    local: Vec<u16>,
}

impl Forward {
    #[track_caller]
    fn start(cluster: &Cluster, wire: &str, target: &str, ports: &[&str]) -> Self {
        let arguments = [&["port-forward", "--address=127.0.0.1", target], ports].concat();
        let log = cluster
            .home()
            .join(format!("forward-{wire}-{}.log", target.replace('/', "-")));
        let file = std::fs::File::create(&log).expect("a log file");
        let mut kubectl = cluster.kubectl_command(&arguments);
        let kubectl = on_wire(&mut kubectl, wire)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("one more descriptor"))
            .stderr(file)
            .spawn()
            .expect("kubectl starts");
        let mut forward = Self {
            kubectl,
            local: Vec::new(),
        };
        forward.local = eventually("kubectl forwards", PATIENCE, || {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let lines = said
                .lines()
                .filter_map(|line| line.strip_prefix("Forwarding from 127.0.0.1:"));
            let found: Vec<u16> = lines
                .filter_map(|line| line.split(' ').next()?.parse().ok())
                .collect();
            if found.len() == ports.len() {
                Ok(found)
            } else {
                Err(said)
            }
        });
        forward
    }

    fn connect(&self, which: usize) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.local[which])).expect("kubectl listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

/// A pod that answers on two ports, behind a Service and in a set: what it is sent, on 7001 after the end of the input.
const ECHO: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {clusterIP: None, selector: {app: echo}, ports: [{name: a, port: 7001}, {name: b, port: 7002}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: echo}
spec:
  serviceName: echo
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      containers:
      - name: c
        image: python
        ports: [{name: a, containerPort: 7001}, {name: b, containerPort: 7002}]
        readinessProbe: {tcpSocket: {port: 7002}, periodSeconds: 1}
        command:
        - python3
        - -c
        - |
          import os, socket, threading
          def serve(connection, late):
              with connection:
                  kept = []
                  while data := connection.recv(65536):
                      if late: kept.append(data)
                      else: connection.sendall(data)
                  connection.sendall(b"".join(kept))
          def listen(port, late):
              with socket.create_server((os.environ["PETSET_POD_IP"], port), backlog=100) as server:
                  while True:
                      threading.Thread(target=serve, args=(server.accept()[0], late), daemon=True).start()
          threading.Thread(target=listen, args=(7001, True), daemon=True).start()
          listen(7002, False)
"#;

#[test]
fn port_forward_carries_many_connections_to_two_ports_and_their_ends() {
    let cluster = Cluster::up();
    let manifest = cluster.write("echo.yaml", ECHO);
    cluster.kubectl(&format!("apply -f {}", manifest.display()));
    cluster.until_available("echo", 1);
    for wire in WIRES {
        for target in ["pod/echo-0", "svc/echo", "sts/echo"] {
            let forward = Forward::start(&cluster, wire, target, &[":7001", ":7002"]);
            // All at once, each to both ports.
            let talks: Vec<_> = (0..12)
                .map(|number| {
                    let (late, early) = (forward.connect(0), forward.connect(1));
                    std::thread::spawn(move || talk(number, late, early))
                })
                .collect();
            talks
                .into_iter()
                .for_each(|talk| talk.join().expect("it went well"));
        }
    }
}

fn talk(number: u8, mut late: TcpStream, mut early: TcpStream) {
    let mut bytes = noise(300 << 10);
    bytes.push(number);
    // All that is sent comes back once this side has said that it was all.
    late.write_all(&bytes).expect("it is taken");
    late.shutdown(Shutdown::Write).expect("half of it is closed");
    let mut back = Vec::new();
    late.read_to_end(&mut back).expect("it comes back");
    assert!(back == bytes, "{} of {} bytes came back", back.len(), bytes.len());
    // A word and its answer, again and again.
    for turn in 0..20 {
        let word = [number, turn, 255, 0];
        early.write_all(&word).expect("it is taken");
        let mut answer = [0; 4];
        early.read_exact(&mut answer).expect("it answers");
        assert_eq!(answer, word);
    }
}

#[test]
fn port_forward_says_when_nobody_listens() {
    let cluster = Cluster::with_two_shells();
    for wire in WIRES {
        let forward = Forward::start(&cluster, wire, "pod/db-0", &[":7999"]);
        let mut connection = forward.connect(0);
        let mut nothing = Vec::new();
        // Closed in order or not, there is nothing to read.
        let _ = connection.read_to_end(&mut nothing);
        assert!(nothing.is_empty());
        let log = cluster.home().join(format!("forward-{wire}-pod-db-0.log"));
        let said = within(PATIENCE, || {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            if said.contains("connection refused") {
                Ok(said)
            } else {
                Err(said)
            }
        });
        let said = said.expect("kubectl says why");
        assert!(said.contains("error forwarding port 7999 to pod"), "{said}");
    }
}
