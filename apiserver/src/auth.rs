//! Who asks: users, and how a request proves to be one. A listener puts the [`User`] into the request's
//! extensions; in-process clients bring theirs along.

pub mod pki;
pub mod token;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use token::Tokens;
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

/// Knows every credential that a listener accepts.
#[derive(Clone)]
pub struct Authenticator {
    tokens: Arc<Tokens>,
    admin_token: [u8; 32],
    clock: Clock,
}

impl Authenticator {
    /// Accepts tokens that `tokens` issued, and `admin_token`, which makes an administrator.
    pub fn new(tokens: Arc<Tokens>, admin_token: &str, clock: Clock) -> Authenticator {
        let admin_token = Sha256::digest(admin_token).into();
        Authenticator {
            tokens,
            admin_token,
            clock,
        }
    }

    /// The user of a request: by the connection's client certificate, else by its bearer token; the
    /// anonymous one without either. A wrong token is refused.
    pub fn authenticate(
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
        let token = token.trim();
        // Digests are compared, so that the time it takes tells nothing about the token.
        if <[u8; 32]>::from(Sha256::digest(token)) == self.admin_token {
            return Ok(User::admin());
        }
        self.tokens
            .verify(token, (self.clock)())
            .map(|verified| verified.user())
            .map_err(|why| {
                tracing::debug!(%why, "refused a bearer token");
                Unauthorized
            })
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
    use token::{Account, Grant};

    fn clock() -> Clock {
        Arc::new(|| "2026-01-02T03:04:05Z".parse().unwrap())
    }

    fn headers(authorization: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, authorization.parse().unwrap())])
    }

    #[test]
    fn a_request_is_who_its_credentials_say() {
        let tokens = Arc::new(Tokens::new(&Tokens::generate_key().unwrap()).unwrap());
        let token = tokens.issue(&Grant {
            namespace: "shop",
            account: Account {
                name: "web",
                uid: "u1",
            },
            pod: None,
            audiences: &[],
            expires: "2026-01-02T04:00:00Z".parse().unwrap(),
            now: clock()(),
        });
        let authenticator = Authenticator::new(tokens, "s3cret", clock());
        let who = |certificate: Option<&User>, headers: &HeaderMap| {
            authenticator
                .authenticate(certificate, headers)
                .map(|user| user.name)
        };
        let jane = User::new("jane", &[]);
        assert_eq!(who(Some(&jane), &HeaderMap::new()).unwrap(), "jane");
        assert_eq!(who(None, &HeaderMap::new()).unwrap(), "system:anonymous");
        assert_eq!(who(None, &headers("Bearer s3cret")).unwrap(), "system:admin");
        assert_eq!(
            who(None, &headers(&format!("bearer {token}"))).unwrap(),
            "system:serviceaccount:shop:web"
        );
        for wrong in [
            "Bearer wrong",
            "Bearer ",
            "Bearer",
            "Basic czNjcmV0",
            "Bearer s3cre",
        ] {
            assert_eq!(who(None, &headers(wrong)), Err(Unauthorized), "{wrong}");
        }
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
