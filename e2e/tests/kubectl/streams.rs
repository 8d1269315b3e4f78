//! kubectl exec, attach, cp and port-forward, over both wires (WebSocket, which kubectl prefers, and SPDY) and in every isolation.

use e2e::binary::{Cluster, Level, PATIENCE, Ran, eventually, run, within};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What makes kubectl take a wire.
const WEBSOCKET: &str = "true";
const SPDY: &str = "false";

/// A pod in which programs are run.
const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: db-0}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: shell
    command: [sh, -c, "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"]
"#;

/// A cluster, and the wires on which it is spoken to.
struct Scene {
    cluster: Cluster,
    wires: &'static [&'static str],
}

impl Scene {
    fn new(level: Level, wires: &'static [&'static str]) -> Self {
        let mut cluster = Cluster::at(level);
        cluster.start(&[]);
        for (name, manifest) in [("pod.yaml", POD), ("echo.yaml", ECHO), ("reader.yaml", READER)] {
            let manifest = cluster.write(name, manifest);
            cluster.kubectl(&format!("apply -f {}", manifest.display()));
        }
        cluster.kubectl("wait --for=condition=Ready pod/db-0 pod/reader --timeout=60s");
        cluster.until_available("echo", 1);
        Self { cluster, wires }
    }

    fn wires(&self) -> impl Iterator<Item = (&Cluster, &'static str)> {
        self.wires.iter().map(|wire| (&self.cluster, *wire))
    }
}

/// All that can be done with a cluster of this level, one after the other: none is in the others' way, and a cluster
/// takes longer to start than most of them.
fn everything(level: Level, wires: &'static [&'static str]) {
    let scene = Scene::new(level, wires);
    exec_keeps_outputs_apart_and_tells_the_exit_code(&scene);
    exec_carries_megabytes_both_ways_and_the_end_of_the_input(&scene);
    exec_waits_for_a_client_that_reads_slowly(&scene);
    exec_refuses_in_kubernetes_words(&scene);
    a_terminal_is_one_and_has_the_clients_size(&scene);
    a_program_ends_with_its_client(&scene);
    cp_carries_directories_and_large_files_both_ways(&scene);
    attach_shows_what_the_main_process_says_and_feeds_it(&scene);
    port_forward_carries_many_connections_to_two_ports_and_their_ends(&scene);
    port_forward_says_when_nobody_listens(&scene);
}

#[test]
fn streams_with_mounts_of_their_own() {
    everything(Level::MOUNTS, &[WEBSOCKET, SPDY]);
}

// How bytes travel between kubectl and petset is the same in every isolation: one wire is enough for the others.

#[test]
fn streams_in_namespaces_of_root() {
    everything(Level::ROOT, &[WEBSOCKET]);
}

#[test]
fn streams_in_namespaces_of_an_ordinary_user() {
    everything(Level::ORDINARY, &[SPDY]);
}

#[test]
fn streams_of_plain_processes() {
    everything(Level::PLAIN, &[WEBSOCKET]);
}

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
    let summed = run(Command::new("sha256sum").arg(&path)).ok();
    summed.split_whitespace().next().expect("a sum").to_owned()
}

fn exec_keeps_outputs_apart_and_tells_the_exit_code(scene: &Scene) {
    for (cluster, wire) in scene.wires() {
        let ran = fed(
            &mut exec(
                cluster,
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
        let ran = fed(&mut exec(cluster, wire, &[], &["true"]), b"");
        assert_eq!((ran.out.as_str(), ran.status.code()), ("", Some(0)), "{ran}");
        let ran = fed(&mut exec(cluster, wire, &[], &["/no/such/program"]), b"");
        assert!(
            !ran.status.success() && ran.err.contains("no such file or directory"),
            "{ran}"
        );
    }
}

fn exec_carries_megabytes_both_ways_and_the_end_of_the_input(scene: &Scene) {
    let input = noise(6 << 20);
    let sum = checksum(&scene.cluster, &input);
    let path = scene.cluster.inside().join("noise").display().to_string();
    for (cluster, wire) in scene.wires() {
        let script = format!("tee {path} | sha256sum");
        let ran = fed(&mut exec(cluster, wire, &["-i"], &["sh", "-c", &script]), &input);
        assert_eq!(ran.out.split_whitespace().next(), Some(sum.as_str()), "{ran}");
        let output = exec(cluster, wire, &[], &["cat", &path])
            .output()
            .expect("kubectl runs");
        assert!(
            output.stdout == input,
            "{} of {} bytes: {}",
            output.stdout.len(),
            input.len(),
            String::from_utf8_lossy(&output.stderr)
        );
        // A program that does not read its input ends nonetheless.
        let ran = fed(&mut exec(cluster, wire, &["-i"], &["echo", "done"]), &input);
        assert_eq!(ran.out, "done\n", "{ran}");
    }
}

/// Nothing on the way takes more than so much from a program that its client does not read: pipes, sockets' buffers, windows.
const ON_THE_WAY: u64 = 20 << 20;

fn exec_waits_for_a_client_that_reads_slowly(scene: &Scene) {
    for (cluster, wire) in scene.wires() {
        let said = cluster.inside().join(format!("said-{wire}"));
        let said = said.display().to_string();
        // It writes down how much it has said, a megabyte at a time.
        let script = format!(
            "n=0; while [ $n -lt 32 ]; do head -c 1048576 /dev/zero; n=$((n + 1)); echo $n > {said}; done"
        );
        let mut kubectl = exec(cluster, wire, &[], &["sh", "-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        let mut before = String::new();
        let stuck = eventually("it waits for its client", PATIENCE, || {
            let now = run(&mut exec(cluster, wire, &[], &["cat", &said])).out;
            let same = !now.is_empty() && now == before;
            before.clone_from(&now);
            same.then(|| now.clone()).ok_or(now)
        });
        let stuck: u64 = stuck.trim().parse().expect("a number");
        assert!(
            stuck << 20 <= ON_THE_WAY,
            "{stuck} MiB were taken that nobody reads"
        );
        let mut output = kubectl.stdout.take().expect("it is piped");
        let length = std::io::copy(&mut output, &mut std::io::sink()).expect("readable");
        assert_eq!(length, 32 << 20, "after {stuck} MiB that nobody had read");
        assert!(kubectl.wait().expect("it ends").success());
    }
}

fn a_program_ends_with_its_client(scene: &Scene) {
    for (cluster, wire) in scene.wires() {
        let file = cluster.inside().join(format!("lives-{wire}"));
        let file = file.display();
        let script = format!("echo $$ > {file}; echo here; exec sleep 1234");
        let mut kubectl = exec(cluster, wire, &[], &["sh", "-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        let mut word = [0; 5];
        let output = kubectl.stdout.as_mut().expect("it is piped");
        output.read_exact(&mut word).expect("it speaks");
        kubectl.kill().expect("it is ours to kill");
        kubectl.wait().expect("it is our child");
        let script = format!("kill -0 $(cat {file}) 2>/dev/null && echo lives || echo gone");
        eventually("the program is gone", PATIENCE, || {
            let ran = run(&mut exec(cluster, wire, &[], &["sh", "-c", &script]));
            (ran.out == "gone\n").then_some(()).ok_or_else(|| ran.to_string())
        });
        // A signal of its own is told as a shell tells it.
        let ran = fed(&mut exec(cluster, wire, &[], &["sh", "-c", "kill -9 $$"]), b"");
        assert_eq!(ran.status.code(), Some(137), "{ran}");
    }
}

fn exec_refuses_in_kubernetes_words(scene: &Scene) {
    for (cluster, wire) in scene.wires() {
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
    let cluster = &scene.cluster;
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

fn a_terminal_is_one_and_has_the_clients_size(scene: &Scene) {
    for (cluster, wire) in scene.wires() {
        let kubectl = exec(
            cluster,
            wire,
            &["-it"],
            &[
                "sh",
                "-c",
                "tty; test -t 0 && test -t 1 && echo on a terminal; until [ \"$(stty size)\" = '31 97' ]; do sleep 0.1; done; stty size; exit 5",
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
        assert!(ran.out.contains("on a terminal\r\n"), "{ran}");
        assert!(ran.out.contains("/dev/pts/"), "{ran}");
        assert!(ran.out.contains("31 97\r\n"), "{ran}");
    }
}

fn cp_carries_directories_and_large_files_both_ways(scene: &Scene) {
    let from = scene.cluster.home().join("from");
    std::fs::create_dir_all(from.join("sub")).expect("a directory");
    let large = noise(8 << 20);
    std::fs::write(from.join("large"), &large).expect("a file");
    std::fs::write(from.join("sub/small"), "small\n").expect("a file");
    let sum = checksum(&scene.cluster, &large);
    for (cluster, wire) in scene.wires() {
        let there = cluster.inside().join(format!("there-{wire}"));
        let back = cluster.home().join(format!("back-{wire}"));
        let copy = |from: &str, to: &str| {
            let mut kubectl = cluster.kubectl_command(&["cp", from, to]);
            fed(on_wire(&mut kubectl, wire), b"").ok();
        };
        let inside = |path: &Path| format!("db-0:{}", path.display());
        copy(&from.display().to_string(), &inside(&there));
        let script = format!("cd {} && sha256sum large && cat sub/small", there.display());
        let ran = fed(&mut exec(cluster, wire, &[], &["sh", "-c", &script]), b"");
        assert_eq!(ran.out, format!("{sum}  large\nsmall\n"), "{ran}");
        copy(&inside(&there), &back.display().to_string());
        let read = |file: &str| std::fs::read(back.join(file)).expect("it has been copied");
        assert!(read("large") == large, "a large file came back as another");
        assert_eq!(read("sub/small"), b"small\n");
    }
}

/// A pod that says back what it hears, and ends with its input.
const READER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  restartPolicy: Never
  containers:
  - name: c
    image: busybox
    stdin: true
    stdinOnce: true
    command: [sh, -c, 'while read line; do echo "heard $line"; done; echo over']
"#;

fn attach_shows_what_the_main_process_says_and_feeds_it(scene: &Scene) {
    let cluster = &scene.cluster;
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
      terminationGracePeriodSeconds: 1
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

fn port_forward_carries_many_connections_to_two_ports_and_their_ends(scene: &Scene) {
    for (cluster, wire) in scene.wires() {
        for target in ["pod/echo-0", "svc/echo", "sts/echo"] {
            let forward = Forward::start(cluster, wire, target, &[":7001", ":7002"]);
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

fn port_forward_says_when_nobody_listens(scene: &Scene) {
    for (cluster, wire) in scene.wires() {
        let forward = Forward::start(cluster, wire, "pod/db-0", &[":7999"]);
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
