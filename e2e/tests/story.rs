//! The tutorials' StatefulSet on the real binary, with nothing but kubectl, dig, nslookup and curl.

use e2e::binary::{Cluster, PATIENCE, eventually};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const NAMES: [&str; 3] = ["web-0", "web-1", "web-2"];

fn is_ready(pod: &Value) -> bool {
    ready_since(pod).is_some()
}

/// When its condition Ready became true.
fn ready_since(pod: &Value) -> Option<jiff::Timestamp> {
    let conditions = pod["status"]["conditions"].as_array()?;
    let ready = conditions
        .iter()
        .find(|c| c["type"] == "Ready" && c["status"] == "True")?;
    time(&ready["lastTransitionTime"])
}

fn time(value: &Value) -> Option<jiff::Timestamp> {
    value.as_str()?.parse().ok()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// The port of the pods' web servers.
fn port(cluster: &Cluster) -> i64 {
    let service = cluster.get("svc nginx");
    let port = service["spec"]["ports"][0]["port"].as_i64();
    port.expect("it has a port")
}

fn address(cluster: &Cluster, pod: &str) -> String {
    text(&cluster.get(&format!("pod {pod}"))["status"]["podIP"]).to_owned()
}

/// What the pod's web server serves.
fn page(cluster: &Cluster, pod: &str) -> String {
    let url = format!("http://{}:{}/", address(cluster, pod), port(cluster));
    let reply = cluster.curl(&[&url]);
    assert_eq!(reply.code, 200, "{url}: {reply:?}");
    reply.body
}

/// The directory behind a claim.
fn directory(cluster: &Cluster, claim: &str) -> PathBuf {
    let claim = cluster.get(&format!("pvc {claim}"));
    let volume = cluster.get(&format!("pv {}", text(&claim["spec"]["volumeName"])));
    PathBuf::from(text(&volume["spec"]["hostPath"]["path"]))
}

/// Put a page of its own into every pod's volume.
fn write_pages(cluster: &Cluster) {
    for name in NAMES {
        let page = directory(cluster, &format!("www-{name}")).join("index.html");
        fs::write(page, format!("I am {name}\n")).expect("a volume can be written to");
    }
}

/// Its record is its own address, at once or soon.
fn has_its_name(cluster: &Cluster, pod: &str) {
    let name = format!("{pod}.nginx.default.svc.cluster.local");
    eventually(&format!("{name} is {pod}"), PATIENCE, || {
        let (dug, own) = (cluster.dig(&name, "A"), address(cluster, pod));
        if dug.data() == [own.as_str()] {
            Ok(())
        } else {
            Err(dug.text)
        }
    });
}

fn start(manifest: impl Fn(&Cluster) -> PathBuf) -> (Cluster, String) {
    let mut cluster = Cluster::new();
    let manifest = manifest(&cluster).display().to_string();
    cluster.start(&["-f", &manifest]);
    (cluster, manifest)
}

#[test]
fn up_brings_the_set_to_life_in_order() {
    let (cluster, _) = start(|cluster| cluster.affordable("examples/nginx.yaml"));
    // From the first revision on: nothing is missed, however late this watch starts.
    let mut pods = cluster.watch("/api/v1/namespaces/default/pods?watch=true&resourceVersion=1");
    pods.until("web-2 is Ready", |event| {
        event["object"]["metadata"]["name"] == "web-2" && is_ready(&event["object"])
    });
    for pair in NAMES.windows(2) {
        let of = |name: &str, is_it: &dyn Fn(&Value) -> bool| {
            let mut events = pods.seen.iter().enumerate();
            let found = events.find(|(_, e)| e["object"]["metadata"]["name"] == name && is_it(e));
            found.unwrap_or_else(|| panic!("no such event of {name}: {:#?}", pods.seen))
        };
        let (ready_at, ready) = of(pair[0], &|e| is_ready(&e["object"]));
        let (created_at, created) = of(pair[1], &|e| e["type"] == "ADDED");
        assert!(ready_at < created_at, "{pair:?}");
        let ready = ready_since(&ready["object"]).expect("it is");
        let created = time(&created["object"]["metadata"]["creationTimestamp"]).expect("it is set");
        let waited = created.duration_since(ready).as_secs();
        assert!(
            (10..30).contains(&waited),
            "{pair:?}: available after 10 s, created after {waited} s"
        );
    }
    cluster.until_available("web", 3);
    claims_are_bound_to_directories(&cluster);
    tables_have_their_columns(&cluster);
    names_resolve(&cluster);
    nslookup_sees_the_same(&cluster);
    write_pages(&cluster);
    for name in NAMES {
        assert_eq!(page(&cluster, name), format!("I am {name}\n"));
    }
    up_says_what_happens(&cluster);
}

fn claims_are_bound_to_directories(cluster: &Cluster) {
    for name in NAMES {
        let claim = cluster.get(&format!("pvc www-{name}"));
        assert_eq!(claim["status"]["phase"], "Bound", "{claim:#}");
        assert_eq!(claim["spec"]["storageClassName"], "my-storage-class");
        let directory = directory(cluster, &format!("www-{name}"));
        assert!(directory.is_dir(), "{}", directory.display());
        assert_eq!(
            directory.parent(),
            Some(cluster.data_dir().join("volumes").as_path())
        );
        let file = directory.file_name().unwrap_or_default().to_string_lossy();
        assert!(file.contains(&format!("www-{name}")), "{file}");
    }
}

fn tables_have_their_columns(cluster: &Cluster) {
    let expected: [(&str, &[&str]); 7] = [
        ("sts", &["NAME", "READY", "AGE", "CONTAINERS", "IMAGES"]),
        (
            "pods",
            &[
                "NAME",
                "READY",
                "STATUS",
                "RESTARTS",
                "AGE",
                "IP",
                "NODE",
                "NOMINATED",
                "NODE",
                "READINESS",
                "GATES",
            ],
        ),
        (
            "pvc",
            &[
                "NAME",
                "STATUS",
                "VOLUME",
                "CAPACITY",
                "ACCESS",
                "MODES",
                "STORAGECLASS",
                "VOLUMEATTRIBUTESCLASS",
                "AGE",
                "VOLUMEMODE",
            ],
        ),
        (
            "pv",
            &[
                "NAME",
                "CAPACITY",
                "ACCESS",
                "MODES",
                "RECLAIM",
                "POLICY",
                "STATUS",
                "CLAIM",
                "STORAGECLASS",
                "VOLUMEATTRIBUTESCLASS",
                "REASON",
                "AGE",
                "VOLUMEMODE",
            ],
        ),
        (
            "svc",
            &[
                "NAME",
                "TYPE",
                "CLUSTER-IP",
                "EXTERNAL-IP",
                "PORT(S)",
                "AGE",
                "SELECTOR",
            ],
        ),
        (
            "endpointslices",
            &["NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"],
        ),
        (
            "events",
            &[
                "LAST",
                "SEEN",
                "TYPE",
                "REASON",
                "OBJECT",
                "SUBOBJECT",
                "SOURCE",
                "MESSAGE",
                "FIRST",
                "SEEN",
                "COUNT",
                "NAME",
            ],
        ),
    ];
    let kinds: Vec<&str> = expected.iter().map(|(kind, _)| *kind).collect();
    let all = cluster.kubectl(&format!("get {} -o wide", kinds.join(",")));
    let mut tables = all.split("\n\n");
    for (kind, columns) in expected {
        let table = tables
            .next()
            .unwrap_or_else(|| panic!("no table of {kind} in\n{all}"));
        let header: Vec<&str> = table
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        assert_eq!(header, columns, "{kind}");
    }
    let row = |kind: &str, name: &str| {
        let table = cluster.kubectl(&format!("get {kind} -o wide --no-headers"));
        let row = table
            .lines()
            .find(|line| line.starts_with(name))
            .map(str::to_owned);
        let row = row.unwrap_or_else(|| panic!("no {name} in\n{table}"));
        row.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let set = row("sts", "web");
    assert_eq!(set[1], "3/3");
    assert_eq!(set[3..], ["nginx", "k8s.gcr.io/nginx-slim:0.8"]);
    let pod = row("pods", "web-1");
    assert_eq!(pod[1..4], ["1/1", "Running", "0"]);
    assert_eq!(pod[5], address(cluster, "web-1"));
    let claim = row("pvc", "www-web-1");
    assert_eq!(claim[1], "Bound");
    assert_eq!(claim[3..6], ["1Gi", "RWO", "my-storage-class"]);
    let service = row("svc", "nginx");
    assert_eq!(service[1..4], ["ClusterIP", "None", "<none>"]);
    assert_eq!(service[4], format!("{}/TCP", port(cluster)));
    assert_eq!(service[6], "app=nginx");
    let reasons =
        cluster.kubectl("get events --field-selector involvedObject.name=web-1 -o custom-columns=:.reason");
    for reason in ["Scheduled", "Pulled", "Created", "Started"] {
        assert!(
            reasons.lines().any(|line| line == reason),
            "no {reason} in {reasons}"
        );
    }
    let told = cluster
        .kubectl("get events --field-selector involvedObject.kind=StatefulSet -o custom-columns=:.message");
    for name in NAMES {
        for what in [
            format!("create Claim www-{name} Pod {name} in StatefulSet web success"),
            format!("create Pod {name} in StatefulSet web successful"),
        ] {
            assert!(
                told.lines().any(|l| l.eq_ignore_ascii_case(&what)),
                "no {what:?} in {told}"
            );
        }
    }
}

fn names_resolve(cluster: &Cluster) {
    let mut own: Vec<String> = NAMES.iter().map(|name| address(cluster, name)).collect();
    for name in NAMES {
        has_its_name(cluster, name);
    }
    own.sort_unstable();
    assert_eq!(
        own.iter().collect::<std::collections::BTreeSet<_>>().len(),
        3,
        "{own:?}"
    );

    let all = cluster.dig("nginx.default.svc.cluster.local", "A");
    assert_eq!(all.status, "NOERROR", "{}", all.text);
    assert!(all.flags.contains("aa"), "{}", all.flags);
    assert_eq!(all.data(), own);
    assert!(all.answer.iter().all(|r| r.ttl == "5"), "{}", all.text);

    let services = cluster.dig("_web._tcp.nginx.default.svc.cluster.local", "SRV");
    let port = port(cluster).to_string();
    let mut targets = Vec::new();
    for record in &services.answer {
        let [_priority, _weight, its_port, target] = record.data.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{record:?}");
        };
        assert_eq!(its_port, port);
        targets.push(target);
    }
    targets.sort_unstable();
    let domain = |name: &str| format!("{name}.nginx.default.svc.cluster.local.");
    assert_eq!(targets, NAMES.map(domain));
    let additional: Vec<&str> = services
        .additional
        .iter()
        .filter(|r| r.type_ == "A" && targets.contains(&r.name.as_str()))
        .map(|r| r.data.as_str())
        .collect();
    assert_eq!(additional.len(), 3, "{}", services.text);
    assert!(
        own.iter().all(|a| additional.contains(&a.as_str())),
        "{}",
        services.text
    );

    let shouted = cluster.dig("WEB-1.Nginx.DEFAULT.svc.Cluster.Local", "A");
    assert_eq!(shouted.data(), [address(cluster, "web-1")], "{}", shouted.text);
    let unknown = cluster.dig("web-9.nginx.default.svc.cluster.local", "A");
    assert!(unknown.is_empty_with_soa("NXDOMAIN"), "{}", unknown.text);
    let other_type = cluster.dig("web-1.nginx.default.svc.cluster.local", "TXT");
    assert!(other_type.is_empty_with_soa("NOERROR"), "{}", other_type.text);
}

fn nslookup_sees_the_same(cluster: &Cluster) {
    let own = cluster
        .nslookup("web-1.nginx.default.svc.cluster.local", "a")
        .ok();
    assert!(
        own.contains(&format!("Address: {}\n", address(cluster, "web-1"))),
        "{own}"
    );
    let services = cluster
        .nslookup("_web._tcp.nginx.default.svc.cluster.local", "srv")
        .ok();
    for name in NAMES {
        assert!(
            services.contains(&format!("{name}.nginx.default.svc.cluster.local.")),
            "{services}"
        );
    }
    let unknown = cluster.nslookup("web-9.nginx.default.svc.cluster.local", "a");
    assert!(unknown.out.contains("NXDOMAIN"), "{unknown}");
}

fn up_says_what_happens(cluster: &Cluster) {
    let said = cluster.said();
    for line in [
        format!("kubectl --kubeconfig {}", cluster.data("kubeconfig")),
        format!("curl --unix-socket {}", cluster.data("api.sock")),
        format!(
            "-p {} nginx.default.svc.cluster.local A",
            cluster.address("dns").trim_start_matches("127.0.0.1:")
        ),
        "service/nginx created\n".into(),
        "statefulset.apps/web created\n".into(),
        format!(
            "pod default/web-2: Running, ready at {}\n",
            address(cluster, "web-2")
        ),
        "statefulset default/web: 3/3 ready, 3 available\n".into(),
    ] {
        assert!(said.contains(&line), "no {line:?} in\n{said}");
    }
    assert!(!said.contains('\u{1b}'), "colours or cursors in a file:\n{said}");
}

#[test]
fn a_pod_comes_back_as_itself_and_claims_outlive_the_set() {
    let (cluster, manifest) = start(|cluster| cluster.affordable("examples/nginx.yaml"));
    eventually("the manifest is applied", PATIENCE, || cluster.look("sts web"));
    // Ten seconds for every pod would teach nothing that the other test does not.
    cluster.kubectl(r#"patch sts web --type merge -p {"spec":{"minReadySeconds":0}}"#);
    cluster.until_available("web", 3);
    write_pages(&cluster);

    let before = cluster.get("pod web-1");
    let claim = cluster.get("pvc www-web-1");
    cluster.kubectl("delete pod web-1");
    let after = cluster.until("pod web-1", |pod| {
        pod["metadata"]["uid"] != before["metadata"]["uid"] && is_ready(pod)
    });
    assert_eq!(after["spec"]["hostname"], "web-1");
    has_its_name(&cluster, "web-1");
    assert_eq!(
        cluster.get("pvc www-web-1")["metadata"]["uid"],
        claim["metadata"]["uid"]
    );
    assert_eq!(page(&cluster, "web-1"), "I am web-1\n");

    scaling_down_goes_from_the_top(&cluster);
    cluster.kubectl("scale sts web --replicas=3");
    cluster.until_available("web", 3);
    for name in NAMES {
        has_its_name(&cluster, name);
        assert_eq!(page(&cluster, name), format!("I am {name}\n"));
    }

    let directories = NAMES.map(|name| directory(&cluster, &format!("www-{name}")));
    let said = cluster.kubectl(&format!("delete -f {manifest}"));
    for line in [
        "storageclass.storage.k8s.io \"my-storage-class\" deleted",
        "service \"nginx\" deleted",
        "statefulset.apps \"web\" deleted",
    ] {
        assert!(said.contains(line), "no {line:?} in {said}");
    }
    for name in NAMES {
        cluster.until_gone(&format!("pod {name}"));
    }
    cluster.until_gone("svc nginx");
    cluster.until_gone("sts web");
    eventually("the Service's name goes", PATIENCE, || {
        let dug = cluster.dig("nginx.default.svc.cluster.local", "A");
        dug.is_empty_with_soa("NXDOMAIN").then_some(()).ok_or(dug.text)
    });
    claims_and_data_are_kept(&cluster, &directories);
}

fn scaling_down_goes_from_the_top(cluster: &Cluster) {
    let since = text(&cluster.get("pods")["metadata"]["resourceVersion"]).to_owned();
    // A list's resourceVersion is empty in what kubectl prints of several objects; then the watch starts with what is.
    let mut pods = cluster.watch(&format!(
        "/api/v1/namespaces/default/pods?watch=true&resourceVersion={since}"
    ));
    cluster.kubectl("scale sts web --replicas=1");
    let is = |event: &Value, name: &str| event["object"]["metadata"]["name"] == name;
    pods.until("web-1 is gone", |event| {
        is(event, "web-1") && event["type"] == "DELETED"
    });
    let gone = pods
        .seen
        .iter()
        .position(|e| is(e, "web-2") && e["type"] == "DELETED");
    let going = pods
        .seen
        .iter()
        .position(|e| is(e, "web-1") && !e["object"]["metadata"]["deletionTimestamp"].is_null());
    let order = gone.zip(going);
    assert!(
        order.is_some_and(|(gone, going)| gone < going),
        "{order:?}: {:#?}",
        pods.seen
    );
    cluster.until_available("web", 1);
    for name in NAMES {
        assert_eq!(
            cluster.get(&format!("pvc www-{name}"))["status"]["phase"],
            "Bound"
        );
    }
    eventually("web-2's name goes", PATIENCE, || {
        let dug = cluster.dig("web-2.nginx.default.svc.cluster.local", "A");
        dug.is_empty_with_soa("NXDOMAIN").then_some(()).ok_or(dug.text)
    });
    has_its_name(cluster, "web-0");
}

fn claims_and_data_are_kept(cluster: &Cluster, directories: &[PathBuf]) {
    for (name, directory) in NAMES.iter().zip(directories) {
        assert_eq!(
            cluster.get(&format!("pvc www-{name}"))["status"]["phase"],
            "Bound"
        );
        let page = fs::read_to_string(Path::new(directory).join("index.html"));
        assert_eq!(page.expect("it is kept"), format!("I am {name}\n"));
    }
}
