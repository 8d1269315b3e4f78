//! `/metrics`, in Prometheus' text format and under upstream's names: requests by verb and resource, how long
//! they took, the store's revision, and the process.

use crate::resource::Kind;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::get;
use http::Method;
use http::header::CONTENT_TYPE;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use store::Store;
use tokio::time::Instant;

/// Upper bounds of the histogram's buckets in seconds: upstream's.
const BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];

/// Counts what is asked of the server.
#[derive(Clone)]
pub struct Metrics(Arc<Shared>);

struct Shared {
    store: Arc<dyn Store>,
    started: Duration,
    /// Group, version and resource of every kind: other paths are not told apart, or anybody could make the
    /// table endless.
    resources: Vec<(&'static str, &'static str, &'static str)>,
    requests: Mutex<BTreeMap<Labels, Series>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    verb: &'static str,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: &'static str,
    scope: &'static str,
}

#[derive(Default)]
struct Series {
    by_code: HashMap<u16, u64>,
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

impl Metrics {
    /// Counts requests for these kinds.
    pub fn new(kinds: &[&dyn Kind], store: Arc<dyn Store>) -> Metrics {
        let of = |kind: &&dyn Kind| (kind.names().group, kind.names().version, kind.names().plural);
        Metrics(Arc::new(Shared {
            store,
            started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            resources: kinds.iter().map(of).collect(),
            requests: Mutex::default(),
        }))
    }

    /// `/metrics`.
    pub fn routes<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        let metrics = self.clone();
        let answer = get(async move || {
            (
                [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
                metrics.print(),
            )
        });
        Router::new().route("/metrics", answer)
    }

    /// Middleware for `axum::middleware::from_fn_with_state`: count a request and how long its answer took
    /// to begin (a watch's goes on).
    pub async fn count(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
        let labels = metrics
            .0
            .labels(request.method(), request.uri().path(), request.uri().query());
        let begun = Instant::now();
        let response = next.run(request).await;
        metrics
            .0
            .record(labels, response.status().as_u16(), begun.elapsed());
        response
    }

    fn print(&self) -> String {
        let mut out = String::new();
        self.0.print_requests(&mut out);
        let revision = self.0.store.current();
        let mut gauge = |name: &str, help: &str, value: String| {
            // Writing to a String cannot fail.
            let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n");
        };
        gauge(
            "petset_store_revision",
            "Revision of the newest durable write.",
            revision.to_string(),
        );
        let started = self.0.started.as_secs_f64();
        gauge(
            "process_start_time_seconds",
            "When the server started, as Unix time.",
            format!("{started:.2}"),
        );
        if let Some(bytes) = resident_bytes() {
            gauge(
                "process_resident_memory_bytes",
                "Resident memory size in bytes.",
                bytes.to_string(),
            );
        }
        let _ = write!(
            out,
            "# HELP kubernetes_build_info A metric with a constant '1' value labelled by version.\n\
             # TYPE kubernetes_build_info gauge\n\
             kubernetes_build_info{{git_version=\"{}\",major=\"1\",minor=\"36\"}} 1\n",
            crate::version::GIT_VERSION
        );
        out
    }
}

impl Shared {
    fn labels(&self, method: &Method, path: &str, query: Option<&str>) -> Labels {
        let mut parts = path.trim_matches('/').split('/').filter(|part| !part.is_empty());
        let verb = |named: bool| match *method {
            Method::GET | Method::HEAD if is_watch(query) => "WATCH",
            Method::GET | Method::HEAD if named => "GET",
            Method::GET | Method::HEAD => "LIST",
            Method::POST => "POST",
            Method::PUT => "PUT",
            Method::PATCH => "PATCH",
            Method::DELETE if named => "DELETE",
            Method::DELETE => "DELETECOLLECTION",
            _ => "other",
        };
        let group = match parts.next() {
            Some("api") => Some(""),
            Some("apis") => parts.next(),
            _ => None,
        };
        let version = parts.next();
        let mut resource = parts.next();
        let mut namespaced = false;
        let mut name = parts.next();
        let mut rest = parts.next();
        // `namespaces/NAME/RESOURCE…`, but not the Namespace itself or its own subresources.
        if resource == Some("namespaces") && !matches!(rest, None | Some("status" | "finalize")) {
            namespaced = true;
            (resource, name, rest) = (rest, parts.next(), parts.next());
        }
        let known = group
            .zip(version)
            .zip(resource)
            .and_then(|((group, version), resource)| {
                self.resources
                    .iter()
                    .find(|known| **known == (group, version, resource))
            });
        let Some(&(group, version, resource)) = known else {
            return Labels {
                verb: verb(true),
                ..Labels::default()
            };
        };
        const SUBRESOURCES: [&str; 9] = [
            "status",
            "scale",
            "binding",
            "eviction",
            "ephemeralcontainers",
            "resize",
            "log",
            "finalize",
            "token",
        ];
        Labels {
            verb: verb(name.is_some()),
            group,
            version,
            resource,
            subresource: SUBRESOURCES
                .into_iter()
                .find(|known| Some(*known) == rest)
                .unwrap_or_default(),
            scope: match (name.is_some(), namespaced) {
                (true, _) => "resource",
                (false, true) => "namespace",
                (false, false) => "cluster",
            },
        }
    }

    fn record(&self, labels: Labels, code: u16, took: Duration) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let series = requests.entry(labels).or_default();
        *series.by_code.entry(code).or_default() += 1;
        let seconds = took.as_secs_f64();
        let first = BUCKETS.partition_point(|bound| *bound < seconds);
        series.buckets[first..].iter_mut().for_each(|bucket| *bucket += 1);
        series.count += 1;
        series.sum += seconds;
    }

    fn print_requests(&self, out: &mut String) {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let labels = |of: &Labels| {
            let Labels {
                verb,
                group,
                version,
                resource,
                subresource,
                scope,
            } = of;
            format!(
                "component=\"apiserver\",dry_run=\"\",group=\"{group}\",resource=\"{resource}\",\
                 scope=\"{scope}\",subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\""
            )
        };
        // Writing to a String cannot fail.
        let _ = out.write_str(
            "# HELP apiserver_request_total Requests by verb, resource, scope and HTTP response code.\n\
             # TYPE apiserver_request_total counter\n",
        );
        for (of, series) in requests.iter() {
            let mut codes: Vec<_> = series.by_code.iter().collect();
            codes.sort();
            for (code, count) in codes {
                let _ = writeln!(
                    out,
                    "apiserver_request_total{{code=\"{code}\",{}}} {count}",
                    labels(of)
                );
            }
        }
        let _ = out.write_str(
            "# HELP apiserver_request_duration_seconds Seconds until the answer began.\n\
             # TYPE apiserver_request_duration_seconds histogram\n",
        );
        for (of, series) in requests.iter() {
            let labels = labels(of);
            let name = "apiserver_request_duration_seconds";
            for (bound, count) in BUCKETS.iter().zip(series.buckets) {
                let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
            }
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", series.count);
            let _ = writeln!(out, "{name}_sum{{{labels}}} {}", series.sum);
            let _ = writeln!(out, "{name}_count{{{labels}}} {}", series.count);
        }
    }
}

fn is_watch(query: Option<&str>) -> bool {
    let mut pairs = query.unwrap_or_default().split('&');
    pairs.any(|pair| matches!(pair, "watch" | "watch=1" | "watch=true"))
}

/// What `/proc` says; nothing where there is none.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    #[async_trait::async_trait]
    impl Store for Nothing {
        fn current(&self) -> store::Revision {
            42
        }
        async fn get(&self, _: &str) -> Result<Option<store::Entry>, store::Error> {
            Ok(None)
        }
        async fn list(
            &self,
            _: &str,
            _: Option<&str>,
            _: usize,
            _: Option<store::Revision>,
        ) -> Result<store::Page, store::Error> {
            unreachable!("metrics do not list")
        }
        async fn create(&self, _: &str, _: bytes::Bytes) -> Result<store::Entry, store::Error> {
            unreachable!("metrics do not write")
        }
        async fn update(
            &self,
            _: &str,
            _: bytes::Bytes,
            _: store::Revision,
        ) -> Result<store::Entry, store::Error> {
            unreachable!("metrics do not write")
        }
        async fn delete(&self, _: &str, _: store::Revision) -> Result<store::Revision, store::Error> {
            unreachable!("metrics do not write")
        }
        fn watch(&self, _: &str, _: store::Revision) -> Result<Box<dyn store::Watch>, store::Error> {
            unreachable!("metrics do not watch")
        }
        async fn compact(&self, _: store::Revision) -> Result<(), store::Error> {
            unreachable!("metrics do not compact")
        }
    }

    fn shared() -> Shared {
        Shared {
            store: Arc::new(Nothing),
            started: Duration::ZERO,
            resources: vec![
                ("", "v1", "pods"),
                ("", "v1", "namespaces"),
                ("apps", "v1", "statefulsets"),
            ],
            requests: Mutex::default(),
        }
    }

    #[test]
    fn a_request_is_told_by_verb_resource_and_scope() {
        let table = [
            ("GET", "/api/v1/pods", "LIST pods//cluster"),
            ("GET", "/api/v1/pods?watch=1", "WATCH pods//cluster"),
            ("GET", "/api/v1/namespaces/a/pods", "LIST pods//namespace"),
            ("GET", "/api/v1/namespaces/a/pods/b", "GET pods//resource"),
            ("GET", "/api/v1/namespaces/a/pods/b/log", "GET pods/log/resource"),
            ("GET", "/api/v1/namespaces", "LIST namespaces//cluster"),
            ("GET", "/api/v1/namespaces/a", "GET namespaces//resource"),
            (
                "PUT",
                "/api/v1/namespaces/a/finalize",
                "PUT namespaces/finalize/resource",
            ),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/a/statefulsets",
                "DELETECOLLECTION statefulsets//namespace",
            ),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/a/statefulsets/b",
                "DELETE statefulsets//resource",
            ),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/a/statefulsets/b/scale",
                "PATCH statefulsets/scale/resource",
            ),
            (
                "POST",
                "/apis/apps/v1/namespaces/a/statefulsets",
                "POST statefulsets//namespace",
            ),
            ("GET", "/apis/nope/v1/things/x", "GET //"),
            ("GET", "/healthz", "GET //"),
            ("BREW", "/", "other //"),
        ];
        for (method, uri, expected) in table {
            let uri: http::Uri = uri.parse().unwrap();
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let labels = shared().labels(&method, uri.path(), uri.query());
            let told = format!(
                "{} {}/{}/{}",
                labels.verb, labels.resource, labels.subresource, labels.scope
            );
            assert_eq!(told, expected, "{method} {uri}");
        }
    }

    #[test]
    fn requests_are_counted_by_code_and_in_every_bucket_above_their_time() {
        let shared = shared();
        let labels = shared.labels(&Method::GET, "/api/v1/namespaces/a/pods", None);
        shared.record(labels.clone(), 200, Duration::from_millis(3));
        shared.record(labels.clone(), 200, Duration::from_millis(30));
        shared.record(labels, 404, Duration::from_secs(100));
        let text = Metrics(Arc::new(shared)).print();
        let of = "component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"pods\",scope=\"namespace\",subresource=\"\",verb=\"LIST\",version=\"v1\"";
        for line in [
            format!("apiserver_request_total{{code=\"200\",{of}}} 2"),
            format!("apiserver_request_total{{code=\"404\",{of}}} 1"),
            format!("apiserver_request_duration_seconds_bucket{{{of},le=\"0.005\"}} 1"),
            format!("apiserver_request_duration_seconds_bucket{{{of},le=\"0.05\"}} 2"),
            format!("apiserver_request_duration_seconds_bucket{{{of},le=\"60\"}} 2"),
            format!("apiserver_request_duration_seconds_bucket{{{of},le=\"+Inf\"}} 3"),
            format!("apiserver_request_duration_seconds_count{{{of}}} 3"),
            "petset_store_revision 42".to_owned(),
        ] {
            assert!(text.lines().any(|printed| printed == line), "{line}\nin\n{text}");
        }
    }
}
