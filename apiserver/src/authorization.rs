//! Who may do what: every request is judged here before anything looks at it. Role-based access control as
//! Kubernetes has it, over the objects of the group `rbac.authorization.k8s.io`.

mod attributes;
pub(crate) mod escalation;
mod impersonation;
mod policy;
mod roles;
mod rule;
mod view;

pub use attributes::Attributes;
pub(crate) use attributes::forbidden;
pub use policy::{Decision, Policy};
pub(crate) use roles::{cluster_role_bindings, cluster_roles, completed};
pub use view::View;

use crate::auth::{MASTERS, User};
use crate::error::Error;
use crate::server::Server;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// How it is decided who may do what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Everybody who is known may do everything.
    AlwaysAllow,
    /// Roles and bindings say so.
    #[default]
    Rbac,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "RBAC" => Ok(Mode::Rbac),
            "AlwaysAllow" => Ok(Mode::AlwaysAllow),
            _ => Err(format!("{text:?} is neither RBAC nor AlwaysAllow")),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::AlwaysAllow => "AlwaysAllow",
            Mode::Rbac => "RBAC",
        })
    }
}

impl Server {
    /// Whether `user` may do what is asked for.
    pub async fn authorize(&self, user: &User, asked: &Attributes) -> Result<Decision, Error> {
        if self.options.authorization == Mode::AlwaysAllow || user.groups.iter().any(|group| group == MASTERS)
        {
            return Ok(Decision {
                allowed: true,
                reason: String::new(),
            });
        }
        Ok(self.policy().await?.decide(user, asked))
    }

    /// Every role and binding as of now.
    pub(crate) async fn policy(&self) -> Result<std::sync::RwLockReadGuard<'_, Policy>, Error> {
        Ok(self.view.current(self.store.as_ref()).await?)
    }

    async fn demand(&self, user: &User, asked: &Attributes) -> Result<(), Error> {
        let decision = self.authorize(user, asked).await?;
        match decision.allowed {
            true => Ok(()),
            false => Err(asked.forbidden(user, &decision.reason)),
        }
    }

    /// The user that a request counts as.
    async fn acting(&self, user: User, headers: &HeaderMap) -> Result<User, Error> {
        let Some(impersonation) = impersonation::requested(headers)? else {
            return Ok(user);
        };
        for need in &impersonation.needs {
            self.demand(&user, need).await?;
        }
        tracing::debug!(
            user = user.name,
            r#as = impersonation.user.name,
            "acts as somebody else"
        );
        Ok(impersonation.user)
    }

    /// The user that the request counts as, if that one may do what it asks for.
    async fn admit(&self, parts: &http::request::Parts) -> Result<User, Error> {
        let user = parts
            .extensions
            .get::<User>()
            .cloned()
            .ok_or(Error::Unauthorized)?;
        let user = self.acting(user, &parts.headers).await?;
        let asked = Attributes::of(&parts.method, &parts.uri);
        self.demand(&user, &asked).await?;
        if let Some(also) = asked.of_upgrade(&parts.headers) {
            self.demand(&user, &also).await?;
        }
        Ok(user)
    }
}

/// Let a request pass if its user may do what it asks for; the answer is 401 or 403 otherwise.
pub async fn guard(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match server.admit(&parts).await {
        Ok(user) => {
            parts.extensions.insert(user);
            impersonation::remove(&mut parts.headers);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(error) => error.into_response(),
    }
}
