//! Whether a container that has ended is started again: its own rules decide first, then its own policy, then its pod's
//! (reference, 3.4; rules and policies of containers are upstream's `ContainerRestartRules`, on since 1.35).

use crate::ephemeral;
use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, PodSpec};

/// The pod's restart policy, defaulted.
pub fn restart_policy(spec: &PodSpec) -> &str {
    spec.restart_policy.as_deref().unwrap_or("Always")
}

/// Whether `container` of `spec` is started again after it ended with this code, as long as its pod is to run.
pub fn restarts(spec: &PodSpec, container: &Container, exit_code: i32) -> bool {
    if ephemeral::is_one(spec, &container.name) {
        return false;
    }
    if let Some(policy) = container.restart_policy.as_deref() {
        let mut rules = container.restart_policy_rules.iter().flatten();
        return match rules.find(|rule| applies(rule, exit_code)) {
            Some(rule) => rule.action == "Restart",
            None => by_policy(policy, exit_code),
        };
    }
    let is_init = spec
        .init_containers
        .iter()
        .flatten()
        .any(|init| init.name == container.name);
    match restart_policy(spec) {
        // It has done its work once it succeeds.
        "Always" if is_init => by_policy("OnFailure", exit_code),
        policy => by_policy(policy, exit_code),
    }
}

fn by_policy(policy: &str, exit_code: i32) -> bool {
    match policy {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

fn applies(rule: &ContainerRestartRule, exit_code: i32) -> bool {
    rule.exit_codes.as_ref().is_some_and(|codes| {
        let is_in = codes.values.iter().flatten().any(|value| *value == exit_code);
        match codes.operator.as_str() {
            "In" => is_in,
            "NotIn" => !is_in,
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_come_before_the_containers_policy_and_that_before_the_pods() {
        let in_42 = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
        let not_in_42 = json!([{"action": "Restart", "exitCodes": {"operator": "NotIn", "values": [42]}}]);
        for (pod, container, rules, restarted) in [
            ("Always", None, None, &[0, 1, 42][..]),
            ("OnFailure", None, None, &[1, 42]),
            ("Never", None, None, &[]),
            ("Never", Some("Always"), None, &[0, 1, 42]),
            ("Always", Some("Never"), None, &[]),
            ("Always", Some("OnFailure"), None, &[1, 42]),
            ("Never", Some("Never"), Some(&in_42), &[42]),
            ("Never", Some("Never"), Some(&not_in_42), &[0, 1]),
            ("Always", Some("OnFailure"), Some(&in_42), &[1, 42]),
        ] {
            let spec = json!({"restartPolicy": pod, "containers": [
                {"name": "c", "restartPolicy": container, "restartPolicyRules": rules},
            ]});
            let spec: PodSpec = serde_json::from_value(spec).expect("a spec");
            let codes = [0, 1, 42].into_iter();
            let again: Vec<i32> = codes
                .filter(|code| restarts(&spec, &spec.containers[0], *code))
                .collect();
            assert_eq!(again, restarted, "{pod} {container:?} {rules:?}");
        }
    }

    #[test]
    fn an_init_container_is_done_when_it_succeeds_and_an_ephemeral_one_when_it_ends() {
        let spec = json!({"containers": [], "initContainers": [{"name": "init"}],
            "ephemeralContainers": [{"name": "debugger"}]});
        let spec: PodSpec = serde_json::from_value(spec).expect("a spec");
        let init = &spec.init_containers.as_deref().expect("one")[0];
        assert!(!restarts(&spec, init, 0) && restarts(&spec, init, 1));
        let ephemeral = &ephemeral::containers(&spec)[0];
        assert!(!restarts(&spec, ephemeral, 1));
    }
}
