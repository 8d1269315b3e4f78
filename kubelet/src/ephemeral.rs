//! Ephemeral containers: put into a pod that runs (`kubectl debug`), started once, never restarted, gone with the pod.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, PodSpec};

/// The pod's ephemeral containers, as containers: they have the same fields, some of which must be empty.
pub fn containers(spec: &PodSpec) -> Vec<Container> {
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    ephemeral.filter_map(container).collect()
}

/// Whether the pod has an ephemeral container of this name.
pub fn is_one(spec: &PodSpec, name: &str) -> bool {
    let mut ephemeral = spec.ephemeral_containers.iter().flatten();
    ephemeral.any(|container| container.name == name)
}

fn container(ephemeral: &EphemeralContainer) -> Option<Container> {
    let fields = serde_json::to_value(ephemeral).ok()?;
    serde_json::from_value(fields).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ephemeral_container_is_a_container_with_a_target() {
        let spec = serde_json::json!({"containers": [], "ephemeralContainers": [
            {"name": "debugger", "image": "busybox", "stdin": true, "tty": true, "command": ["sh"],
             "targetContainerName": "c"},
        ]});
        let spec: PodSpec = serde_json::from_value(spec).expect("a spec");
        let expected = Container {
            name: "debugger".into(),
            image: Some("busybox".into()),
            stdin: Some(true),
            tty: Some(true),
            command: Some(vec!["sh".into()]),
            ..Container::default()
        };
        assert_eq!(containers(&spec), [expected]);
        assert!(is_one(&spec, "debugger") && !is_one(&spec, "c"));
    }
}
