//! What pods and the machine use of CPU and memory, from `/proc`: `/stats/summary`.
//!
//! Nothing is sampled until somebody asks. An answer's CPU usage is that since the question before, if that was
//! [`SHORTEST`] to [`LONGEST`] ago; otherwise two samples are taken [`SHORTEST`] apart. Every answer says how long its
//! window was. CPU time is counted over the whole process tree of a container, processes that have ended included.

use crate::Kubelet;
use crate::exec::Listed;
use crate::process::Root;
use crate::shim::{self, stat};
use crate::status::go_duration;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// CPU time used so far, and memory now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    cpu_nanos: u64,
    /// Resident memory, what is shared counted once.
    working_set: u64,
    /// Resident memory, what is shared counted for every process.
    rss: u64,
}

/// The machine, and trees of processes by the process that they are below.
#[derive(Clone, Debug, Default)]
struct Sample {
    node: Used,
    trees: HashMap<Root, Used>,
}

struct Last {
    at: Instant,
    sample: Sample,
    answer: Value,
}

/// Remembers what was answered last.
#[derive(Default)]
pub(crate) struct Sampler(Mutex<Option<Last>>);

/// What the CPU usage of an answer is measured over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Window {
    /// Nothing new: the last answer is young enough to be given again.
    Again,
    /// Since the last answer.
    Since(Duration),
    /// There is no answer, or it is too old.
    Fresh,
}

fn window(age: Option<Duration>) -> Window {
    match age {
        Some(age) if age < SHORTEST => Window::Again,
        Some(age) if age <= LONGEST => Window::Since(age),
        _ => Window::Fresh,
    }
}

impl Kubelet {
    /// Upstream's `Summary`, as far as processes have what is in it; each `cpu` has the `window` of its usage in addition.
    pub(crate) async fn stats(&self) -> Value {
        let mut last = self.usage.0.lock().await;
        let age = last.as_ref().map(|last| last.at.elapsed());
        let (before, window) = match (window(age), last.as_mut()) {
            (Window::Again, Some(last)) => return last.answer.clone(),
            (Window::Since(age), Some(last)) => (std::mem::take(&mut last.sample), age),
            _ => {
                let before = self.sample().await.1;
                let from = Instant::now();
                tokio::time::sleep(SHORTEST).await;
                (before, from.elapsed())
            }
        };
        let (containers, sample) = self.sample().await;
        let node = &self.options.node_name;
        let answer = summary(node, &containers, &before, &sample, window, self.now());
        *last = Some(Last {
            at: Instant::now(),
            sample,
            answer: answer.clone(),
        });
        answer
    }

    async fn sample(&self) -> (Vec<Listed>, Sample) {
        let containers = self.containers.list();
        let roots: Vec<Root> = containers.iter().map(|c| c.root).collect();
        // A machine may have thousands of processes.
        let sample = tokio::task::spawn_blocking(move || take(&roots)).await;
        (containers, sample.unwrap_or_default())
    }
}

/// The answer to `GET /stats/summary`.
pub(crate) async fn answer(
    axum::extract::State(kubelet): axum::extract::State<Arc<Kubelet>>,
) -> axum::Json<Value> {
    axum::Json(kubelet.stats().await)
}

/// Of two samples, `window` apart.
fn summary(
    node: &str,
    containers: &[Listed],
    before: &Sample,
    after: &Sample,
    window: Duration,
    now: Timestamp,
) -> Value {
    let mut pods: Vec<Value> = Vec::new();
    for container in containers {
        let Some(used) = after.trees.get(&container.root) else {
            continue;
        };
        let since = now.duration_since(container.started).max(SignedDuration::ZERO);
        // One that was not there before has used all its time since its start.
        let (from, window) = match before.trees.get(&container.root) {
            Some(from) => (*from, window),
            None => (Used::default(), since.unsigned_abs()),
        };
        let mut stats = stats(&from, used, window, now);
        stats["name"] = container.container.as_str().into();
        stats["startTime"] = container.started.to_string().into();
        let (namespace, name, uid) = (&container.namespace, &container.pod, &container.uid);
        let pod = json!({"namespace": namespace, "name": name, "uid": uid});
        match pods.iter_mut().find(|known| known["podRef"] == pod) {
            Some(known) => {
                if let Some(list) = known["containers"].as_array_mut() {
                    list.push(stats);
                }
            }
            None => pods.push(json!({"podRef": pod, "containers": [stats]})),
        }
    }
    let mut machine = stats(&before.node, &after.node, window, now);
    machine["nodeName"] = node.into();
    json!({"node": machine, "pods": pods})
}

fn stats(before: &Used, after: &Used, window: Duration, now: Timestamp) -> Value {
    json!({
        "cpu": {
            "time": now.to_string(),
            "window": shown(window),
            "usageNanoCores": nano_cores(before, after, window),
            "usageCoreNanoSeconds": after.cpu_nanos,
        },
        "memory": {
            "time": now.to_string(),
            "workingSetBytes": after.working_set,
            "rssBytes": after.rss,
        },
    })
}

/// As Go writes durations, in milliseconds.
fn shown(window: Duration) -> String {
    let millis = i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
    go_duration(SignedDuration::from_millis(millis))
}

/// CPU time over time, in billionths. The time of a process that nobody waited for is lost to its tree: no reason
/// for less than nothing.
fn nano_cores(before: &Used, after: &Used, window: Duration) -> u64 {
    let used = u128::from(after.cpu_nanos.saturating_sub(before.cpu_nanos));
    let rate = used * 1_000_000_000 / window.as_nanos().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// What `/proc/PID/stat` says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    parent: i32,
    /// Its own CPU time and that of its children that have ended, in clock ticks.
    own: u64,
    waited: u64,
}

impl Process {
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat::fields(stat)?.collect();
        let number = |nth: usize| fields.get(nth - 3)?.parse::<u64>().ok();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            own: number(14)? + number(15)?,
            waited: number(16)? + number(17)?,
        })
    }
}

/// Look at every process once.
fn take(roots: &[Root]) -> Sample {
    let processes: HashMap<i32, Process> = shim::processes()
        .into_iter()
        .filter_map(|pid| Some((pid, Process::parse(&stat::read(pid)?)?)))
        .collect();
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for (pid, process) in &processes {
        children.entry(process.parent).or_default().push(*pid);
    }
    let tree = |root: &Root| Some((*root, tree(*root, &processes, &children)?));
    Sample {
        node: machine(),
        trees: roots.iter().filter_map(tree).collect(),
    }
}

/// What a container uses. A shim's own memory and time are petset's, the time of its children that have ended is the
/// container's.
fn tree(root: Root, processes: &HashMap<i32, Process>, children: &HashMap<i32, Vec<i32>>) -> Option<Used> {
    let (mut ticks, mut next) = match root {
        Root::Shim(pid) => (
            processes.get(&pid)?.waited,
            children.get(&pid).cloned().unwrap_or_default(),
        ),
        Root::Main(pid) => (0, processes.contains_key(&pid).then(|| vec![pid])?),
    };
    let (mut private, mut shared, mut rss) = (0, 0, 0);
    while let Some(pid) = next.pop() {
        next.extend(children.get(&pid).into_iter().flatten());
        let Some(process) = processes.get(&pid) else {
            continue;
        };
        ticks += process.own + process.waited;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let [anonymous, file, shmem] = ["RssAnon", "RssFile", "RssShmem"].map(|name| bytes(&status, name));
        private += anonymous;
        shared = shared.max(file + shmem);
        rss += anonymous + file + shmem;
    }
    Some(Used {
        cpu_nanos: nanos(ticks),
        working_set: private + shared,
        rss,
    })
}

/// A line such as `RssAnon:      812 kB`.
fn bytes(text: &str, name: &str) -> u64 {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = value.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}

fn machine() -> Used {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    Used {
        cpu_nanos: nanos(busy(&stat)),
        working_set: bytes(&memory, "MemTotal").saturating_sub(bytes(&memory, "MemAvailable")),
        rss: bytes(&memory, "AnonPages"),
    }
}

/// The ticks in which any CPU was not idle: the first line is
/// `cpu USER NICE SYSTEM IDLE IOWAIT IRQ SOFTIRQ STEAL GUEST …`, and guests are in USER already.
fn busy(stat: &str) -> u64 {
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|n| n.parse().ok())
        .collect();
    [0, 1, 2, 5, 6].iter().filter_map(|n| ticks.get(*n)).sum()
}

fn nanos(ticks: u64) -> u64 {
    // SAFETY: takes a number only.
    let per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100);
    ticks * (1_000_000_000 / per_second.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_since_the_last_question_unless_that_was_just_now_or_long_ago() {
        let seconds = |s| Some(Duration::from_secs_f64(s));
        assert_eq!(window(None), Window::Fresh);
        assert_eq!(window(seconds(0.5)), Window::Again);
        assert_eq!(window(seconds(15.0)), Window::Since(Duration::from_secs(15)));
        assert_eq!(window(seconds(61.0)), Window::Fresh);
    }

    #[test]
    fn a_process_is_read_whatever_it_is_called() {
        let stat = "12 (a) b ) (c) S 7 12 12 0 -1 4194304 1 2 3 4 50 6 70 8 20 0 1 0 999 1 2";
        let process = Process {
            parent: 7,
            own: 56,
            waited: 78,
        };
        assert_eq!(Process::parse(stat), Some(process));
        assert_eq!(Process::parse("12 (sh"), None);
    }

    #[test]
    fn idle_and_waiting_ticks_are_not_used_ones_and_guests_count_once() {
        assert_eq!(busy("cpu  1 2 4 1000 1000 8 16 1000 1000 0\ncpu0 5 5"), 31);
    }

    fn listed(pid: i32, started: Timestamp) -> Listed {
        Listed {
            namespace: "default".into(),
            pod: "p".into(),
            uid: "u".into(),
            container: format!("c{pid}"),
            root: Root::Shim(pid),
            started,
        }
    }

    #[test]
    fn the_usage_of_a_container_that_is_new_is_that_since_its_start() {
        let used = |cpu_nanos| Used {
            cpu_nanos,
            working_set: 5,
            rss: 7,
        };
        let now: Timestamp = "2026-01-01T00:00:10Z".parse().expect("a time");
        let started: Timestamp = "2026-01-01T00:00:08Z".parse().expect("a time");
        let before = Sample {
            node: used(0),
            trees: HashMap::from([(Root::Shim(1), used(1_000))]),
        };
        let after = Sample {
            node: used(40_000_000_000),
            trees: HashMap::from([
                (Root::Shim(1), used(2_000_001_000)),
                (Root::Shim(2), used(1_000_000_000)),
            ]),
        };
        let containers = [listed(1, started), listed(2, started), listed(3, started)];
        let answer = summary("n", &containers, &before, &after, Duration::from_secs(4), now);
        let pods = answer["pods"].as_array().expect("pods");
        assert_eq!(pods.len(), 1);
        let usage = |n: usize| {
            let cpu = &pods[0]["containers"][n]["cpu"];
            (cpu["usageNanoCores"].clone(), cpu["window"].clone())
        };
        assert_eq!(usage(0), (500_000_000.into(), "4s".into()));
        assert_eq!(usage(1), (500_000_000.into(), "2s".into()));
        assert_eq!(pods[0]["containers"][2], Value::Null, "it is gone");
        assert_eq!(answer["node"]["cpu"]["usageNanoCores"], 10_000_000_000u64);
        assert_eq!(answer["node"]["memory"]["workingSetBytes"], 5);
    }

    #[test]
    fn a_tree_has_the_memory_and_time_of_all_its_processes() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "sleep 30 & echo; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("sh");
        let mut line = [0u8; 1];
        std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut line).expect("it speaks");
        let (own, below) = (std::process::id() as i32, child.id() as i32);
        let (own, main, below) = (Root::Shim(own), Root::Main(below), Root::Shim(below));
        let sample = take(&[own, below, main, Root::Main(i32::MAX)]);
        for pid in shim::descendants(child.id() as i32) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        child.wait().expect("sh ends");
        assert_eq!(sample.trees.len(), 3);
        assert_eq!(sample.trees[&main].rss, sample.trees[&own].rss, "of sh itself");
        assert!(sample.trees[&below].rss > 0, "of sleep");
        assert!(sample.trees[&own].rss > sample.trees[&below].rss, "of sh, too");
        assert!(sample.trees[&own].working_set <= sample.trees[&own].rss);
        assert!(sample.node.cpu_nanos > 0 && sample.node.working_set > 0);
    }
}
