//! The real `petset` binary, with the tools that people use on it: kubectl, curl, dig and nslookup.
//!
//! Every cluster has a data directory, a home, ports and a range of pod addresses of its own, so that tests run in
//! parallel. Nothing is skipped: a tool that is missing fails the test and says so.

mod alone;
mod dig;
mod http;
mod isolated;
mod lines;
mod processes;
mod range;
mod table;
mod wait;

pub use dig::{Dug, Record, ask};
pub use http::{Reply, Watch, curl};
pub use isolated::{Level, Who};
pub use lines::Lines;
pub use table::table;
pub use wait::{eventually, within};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use range::PodRange;
use serde_json::Value;
use std::fmt;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Longer than anything takes here but what a test says itself, on two slow cores with other tests beside it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Longer than `petset` takes to stop: pods have up to ten seconds of grace in these tests.
const STOPPING: Duration = Duration::from_secs(40);

/// What a command said, and how it ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The command line.
    pub line: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub out: String,
    /// What it wrote to standard error.
    pub err: String,
}

impl Ran {
    /// Its output, if it succeeded; it must.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.status.success(), "{self}");
        self.out
    }

    /// Its complaint, if it failed; it must.
    #[track_caller]
    pub fn fails(self) -> String {
        assert!(!self.status.success(), "this should have failed: {self}");
        self.err
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n{}{}", self.line, self.status, self.out, self.err)
    }
}

/// Run a command to its end.
pub fn run(command: &mut Command) -> Ran {
    let program = command.get_program().to_string_lossy().into_owned();
    let arguments = command.get_args().map(|a| a.to_string_lossy().into_owned());
    let line = [program.clone()]
        .into_iter()
        .chain(arguments)
        .collect::<Vec<_>>()
        .join(" ");
    let done = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| missing(&program, &error));
    Ran {
        line,
        status: done.status,
        out: String::from_utf8_lossy(&done.stdout).into_owned(),
        err: String::from_utf8_lossy(&done.stderr).into_owned(),
    }
}

fn missing(program: &str, error: &std::io::Error) -> ! {
    panic!("cannot run {program}: {error}; these tests need kubectl, curl, dig and nslookup in PATH")
}

/// `target/PROFILE/petset`, beside the directory that this test was built into.
pub fn petset_binary() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    let profile = test
        .parent()
        .and_then(Path::parent)
        .expect("tests are in target/PROFILE/deps");
    let binary = profile.join("petset");
    let release = if profile.ends_with("release") {
        " --release"
    } else {
        ""
    };
    assert!(
        binary.is_file(),
        "{} is missing: run cargo build -p petset{release} first",
        binary.display()
    );
    binary
}

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A data directory with, most of the time, a `petset` that runs on it. Dropping it stops that one.
pub struct Cluster {
    home: TempDir,
    pods: PodRange,
    level: Level,
    process: Option<Child>,
    /// Components that run alone beside it, in the order in which they are to be stopped.
    beside: Vec<Child>,
}

impl Cluster {
    /// An empty data directory on which nothing runs yet.
    pub fn new() -> Self {
        Self {
            home: tempfile::Builder::new()
                .prefix("petset-e2e-")
                .tempdir()
                .expect("a temporary directory"),
            pods: PodRange::reserve(),
            level: Level::default(),
            process: None,
            beside: Vec::new(),
        }
    }

    /// A cluster with nothing in it.
    pub fn up() -> Self {
        let mut cluster = Self::new();
        cluster.start(&[]);
        cluster
    }

    /// A cluster with a set `db` of two shells that count their starts, which have a claim each; `petset up -f` has
    /// brought them, and they are available.
    pub fn up_with_two_shells() -> Self {
        let mut cluster = Self::new();
        let manifest = repository("e2e/manifests/shells.yaml").display().to_string();
        cluster.start(&["-f", &manifest]);
        eventually("the manifest is applied", PATIENCE, || cluster.look("sts db"));
        cluster.until_available("db", 2);
        cluster
    }

    /// The same set, brought by `kubectl apply`.
    pub fn with_two_shells() -> Self {
        let cluster = Self::up();
        let manifest = repository("e2e/manifests/shells.yaml").display().to_string();
        cluster.kubectl(&format!("apply -f {manifest}"));
        cluster.until_available("db", 2);
        cluster
    }

    /// `petset`, with this cluster's directory, free ports and pod addresses. What is given as an argument wins.
    pub fn petset(&self, arguments: &[&str]) -> Command {
        let mut command = self.level.command(self.home.path());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PETSET_") {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .env("HOME", self.home.path())
            .env("PETSET_DATA_DIR", self.data_dir())
            .env("PETSET_API", "127.0.0.1:0")
            .env("PETSET_DNS", "127.0.0.1:0")
            .env("PETSET_ISOLATION", self.level.isolation);
        if self.level.is_on_loopback() {
            command.env("PETSET_POD_CIDR", self.pods.cidr());
        }
        command
    }

    /// `petset up` with more arguments; once this returns the API answers.
    pub fn start(&mut self, arguments: &[&str]) {
        self.start_as(&[&["up"], arguments].concat());
    }

    /// A `petset` that serves the API on this data directory: `up` or `apiserver`.
    pub fn start_as(&mut self, arguments: &[&str]) {
        let process = self.spawn("petset", arguments);
        self.wait_for(process);
    }

    fn wait_for(&mut self, process: Child) {
        assert!(self.process.is_none(), "one runs already");
        let pid = process.id();
        self.process = Some(process);
        eventually("petset writes down what runs", PATIENCE, || {
            let process = self.process.as_mut().expect("it was just started");
            if let Ok(Some(status)) = process.try_wait() {
                self.process = None;
                panic!("petset ended at once, with {status}:\n{}", self.said());
            }
            let running = self.running().ok_or_else(|| "no running.json".to_owned())?;
            // An earlier run leaves its own behind.
            (running["pid"] == pid)
                .then_some(())
                .ok_or_else(|| running.to_string())
        });
    }

    /// As [`Cluster::start_as`], by way of a shell script that ends with `exec "$0" "$@"`.
    pub fn start_through(&mut self, script: &str, arguments: &[&str]) {
        let direct = self.petset(arguments);
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(petset_binary()).args(arguments);
        self.adopt(direct, command);
    }

    /// As [`Cluster::start_as`], with everything logged that can be.
    pub fn start_traced(&mut self, arguments: &[&str]) {
        let mut direct = self.petset(arguments);
        direct.env("RUST_LOG", "trace");
        let mut command = Command::new(petset_binary());
        command.args(arguments);
        self.adopt(direct, command);
    }

    /// Start `command` in the environment of `direct`.
    fn adopt(&mut self, direct: Command, mut command: Command) {
        for (name, value) in direct.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let process = self.spawn_command("petset", command);
        self.wait_for(process);
    }

    /// Start a `petset` in the background; its output is added to the file `NAME.log` in the home directory.
    pub fn spawn(&self, name: &str, arguments: &[&str]) -> Child {
        self.spawn_command(name, self.petset(arguments))
    }

    fn spawn_command(&self, name: &str, mut command: Command) -> Child {
        let log = self.log(name);
        let log = File::options().create(true).append(true).open(log);
        let log = log.expect("a log file");
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("one more descriptor"))
            .stderr(log);
        command.spawn().expect("petset starts")
    }

    /// As [`Cluster::spawn`], and it is stopped with the cluster, before `petset` itself. Its process id.
    pub fn spawn_beside(&mut self, name: &str, arguments: &[&str]) -> u32 {
        let process = self.spawn(name, arguments);
        let pid = process.id();
        self.beside.push(process);
        pid
    }

    /// Where the output of what [`Cluster::spawn`] started is.
    pub fn log(&self, name: &str) -> PathBuf {
        self.home.path().join(format!("{name}.log"))
    }

    /// What `petset up` has said so far, over all its runs.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.log("petset")).unwrap_or_default()
    }

    /// A directory that is nobody's but this cluster's.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// A path in the data directory, as text.
    pub fn data(&self, path: &str) -> String {
        self.data_dir().join(path).display().to_string()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    fn running(&self) -> Option<Value> {
        let text = std::fs::read_to_string(self.data_dir().join("running.json")).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// A field of what runs: `api`, `http`, `dns`, ….
    pub fn address(&self, which: &str) -> String {
        let running = self.running().expect("it runs");
        let address = running[which].as_str();
        address
            .unwrap_or_else(|| panic!("no {which} in {running}"))
            .to_owned()
    }

    /// Ask it to stop, and wait until it has.
    pub fn terminate(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("it runs");
        stop(&mut process)
    }

    /// Kill it where it stands, as a crash would.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().expect("it is ours to kill");
        process.wait().expect("it is our child");
    }

    /// Start a manifest's containers on a port that this user may have: the same file for root, otherwise a copy
    /// with 8080 instead of 80.
    pub fn affordable(&self, manifest: &str) -> PathBuf {
        let path = repository(manifest);
        let port_80 = TcpListener::bind((self.pods.guard(), 80));
        if port_80.is_ok() {
            return path;
        }
        eprintln!("this user may not have port 80: {manifest} is run with port 8080 instead");
        let text = std::fs::read_to_string(&path).expect("the manifest is in the repository");
        let changed = text
            .replace("port: 80\n", "port: 8080\n")
            .replace("containerPort: 80\n", "containerPort: 8080\n");
        assert_ne!(text, changed, "{manifest} has no port 80");
        self.write("affordable.yaml", &changed)
    }

    /// Write a file into the home directory.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).expect("the home directory can be written to");
        path
    }

    /// kubectl on this cluster, with nothing of the user's own.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(arguments)
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.data_dir().join("kubeconfig"))
            // Half of what the tests take is kubectl's, and a third of that its garbage collector's.
            .env("GOGC", "off")
            .env("KUBECACHEDIR", self.home.path().join("kube-cache"))
            .current_dir(self.home.path());
        command
    }

    /// Run kubectl with arguments that need no quoting.
    pub fn try_kubectl(&self, line: &str) -> Ran {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        run(&mut self.kubectl_command(&arguments))
    }

    /// As [`Cluster::try_kubectl`], and it must succeed.
    #[track_caller]
    pub fn kubectl(&self, line: &str) -> String {
        self.try_kubectl(line).ok()
    }

    /// `kubectl get … -o json`; an error when there is no such object.
    pub fn look(&self, what: &str) -> Result<Value, String> {
        let ran = self.try_kubectl(&format!("get {what} -o json"));
        if !ran.status.success() {
            return Err(ran.err);
        }
        serde_json::from_str(&ran.out).map_err(|error| format!("{error}: {}", ran.out))
    }

    /// As [`Cluster::look`], and it must be there.
    #[track_caller]
    pub fn get(&self, what: &str) -> Value {
        match self.look(what) {
            Ok(found) => found,
            Err(error) => panic!("get {what}: {error}"),
        }
    }

    /// Wait until an object is as it should be.
    #[track_caller]
    pub fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        eventually(what, PATIENCE, || {
            let found = self.look(what)?;
            if is_so(&found) {
                Ok(found)
            } else {
                Err(format!("{found:#}"))
            }
        })
    }

    /// Wait until an object is gone.
    #[track_caller]
    pub fn until_gone(&self, what: &str) {
        eventually(&format!("{what} goes"), PATIENCE, || {
            let ran = self.try_kubectl(&format!("get {what} -o yaml"));
            if ran.err.contains("NotFound") {
                Ok(())
            } else {
                Err(ran.to_string())
            }
        });
    }

    /// Wait until so many replicas of a StatefulSet are available.
    #[track_caller]
    pub fn until_available(&self, set: &str, replicas: i64) -> Value {
        self.until(&format!("sts {set}"), |set| {
            let status = &set["status"];
            status["observedGeneration"] == set["metadata"]["generation"]
                && status["replicas"] == replicas
                && status["availableReplicas"].as_i64().unwrap_or(0) == replicas
        })
    }

    /// Ask for a name's records of a type.
    pub fn dig(&self, name: &str, type_: &str) -> Dug {
        ask(&self.address("dns"), name, type_)
    }

    /// `nslookup -port=PORT [-type=TYPE] NAME 127.0.0.1`
    pub fn nslookup(&self, name: &str, type_: &str) -> Ran {
        let address = self.address("dns");
        let (host, port) = address.rsplit_once(':').expect("it has a port");
        run(Command::new("nslookup")
            .args([&format!("-port={port}"), &format!("-type={type_}"), name, host])
            .env("HOME", self.home.path()))
    }

    /// curl with arguments of its own; answers of any code are taken.
    pub fn curl(&self, arguments: &[&str]) -> Reply {
        curl(arguments)
    }

    /// Watch a collection through the Unix socket, `PATH?watch=true&…`.
    pub fn watch(&self, path: &str) -> Watch {
        Watch::start(&[
            "--unix-socket",
            &self.data("api.sock"),
            &format!("http://petset{path}"),
        ])
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self.beside.iter_mut().chain(&mut self.process) {
            stop(process);
        }
        if std::thread::panicking() {
            eprintln!("what petset said:\n{}", self.said());
        }
    }
}

/// SIGTERM, patience, and SIGKILL only if that was not enough.
pub fn stop(process: &mut Child) -> ExitStatus {
    let pid = Pid::from_raw(i32::try_from(process.id()).expect("process ids are positive"));
    kill(pid, Signal::SIGTERM).expect("it is ours to stop");
    let stopped = within(STOPPING, || {
        let ended = process.try_wait().expect("it is our child");
        ended.ok_or_else(|| "it still runs".to_owned())
    });
    stopped.unwrap_or_else(|_| {
        process.kill().expect("it is ours to kill");
        process.wait().expect("it is our child")
    })
}
