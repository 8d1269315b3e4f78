//! What keeps the DNS server from following the API, said once and not at every try.

use kube::runtime::watcher;
use std::collections::BTreeMap;

/// Why one kind of object cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The API server does not allow it.
    Forbidden {
        /// `endpointslices.discovery.k8s.io`
        resource: String,
        /// The API server's own words.
        message: String,
    },
    /// The API server does not know who is asking.
    Unauthorized {
        /// The API server's own words.
        message: String,
    },
    /// Nobody answers.
    Unreachable {
        /// What was tried and how it failed.
        message: String,
    },
    /// Anything else.
    Other {
        /// `pods`
        resource: String,
        /// What went wrong.
        message: String,
    },
}

impl Trouble {
    /// What an error of a watch means; nothing if watches end like this in the best of worlds, because the API server no
    /// longer has the changes since.
    pub fn of(plural: &str, group: &str, error: &watcher::Error) -> Option<Self> {
        let resource = match group {
            "" => plural.to_owned(),
            group => format!("{plural}.{group}"),
        };
        let (code, message) = match error {
            watcher::Error::WatchError(status) => (status.code, status.message.clone()),
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => match error {
                kube::Error::Api(status) => (status.code, status.message.clone()),
                kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => {
                    let message = with_causes(error);
                    return Some(Self::Unreachable { message });
                }
                error => (0, with_causes(error)),
            },
            watcher::Error::NoResourceVersion => (0, error.to_string()),
        };
        match code {
            410 => None,
            401 => Some(Self::Unauthorized { message }),
            403 => Some(Self::Forbidden { resource, message }),
            _ => Some(Self::Other { resource, message }),
        }
    }

    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Forbidden { .. })
    }

    /// What makes it the same trouble as before, whatever the words are.
    fn identity(&self) -> (u8, &str) {
        match self {
            Self::Unreachable { .. } => (0, ""),
            Self::Unauthorized { .. } => (1, ""),
            Self::Forbidden { resource, .. } => (2, resource),
            Self::Other { resource, .. } => (3, resource),
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Unreachable { message } => format!(
                "the DNS server cannot reach the API server and keeps trying; until then it answers with what it knew last, and \
                 SERVFAIL if it has not known everything yet: {message}"
            ),
            Self::Unauthorized { message } => format!(
                "the API server does not accept the DNS server's credentials (see --kubeconfig); it keeps trying: {message}"
            ),
            Self::Forbidden { resource, message } => format!(
                "the DNS server may not see {resource}, and names that are made of them are not served: allow its user the \
                 verbs list and watch on {resource} in all namespaces (a ClusterRole and a ClusterRoleBinding); it keeps \
                 trying: {message}"
            ),
            Self::Other { resource, message } => {
                format!("the DNS server cannot watch {resource} and keeps trying: {message}")
            }
        }
    }
}

/// The reason is often the last cause.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = next.source();
    }
    text
}

/// The troubles that there are and have been told.
#[derive(Default)]
pub(super) struct Troubles(BTreeMap<(u8, String), String>);

impl Troubles {
    /// Tell those that are new, and when all are over.
    pub fn tell<'a>(&mut self, now: impl IntoIterator<Item = Option<&'a Trouble>>) {
        let had_any = !self.0.is_empty();
        for news in self.renew(now) {
            tracing::warn!("{news}");
        }
        if had_any && self.0.is_empty() {
            tracing::info!("the DNS server follows the API again");
        }
    }

    fn renew<'a>(&mut self, now: impl IntoIterator<Item = Option<&'a Trouble>>) -> Vec<String> {
        let mut now: BTreeMap<(u8, String), String> = now
            .into_iter()
            .flatten()
            .map(|trouble| {
                let (class, resource) = trouble.identity();
                ((class, resource.to_owned()), trouble.describe())
            })
            .collect();
        let news = now.iter().filter(|(identity, _)| !self.0.contains_key(*identity));
        let news = news.map(|(_, text)| text.clone()).collect();
        std::mem::swap(&mut self.0, &mut now);
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn refused(code: u16) -> watcher::Error {
        let status = Status {
            code,
            message: "says the server".into(),
            ..Status::default()
        };
        watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn what_is_forbidden_is_said_with_the_permission_that_is_missing() {
        let trouble = Trouble::of("endpointslices", "discovery.k8s.io", &refused(403)).expect("trouble");
        assert!(trouble.is_forbidden());
        let text = trouble.describe();
        for part in [
            "endpointslices.discovery.k8s.io",
            "list and watch",
            "ClusterRole",
            "says the server",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let expired = Status {
            code: 410,
            ..Status::default()
        };
        assert_eq!(
            Trouble::of("pods", "", &watcher::Error::WatchError(Box::new(expired))),
            None
        );
    }

    #[test]
    fn a_trouble_is_told_once_and_again_only_after_it_was_over() {
        let forbidden = |what: &str| Trouble::of(what, "", &refused(403));
        let unreachable = |message: &str| {
            Some(Trouble::Unreachable {
                message: message.into(),
            })
        };
        let (pods, services) = (forbidden("pods"), forbidden("services"));
        let mut troubles = Troubles::default();
        assert_eq!(troubles.renew([pods.as_ref(), None]).len(), 1);
        assert_eq!(troubles.renew([pods.as_ref(), services.as_ref()]).len(), 1);
        assert!(troubles.renew([pods.as_ref(), services.as_ref()]).is_empty());
        assert!(troubles.renew([None, None]).is_empty());
        assert_eq!(troubles.renew([pods.as_ref(), None]).len(), 1);
        // Every kind is cut off by the same failure, each with words of its own.
        let (one, other) = (unreachable("refused"), unreachable("reset"));
        assert_eq!(troubles.renew([one.as_ref(), other.as_ref()]).len(), 1);
        assert!(troubles.renew([other.as_ref(), None]).is_empty());
    }
}
