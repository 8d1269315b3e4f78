//! DELETE of one object: at once, gracefully, or as soon as its finalizers are gone.

use super::update::put;
use crate::body::{self, Content};
use crate::call::Call;
use crate::error::{Error, Target};
use crate::options::{DeleteOptions, Propagation};
use crate::resource::Kind;
use crate::schema::protobuf::Envelope;
use crate::{admission, metadata, respond, stored};
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

const SCHEMA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// Kinds whose deletion answers with the object rather than with a Status.
const RETURNED: [(&str, &str); 8] = [
    ("", "namespaces"),
    ("", "persistentvolumeclaims"),
    ("", "persistentvolumes"),
    ("", "pods"),
    ("", "podtemplates"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("storage.k8s.io", "storageclasses"),
];

/// Delete the object in the path.
pub async fn delete(call: &Call, body: Body) -> Result<Response, Error> {
    let options = read_options(call, body).await?;
    let deleted = delete_object(call, call.name(), &options).await?;
    Ok(match deleted {
        Deleted::Later(object) => {
            let code = if options.cascades {
                StatusCode::ACCEPTED
            } else {
                StatusCode::OK
            };
            respond::object(call, &object, code)
        }
        Deleted::Now(object) => {
            let names = call.kind.names();
            if RETURNED.contains(&(names.group, names.plural)) {
                respond::object(call, &object, StatusCode::OK)
            } else {
                let uid = metadata::text(&object, "uid");
                respond::success(call, &call.target(call.name()), uid, StatusCode::OK)
            }
        }
    })
}

/// DeleteOptions from the body if it has any, else from the query.
pub async fn read_options(call: &Call, body: Body) -> Result<DeleteOptions, Error> {
    let bytes = body::read(body).await?;
    if bytes.is_empty() {
        return DeleteOptions::parse(&call.query, None);
    }
    let bad = |why: String| Error::BadRequest(why);
    let options = match body::read_content(&call.headers, Body::from(bytes)).await? {
        Content::Json(json) => serde_json::from_slice(&json).map_err(|_| bad(body::syntax_error(&json)))?,
        Content::Protobuf(bytes) => {
            let envelope = Envelope::open(&bytes).map_err(bad)?;
            let mut options: Value = envelope.decode(SCHEMA).map_err(bad)?;
            options["kind"] = envelope.kind.into();
            options["apiVersion"] = envelope.api_version.into();
            options
        }
    };
    let text = |field: &str| options[field].as_str().unwrap_or_default();
    if !matches!(text("kind"), "" | "DeleteOptions") {
        return Err(bad(format!(
            "no kind {:?} is registered for version {:?} in scheme \"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27\"",
            text("kind"),
            text("apiVersion")
        )));
    }
    DeleteOptions::parse(&call.query, Some(&options))
}

/// What became of an object.
pub enum Deleted {
    /// It is gone; this is what it was.
    Now(Value),
    /// It is marked and still there.
    Later(Value),
}

/// Delete the object `name` of the call's kind and namespace.
pub async fn delete_object(call: &Call, name: &str, options: &DeleteOptions) -> Result<Deleted, Error> {
    let store = &call.server.store;
    let key = stored::key(call.kind, call.namespace(), name);
    loop {
        let entry = store.get(&key).await?;
        let entry = entry.ok_or_else(|| Error::NotFound(call.target(name)))?;
        let old = stored::decode(call.kind, &entry);
        check_preconditions(call, name, &old, options)?;
        admission::delete(call, name)?;
        let plan = plan(call.kind, &old, options, call.server.now());
        let mark = |mut new: Value| {
            call.kind.to_storage(&mut new);
            stored::encode(&new)
        };
        let (mut gone, expected) = match plan {
            Plan::Keep => return Ok(Deleted::Later(old)),
            Plan::Mark(new) if options.dry_run => return Ok(Deleted::Later(new)),
            Plan::MarkAndRemove(new) if options.dry_run => return Ok(Deleted::Now(new)),
            Plan::Remove if options.dry_run => return Ok(Deleted::Now(old)),
            Plan::Mark(mut new) => match store.update(&key, mark(new.clone()), entry.modified).await {
                Ok(entry) => {
                    new["metadata"]["resourceVersion"] = entry.modified.to_string().into();
                    return Ok(Deleted::Later(new));
                }
                Err(store::Error::Conflict { .. }) => continue,
                Err(error) => return Err(error.into()),
            },
            Plan::MarkAndRemove(new) => match store.update(&key, mark(new.clone()), entry.modified).await {
                Ok(entry) => (new, entry.modified),
                Err(store::Error::Conflict { .. }) => continue,
                Err(error) => return Err(error.into()),
            },
            Plan::Remove => (old, entry.modified),
        };
        match store.delete(&key, expected).await {
            Ok(revision) => {
                gone["metadata"]["resourceVersion"] = revision.to_string().into();
                return Ok(Deleted::Now(gone));
            }
            Err(store::Error::Conflict { current: None, .. }) if expected != entry.modified => {
                return Ok(Deleted::Now(gone));
            }
            Err(store::Error::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn check_preconditions(call: &Call, name: &str, old: &Value, options: &DeleteOptions) -> Result<(), Error> {
    let names = call.kind.names();
    let target = || Target {
        group: names.group.into(),
        resource: names.plural.into(),
        name: name.into(),
    };
    let uid = metadata::text(old, "uid");
    if let Some(wanted) = options.uid.as_deref().filter(|wanted| *wanted != uid) {
        let why = format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
        );
        return Err(Error::Conflict(target(), why));
    }
    let version = metadata::text(old, "resourceVersion");
    if let Some(wanted) = options
        .resource_version
        .as_deref()
        .filter(|wanted| *wanted != version)
    {
        let why = format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({version}). The object might have been modified"
        );
        return Err(Error::Conflict(target(), why));
    }
    Ok(())
}

/// What a deletion does to an object.
#[derive(Debug, PartialEq)]
enum Plan {
    /// Nothing: it is being deleted already.
    Keep,
    /// Write this, which says that it is being deleted.
    Mark(Value),
    /// The same, and then remove it: watchers see both.
    MarkAndRemove(Value),
    /// Remove it.
    Remove,
}

fn plan(kind: &dyn Kind, old: &Value, options: &DeleteOptions, now: Timestamp) -> Plan {
    if (kind.names().group, kind.names().plural) == ("", "namespaces") && has_spec_finalizers(old) {
        return plan_namespace(old, now);
    }
    let mut new = old.clone();
    let changed = set_propagation(&mut new, options.propagation);
    let pending = !metadata::finalizers(&new).is_empty();
    let deleting = metadata::is_deleting(old);
    let current = old["metadata"]["deletionGracePeriodSeconds"].as_i64();
    let graceful = match (kind.grace_period(old, options.grace_period), deleting) {
        (None, _) => None,
        (Some(grace), false) => Some((now, grace)),
        (Some(_), true) => match (current.unwrap_or(0), options.grace_period) {
            // Marked by a deletion that went no further: finish it.
            (0, _) => None,
            (current, Some(asked)) if asked < current => {
                let due = metadata::text(old, "deletionTimestamp").parse().unwrap_or(now);
                let since = due.checked_sub(SignedDuration::from_secs(current));
                Some((since.unwrap_or(now), asked))
            }
            _ => return Plan::Keep,
        },
    };
    match graceful {
        Some((since, grace)) => {
            let due = since.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now);
            mark(&mut new, due, Some(grace), !deleting);
            if pending || grace > 0 {
                Plan::Mark(new)
            } else {
                Plan::MarkAndRemove(new)
            }
        }
        None if !pending => Plan::Remove,
        None if deleting && !changed => Plan::Keep,
        None => {
            let due = match deleting {
                true => metadata::text(old, "deletionTimestamp")
                    .parse()
                    .unwrap_or(now)
                    .min(now),
                false => now,
            };
            mark(&mut new, due, Some(0), !deleting);
            Plan::Mark(new)
        }
    }
}

/// A namespace is emptied by its controller before it goes.
fn plan_namespace(old: &Value, now: Timestamp) -> Plan {
    if metadata::is_deleting(old) {
        return Plan::Keep;
    }
    let mut new = old.clone();
    mark(&mut new, now, None, true);
    new["status"]["phase"] = "Terminating".into();
    Plan::Mark(new)
}

fn mark(object: &mut Value, due: Timestamp, grace: Option<i64>, first: bool) {
    let metadata = &mut object["metadata"];
    metadata["deletionTimestamp"] = due.to_string().into();
    if let Some(grace) = grace {
        metadata["deletionGracePeriodSeconds"] = grace.into();
    }
    if let Some(generation) = metadata["generation"].as_i64().filter(|_| first) {
        metadata["generation"] = (generation + 1).into();
    }
}

/// Put in and take out the finalizers that the garbage collector acts on; whether anything changed.
fn set_propagation(object: &mut Value, propagation: Option<Propagation>) -> bool {
    let Some(propagation) = propagation else {
        return false;
    };
    let had: Vec<String> = metadata::finalizers(object)
        .into_iter()
        .map(str::to_string)
        .collect();
    let mut finalizers = had.clone();
    finalizers.retain(|name| name != "orphan" && name != "foregroundDeletion");
    match propagation {
        Propagation::Background => {}
        Propagation::Orphan => finalizers.push("orphan".into()),
        Propagation::Foreground => finalizers.push("foregroundDeletion".into()),
    }
    if finalizers.len() == had.len() && finalizers.iter().all(|name| had.contains(name)) {
        return false;
    }
    let value = if finalizers.is_empty() {
        Value::Null
    } else {
        finalizers.into()
    };
    put(&mut object["metadata"], "finalizers", &value);
    true
}

fn has_spec_finalizers(object: &Value) -> bool {
    object["spec"]["finalizers"]
        .as_array()
        .is_some_and(|list| !list.is_empty())
}

/// Whether nothing holds an object any more that is being deleted.
pub fn is_finished(object: &Value) -> bool {
    let grace = object["metadata"]["deletionGracePeriodSeconds"].as_i64();
    let namespace = object["kind"] == "Namespace" && object["apiVersion"] == "v1";
    metadata::finalizers(object).is_empty()
        && grace.unwrap_or(0) == 0
        && !(namespace && has_spec_finalizers(object))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::testing::{CONFIG_MAP, POD};
    use serde_json::json;

    const NOW: &str = "2026-01-01T00:01:00Z";

    fn plan_for(kind: &dyn Kind, object: &Value, options: &DeleteOptions) -> Plan {
        plan(kind, object, options, NOW.parse().expect("a time"))
    }

    fn grace(seconds: i64) -> DeleteOptions {
        DeleteOptions {
            grace_period: Some(seconds),
            ..DeleteOptions::default()
        }
    }

    fn marked(plan: Plan) -> (Value, Value) {
        match plan {
            Plan::Mark(new) => (
                new["metadata"]["deletionTimestamp"].clone(),
                new["metadata"]["deletionGracePeriodSeconds"].clone(),
            ),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_object_without_finalizers_goes_at_once() {
        let object = json!({"metadata": {"name": "a"}});
        assert_eq!(
            plan_for(&CONFIG_MAP, &object, &DeleteOptions::default()),
            Plan::Remove
        );
    }

    #[test]
    fn an_object_with_finalizers_is_marked_once() {
        let object = json!({"metadata": {"name": "a", "finalizers": ["x.io/a"]}});
        let plan = plan_for(&CONFIG_MAP, &object, &DeleteOptions::default());
        let Plan::Mark(new) = plan else { panic!("{plan:?}") };
        assert_eq!(new["metadata"]["deletionTimestamp"], NOW);
        assert_eq!(plan_for(&CONFIG_MAP, &new, &DeleteOptions::default()), Plan::Keep);
    }

    #[test]
    fn foreground_deletion_waits_for_the_garbage_collector() {
        let object = json!({"metadata": {"name": "a"}});
        let options = DeleteOptions {
            propagation: Some(Propagation::Foreground),
            ..DeleteOptions::default()
        };
        let Plan::Mark(new) = plan_for(&CONFIG_MAP, &object, &options) else {
            panic!("not marked")
        };
        assert_eq!(metadata::finalizers(&new), ["foregroundDeletion"]);
    }

    #[test]
    fn a_pod_gets_its_grace_period_and_it_can_only_be_shortened() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n"}});
        assert_eq!(
            marked(plan_for(&POD, &pod, &DeleteOptions::default())),
            (json!("2026-01-01T00:01:30Z"), json!(30))
        );
        let Plan::Mark(deleting) = plan_for(&POD, &pod, &grace(10)) else {
            panic!("not marked")
        };
        assert_eq!(plan_for(&POD, &deleting, &grace(20)), Plan::Keep);
        assert_eq!(plan_for(&POD, &deleting, &DeleteOptions::default()), Plan::Keep);
        assert_eq!(
            marked(plan_for(&POD, &deleting, &grace(3))),
            (json!("2026-01-01T00:01:03Z"), json!(3))
        );
        assert!(matches!(
            plan_for(&POD, &deleting, &grace(0)),
            Plan::MarkAndRemove(_)
        ));
    }

    #[test]
    fn a_pod_that_runs_nowhere_goes_at_once() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {}});
        assert!(matches!(
            plan_for(&POD, &pod, &DeleteOptions::default()),
            Plan::MarkAndRemove(_)
        ));
    }
}
