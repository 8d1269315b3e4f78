//! What may change in a stored StatefulSet: a few fields of its spec as upstream, and, where the set asks for it,
//! the size that its claim templates request.

use super::super::json::items;
use super::super::pod::validate as pod;
use super::validate::{Skip, claim_templates, service_name, spec, with_claims};
use crate::validation::quantity::Quantity;
use crate::validation::{Invalid, Path};
use serde_json::{Map, Value};

/// The annotation with which a set asks that its claim templates may grow, and its claims with them.
const RESIZE_CLAIMS: &str = "petset.dev/resize-claims";

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

/// Problems with a changed set.
pub fn validate(new: &Value, old: &Value) -> Vec<Invalid> {
    let grows = new["metadata"]["annotations"][RESIZE_CLAIMS] == "true";
    let (new, old, path) = (&new["spec"], &old["spec"], Path::new("spec"));
    let skip = Skip {
        service_name: !service_name(old, &path).is_empty(),
        template: !pod::template(&with_claims(old), &path.child("template")).is_empty(),
        claims: !claim_templates(old, &path).is_empty(),
    };
    let mut problems = spec(new, skip, &path);
    let (after, before) = (frozen(new), frozen(old));
    if after == before {
        return problems;
    }
    if grows && without_sizes(&after) == without_sizes(&before) {
        problems.extend(shrinking(new, old, &path));
        return problems;
    }
    let (last, others) = MUTABLE.split_last().expect("the list has items");
    let others: Vec<String> = others.iter().map(|field| format!("'{field}'")).collect();
    let detail = format!(
        "updates to statefulset spec for fields other than {} and '{last}' are forbidden",
        others.join(", ")
    );
    problems.push(Invalid::forbidden(path, detail));
    problems
}

/// The fields that may not change, in a form in which equal means equal: `1Gi` and `1073741824` are one size.
fn frozen(spec: &Value) -> Map<String, Value> {
    let fields = spec.as_object().into_iter().flatten();
    let fields = fields.filter(|(field, value)| !MUTABLE.contains(&field.as_str()) && !value.is_null());
    let mut fields: Map<String, Value> = fields
        .map(|(field, value)| (field.clone(), value.clone()))
        .collect();
    for claim in claims_mut(&mut fields) {
        for list in ["requests", "limits"] {
            let quantities = claim.pointer_mut(&format!("/spec/resources/{list}"));
            let quantities = quantities.and_then(Value::as_object_mut);
            for quantity in quantities.into_iter().flat_map(Map::values_mut) {
                if let Ok(parsed) = Quantity::from_json(quantity) {
                    *quantity = parsed.nanos().to_string().into();
                }
            }
        }
    }
    fields
}

fn claims_mut(fields: &mut Map<String, Value>) -> impl Iterator<Item = &mut Value> {
    let claims = fields.get_mut("volumeClaimTemplates");
    claims.and_then(Value::as_array_mut).into_iter().flatten()
}

/// Frozen fields but for the sizes that the claim templates request.
fn without_sizes(fields: &Map<String, Value>) -> Map<String, Value> {
    let mut fields = fields.clone();
    for claim in claims_mut(&mut fields) {
        let requests = claim.pointer_mut("/spec/resources/requests");
        if let Some(requests) = requests.and_then(Value::as_object_mut) {
            requests.remove("storage");
        }
    }
    fields
}

/// The templates that ask for less than before: a volume never gives space back, here as upstream.
fn shrinking(new: &Value, old: &Value, path: &Path) -> Vec<Invalid> {
    let path = path.child("volumeClaimTemplates");
    let (after, before) = (
        items(new, "volumeClaimTemplates"),
        items(old, "volumeClaimTemplates"),
    );
    let pairs = after.iter().zip(before).enumerate();
    let smaller = pairs.filter_map(|(i, (after, before))| {
        let size =
            |claim: &Value| Quantity::from_json(&claim["spec"]["resources"]["requests"]["storage"]).ok();
        let (after, before) = (size(after)?, size(before)?);
        (after < before).then(|| {
            let detail = format!("may be raised but not lowered: it was {before} and would be {after}");
            let at = ["spec", "resources", "requests", "storage"];
            let field = at.iter().fold(path.index(i), |path, field| path.child(field));
            Invalid::forbidden(field, detail)
        })
    });
    smaller.collect()
}
