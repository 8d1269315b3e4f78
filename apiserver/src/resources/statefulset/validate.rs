//! Validation of StatefulSets: the name, the spec, the status.

use super::super::claim_spec;
use super::super::json::{integer, items, text};
use super::super::pod::validate as pod;
use crate::validation::{Invalid, Path, dns1123_label, dns1123_subdomain, go, metadata, numbers, selector};
use serde_json::{Value, json};

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

/// The longest name with which pods can be made: each gets the label `controller-revision-hash`, which is the set's name,
/// a dash and a hash of up to ten characters, and a label's value has at most 63.
const LONGEST_NAME: usize = 63 - 1 - 10;

/// A name that upstream takes and with which it then cannot make a single pod (kubernetes issue 64023).
pub fn name(name: &str) -> Option<Invalid> {
    (name.len() > LONGEST_NAME).then(|| {
        let detail = format!(
            "must be no more than {LONGEST_NAME} characters: its pods are labelled controller-revision-hash with this name, a dash and a hash of up to 10 characters, and the value of a label has at most 63"
        );
        Invalid::malformed(Path::new("metadata").child("name"), name, detail)
    })
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
                &["Retain", "Delete"],
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
    // Text that is neither a number nor a percentage counts as 0, as in upstream's own conversion.
    let number = value.as_str().map_or(value.as_i64(), |text| text.parse().ok());
    if numbers::percentage(value).or(number).unwrap_or(0) == 0 {
        problems.push(Invalid::malformed(path, value.clone(), "cannot be 0"));
    }
    problems.extend(numbers::not_more_than_100_percent(value, path));
    problems
}

/// Problems with the name of the governing Service.
pub fn service_name(spec: &Value, path: &Path) -> Vec<Invalid> {
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
        pod::template_metadata(&spec["template"], &template_path)
    } else {
        pod::template(&with_claims(spec), &template_path)
    });
    problems
}

/// The template with a volume for every claim template, as its pods will have them: a claim replaces a
/// volume of the same name.
pub fn with_claims(spec: &Value) -> Value {
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

/// Problems with the claim templates.
pub fn claim_templates(spec: &Value, path: &Path) -> Vec<Invalid> {
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
