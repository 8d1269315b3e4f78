//! Images: loaded, pulled, listed, run and removed, with the binary.

mod build;
mod registry;

use build::build;
use e2e::binary::{Cluster, Level, PATIENCE, eventually, run};
use registry::Registry;
use serde_json::{Value, json};
use std::path::Path;

/// What the image says of how to run it.
fn config() -> Value {
    json!({
        "Entrypoint": ["/bin/app", "$(GREETING)"], "Cmd": ["by", "default"], "Env": ["GREETING=hello"],
        "WorkingDir": "/work", "User": "app", "StopSignal": "SIGQUIT",
    })
}

/// A pod of one container, with more fields for it in YAML's flow style.
fn pod(name: &str, image: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 5\n  \
         containers:\n  - {{name: main, image: \"{image}\"{more}}}\n"
    )
}

fn images(cluster: &Cluster) -> Vec<Value> {
    let listed = run(&mut cluster.petset(&["image", "ls", "-o", "json"])).ok();
    let listed: Value = serde_json::from_str(&listed).expect("json");
    listed["items"].as_array().expect("items").clone()
}

#[test]
fn a_loaded_image_runs_as_it_says_and_stays_while_it_runs_with_mounts_of_its_own() {
    a_loaded_image_runs_as_it_says_and_stays_while_it_runs(Level::default());
}

#[test]
fn a_loaded_image_runs_as_it_says_and_stays_while_it_runs_as_root() {
    a_loaded_image_runs_as_it_says_and_stays_while_it_runs(Level::ROOT);
}

#[test]
fn a_loaded_image_runs_as_it_says_and_stays_while_it_runs_as_an_ordinary_user() {
    a_loaded_image_runs_as_it_says_and_stays_while_it_runs(Level::ORDINARY);
}

fn a_loaded_image_runs_as_it_says_and_stays_while_it_runs(level: Level) {
    let mut cluster = Cluster::at(level);
    let archive = cluster.home().join("app.tar");
    let image = build(cluster.home(), &config());
    std::fs::write(&archive, image.saved("team/app:1")).expect("written");
    let loaded = run(&mut cluster.petset(&["image", "load", archive.to_str().expect("text")])).ok();
    assert!(
        loaded.starts_with("loaded docker.io/team/app:1 (sha256:"),
        "{loaded}"
    );
    let table = run(&mut cluster.petset(&["image", "ls"])).ok();
    assert!(table.contains("docker.io/team/app:1"), "{table}");

    cluster.start(&[]);
    let file = cluster.write(
        "app.yaml",
        &pod("app", "team/app:1", ", env: [{name: GREETING, value: hi}]"),
    );
    cluster.kubectl(&format!("apply -f {}", file.display()));
    let running = cluster.until("pod app", |pod| pod["status"]["phase"] == "Running");
    let status = &running["status"]["containerStatuses"][0];
    assert_eq!(status["imageID"], images(&cluster)[0]["id"], "{status:#}");
    let said = eventually("the program says what it sees", PATIENCE, || {
        let logs = cluster.try_kubectl("logs app").out;
        if logs.contains("/tmp/note") {
            Ok(logs)
        } else {
            Err(logs)
        }
    });
    for line in [
        "arguments: $(GREETING) by default",
        "user: 1234:1235",
        "directory: /work",
        "GREETING: hi",
        "HOME: /home/app",
        "/tmp/note: written",
        "/etc/motd: from above",
        "/etc/gone: none",
        "/old/file: none",
        // Nothing of the host's is there.
        "/etc/debian_version: none",
    ] {
        assert!(
            said.lines().any(|found| found == line),
            "{line:?} is missing in {said}"
        );
    }
    let events = cluster.kubectl("get events -o jsonpath={.items[*].message}");
    let pulled = "Container image \"team/app:1\" already present on machine and can be accessed by the pod";
    assert!(events.contains(pulled), "{events}");

    let refused = run(&mut cluster.petset(&["image", "rm", "team/app:1"])).fails();
    assert!(refused.contains("is used by default_app_"), "{refused}");
    // What one instance writes is not in the image.
    assert!(!written_into_layers(Path::new(&cluster.data("images/layers"))));
    cluster.kubectl("delete pod app");
    cluster.until_gone("pod app");
    run(&mut cluster.petset(&["image", "rm", "team/app:1"])).ok();
    assert!(images(&cluster).is_empty());
    cluster.kubectl(&format!("apply -f {}", file.display()));
    cluster.until("pod app", |pod| {
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        let reason = waiting["reason"].as_str().unwrap_or_default();
        ["ErrImagePull", "ImagePullBackOff"].contains(&reason)
    });
}

fn written_into_layers(layers: &Path) -> bool {
    let layers = std::fs::read_dir(layers).expect("layers");
    layers
        .flatten()
        .any(|layer| layer.path().join("tmp/note").exists())
}

#[test]
fn a_container_says_what_runs_in_its_image_and_as_whom_as_root() {
    a_container_says_what_runs_in_its_image_and_as_whom(Level::ROOT);
}

#[test]
fn a_container_says_what_runs_in_its_image_and_as_whom_as_an_ordinary_user() {
    a_container_says_what_runs_in_its_image_and_as_whom(Level::ORDINARY);
}

fn a_container_says_what_runs_in_its_image_and_as_whom(level: Level) {
    let mut cluster = Cluster::at(level);
    let archive = cluster.home().join("app.tar");
    let image = build(cluster.home(), &config());
    std::fs::write(&archive, image.saved("app")).expect("written");
    run(&mut cluster.petset(&["image", "load", archive.to_str().expect("text")])).ok();
    cluster.start(&[]);
    let changed = ", args: [$(GREETING)], workingDir: /etc, securityContext: {runAsUser: 77, runAsGroup: 78}";
    let non_root = ", securityContext: {runAsNonRoot: true}";
    let file = format!(
        "{}\n---\n{}\n---\n{}\n",
        pod("changed", "app", changed),
        pod("refused", "app", non_root),
        pod("never", "other:1", ", imagePullPolicy: Never"),
    );
    let file = cluster.write("pods.yaml", &file);
    cluster.kubectl(&format!("apply -f {}", file.display()));
    let said = eventually("the program says what it sees", PATIENCE, || {
        let logs = cluster.try_kubectl("logs changed").out;
        if logs.contains("/tmp/note") {
            Ok(logs)
        } else {
            Err(logs)
        }
    });
    // As upstream, which does not know what is in an image when it expands.
    for line in [
        "arguments: $(GREETING) $(GREETING)",
        "GREETING: hello",
        "user: 77:78",
        "directory: /etc",
        "HOME: /",
    ] {
        assert!(
            said.lines().any(|found| found == line),
            "{line:?} is missing in {said}"
        );
    }
    for (name, reason, message) in [
        (
            "refused",
            "CreateContainerConfigError",
            "image has non-numeric user (app), cannot verify user is non-root",
        ),
        (
            "never",
            "ErrImageNeverPull",
            "Container image \"other:1\" is not present with pull policy of Never",
        ),
    ] {
        cluster.until(&format!("pod {name}"), |pod| {
            let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
            let said = waiting["message"].as_str().unwrap_or_default();
            waiting["reason"] == reason && said.contains(message)
        });
    }
}

#[test]
fn an_image_is_pulled_whole_or_not_at_all() {
    let cluster = Cluster::new();
    let registry = Registry::start();
    let image = build(cluster.home(), &config());
    let (manifest, layers) = registry.push("team/app", "1", &image);
    let name = format!("{}/team/app:1", registry.address());
    let pull = |name: &str| run(&mut cluster.petset(&["image", "pull", name]));

    let pulled = pull(&name);
    assert!(pulled.err.contains(": unpacking "), "{pulled}");
    assert!(
        pulled
            .clone()
            .ok()
            .starts_with(&format!("pulled {name} (sha256:")),
        "{pulled}"
    );
    let digest = format!("{}/team/app@{manifest}", registry.address());
    let there = images(&cluster);
    assert_eq!(there[0]["digests"], json!([digest]));
    let again = pull(&digest);
    assert!(
        again.err.contains("is there") && !again.err.contains("unpacking"),
        "{again}"
    );
    assert_eq!(images(&cluster).len(), 1);

    let unknown = pull(&format!("{}/team/app:2", registry.address())).fails();
    assert!(
        unknown.contains("cannot pull") && unknown.contains("team/app:2"),
        "{unknown}"
    );

    run(&mut cluster.petset(&["image", "rm", &name])).ok();
    let path = format!("team/app/blobs/{}", layers[1]);
    for damaged in [b"other content".to_vec(), vec![0; 100_000]] {
        registry.put(&path, "application/octet-stream", damaged);
        pull(&name).fails();
        assert!(images(&cluster).is_empty());
    }
    let left = std::fs::read_dir(cluster.data("images/new"))
        .expect("there")
        .count();
    assert_eq!(left, 0);
}
