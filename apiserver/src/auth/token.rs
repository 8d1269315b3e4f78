//! Service account tokens: JWTs signed with ES256, with upstream's claims.

use super::{CREDENTIAL_ID, User};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Who issues the tokens, and the audience of those that the apiserver itself accepts.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// How far clocks may differ.
const LEEWAY_SECONDS: i64 = 5;

/// Signs and verifies tokens with one key.
pub struct Tokens {
    key: EcdsaKeyPair,
    key_id: String,
    random: SystemRandom,
}

/// A token to issue.
#[derive(Clone, Copy, Debug, Default)]
pub struct Grant<'a> {
    /// The account's namespace.
    pub namespace: &'a str,
    /// The account.
    pub account: Account<'a>,
    /// The pod that the token is bound to.
    pub pod: Option<Account<'a>>,
    /// The secret that the token is bound to.
    pub secret: Option<Account<'a>>,
    /// The node on which that pod runs; its UID may be unknown.
    pub node: Option<Account<'a>>,
    /// When its holder should have got another one, if that is before it stops being valid.
    pub warn_after: Option<Timestamp>,
    /// Whom the token is for; none means the apiserver.
    pub audiences: &'a [String],
    /// When it stops being valid.
    pub expires: Timestamp,
    /// When it is issued.
    pub now: Timestamp,
}

/// A service account, a pod, a secret or a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its UID.
    pub uid: &'a str,
}

/// The claims of a token whose signature and times are right.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claims {
    /// Whom it is for.
    pub aud: Vec<String>,
    exp: i64,
    iat: i64,
    iss: String,
    jti: String,
    /// What it is bound to.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Bound,
    nbf: i64,
    sub: String,
}

/// What a token is bound to; it is worth nothing once that is gone, which only the store can tell.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bound {
    /// The account's namespace.
    pub namespace: String,
    /// The pod's node, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    /// The pod, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    /// The secret, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    /// The service account.
    pub serviceaccount: Reference,
    #[serde(skip_serializing_if = "Option::is_none")]
    warnafter: Option<i64>,
}

/// Name and UID of an object.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// Its UID.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

/// Why a token was refused; the client only hears `Unauthorized`, who has it reviewed hears why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not a JWT with these claims.
    #[error("malformed token")]
    Malformed,
    /// Another key signed it.
    #[error("unknown key or wrong signature")]
    Signature,
    /// It was valid once.
    #[error("service account token has expired")]
    Expired,
    /// It will be valid.
    #[error("service account token is not valid yet")]
    NotYet,
    /// Another issuer's.
    #[error("wrong issuer")]
    Issuer,
    /// For somebody else; for whom.
    #[error("token audiences {0:?} is invalid")]
    Audience(Vec<String>),
}

impl Refused {
    /// Upstream's words to whoever asked whether the token is good for `audiences`.
    pub fn told(&self, audiences: &[String]) -> String {
        const WRONG: &str = "invalid bearer token";
        match self {
            Refused::Malformed | Refused::Signature | Refused::Issuer => WRONG.into(),
            Refused::Expired | Refused::NotYet => format!("[{WRONG}, {self}]"),
            Refused::Audience(own) => format!(
                "[{WRONG}, token audiences {} is invalid for the target audiences {}]",
                quoted(own),
                quoted(audiences)
            ),
        }
    }
}

/// A list as Go's `%q` prints it.
fn quoted(list: &[String]) -> String {
    let list: Vec<String> = list.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", list.join(" "))
}

/// The key cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("not a P-256 private key in PKCS#8: {0}")]
pub struct BadKey(String);

impl Tokens {
    /// A new signing key, PKCS#8 DER.
    pub fn generate_key() -> Result<Vec<u8>, BadKey> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        Ok(document
            .map_err(|error| BadKey(error.to_string()))?
            .as_ref()
            .to_vec())
    }

    /// Sign with a key from [`Tokens::generate_key`].
    pub fn new(pkcs8: &[u8]) -> Result<Tokens, BadKey> {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random)
            .map_err(|error| BadKey(error.to_string()))?;
        let key_id = URL_SAFE_NO_PAD.encode(Sha256::digest(key.public_key().as_ref()));
        Ok(Tokens { key, key_id, random })
    }

    /// The signed token.
    pub fn issue(&self, grant: &Grant<'_>) -> String {
        let reference = |account: Account<'_>| Reference {
            name: account.name.into(),
            uid: account.uid.into(),
        };
        let claims = Claims {
            aud: match grant.audiences {
                [] => vec![ISSUER.to_owned()],
                audiences => audiences.to_vec(),
            },
            exp: grant.expires.as_second(),
            iat: grant.now.as_second(),
            iss: ISSUER.to_owned(),
            jti: uuid::Uuid::new_v4().to_string(),
            kubernetes: Bound {
                namespace: grant.namespace.to_owned(),
                node: grant.node.map(reference),
                pod: grant.pod.map(reference),
                secret: grant.secret.map(reference),
                serviceaccount: reference(grant.account),
                warnafter: grant.warn_after.map(Timestamp::as_second),
            },
            nbf: grant.now.as_second(),
            sub: subject(grant.namespace, grant.account.name),
        };
        let header = Header {
            alg: "ES256".to_owned(),
            kid: self.key_id.clone(),
        };
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.key.sign(&self.random, signed.as_bytes());
        let signature = signature.expect("signing fails only without randomness");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The claims of a token that this key signed for one of `audiences` and that is valid at `now`.
    pub fn verify(&self, token: &str, audiences: &[String], now: Timestamp) -> Result<Claims, Refused> {
        let (signed, signature) = token.rsplit_once('.').ok_or(Refused::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Refused::Malformed)?;
        let header: Header = decode(header)?;
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| Refused::Malformed)?;
        if header.alg != "ES256" || header.kid != self.key_id {
            return Err(Refused::Signature);
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key())
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| Refused::Signature)?;
        let claims: Claims = decode(claims)?;
        if claims.iss != ISSUER {
            return Err(Refused::Issuer);
        }
        if !claims.aud.iter().any(|audience| audiences.contains(audience)) {
            return Err(Refused::Audience(claims.aud));
        }
        match now.as_second() {
            now if now >= claims.exp.saturating_add(LEEWAY_SECONDS) => Err(Refused::Expired),
            now if now < claims.nbf.saturating_sub(LEEWAY_SECONDS) => Err(Refused::NotYet),
            _ => Ok(claims),
        }
    }
}

impl Claims {
    /// The service account as a user.
    pub fn user(&self) -> User {
        let Bound {
            namespace,
            node,
            pod,
            serviceaccount,
            ..
        } = &self.kubernetes;
        let own_group = format!("system:serviceaccounts:{namespace}");
        let mut user = User::new(
            &subject(namespace, &serviceaccount.name),
            &["system:serviceaccounts", &own_group],
        );
        user.uid = Some(serviceaccount.uid.clone());
        let mut know = |key: &str, value: String| user.extra.insert(key.to_owned(), vec![value]);
        know(CREDENTIAL_ID, format!("JTI={}", self.jti));
        if let Some(pod) = pod {
            know("authentication.kubernetes.io/pod-name", pod.name.clone());
            know("authentication.kubernetes.io/pod-uid", pod.uid.clone());
        }
        if let Some(node) = node {
            know("authentication.kubernetes.io/node-name", node.name.clone());
            if !node.uid.is_empty() {
                know("authentication.kubernetes.io/node-uid", node.uid.clone());
            }
        }
        user
    }
}

fn subject(namespace: &str, account: &str) -> String {
    format!("system:serviceaccount:{namespace}:{account}")
}

fn encode(part: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(part).expect("strings and numbers have a JSON form"))
}

fn decode<T: serde::de::DeserializeOwned>(part: &str) -> Result<T, Refused> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| Refused::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| Refused::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> Timestamp {
        format!("2026-01-02T{time}Z").parse().unwrap()
    }

    fn new_tokens() -> Tokens {
        Tokens::new(&Tokens::generate_key().unwrap()).unwrap()
    }

    fn grant(audiences: &[String]) -> Grant<'_> {
        Grant {
            namespace: "shop",
            account: Account {
                name: "web",
                uid: "u1",
            },
            pod: Some(Account {
                name: "web-0",
                uid: "u2",
            }),
            audiences,
            expires: at("04:00:00"),
            now: at("03:00:00"),
            ..Grant::default()
        }
    }

    fn own() -> [String; 1] {
        [ISSUER.to_owned()]
    }

    #[test]
    fn a_token_makes_its_service_account_the_user() {
        let tokens = new_tokens();
        let user = tokens
            .verify(&tokens.issue(&grant(&[])), &own(), at("03:30:00"))
            .unwrap()
            .user();
        assert_eq!(user.name, "system:serviceaccount:shop:web");
        assert_eq!(
            user.groups,
            [
                "system:serviceaccounts",
                "system:serviceaccounts:shop",
                "system:authenticated"
            ]
        );
        assert_eq!(user.uid.as_deref(), Some("u1"));
        assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["web-0"]);
    }

    #[test]
    fn a_token_is_valid_only_in_its_time_for_its_audience_and_under_its_key() {
        let tokens = new_tokens();
        let token = tokens.issue(&grant(&[]));
        let refused = |token: &str, time| tokens.verify(token, &own(), at(time)).unwrap_err();
        assert_eq!(refused(&token, "04:00:05"), Refused::Expired);
        assert_eq!(refused(&token, "02:59:54"), Refused::NotYet);
        let elsewhere = ["vault".to_owned()];
        assert_eq!(
            refused(&tokens.issue(&grant(&elsewhere)), "03:30:00"),
            Refused::Audience(elsewhere.to_vec())
        );
        assert_eq!(
            refused(&new_tokens().issue(&grant(&[])), "03:30:00"),
            Refused::Signature
        );
    }

    #[test]
    fn a_changed_token_is_refused() {
        let tokens = new_tokens();
        let token = tokens.issue(&grant(&[]));
        let [header, claims, signature] = token.split('.').collect::<Vec<_>>()[..] else {
            panic!("{token}")
        };
        let forged = encode(&serde_json::json!({"alg": "none", "kid": tokens.key_id}));
        let other = String::from_utf8(URL_SAFE_NO_PAD.decode(claims).unwrap())
            .unwrap()
            .replace("shop", "bank");
        let other = URL_SAFE_NO_PAD.encode(other);
        for token in [
            format!("{forged}.{claims}."),
            format!("{forged}.{claims}.{signature}"),
            format!("{header}.{other}.{signature}"),
            format!("{header}.{claims}."),
            format!("{header}.{claims}"),
            "a.b.c".to_owned(),
            "..".to_owned(),
            String::new(),
        ] {
            assert!(tokens.verify(&token, &own(), at("03:30:00")).is_err(), "{token}");
        }
    }
}
