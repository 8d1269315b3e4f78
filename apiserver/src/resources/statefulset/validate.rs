//! Validation of StatefulSets: the spec, what may change in it, the status.

use super::super::claim_spec;
use super::super::json::{integer, items, text};
use super::super::pod::validate as pod;
use crate::validation::{Invalid, Path, dns1123_label, dns1123_subdomain, go, metadata, numbers, selector};
use serde_json::{Map, Value, json};

/// Parts that are not looked at on an update because they were wrong before: older servers let them in,
/// and a set with them must stay writable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skip {
    /// `serviceName`.
    pub service_name: bool,
    /// The template's spec.
    pub template: bool,
    /// The claim templates.
    pub claims: bool,
}

/// Problems with a spec.
pub fn spec(spec: &Value, skip: Skip, path: &Path) -> Vec<Invalid> {
    let mut problems = pod_management(spec, &path.child("podManagementPolicy"));
    problems.extend(strategy(&spec["updateStrategy"], &path.child("updateStrategy")));
    let retention = path.child("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        let policy = text(&spec["persistentVolumeClaimRetentionPolicy"], field);
        if !["Retain", "Delete"].contains(&policy) {
            problems.push(Invalid::not_supported(
                retention.child(field),
                policy,
                &["Delete", "Retain"],
            ));
        }
    }
    for field in ["replicas", "minReadySeconds"] {
        problems.extend(numbers::non_negative(&spec[field], &path.child(field)));
    }
    problems.extend(numbers::non_negative(
        &spec["ordinals"]["start"],
        &path.child("ordinals").child("start"),
    ));
    if !skip.service_name {
        problems.extend(service_name(spec, path));
    }
    problems.extend(selector_and_template(spec, skip, path));
    let (template, template_path) = (&spec["template"]["spec"], path.child("template").child("spec"));
    if text(template, "restartPolicy") != "Always" {
        problems.push(Invalid::not_supported(
            template_path.child("restartPolicy"),
            text(template, "restartPolicy"),
            &["Always"],
        ));
    }
    if !template["activeDeadlineSeconds"].is_null() {
        problems.push(Invalid::forbidden(
            template_path.child("activeDeadlineSeconds"),
            "activeDeadlineSeconds in StatefulSet is not Supported",
        ));
    }
    if !skip.claims {
        problems.extend(claim_templates(spec, path));
    }
    problems
}

fn pod_management(spec: &Value, path: &Path) -> Vec<Invalid> {
    match text(spec, "podManagementPolicy") {
        "OrderedReady" | "Parallel" => Vec::new(),
        "" => vec![Invalid::required(path, "")],
        other => vec![Invalid::malformed(
            path,
            other,
            "must be 'OrderedReady' or 'Parallel'",
        )],
    }
}

fn strategy(strategy: &Value, path: &Path) -> Vec<Invalid> {
    let rolling_update = &strategy["rollingUpdate"];
    let path_of_update = path.child("rollingUpdate");
    match text(strategy, "type") {
        "" => vec![Invalid::required(path, "")],
        "OnDelete" if rolling_update.is_null() => Vec::new(),
        "OnDelete" => vec![Invalid::malformed_text(
            path_of_update,
            print_rolling_update(rolling_update),
            "only allowed for updateStrategy 'RollingUpdate'",
        )],
        "RollingUpdate" => {
            let mut problems =
                numbers::non_negative(&rolling_update["partition"], &path_of_update.child("partition"));
            problems.extend(max_unavailable(
                &rolling_update["maxUnavailable"],
                &path_of_update.child("maxUnavailable"),
            ));
            problems
        }
        other => vec![Invalid::malformed_text(
            path,
            format!(
                "{{\"Type\":{},\"RollingUpdate\":{}}}",
                go::quote(other),
                print_rolling_update(rolling_update)
            ),
            "must be 'RollingUpdate' or 'OnDelete'",
        )],
    }
}

/// The block as Go prints its internal type.
fn print_rolling_update(rolling_update: &Value) -> String {
    if rolling_update.is_null() {
        return "null".to_owned();
    }
    format!(
        "{{\"Partition\":{},\"MaxUnavailable\":{}}}",
        integer(rolling_update, "partition"),
        go::json(&rolling_update["maxUnavailable"])
    )
}

fn max_unavailable(value: &Value, path: &Path) -> Vec<Invalid> {
    if value.is_null() {
        return Vec::new();
    }
    let mut problems = numbers::non_negative_int_or_percent(value, path);
    let zero = value.as_i64() == Some(0) || numbers::percentage(value) == Some(0);
    if zero {
        problems.push(Invalid::malformed(path, value.clone(), "cannot be 0"));
    }
    problems.extend(numbers::not_more_than_100_percent(value, path));
    problems
}

fn service_name(spec: &Value, path: &Path) -> Vec<Invalid> {
    match text(spec, "serviceName") {
        "" => Vec::new(),
        name => Invalid::each(path.child("serviceName"), name, dns1123_label(name)),
    }
}

fn selector_and_template(spec: &Value, skip: Skip, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let (given, at) = (&spec["selector"], path.child("selector"));
    if given.is_null() {
        problems.push(Invalid::required(&at, ""));
    } else {
        problems.extend(selector::label_selector(given, &at));
        if selector::is_empty(given) {
            let detail = "empty selector is invalid for statefulset";
            problems.push(Invalid::malformed_text(&at, selector::print(given), detail));
        }
        if !selector::label_selector(given, &at).is_empty() {
            // What cannot be read cannot be compared with the template either.
            problems.push(Invalid::malformed_text(at, selector::print(given), ""));
            return problems;
        }
    }
    let template_path = path.child("template");
    let labels = &spec["template"]["metadata"]["labels"];
    let unmatched = given.is_null() || (!selector::is_empty(given) && !selector::matches(given, labels));
    if unmatched {
        let detail = "`selector` does not match template `labels`";
        let at = template_path.child("metadata").child("labels");
        problems.push(Invalid::malformed(at, labels.clone(), detail));
    }
    problems.extend(if skip.template {
        let meta = &spec["template"]["metadata"];
        metadata::labels(&meta["labels"], &template_path.child("labels"))
    } else {
        pod::template(&with_claims(spec), &template_path)
    });
    problems
}

/// The template with a volume for every claim template, as its pods will have them: a claim replaces a
/// volume of the same name.
fn with_claims(spec: &Value) -> Value {
    let mut template = spec["template"].clone();
    let names: Vec<&str> = items(spec, "volumeClaimTemplates")
        .iter()
        .map(|claim| text(&claim["metadata"], "name"))
        .filter(|name| dns1123_label(name).is_empty())
        .collect();
    if names.is_empty() || !template["spec"].is_object() {
        return template;
    }
    let mut volumes = items(&template["spec"], "volumes").to_vec();
    for name in names {
        if !volumes.iter().any(|volume| text(volume, "name") == name) {
            volumes.push(json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
        }
    }
    template["spec"]["volumes"] = volumes.into();
    template
}

fn claim_templates(spec: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    for (i, claim) in items(spec, "volumeClaimTemplates").iter().enumerate() {
        let path = path.child("volumeClaimTemplates").index(i);
        let meta = &claim["metadata"];
        let (name, at) = (text(meta, "name"), path.child("metadata"));
        if name.is_empty() {
            problems.push(Invalid::required(at.child("name"), ""));
        } else {
            problems.extend(Invalid::each(at.child("name"), name, dns1123_subdomain(name)));
        }
        problems.extend(metadata::labels(&meta["labels"], &at.child("labels")));
        problems.extend(metadata::annotations(
            &meta["annotations"],
            &at.child("annotations"),
        ));
        problems.extend(claim_spec::validate(&claim["spec"], &path.child("spec")));
    }
    problems
}

/// What may change in a spec (reference section 1.3); the refusal of anything else is matched by charts and
/// operators, so its text is upstream's to the letter.
const MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

/// Problems with a changed spec.
pub fn update(new: &Value, old: &Value) -> Vec<Invalid> {
    let path = Path::new("spec");
    let skip = Skip {
        service_name: !service_name(old, &path).is_empty(),
        template: !pod::template(&with_claims(old), &path.child("template")).is_empty(),
        claims: !claim_templates(old, &path).is_empty(),
    };
    let mut problems = spec(new, skip, &path);
    if frozen(new) != frozen(old) {
        let (last, others) = MUTABLE.split_last().expect("the list has items");
        let others: Vec<String> = others.iter().map(|field| format!("'{field}'")).collect();
        let detail = format!(
            "updates to statefulset spec for fields other than {} and '{last}' are forbidden",
            others.join(", ")
        );
        problems.push(Invalid::forbidden(path, detail));
    }
    problems
}

fn frozen(spec: &Value) -> Map<String, Value> {
    let fields = spec.as_object().into_iter().flatten();
    fields
        .filter(|(field, value)| !MUTABLE.contains(&field.as_str()) && !value.is_null())
        .map(|(field, value)| (field.clone(), value.clone()))
        .collect()
}

/// Problems with a changed status: counts that contradict each other.
pub fn status(new: &Value, old: &Value) -> Vec<Invalid> {
    let path = Path::new("status");
    let mut problems = Vec::new();
    for field in [
        "replicas",
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
        "observedGeneration",
        "collisionCount",
    ] {
        problems.extend(numbers::non_negative(&new[field], &path.child(field)));
    }
    let mut at_most = |field: &str, limit: &str| {
        let count = integer(new, field);
        if count > integer(new, limit) {
            let detail = format!("cannot be greater than status.{limit}");
            problems.push(Invalid::malformed(path.child(field), count, detail));
        }
    };
    at_most("readyReplicas", "replicas");
    at_most("currentReplicas", "replicas");
    at_most("updatedReplicas", "replicas");
    at_most("availableReplicas", "replicas");
    at_most("availableReplicas", "readyReplicas");
    let collisions = integer(new, "collisionCount");
    if !old["collisionCount"].is_null()
        && (new["collisionCount"].is_null() || collisions < integer(old, "collisionCount"))
    {
        problems.push(Invalid::malformed(
            path.child("collisionCount"),
            collisions,
            "cannot be decremented",
        ));
    }
    problems
}
