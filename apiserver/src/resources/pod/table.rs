//! How a pod is printed: its readiness, the text of its status, its restarts.

use super::super::json::{flag, integer, items, text};
use super::super::parts;
use crate::resource::Column;
use crate::table;
use jiff::Timestamp;
use serde_json::{Value, json};

/// A pod's columns.
pub static COLUMNS: [Column; 9] = [
    parts::NAME,
    parts::column(
        "Ready",
        "The aggregate readiness state of this pod for accepting traffic.",
    ),
    parts::column("Status", "The aggregate status of the containers in this pod."),
    parts::column(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
    ),
    parts::AGE,
    parts::wide("IP", "schema:status.podIP"),
    parts::wide("Node", "schema:spec.nodeName"),
    parts::wide("Nominated Node", "schema:status.nominatedNodeName"),
    parts::wide("Readiness Gates", "schema:spec.readinessGates"),
];

/// A pod's cells.
pub fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let summary = Summary::of(pod);
    let address = items(status, "podIPs")
        .first()
        .map_or("", |first| text(first, "ip"));
    vec![
        parts::name(pod),
        format!("{}/{}", summary.ready, summary.containers).into(),
        summary.reason.as_str().into(),
        summary.restarts.print(now).into(),
        parts::age(pod, now),
        or_none(address).into(),
        or_none(text(spec, "nodeName")).into(),
        or_none(text(status, "nominatedNodeName")).into(),
        readiness_gates(spec, status).into(),
    ]
}

/// A row of a pod that has ended says so.
pub fn row_conditions(pod: &Value) -> Option<Value> {
    let (reason, message) = match text(&pod["status"], "phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "<none>" } else { text }
}

fn readiness_gates(spec: &Value, status: &Value) -> String {
    let gates = items(spec, "readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let passed = gates
        .iter()
        .filter(|gate| condition(status, text(gate, "conditionType")) == "True");
    format!("{}/{}", passed.count(), gates.len())
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a str {
    let mut conditions = items(status, "conditions").iter();
    conditions
        .find(|condition| text(condition, "type") == kind)
        .map_or("", |condition| text(condition, "status"))
}

/// Restarts of a set of containers, and when the last of them ended before one.
#[derive(Clone, Copy, Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &Value) {
        self.count += integer(container, "restartCount");
        let ended = text(&container["lastState"]["terminated"], "finishedAt")
            .parse()
            .ok();
        self.last = self.last.max(ended);
    }

    /// `3`, or `3 (2m ago)` where the time of the last one is known.
    fn print(&self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count != 0 => {
                let ago = table::age(&Value::from(last.to_string()), now);
                format!("{} ({} ago)", self.count, ago.as_str().unwrap_or("<unknown>"))
            }
            _ => self.count.to_string(),
        }
    }
}

/// What the containers' statuses come to.
struct Summary {
    ready: usize,
    containers: usize,
    reason: String,
    restarts: Restarts,
}

impl Summary {
    fn of(pod: &Value) -> Summary {
        let (spec, status) = (&pod["spec"], &pod["status"]);
        let sidecars: Vec<&str> = items(spec, "initContainers")
            .iter()
            .filter(|container| text(container, "restartPolicy") == "Always")
            .map(|container| text(container, "name"))
            .collect();
        let mut summary = Summary {
            ready: 0,
            containers: items(spec, "containers").len() + sidecars.len(),
            reason: start(status),
            restarts: Restarts::default(),
        };
        let mut of_sidecars = Restarts::default();
        let initializing = summary.initialization(spec, status, &sidecars, &mut of_sidecars);
        if !initializing || condition(status, "Initialized") == "True" {
            summary.restarts = of_sidecars;
            summary.main(status);
        }
        let deleted = !pod["metadata"]["deletionTimestamp"].is_null();
        let ended = matches!(text(status, "phase"), "Succeeded" | "Failed");
        if deleted && text(status, "reason") == "NodeLost" {
            summary.reason = "Unknown".to_owned();
        } else if deleted && !ended {
            summary.reason = "Terminating".to_owned();
        }
        summary
    }

    /// Init containers, until one that has not done its part; whether there is one.
    fn initialization(
        &mut self,
        spec: &Value,
        status: &Value,
        sidecars: &[&str],
        of_sidecars: &mut Restarts,
    ) -> bool {
        for (i, container) in items(status, "initContainerStatuses").iter().enumerate() {
            let sidecar = sidecars.contains(&text(container, "name"));
            self.restarts.add(container);
            if sidecar {
                of_sidecars.add(container);
            }
            let (waiting, terminated) = (&container["state"]["waiting"], &container["state"]["terminated"]);
            if !terminated.is_null() && integer(terminated, "exitCode") == 0 {
                continue;
            }
            if sidecar && flag(container, "started") {
                self.ready += usize::from(flag(container, "ready"));
                continue;
            }
            let wait = text(waiting, "reason");
            self.reason = if !terminated.is_null() {
                format!("Init:{}", end(terminated))
            } else if !wait.is_empty() && wait != "PodInitializing" {
                format!("Init:{wait}")
            } else {
                format!("Init:{i}/{}", items(spec, "initContainers").len())
            };
            return true;
        }
        false
    }

    /// The pod's own containers, the last first, so that the first one's reason stands.
    fn main(&mut self, status: &Value) {
        let mut running = false;
        for container in items(status, "containerStatuses").iter().rev() {
            self.restarts.add(container);
            let state = &container["state"];
            let wait = text(&state["waiting"], "reason");
            if !wait.is_empty() {
                self.reason = wait.to_owned();
            } else if !state["terminated"].is_null() {
                self.reason = end(&state["terminated"]);
            } else if flag(container, "ready") && !state["running"].is_null() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            let ready = condition(status, "Ready") == "True";
            self.reason = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }
}

/// The text before any container is looked at: the phase, a reason for the whole pod, a gate.
fn start(status: &Value) -> String {
    let gated = items(status, "conditions").iter().any(|condition| {
        text(condition, "type") == "PodScheduled" && text(condition, "reason") == "SchedulingGated"
    });
    match (gated, text(status, "reason")) {
        (true, _) => "SchedulingGated",
        (false, "") => text(status, "phase"),
        (false, reason) => reason,
    }
    .to_owned()
}

/// How a container ended: the reason, else the signal, else the exit code.
fn end(terminated: &Value) -> String {
    match (text(terminated, "reason"), integer(terminated, "signal")) {
        ("", 0) => format!("ExitCode:{}", integer(terminated, "exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pod: &Value) -> (String, String, String) {
        let summary = Summary::of(pod);
        let now = "2024-01-01T00:10:00Z".parse().unwrap();
        (
            format!("{}/{}", summary.ready, summary.containers),
            summary.reason.clone(),
            summary.restarts.print(now),
        )
    }

    #[test]
    fn the_status_text_comes_from_the_first_container_with_something_to_say() {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let running = json!({"name": "b", "ready": true, "state": {"running": {}}});
        let cases = [
            (json!({"phase": "Pending"}), ("0/2", "Pending")),
            (
                json!({"phase": "Failed", "reason": "Evicted"}),
                ("0/2", "Evicted"),
            ),
            (
                json!({"phase": "Running", "containerStatuses": [{"name": "a", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}, running]}),
                ("1/2", "CrashLoopBackOff"),
            ),
            (
                json!({"phase": "Running", "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 3}}}]}),
                ("0/2", "ExitCode:3"),
            ),
            (
                json!({"phase": "Running", "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 0, "signal": 9}}}]}),
                ("0/2", "Signal:9"),
            ),
            (
                json!({"phase": "Running", "containerStatuses": [{"name": "a", "state": {"terminated": {"reason": "Completed"}}}, running]}),
                ("1/2", "NotReady"),
            ),
            (
                json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
                       "containerStatuses": [{"name": "a", "state": {"terminated": {"reason": "Completed"}}}, running]}),
                ("1/2", "Running"),
            ),
            (
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
                ("0/2", "SchedulingGated"),
            ),
        ];
        for (status, (ready, reason)) in cases {
            let pod = json!({"spec": spec, "status": status});
            let (shown_ready, shown_reason, _) = shown(&pod);
            assert_eq!(
                (shown_ready.as_str(), shown_reason.as_str()),
                (ready, reason),
                "{pod}"
            );
        }
    }

    #[test]
    fn a_deleted_pod_is_terminating_until_it_has_ended() {
        for (phase, reason, text) in [
            ("Running", "", "Terminating"),
            ("Succeeded", "", "Succeeded"),
            ("Running", "NodeLost", "Unknown"),
        ] {
            let pod = json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"}, "spec": {}, "status": {"phase": phase, "reason": reason}});
            assert_eq!(shown(&pod).1, text);
        }
    }

    #[test]
    fn init_containers_and_sidecars_are_counted_apart() {
        let spec = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]});
        let pending = json!({"spec": spec, "status": {"phase": "Pending", "initContainerStatuses": [
            {"name": "i", "restartCount": 2, "state": {"running": {}}}]}});
        assert_eq!(shown(&pending), ("0/2".into(), "Init:0/2".into(), "2".into()));
        let done = json!({"spec": spec, "status": {"phase": "Running", "initContainerStatuses": [
            {"name": "i", "restartCount": 2, "state": {"terminated": {"exitCode": 0}}},
            {"name": "s", "restartCount": 1, "started": true, "ready": true, "state": {"running": {}}}],
            "containerStatuses": [{"name": "a", "restartCount": 3, "ready": true, "state": {"running": {}},
                "lastState": {"terminated": {"finishedAt": "2024-01-01T00:08:00Z"}}}]}});
        let (ready, reason, restarts) = shown(&done);
        assert_eq!((ready.as_str(), reason.as_str()), ("2/2", "Running"));
        assert!(
            restarts.starts_with("4 (") && restarts.ends_with(" ago)"),
            "{restarts}"
        );
    }
}
