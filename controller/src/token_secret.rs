//! Secrets of the type `kubernetes.io/service-account-token`: whoever makes one that names a service account gets
//! that account's token in it, with the certificate to trust the API by. Such a secret goes with its account.
//!
//! The token is one that is bound to the secret: it ends when the secret or the account goes, and otherwise lasts.

use crate::runtime::{Cache, Context, Key, Queue, lost_race, watch, work};
use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::watcher::Config;
use kube::{Api, ResourceExt};
use serde_json::{Map, Value, json};
use std::time::Duration;

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// The longest that the API grants.
const SECONDS: i64 = 1 << 32;

/// What is to be done about a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    Nothing,
    /// Its account is not there.
    Delete,
    /// Write what it lacks; a new token if `true`.
    Fill(bool),
}

/// Keep all of them filled, for ever.
pub async fn run(context: Context) {
    let queue = Queue::default();
    let client = &context.client;
    let (secrets, accounts) = (Cache::default(), Cache::default());
    let of_type = Config::default().fields(&format!("type={TYPE}"));
    tokio::join!(
        watch(Api::<Secret>::all(client.clone()), of_type, &secrets, |moved| {
            queue.add(moved.key())
        }),
        watch(
            Api::<ServiceAccount>::all(client.clone()),
            Config::default(),
            &accounts,
            |moved| {
                let key = moved.key();
                for secret in secrets.in_namespace(&key.namespace) {
                    if account_of(&secret) == key.name {
                        queue.add(Key::of(secret.as_ref()));
                    }
                }
            }
        ),
        work(&queue, context.options.concurrent_syncs, |key| sync(
            &context, key
        )),
    );
}

async fn sync(context: &Context, key: Key) -> Result<Option<Duration>, kube::Error> {
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &key.namespace);
    let accounts: Api<ServiceAccount> = Api::namespaced(context.client.clone(), &key.namespace);
    let Some(secret) = secrets.get_opt(&key.name).await? else {
        return Ok(None);
    };
    if secret.type_.as_deref() != Some(TYPE) || secret.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let account = accounts.get_opt(account_of(&secret)).await?;
    let done = match plan(&secret, account.as_ref(), context.options.root_ca.as_deref()) {
        Plan::Nothing => Ok(()),
        Plan::Delete => {
            let preconditions = Preconditions {
                uid: secret.uid(),
                resource_version: secret.resource_version(),
            };
            let parameters = DeleteParams::default().preconditions(preconditions);
            secrets.delete(&key.name, &parameters).await.map(drop)
        }
        Plan::Fill(new_token) => {
            let token = match new_token {
                true => request(&accounts, &secret).await?,
                false => None,
            };
            let uid = account.and_then(|account| account.uid()).unwrap_or_default();
            let ca = context.options.root_ca.as_deref();
            let patch = Patch::Merge(filled(&secret, &uid, token, ca));
            secrets
                .patch(&key.name, &PatchParams::default(), &patch)
                .await
                .map(drop)
        }
    };
    match done {
        Err(error) if lost_race(&error) => Ok(None),
        other => other.map(|()| None),
    }
}

fn account_of(secret: &Secret) -> &str {
    secret.annotations().get(ACCOUNT_NAME).map_or("", String::as_str)
}

fn plan(secret: &Secret, account: Option<&ServiceAccount>, ca: Option<&str>) -> Plan {
    let Some(account) = account else {
        return Plan::Delete;
    };
    let uid = secret.annotations().get(ACCOUNT_UID);
    let same_account = uid == account.metadata.uid.as_ref();
    if uid.is_some_and(|uid| !uid.is_empty()) && !same_account {
        return Plan::Delete;
    }
    let at = |key: &str| {
        secret
            .data
            .iter()
            .flatten()
            .find(|(k, _)| *k == key)
            .map(|(_, v)| &v.0)
    };
    let no_token = at("token").is_none_or(Vec::is_empty);
    let no_namespace = at("namespace").is_none_or(Vec::is_empty);
    let other_ca = ca.is_some_and(|ca| at("ca.crt").map(Vec::as_slice) != Some(ca.as_bytes()));
    match !same_account || no_token || no_namespace || other_ca {
        true => Plan::Fill(no_token),
        false => Plan::Nothing,
    }
}

async fn request(accounts: &Api<ServiceAccount>, secret: &Secret) -> Result<Option<String>, kube::Error> {
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: None,
            expiration_seconds: Some(SECONDS),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Secret".into()),
                name: secret.metadata.name.clone(),
                uid: secret.uid(),
            }),
        }),
        ..TokenRequest::default()
    };
    let account = account_of(secret);
    let answer = accounts
        .create_token_request(account, &PostParams::default(), &request)
        .await?;
    Ok(answer.status.and_then(|status| status.token))
}

/// The merge patch that fills the secret as it was looked at.
fn filled(secret: &Secret, uid: &str, token: Option<String>, ca: Option<&str>) -> Value {
    let namespace = secret.namespace().unwrap_or_default();
    let bytes = |text: &str| json!(ByteString(text.as_bytes().to_vec()));
    let mut data = Map::from_iter([("namespace".to_owned(), bytes(&namespace))]);
    if let Some(token) = token {
        data.insert("token".into(), bytes(&token));
    }
    if let Some(ca) = ca {
        data.insert("ca.crt".into(), bytes(ca));
    }
    json!({
        "metadata": {"resourceVersion": secret.resource_version(), "annotations": {ACCOUNT_UID: uid}},
        "data": data,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(uid: Option<&str>, data: &[(&str, &str)]) -> Secret {
        let data = data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
        let mut secret = Secret {
            data: Some(data.collect()),
            ..Secret::default()
        };
        secret
            .annotations_mut()
            .extend(uid.map(|uid| (ACCOUNT_UID.to_owned(), uid.to_owned())));
        secret
    }

    #[test]
    fn a_secret_is_filled_once_and_goes_with_its_account() {
        let mut account = ServiceAccount::default();
        account.metadata.uid = Some("u".into());
        let account = Some(&account);
        let full = [("token", "t"), ("namespace", "n"), ("ca.crt", "c")];
        for (secret, account, expected) in [
            (secret(None, &[]), None, Plan::Delete),
            (secret(None, &[]), account, Plan::Fill(true)),
            (secret(Some("u"), &full), account, Plan::Nothing),
            (secret(Some("u"), &full[..2]), account, Plan::Fill(false)),
            (secret(Some("u"), &full[1..]), account, Plan::Fill(true)),
            (secret(None, &full), account, Plan::Fill(false)),
            (secret(Some("another"), &full), account, Plan::Delete),
        ] {
            assert_eq!(plan(&secret, account, Some("c")), expected, "{secret:?}");
        }
        let other_ca = plan(&secret(Some("u"), &full), account, Some("d"));
        assert_eq!(other_ca, Plan::Fill(false));
    }
}
