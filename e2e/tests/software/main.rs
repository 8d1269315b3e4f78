//! Software that keeps data, from Debian's packages, with the manifests in `examples/` as people write them for Kubernetes: as root
//! and as an ordinary user.
//!
//! Each comes up in order, and no write that was acknowledged is lost while every member is deleted in turn, while the set is scaled,
//! rolled to a new configuration, deleted and made again.

mod etcd;
mod postgres;
mod redis;
mod website;

use e2e::binary::{Cluster, Level, Ran, repository, run, within};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

/// Databases start slowly on a machine that runs other tests.
const PATIENCE: Duration = Duration::from_secs(120);

/// A set from `examples/` that runs.
struct Software {
    cluster: Cluster,
    set: &'static str,
    manifest: String,
    replicas: i64,
    /// Who has acknowledged what.
    written: Vec<String>,
}

impl Software {
    /// Apply `examples/SET.yaml`, and wait until all of it is there.
    fn up(level: Level, set: &'static str, replicas: i64) -> Self {
        let mut cluster = Cluster::at(level);
        cluster.start(&[]);
        let manifest = repository(&format!("examples/{set}.yaml")).display().to_string();
        cluster.kubectl(&format!("apply -f {manifest}"));
        let software = Self {
            cluster,
            set,
            manifest,
            replicas,
            written: Vec::new(),
        };
        software.until_available();
        software
    }

    /// What `look` finds at last. If it never does the whole state is shown, which takes too long to be asked for at every look.
    #[track_caller]
    fn eventually<T>(&self, what: &str, look: impl FnMut() -> Result<T, String>) -> T {
        within(PATIENCE, look).unwrap_or_else(|last| {
            let state = self.state();
            panic!("still not: {what}; last seen:\n{last}\n{state}")
        })
    }

    fn until_available(&self) {
        self.eventually(&format!("{} is available", self.set), || {
            let set = self.cluster.look(&format!("sts {}", self.set))?;
            let status = &set["status"];
            let complete = status["observedGeneration"] == set["metadata"]["generation"]
                && status["replicas"] == self.replicas
                && status["updatedReplicas"] == self.replicas
                && status["availableReplicas"] == self.replicas;
            if complete { Ok(()) } else { Err(status.to_string()) }
        });
    }

    /// What is to be seen when something is not as it should be.
    fn state(&self) -> String {
        let ask = |line: &str| self.cluster.try_kubectl(line).to_string();
        let mut state = ask("get sts,pods,pvc -o wide") + &ask("get events --sort-by=.lastTimestamp");
        for pod in self.pods() {
            state += &ask(&format!("logs {pod} --all-containers --tail=20"));
        }
        state
    }

    fn pods(&self) -> Vec<String> {
        (0..self.replicas).map(|n| format!("{}-{n}", self.set)).collect()
    }

    /// Run a command in a pod.
    fn exec(&self, pod: &str, command: &[&str]) -> Ran {
        let arguments = [&["exec", pod, "--"], command].concat();
        run(&mut self.cluster.kubectl_command(&arguments))
    }

    /// Its output, as soon as it succeeds.
    fn exec_eventually(&self, pod: &str, command: &[&str]) -> String {
        self.eventually(&format!("{command:?} works in {pod}"), || {
            let ran = self.exec(pod, command);
            if ran.status.success() {
                Ok(ran.out)
            } else {
                Err(ran.to_string())
            }
        })
    }

    /// Each member was made when the one before it was ready.
    fn came_up_in_order(&self) {
        let time = |value: &Value| -> jiff::Timestamp {
            let text = value.as_str().unwrap_or_else(|| panic!("{value} is no time"));
            text.parse().expect("a time")
        };
        let pods: Vec<Value> = self
            .pods()
            .iter()
            .map(|pod| self.cluster.get(&format!("pod {pod}")))
            .collect();
        for pair in pods.windows(2) {
            let conditions = pair[0]["status"]["conditions"].as_array().expect("conditions");
            let ready = conditions
                .iter()
                .find(|c| c["type"] == "Ready")
                .expect("it is ready");
            assert!(time(&ready["lastTransitionTime"]) <= time(&pair[1]["metadata"]["creationTimestamp"]));
        }
    }

    /// Delete every member in turn, the last first, with a write before and after each.
    fn lose_every_member_in_turn(&mut self, write: impl Fn(&Self, &str), check: impl Fn(&Self)) {
        for pod in self.pods().into_iter().rev() {
            self.write(&write, &format!("before-{pod}"));
            let uid = || {
                self.cluster
                    .look(&format!("pod {pod}"))
                    .map(|pod| pod["metadata"]["uid"].clone())
            };
            let before = uid();
            // kubectl's own waiting sometimes takes the successor, which is there at once, for the pod that it has deleted.
            self.cluster.kubectl(&format!("delete pod {pod} --wait=false"));
            self.eventually(&format!("{pod} is another"), || match uid()? {
                now if before.as_ref() == Ok(&now) => Err(now.to_string()),
                _ => Ok(()),
            });
            self.write(&write, &format!("after-{pod}"));
            self.until_available();
            check(self);
        }
    }

    /// Write until it is acknowledged.
    fn write(&mut self, write: impl Fn(&Self, &str), what: &str) {
        write(self, what);
        self.written.push(what.to_owned());
    }

    fn scale(&mut self, replicas: i64) {
        self.cluster
            .kubectl(&format!("scale sts {} --replicas={replicas}", self.set));
        self.replicas = replicas;
        self.until_available();
        let next = format!("pod {}-{replicas}", self.set);
        self.cluster.until_gone(&next);
    }

    /// Change a variable of every member, one after the other.
    fn roll(&self, variable: &str, value: &str) {
        self.cluster
            .kubectl(&format!("set env sts/{} {variable}={value}", self.set));
        self.until_available();
    }

    fn delete_and_make_again(&self) {
        self.cluster.kubectl(&format!("delete sts {}", self.set));
        for pod in self.pods() {
            self.cluster.until_gone(&format!("pod {pod}"));
        }
        self.cluster.kubectl(&format!("apply -f {}", self.manifest));
        self.until_available();
    }
}

/// Programs that Debian's packages have outside of the usual directories too.
fn needs(program: &str) {
    let found = run(Command::new("sh").args(["-c", &format!("ls {program}")]));
    assert!(
        found.status.success(),
        "{program} is missing: test.sh installs it"
    );
}
