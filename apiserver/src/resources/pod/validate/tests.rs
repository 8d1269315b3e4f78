use super::super::defaults;
use super::*;
use serde_json::json;

/// The problems of a spec with defaults, in a pod named `p`.
fn problems(spec: &Value) -> Vec<String> {
    let mut spec = spec.clone();
    defaults::pod_spec(&mut spec);
    defaults::pod_only(&mut spec);
    let problems = pod_spec(&spec, Some("p"), &Path::new("spec"));
    problems.iter().map(ToString::to_string).collect()
}

/// The problems of a pod with one container that has these fields besides name and image.
fn of_container(fields: &Value) -> Vec<String> {
    let mut container = json!({"name": "c", "image": "a:1"});
    for (field, value) in fields.as_object().into_iter().flatten() {
        container[field] = value.clone();
    }
    let prefix = "spec.containers[0].";
    problems(&json!({"containers": [container], "volumes": [{"name": "v", "emptyDir": {}}]}))
        .into_iter()
        .map(|problem| problem.strip_prefix(prefix).map(str::to_owned).unwrap_or(problem))
        .collect()
}

#[test]
fn containers_are_required_and_have_names_of_their_own() {
    assert_eq!(problems(&json!({})), ["spec.containers: Required value"]);
    assert_eq!(
        problems(
            &json!({"containers": [{"name": "c", "image": "a"}, {"name": "c"}],
                         "initContainers": [{"name": "c", "image": "a", "livenessProbe": {"exec": {"command": ["x"]}}}]})
        ),
        [
            "spec.containers[1].image: Required value",
            "spec.containers[1].name: Duplicate value: \"c\"",
            "spec.initContainers[0].name: Duplicate value: \"c\"",
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ]
    );
}

#[test]
fn ports_are_in_range_and_of_a_known_protocol() {
    let ports = json!([{"containerPort": 70000}, {"containerPort": 0}, {"containerPort": 1, "protocol": "ICMP"},
                       {"containerPort": 2, "hostPort": 9}, {"containerPort": 3, "hostPort": 9}]);
    assert_eq!(
        of_container(&json!({ "ports": ports })),
        [
            "ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "ports[1].containerPort: Required value",
            "ports[2].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            "ports[4].hostPort: Duplicate value: \"TCP//9\"",
        ]
    );
}

#[test]
fn variables_have_one_source_that_exists() {
    let env = json!([
        {"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "spec.nope"}}},
        {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "", "valueFrom": {"resourceFieldRef": {"resource": "limits.gpu"}}},
        {"name": "D", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "k"}, "secretKeyRef": {"name": "a", "key": "k"}}},
        {"name": "E=", "value": "x"},
    ]);
    assert_eq!(
        of_container(&json!({ "env": env })),
        [
            "env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
            "env[1].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.nope\": error converting fieldPath: field label not supported: spec.nope",
            "env[3].name: Required value",
            "env[3].valueFrom.resourceFieldRef.resource: Unsupported value: \"limits.gpu\": supported values: \"limits.cpu\", \"limits.ephemeral-storage\", \"limits.memory\", \"requests.cpu\", \"requests.ephemeral-storage\", \"requests.memory\"",
            "env[4].valueFrom: Invalid value: \"\": may not have more than one field specified at a time",
            "env[5].name: Invalid value: \"E=\": a valid environment variable name must consist only of printable ASCII characters other than '='",
        ]
    );
}

#[test]
fn probes_and_hooks_have_exactly_one_handler() {
    let container = json!({
        "livenessProbe": {"periodSeconds": -3},
        "readinessProbe": {"exec": {"command": ["a"]}, "tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 3},
        "startupProbe": {"httpGet": {"port": "NOPE", "scheme": "FTP"}, "successThreshold": 2},
        "lifecycle": {"preStop": {"sleep": {"seconds": 31}}},
    });
    assert_eq!(
        of_container(&container),
        [
            "lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
            "livenessProbe: Required value: must specify a handler type",
            "livenessProbe.periodSeconds: Invalid value: -3: must be greater than or equal to 0",
            "readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
            "readinessProbe.terminationGracePeriodSeconds: Invalid value: 3: must not be set for readinessProbes",
            "startupProbe.httpGet.port: Invalid value: \"NOPE\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
            "startupProbe.httpGet.port: Invalid value: \"NOPE\": must contain at least one letter (a-z)",
            "startupProbe.httpGet.scheme: Unsupported value: \"FTP\": supported values: \"HTTP\", \"HTTPS\"",
            "startupProbe.successThreshold: Invalid value: 2: must be 1",
        ]
    );
}

#[test]
fn mounts_refer_to_volumes_and_do_not_collide() {
    let mounts = json!([{"name": "v", "mountPath": "/x"}, {"name": "v", "mountPath": "/x"}, {"name": "nope", "mountPath": "/y"},
                        {"name": "v", "mountPath": "/z", "subPath": "../a"}]);
    assert_eq!(
        of_container(&json!({ "volumeMounts": mounts })),
        [
            "volumeMounts[1].mountPath: Invalid value: \"/x\": must be unique",
            "volumeMounts[2].name: Not found: \"nope\"",
            "volumeMounts.subPath: Invalid value: \"../a\": must not contain '..'",
        ]
    );
}

#[test]
fn volumes_have_one_source() {
    let containers = json!([{"name": "c", "image": "a"}]);
    let volumes = json!([
        {"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}, {"name": "w", "emptyDir": {}}, {"name": "w", "emptyDir": {}},
        {"name": "Bad_", "secret": {}}, {"name": "h", "hostPath": {"path": "/a/../b", "type": "Odd"}},
        {"name": "c", "configMap": {"name": "a", "defaultMode": 512, "items": [{"key": "k", "path": "/abs"}]}},
    ]);
    let found = problems(&json!({"containers": containers, "volumes": volumes}));
    let fields: Vec<&str> = found
        .iter()
        .map(|p| p.split(": ").next().unwrap_or_default())
        .collect();
    assert_eq!(
        fields,
        [
            "spec.volumes[0].hostPath",
            "spec.volumes[2].name",
            "spec.volumes[3].secret.secretName",
            "spec.volumes[3].name",
            "spec.volumes[4].hostPath.path",
            "spec.volumes[4].hostPath.type",
            "spec.volumes[5].configMap.defaultMode",
            "spec.volumes[5].configMap.items[0].path",
        ]
    );
}

#[test]
fn requests_stay_below_limits_and_names_are_known() {
    let resources = json!({"requests": {"cpu": "2", "maxmemory": "1", "example.com/gpu": "1.5"}, "limits": {"cpu": "1", "example.com/gpu": "1", "memory": "-1"}});
    assert_eq!(
        of_container(&json!({ "resources": resources })),
        [
            "resources.limits[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
            "resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            "resources.requests[example.com/gpu]: Invalid value: \"1500m\": must be an integer",
            "resources.requests: Invalid value: \"1500m\": must be equal to example.com/gpu limit of 1",
            "resources.requests[maxmemory]: Invalid value: \"maxmemory\": must be a standard resource type or fully qualified",
            "resources.requests[maxmemory]: Invalid value: \"maxmemory\": must be a standard resource for containers",
            "resources.requests[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
        ]
    );
}

#[test]
fn the_rest_of_a_spec_is_checked_too() {
    let spec = json!({
        "containers": [{"name": "c", "image": "a", "imagePullPolicy": "Maybe",
                        "securityContext": {"allowPrivilegeEscalation": false, "privileged": true, "runAsUser": -1}}],
        "restartPolicy": "Perhaps", "dnsPolicy": "None", "nodeSelector": {"a": "b!"}, "hostname": "a.b",
        "securityContext": {"fsGroup": -1, "seccompProfile": {"type": "Localhost"}},
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
        "topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
        "tolerations": [{"operator": "Equal"}, {"key": "a", "operator": "Exists", "effect": "Sometimes"}],
        "hostAliases": [{"ip": "nope"}], "activeDeadlineSeconds": 0, "preemptionPolicy": "Odd",
    });
    let found = problems(&spec);
    let fields: Vec<&str> = found
        .iter()
        .map(|p| p.split(": ").next().unwrap_or_default())
        .collect();
    assert_eq!(
        fields,
        [
            "spec.containers[0].imagePullPolicy",
            "spec.containers[0].securityContext.runAsUser",
            "spec.containers[0].securityContext",
            "spec.restartPolicy",
            "spec.nodeSelector",
            "spec.securityContext.fsGroup",
            "spec.securityContext.seccompProfile.localhostProfile",
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms",
            "spec.dnsConfig",
            "spec.topologySpreadConstraints[0].maxSkew",
            "spec.activeDeadlineSeconds",
            "spec.hostname",
            "spec.tolerations[0].operator",
            "spec.tolerations[1].effect",
            "spec.hostAliases[0].ip",
            "spec.preemptionPolicy",
        ]
    );
}
