//! What kubectl prints when the API refuses: the words people search the web for, and exit code 1.

use e2e::binary::{Cluster, Ran, run};

const WEB: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: web
  annotations: {}
spec:
  serviceName: web
  replicas: 2
  podManagementPolicy: OrderedReady
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - {name: c, image: 'i:1'}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec:
      accessModes: [ReadWriteOnce]
      resources: {requests: {storage: 1Gi}}
";

const FROZEN: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

/// Run `kubectl COMMAND -f` on [`WEB`] with texts replaced in it.
fn with(cluster: &Cluster, command: &str, replaced: &[(&str, &str)]) -> Ran {
    let mut text = WEB.to_owned();
    for (from, to) in replaced {
        assert!(text.contains(from), "{from} is not in the manifest");
        text = text.replace(from, to);
    }
    let file = cluster.write("web.yaml", &text);
    cluster.try_kubectl(&format!("{command} -f {}", file.display()))
}

/// It must fail with 1, print nothing but this to standard error, and nothing at all to standard output.
#[track_caller]
fn refused(ran: &Ran, expected: &str) {
    assert_eq!(ran.status.code(), Some(1), "{ran}");
    assert_eq!(
        (ran.out.as_str(), ran.err.as_str()),
        ("", expected),
        "{}",
        ran.line
    );
}

#[test]
fn a_refused_set_is_told_by_its_causes() {
    let cluster = Cluster::api_alone();
    for command in ["create", "apply", "create --dry-run=server"] {
        let ran = with(&cluster, command, &[("replicas: 2", "replicas: -1")]);
        refused(
            &ran,
            "The StatefulSet \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0\n",
        );
    }
    let wrong = [
        ("replicas: 2", "replicas: -1"),
        ("OrderedReady", "Random"),
        ("labels: {app: web}", "labels: {app: other}"),
        ("metadata: {name: data}", "metadata: {name: Data}"),
    ];
    let several = "The StatefulSet \"web\" is invalid: \n\
        * spec.podManagementPolicy: Invalid value: \"Random\": must be 'OrderedReady' or 'Parallel'\n\
        * spec.replicas: Invalid value: -1: must be greater than or equal to 0\n\
        * spec.template.metadata.labels: Invalid value: {\"app\":\"other\"}: `selector` does not match template `labels`\n\
        * spec.volumeClaimTemplates[0].metadata.name: Invalid value: \"Data\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')\n";
    refused(&with(&cluster, "apply", &wrong), several);

    let long = "w".repeat(53);
    let ran = with(
        &cluster,
        "apply",
        &[("  name: web\n", &format!("  name: {long}\n"))],
    );
    refused(
        &ran,
        &format!(
            "The StatefulSet \"{long}\" is invalid: metadata.name: Invalid value: \"{long}\": must be no more than 52 characters: its pods are labelled controller-revision-hash with this name, a dash and a hash of up to 10 characters, and the value of a label has at most 63\n"
        ),
    );
    assert_eq!(cluster.kubectl("get sts -o name"), "", "nothing was stored");
}

#[test]
fn a_frozen_field_is_refused_whatever_the_verb() {
    let cluster = Cluster::api_alone();
    assert_eq!(
        with(&cluster, "apply", &[]).ok(),
        "statefulset.apps/web created\n"
    );
    let expected = format!("The StatefulSet \"web\" is invalid: spec: Forbidden: {FROZEN}\n");
    for (from, to) in [
        ("serviceName: web", "serviceName: other"),
        ("app: web", "app: other"),
        ("OrderedReady", "Parallel"),
        ("storage: 1Gi", "storage: 2Gi"),
        ("ReadWriteOnce", "ReadWriteMany"),
        ("metadata: {name: data}", "metadata: {name: data, labels: {a: b}}"),
    ] {
        for command in ["apply", "replace", "diff"] {
            let ran = with(&cluster, command, &[(from, to)]);
            if command == "diff" {
                assert!(
                    ran.status.code() > Some(1) && ran.err.contains(&expected),
                    "{from}: {ran}"
                );
            } else {
                refused(&ran, &expected);
            }
        }
    }
    for (kind, patch) in [
        ("strategic", r#"{"spec":{"serviceName":"other"}}"#),
        ("merge", r#"{"spec":{"volumeClaimTemplates":null}}"#),
        ("json", r#"[{"op":"remove","path":"/spec/volumeClaimTemplates"}]"#),
    ] {
        let ran = run(&mut cluster.kubectl_command(&["patch", "sts", "web", "--type", kind, "-p", patch]));
        refused(&ran, &expected);
    }
    // Several causes of a change.
    let ran = with(
        &cluster,
        "apply",
        &[("replicas: 2", "replicas: -2"), ("Name: web", "Name: other")],
    );
    refused(
        &ran,
        &format!(
            "The StatefulSet \"web\" is invalid: \n* spec.replicas: Invalid value: -2: must be greater than or equal to 0\n* spec: Forbidden: {FROZEN}\n"
        ),
    );
    assert_eq!(cluster.get("sts web")["metadata"]["generation"], 1);
    // What may change does, in the same way.
    let ran = with(
        &cluster,
        "apply",
        &[("replicas: 2", "replicas: 3"), ("i:1", "i:2")],
    );
    assert_eq!(ran.ok(), "statefulset.apps/web configured\n");
}

#[test]
fn claim_templates_grow_by_applying_them_with_the_annotation() {
    let cluster = Cluster::api_alone();
    with(&cluster, "apply", &[]).ok();
    let asking = (
        "annotations: {}",
        "annotations: {petset.dev/resize-claims: 'true'}",
    );
    let ran = with(&cluster, "apply", &[asking, ("storage: 1Gi", "storage: 2Gi")]);
    assert_eq!(ran.ok(), "statefulset.apps/web configured\n");
    let stored = cluster.get("sts web");
    let claim = &stored["spec"]["volumeClaimTemplates"][0];
    assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "2Gi");
    refused(
        &with(&cluster, "apply", &[asking]),
        "The StatefulSet \"web\" is invalid: spec.volumeClaimTemplates[0].spec.resources.requests.storage: Forbidden: may be raised but not lowered: it was 2Gi and would be 1Gi\n",
    );
}

#[test]
fn claims_and_what_is_or_is_not_there_are_told_as_upstream_tells_them() {
    let cluster = Cluster::api_alone();
    with(&cluster, "create", &[]).ok();
    let again = with(&cluster, "create", &[]);
    let file = cluster.home().join("web.yaml");
    refused(
        &again,
        &format!(
            "Error from server (AlreadyExists): error when creating \"{}\": statefulsets.apps \"web\" already exists\n",
            file.display()
        ),
    );
    let ran = cluster.try_kubectl("get sts none");
    refused(
        &ran,
        "Error from server (NotFound): statefulsets.apps \"none\" not found\n",
    );

    let claim = cluster.write(
        "claim.yaml",
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: d}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n",
    );
    cluster.kubectl(&format!("create -f {}", claim.display()));
    let patch = r#"{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}"#;
    let ran = run(&mut cluster.kubectl_command(&["patch", "pvc", "d", "-p", patch]));
    refused(
        &ran,
        "The PersistentVolumeClaim \"d\" is invalid: spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n\
         @@ -6,7 +6,7 @@\n  \"Resources\": {\n   \"Limits\": null,\n   \"Requests\": {\n-   \"storage\": \"1Gi\"\n+   \"storage\": \"2Gi\"\n   }\n  },\n  \"VolumeName\": \"\",\n\n",
    );
}
