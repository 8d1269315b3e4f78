//! Who asks: users, and how a request proves to be one. A listener puts the [`User`] into the request's
//! extensions; in-process clients bring theirs along.

mod bound;
pub mod pki;
pub mod token;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Store;
use token::{ISSUER, Tokens};
use x509_parser::prelude::{FromDer, X509Certificate};

/// What time it is.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The group that may do everything.
pub const MASTERS: &str = "system:masters";
const AUTHENTICATED: &str = "system:authenticated";

/// The user of a request, as a request extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// For example `system:serviceaccount:default:web`.
    pub name: String,
    /// For example `system:masters`.
    pub groups: Vec<String>,
    /// Where users have one: service accounts.
    pub uid: Option<String>,
    /// What else is known, for example the pod that a token is bound to.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A user with these groups and `system:authenticated`.
    pub fn new(name: &str, groups: &[&str]) -> User {
        let groups = groups.iter().copied().chain([AUTHENTICATED]);
        User {
            name: name.to_owned(),
            groups: groups.map(str::to_owned).collect(),
            uid: None,
            extra: BTreeMap::new(),
        }
    }

    /// The administrator, who is also whoever owns the machine.
    pub fn admin() -> User {
        User::new("system:admin", &[MASTERS])
    }

    /// Nobody in particular: may only ask how the server is.
    pub fn anonymous() -> User {
        User {
            groups: vec!["system:unauthenticated".to_owned()],
            ..User::new("system:anonymous", &[])
        }
    }

    /// The user whom a client certificate (DER) names: the subject's CN, its groups the O's.
    /// The certificate is one that the TLS handshake has verified.
    pub fn from_certificate(der: &[u8]) -> Option<User> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?;
        let groups: Vec<&str> = subject
            .iter_organization()
            .filter_map(|o| o.as_str().ok())
            .collect();
        let mut user = User::new(name, &groups);
        let fingerprint: String = Sha256::digest(der)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        user.extra.insert(
            CREDENTIAL_ID.to_owned(),
            vec![format!("X509SHA256={fingerprint}")],
        );
        Some(user)
    }
}

/// Which credential was shown; upstream's key of [`User::extra`].
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// The credentials that were shown are wrong, or none were where they are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Unauthorized")]
pub struct Unauthorized;

/// The digest of a secret, which is all that is kept to recognise it.
pub fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// Knows every credential that a listener accepts.
#[derive(Clone)]
pub struct Authenticator {
    /// Who signs service accounts' tokens.
    pub tokens: Option<Arc<Tokens>>,
    /// The [`digest`] of the token that makes an administrator.
    pub admin_token: Option<[u8; 32]>,
    /// What time it is.
    pub clock: Clock,
    /// Where it is looked up whether what a token is bound to is still there.
    pub store: Arc<dyn Store>,
}

impl Authenticator {
    /// The user of a request: by the connection's client certificate, else by its bearer token; the
    /// anonymous one without either. A wrong token is refused.
    pub async fn authenticate(
        &self,
        certificate: Option<&User>,
        headers: &HeaderMap,
    ) -> Result<User, Unauthorized> {
        if let Some(user) = certificate {
            return Ok(user.clone());
        }
        let Some(header) = headers.get(AUTHORIZATION) else {
            return Ok(User::anonymous());
        };
        let (scheme, token) = header
            .to_str()
            .ok()
            .and_then(|text| text.split_once(' '))
            .ok_or(Unauthorized)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Unauthorized);
        }
        match self.review(token.trim(), &[]).await {
            Ok((user, _)) => Ok(user),
            Err(why) => {
                tracing::debug!(%why, "refused a bearer token");
                Err(Unauthorized)
            }
        }
    }

    /// Whose token it is, and for which of `audiences` (none: the API server's own) it is good; the error
    /// is upstream's text and does not contain the token.
    pub async fn review(&self, token: &str, audiences: &[String]) -> Result<(User, Vec<String>), String> {
        const WRONG: &str = "invalid bearer token";
        let own = [ISSUER.to_owned()];
        let audiences = if audiences.is_empty() { &own } else { audiences };
        // Digests are compared, so that the time it takes tells nothing about the token.
        if self.admin_token == Some(digest(token)) {
            return match audiences.contains(&own[0]) {
                true => Ok((User::admin(), own.into())),
                false => Err(WRONG.into()),
            };
        }
        let tokens = self.tokens.as_ref().ok_or(WRONG)?;
        let claims = tokens.verify(token, audiences, (self.clock)());
        let claims = claims.map_err(|why| why.told(audiences))?;
        bound::check(self.store.as_ref(), &claims, (self.clock)())
            .await
            .map_err(|why| format!("[{WRONG}, {why}]"))?;
        let good = audiences.iter().filter(|audience| claims.aud.contains(audience));
        Ok((claims.user(), good.cloned().collect()))
    }
}

/// Paths that anybody may ask.
pub fn is_public(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    matches!(first, "healthz" | "livez" | "readyz" | "version")
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::MemoryStore;
    use token::{Account, Grant};

    fn clock() -> Clock {
        Arc::new(|| "2026-01-02T03:04:05Z".parse().unwrap())
    }

    fn headers(authorization: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, authorization.parse().unwrap())])
    }

    async fn authenticator(tokens: Arc<Tokens>) -> Authenticator {
        let store = MemoryStore::new();
        let account = br#"{"metadata":{"name":"web","namespace":"shop","uid":"u1"}}"#;
        let written = store.create("/core/serviceaccounts/shop/web", account.as_slice().into());
        written.await.unwrap();
        Authenticator {
            tokens: Some(tokens),
            admin_token: Some(digest("s3cret")),
            clock: clock(),
            store: Arc::new(store),
        }
    }

    fn grant(audiences: &[String]) -> Grant<'_> {
        Grant {
            namespace: "shop",
            account: Account {
                name: "web",
                uid: "u1",
            },
            audiences,
            expires: "2026-01-02T04:00:00Z".parse().unwrap(),
            now: clock()(),
            ..Grant::default()
        }
    }

    #[tokio::test]
    async fn a_request_is_who_its_credentials_say() {
        let tokens = Arc::new(Tokens::new(&Tokens::generate_key().unwrap()).unwrap());
        let token = tokens.issue(&grant(&[]));
        let authenticator = authenticator(tokens).await;
        let who = async |certificate: Option<&User>, headers: &HeaderMap| {
            let user = authenticator.authenticate(certificate, headers).await;
            user.map(|user| user.name)
        };
        let jane = User::new("jane", &[]);
        assert_eq!(who(Some(&jane), &HeaderMap::new()).await.unwrap(), "jane");
        assert_eq!(who(None, &HeaderMap::new()).await.unwrap(), "system:anonymous");
        assert_eq!(
            who(None, &headers("Bearer s3cret")).await.unwrap(),
            "system:admin"
        );
        assert_eq!(
            who(None, &headers(&format!("bearer {token}"))).await.unwrap(),
            "system:serviceaccount:shop:web"
        );
        for wrong in [
            "Bearer wrong",
            "Bearer ",
            "Bearer",
            "Basic czNjcmV0",
            "Bearer s3cre",
        ] {
            assert_eq!(who(None, &headers(wrong)).await, Err(Unauthorized), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_token_is_reviewed_for_the_audiences_that_are_asked_for() {
        let tokens = Arc::new(Tokens::new(&Tokens::generate_key().unwrap()).unwrap());
        let audiences = ["vault".to_owned(), "db".to_owned()];
        let token = tokens.issue(&grant(&audiences));
        let authenticator = authenticator(tokens).await;
        let asked = ["db".to_owned(), "other".to_owned()];
        let (user, good) = authenticator.review(&token, &asked).await.unwrap();
        assert_eq!(user.name, "system:serviceaccount:shop:web");
        assert_eq!(good, ["db"]);
        assert_eq!(
            authenticator.review(&token, &[]).await.unwrap_err(),
            format!(
                "[invalid bearer token, token audiences [\"vault\" \"db\"] is invalid for the target audiences [{ISSUER:?}]]"
            )
        );
        let (_, good) = authenticator.review("s3cret", &[]).await.unwrap();
        assert_eq!(good, [ISSUER]);
        assert!(authenticator.review("s3cret", &asked).await.is_err());
    }

    #[tokio::test]
    async fn a_token_ends_with_its_account() {
        let tokens = Arc::new(Tokens::new(&Tokens::generate_key().unwrap()).unwrap());
        let token = tokens.issue(&grant(&[]));
        let authenticator = authenticator(tokens).await;
        authenticator.review(&token, &[]).await.unwrap();
        let key = "/core/serviceaccounts/shop/web";
        authenticator.store.delete(key, 1).await.unwrap();
        let refused = authenticator.review(&token, &[]).await.unwrap_err();
        assert_eq!(
            refused,
            "[invalid bearer token, serviceaccounts \"web\" not found]"
        );
    }

    #[test]
    fn only_questions_about_the_servers_health_are_public() {
        for path in ["/healthz", "/livez/ping", "/readyz", "/version", "/version/"] {
            assert!(is_public(path), "{path}");
        }
        for path in ["/", "/api", "/metrics", "/healthzz", "/apis/version"] {
            assert!(!is_public(path), "{path}");
        }
    }
}
