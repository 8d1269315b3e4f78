//! Every kind that is served, through every command of kubectl that works on any kind.

use e2e::binary::{Cluster, Ran, run};
use std::collections::BTreeSet;
use std::path::Path;

/// An object of each kind, which nothing but the API server and the controllers' bookkeeping touches.
const OBJECTS: &str = include_str!("every_kind/objects.yaml");

fn on_all(cluster: &Cluster, file: &Path, line: &str) -> Ran {
    let mut arguments: Vec<&str> = line.split_whitespace().collect();
    let file = file.to_string_lossy();
    arguments.extend(["-f", &file]);
    run(&mut cluster.kubectl_command(&arguments))
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.trim().is_empty()).collect()
}

/// Each object is told of with this word, and nothing else is said.
#[track_caller]
fn each(said: &str, names: &[String], word: &str) {
    let expected: Vec<String> = names.iter().map(|name| format!("{name} {word}")).collect();
    assert_eq!(lines(said), expected);
}

fn versions(cluster: &Cluster, file: &Path) -> Vec<String> {
    let template =
        "-o jsonpath={range.items[*]}{.kind}/{.metadata.name}:{.metadata.resourceVersion}{\"\\n\"}{end}";
    let said = on_all(cluster, file, &format!("get {template}")).ok();
    lines(&said).into_iter().map(str::to_owned).collect()
}

#[test]
fn every_kind_is_applied_looked_at_changed_and_deleted() {
    let cluster = Cluster::up();
    let file = cluster.write("objects.yaml", OBJECTS);
    let served = cluster.kubectl("api-resources --verbs=create,get,list,watch,update,patch,delete -o name");
    let names: Vec<String> = lines(&on_all(&cluster, &file, "create --dry-run=server -o name").ok())
        .into_iter()
        .map(str::to_owned)
        .collect();
    let kinds = |names: &[String]| -> BTreeSet<String> {
        let kind = |name: &String| name.split('/').next().unwrap_or_default().to_owned();
        names.iter().map(kind).collect()
    };
    // `endpoints` is its own singular; every other kind's is a part of its plural.
    let singular = |plural: &str| -> String {
        let (name, group) = plural.split_once('.').unwrap_or((plural, ""));
        let name = match name {
            "endpoints" => name,
            name if name.ends_with("classes") => name.trim_end_matches("es"),
            name => name.trim_end_matches('s'),
        };
        let dot = if group.is_empty() { "" } else { "." };
        format!("{name}{dot}{group}")
    };
    let expected: BTreeSet<String> = lines(&served).into_iter().map(singular).collect();
    assert_eq!(
        kinds(&names),
        expected,
        "objects.yaml has one object of each kind"
    );

    each(&on_all(&cluster, &file, "apply").ok(), &names, "created");
    on_all(&cluster, &file, "wait --for=create").ok();
    each(&on_all(&cluster, &file, "apply").ok(), &names, "unchanged");
    assert_eq!(on_all(&cluster, &file, "diff").ok(), "");
    each(
        &on_all(&cluster, &file, "apply --dry-run=server").ok(),
        &names,
        "unchanged (server dry run)",
    );

    for output in ["wide", "yaml", "name", "custom-columns=NAME:.metadata.name"] {
        let said = on_all(&cluster, &file, &format!("get -o {output}")).ok();
        assert!(said.matches("every").count() >= names.len(), "{output}: {said}");
    }
    let described = on_all(&cluster, &file, "describe").ok();
    let told = lines(&described)
        .into_iter()
        .filter(|line| line.starts_with("Name:"))
        .count();
    assert_eq!(told, names.len(), "{described}");

    each(
        &on_all(&cluster, &file, "label tried=yes").ok(),
        &names,
        "labeled",
    );
    each(
        &on_all(&cluster, &file, "annotate tried=yes").ok(),
        &names,
        "annotated",
    );
    let patch = r#"patch --type=merge -p {"metadata":{"labels":{"tried":null}}}"#;
    each(&on_all(&cluster, &file, patch).ok(), &names, "patched");
    let patch = r#"patch --type=json -p [{"op":"remove","path":"/metadata/annotations/tried"}]"#;
    each(&on_all(&cluster, &file, patch).ok(), &names, "patched");

    // What was read is put back: nothing is lost on the way, so nothing is written. (`replace` would keep what `apply`
    // notes up to date.)
    let forget = "annotate kubectl.kubernetes.io/last-applied-configuration-";
    each(&on_all(&cluster, &file, forget).ok(), &names, "annotated");
    let before = versions(&cluster, &file);
    let read = on_all(&cluster, &file, "get -o yaml").ok();
    let copy = cluster.write("read.yaml", &read);
    each(&on_all(&cluster, &copy, "replace").ok(), &names, "replaced");
    assert_eq!(versions(&cluster, &file), before);

    let kinds = on_all(
        &cluster,
        &file,
        "get -o jsonpath={range.items[*]}{.apiVersion},{.kind}{\"\\n\"}{end}",
    )
    .ok();
    for (version, kind) in lines(&kinds).into_iter().filter_map(|line| line.split_once(',')) {
        let explained = cluster.kubectl(&format!("explain --api-version={version} {kind}"));
        assert!(
            explained.contains(&format!("\nKIND:       {kind}\n"))
                || explained.starts_with(&format!("KIND:       {kind}\n")),
            "{explained}"
        );
        assert!(explained.contains("\n  metadata\t<ObjectMeta>"), "{explained}");
    }

    let deleted = on_all(&cluster, &file, "delete --dry-run=server").ok();
    assert_eq!(lines(&deleted).len(), names.len(), "{deleted}");
    assert_eq!(versions(&cluster, &file), before);
    on_all(&cluster, &file, "delete --now").ok();
    on_all(&cluster, &file, "wait --for=delete --timeout=60s").ok();
    assert_eq!(on_all(&cluster, &file, "get --ignore-not-found -o name").ok(), "");
}
