//! Service account tokens for pods: asked for once, kept, and asked for anew well before they expire.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{Api, PostParams};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// No token is used for longer.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);

/// The tokens of all pods of this kubelet.
#[derive(Default)]
pub struct Tokens(Mutex<HashMap<Wanted, Token>>);

/// What a token is asked for with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wanted {
    namespace: String,
    account: String,
    pod: String,
    uid: String,
    /// Empty: the API server.
    audience: String,
    seconds: Option<i64>,
}

struct Token {
    text: String,
    issued: Timestamp,
    expires: Timestamp,
}

impl Wanted {
    /// A token for `pod`, for whom and how long as its volume says.
    pub fn new(pod: &Pod, audience: Option<&str>, seconds: Option<i64>) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let account = pod
            .spec
            .as_ref()
            .map(|spec| text(&spec.service_account_name))
            .filter(|account| !account.is_empty());
        Self {
            namespace: text(&pod.metadata.namespace),
            account: account.unwrap_or_else(|| "default".into()),
            pod: text(&pod.metadata.name),
            uid: text(&pod.metadata.uid),
            audience: audience.unwrap_or_default().to_owned(),
            seconds,
        }
    }
}

impl Tokens {
    /// The token that was asked for before, or another one when it is time for that. One that cannot be had
    /// anew is used until it expires.
    pub async fn get(
        &self,
        client: &kube::Client,
        wanted: Wanted,
        now: Timestamp,
    ) -> Result<String, kube::Error> {
        let known = self.with(|tokens| {
            tokens.retain(|_, token| token.expires > now);
            let token = tokens.get(&wanted)?;
            Some((token.text.clone(), is_old(token, now)))
        });
        if let Some((text, false)) = known {
            return Ok(text);
        }
        match (request(client, &wanted).await, known) {
            (Ok((text, expires)), _) => {
                let token = Token {
                    text: text.clone(),
                    issued: now,
                    expires: expires.unwrap_or(now),
                };
                self.with(|tokens| tokens.insert(wanted, token));
                Ok(text)
            }
            (Err(error), Some((text, _))) => {
                tracing::warn!(%error, pod = wanted.pod, "cannot renew a service account token");
                Ok(text)
            }
            (Err(error), None) => Err(error),
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut HashMap<Wanted, Token>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether four fifths of its time have passed, or a day.
fn is_old(token: &Token, now: Timestamp) -> bool {
    let lifetime = token.expires.duration_since(token.issued);
    let age = now.duration_since(token.issued);
    age >= LONGEST || age >= lifetime * 4 / 5
}

async fn request(client: &kube::Client, wanted: &Wanted) -> Result<(String, Option<Timestamp>), kube::Error> {
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), &wanted.namespace);
    let audience = Some(&wanted.audience).filter(|audience| !audience.is_empty());
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: audience.map(|audience| vec![audience.clone()]),
            expiration_seconds: wanted.seconds,
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(wanted.pod.clone()),
                uid: Some(wanted.uid.clone()),
            }),
        }),
        ..TokenRequest::default()
    };
    let answer = api
        .create_token_request(&wanted.account, &PostParams::default(), &request)
        .await?;
    let status = answer.status.unwrap_or_default();
    let expires = status.expiration_timestamp.map(|time| time.0);
    Ok((status.token.unwrap_or_default(), expires))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_after_four_fifths_of_its_time_or_a_day() {
        let issued: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let old_after = |lifetime: i64, age: i64| {
            let token = Token {
                text: String::new(),
                issued,
                expires: issued + SignedDuration::from_secs(lifetime),
            };
            is_old(&token, issued + SignedDuration::from_secs(age))
        };
        assert!(!old_after(3600, 2879));
        assert!(old_after(3600, 2880));
        assert!(!old_after(1_000_000, 86_399));
        assert!(old_after(1_000_000, 86_400));
    }
}
