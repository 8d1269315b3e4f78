//! Whether what a token is bound to is still there: its service account, its pod or its secret. A token is
//! worth nothing as soon as one of them is gone, or has been made anew.

use super::token::{Claims, Reference};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use store::Store;

/// For how long after the time of its deletion an object still counts, for those who look at it late.
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// Why a token is worth nothing any more, in upstream's words.
pub(super) async fn check(store: &dyn Store, claims: &Claims, now: Timestamp) -> Result<(), String> {
    let bound = &claims.kubernetes;
    let references = [
        ("serviceaccounts", "service account", Some(&bound.serviceaccount)),
        ("pods", "pod", bound.pod.as_ref()),
        ("secrets", "service account secret", bound.secret.as_ref()),
    ];
    for (plural, what, reference) in references {
        let Some(reference) = reference else { continue };
        let key = format!("/core/{plural}/{}/{}", bound.namespace, reference.name);
        let found = store.get(&key).await.map_err(|error| error.to_string())?;
        let found = found.map(|entry| serde_json::from_slice(&entry.value).unwrap_or_default());
        judge(plural, what, reference, found.as_ref(), now)?;
    }
    Ok(())
}

fn judge(
    plural: &str,
    what: &str,
    reference: &Reference,
    found: Option<&Value>,
    now: Timestamp,
) -> Result<(), String> {
    let Some(found) = found else {
        return Err(format!("{plural} {:?} not found", reference.name));
    };
    let metadata = &found["metadata"];
    let deleted = metadata["deletionTimestamp"]
        .as_str()
        .and_then(|time| time.parse::<Timestamp>().ok());
    if deleted.is_some_and(|deleted| now > deleted.saturating_add(LEEWAY).unwrap_or(deleted)) {
        return Err("service account token has been invalidated".into());
    }
    let uid = metadata["uid"].as_str().unwrap_or_default();
    if uid == reference.uid {
        return Ok(());
    }
    Err(match what {
        "service account" => format!(
            "service account UID ({uid}) does not match claim ({})",
            reference.uid
        ),
        "pod" => format!(
            "pod UID ({uid}) does not match service account pod ref claim ({})",
            reference.uid
        ),
        _ => format!(
            "secret UID ({uid}) does not match service account secret ref claim ({})",
            reference.uid
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn judged(found: Option<Value>) -> Result<(), String> {
        let reference = Reference {
            name: "web-0".into(),
            uid: "u".into(),
        };
        let now = "2026-01-01T00:02:00Z".parse().unwrap();
        judge("pods", "pod", &reference, found.as_ref(), now)
    }

    #[test]
    fn a_token_is_good_for_as_long_as_the_same_object_is_there() {
        assert_eq!(judged(Some(json!({"metadata": {"uid": "u"}}))), Ok(()));
        let going = |time: &str| json!({"metadata": {"uid": "u", "deletionTimestamp": time}});
        assert_eq!(judged(Some(going("2026-01-01T00:01:30Z"))), Ok(()));
        assert_eq!(
            judged(Some(going("2026-01-01T00:00:59Z"))),
            Err("service account token has been invalidated".into())
        );
        assert_eq!(judged(None), Err("pods \"web-0\" not found".into()));
        assert_eq!(
            judged(Some(json!({"metadata": {"uid": "v"}}))),
            Err("pod UID (v) does not match service account pod ref claim (u)".into())
        );
    }
}
