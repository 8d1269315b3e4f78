//! `/healthz`, `/livez` and `/readyz`, with `?verbose`, `?exclude=` and one path per check, printed as
//! upstream prints them.

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{StatusCode, Uri};
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use tokio_util::sync::CancellationToken;

/// How long the store may take to answer before it counts as gone.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is looked at.
#[derive(Clone)]
struct Health {
    store: Arc<dyn Store>,
    stop: CancellationToken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// The server answers.
    Ping,
    /// The store does.
    Store,
    /// It is not about to stop.
    Shutdown,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::Ping => "ping",
            Check::Store => "store",
            Check::Shutdown => "shutdown",
        }
    }
}

const LIVE: [Check; 2] = [Check::Ping, Check::Store];
const READY: [Check; 3] = [Check::Ping, Check::Store, Check::Shutdown];

impl Health {
    async fn is_well(&self, check: Check) -> bool {
        match check {
            Check::Ping => true,
            Check::Store => {
                let asked = tokio::time::timeout(PATIENCE, self.store.get("/healthz"));
                matches!(asked.await, Ok(Ok(_)))
            }
            Check::Shutdown => !self.stop.is_cancelled(),
        }
    }

    /// All of `checks`: 200 and `ok`, or 500 and what failed.
    async fn all(&self, title: &str, checks: &[Check], query: &str) -> Response {
        let excluded: Vec<&str> = query
            .split('&')
            .filter_map(|pair| pair.strip_prefix("exclude="))
            .collect();
        let verbose = query
            .split('&')
            .any(|pair| pair == "verbose" || pair.starts_with("verbose="));
        let mut failed = false;
        let mut lines = String::new();
        for &check in checks {
            let name = check.name();
            if excluded.contains(&name) {
                lines += &format!("[+]{name} excluded: ok\n");
            } else if self.is_well(check).await {
                lines += &format!("[+]{name} ok\n");
            } else {
                failed = true;
                lines += &format!("[-]{name} failed: reason withheld\n");
            }
        }
        match (failed, verbose) {
            (true, _) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("{lines}{title} check failed\n"),
            ),
            (false, true) => text(StatusCode::OK, format!("{lines}{title} check passed\n")),
            (false, false) => text(StatusCode::OK, "ok".to_owned()),
        }
    }

    async fn one(&self, check: Check) -> Response {
        match self.is_well(check).await {
            true => text(StatusCode::OK, "ok".to_owned()),
            false => {
                let problem = format!("internal server error: {} failed\n", check.name());
                text(StatusCode::INTERNAL_SERVER_ERROR, problem)
            }
        }
    }
}

fn text(code: StatusCode, text: String) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/plain; charset=utf-8"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-cache, private"),
    ];
    (code, headers, text).into_response()
}

/// The paths of the three and of their checks; `stop` makes the server unready.
pub fn routes<S: Clone + Send + Sync + 'static>(store: Arc<dyn Store>, stop: CancellationToken) -> Router<S> {
    let health = Health { store, stop };
    let mut router = Router::new();
    let all: [(&'static str, &'static [Check]); 3] =
        [("healthz", &LIVE), ("livez", &LIVE), ("readyz", &READY)];
    for (title, checks) in all {
        let answer = {
            let health = health.clone();
            get(async move |uri: Uri| health.all(title, checks, uri.query().unwrap_or_default()).await)
        };
        router = router
            .route(&format!("/{title}"), answer.clone())
            .route(&format!("/{title}/"), answer);
        for &check in checks {
            let health = health.clone();
            let answer = get(async move || health.one(check).await);
            router = router.route(&format!("/{title}/{}", check.name()), answer);
        }
    }
    router
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use bytes::Bytes;
    use http::Request;
    use http_body_util::BodyExt;
    use store::{Entry, Error, Page, Revision, Watch};
    use tower::ServiceExt;

    /// A store that answers, or does not.
    struct Fake {
        answers: bool,
    }

    #[async_trait::async_trait]
    impl Store for Fake {
        fn current(&self) -> Revision {
            0
        }
        async fn get(&self, _: &str) -> Result<Option<Entry>, Error> {
            match self.answers {
                true => Ok(None),
                false => Err(Error::Broken("disk full".to_owned())),
            }
        }
        async fn list(&self, _: &str, _: Option<&str>, _: usize, _: Option<Revision>) -> Result<Page, Error> {
            unreachable!("health does not list")
        }
        async fn create(&self, _: &str, _: Bytes) -> Result<Entry, Error> {
            unreachable!("health does not write")
        }
        async fn update(&self, _: &str, _: Bytes, _: Revision) -> Result<Entry, Error> {
            unreachable!("health does not write")
        }
        async fn delete(&self, _: &str, _: Revision) -> Result<Revision, Error> {
            unreachable!("health does not write")
        }
        fn watch(&self, _: &str, _: Revision) -> Result<Box<dyn Watch>, Error> {
            unreachable!("health does not watch")
        }
        async fn compact(&self, _: Revision) -> Result<(), Error> {
            unreachable!("health does not compact")
        }
    }

    async fn ask(answers: bool, stopping: bool, path: &str) -> (u16, String) {
        let stop = CancellationToken::new();
        if stopping {
            stop.cancel();
        }
        let router: Router = routes(Arc::new(Fake { answers }), stop);
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = router.oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn health_is_told_as_upstream_tells_it() {
        let table = [
            ("/healthz", 200, "ok"),
            ("/livez/", 200, "ok"),
            (
                "/readyz?verbose",
                200,
                "[+]ping ok\n[+]store ok\n[+]shutdown ok\nreadyz check passed\n",
            ),
            (
                "/livez?verbose=true&exclude=store",
                200,
                "[+]ping ok\n[+]store excluded: ok\nlivez check passed\n",
            ),
            ("/livez/ping", 200, "ok"),
            ("/livez/nope", 404, ""),
        ];
        for (path, status, body) in table {
            assert_eq!(ask(true, false, path).await, (status, body.to_owned()), "{path}");
        }
    }

    #[tokio::test]
    async fn what_fails_is_named() {
        assert_eq!(
            ask(false, false, "/healthz").await,
            (
                500,
                "[+]ping ok\n[-]store failed: reason withheld\nhealthz check failed\n".to_owned()
            )
        );
        assert_eq!(ask(false, false, "/livez?exclude=store").await.0, 200);
        assert_eq!(ask(false, false, "/livez/store").await.0, 500);
    }

    #[tokio::test]
    async fn a_server_that_stops_is_alive_and_not_ready() {
        assert_eq!(ask(true, true, "/livez").await.0, 200);
        assert_eq!(ask(true, true, "/readyz").await.0, 500);
    }
}
