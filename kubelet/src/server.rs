//! The kubelet's own API, to which the API server passes on `kubectl logs`: `GET /containerLogs/NAMESPACE/POD/CONTAINER`
//! with the parameters of PodLogOptions.

use crate::Kubelet;
use crate::log::{Options, Reader};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{Response, StatusCode, header};
use axum::routing::get;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::Api;
use serde::Deserialize;
use std::sync::Arc;

/// The routes.
pub fn router(kubelet: Arc<Kubelet>) -> Router {
    Router::new()
        .route(
            "/containerLogs/{namespace}/{pod}/{container}",
            get(container_logs),
        )
        .route("/healthz", get(|| async { "ok" }))
        .with_state(kubelet)
}

/// PodLogOptions, as query parameters.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Parameters {
    follow: Option<String>,
    previous: Option<String>,
    timestamps: Option<String>,
    tail_lines: Option<i64>,
    limit_bytes: Option<i64>,
    since_seconds: Option<i64>,
    since_time: Option<Timestamp>,
}

fn is_set(flag: Option<&String>) -> bool {
    flag.is_some_and(|text| !matches!(text.as_str(), "false" | "0"))
}

impl Parameters {
    fn options(&self, now: Timestamp) -> Options {
        let count = |value: Option<i64>| value.and_then(|v| usize::try_from(v).ok());
        let ago = self
            .since_seconds
            .and_then(|s| now.checked_sub(SignedDuration::from_secs(s)).ok());
        Options {
            follow: is_set(self.follow.as_ref()),
            tail_lines: count(self.tail_lines),
            since: self.since_time.or(ago),
            timestamps: is_set(self.timestamps.as_ref()),
            limit_bytes: count(self.limit_bytes),
        }
    }
}

type Refusal = (StatusCode, String);

async fn container_logs(
    State(kubelet): State<Arc<Kubelet>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    Query(parameters): Query<Parameters>,
) -> Result<Response<Body>, Refusal> {
    let reader = open(&kubelet, &namespace, &pod, &container, &parameters).await?;
    let stream = futures::stream::try_unfold(reader, |mut reader| async {
        let more = reader.next().await?;
        Ok::<_, std::io::Error>(more.map(|bytes| (Bytes::from(bytes), reader)))
    });
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain"),
    );
    Ok(response)
}

async fn open(
    kubelet: &Kubelet,
    namespace: &str,
    name: &str,
    container: &str,
    parameters: &Parameters,
) -> Result<Reader, Refusal> {
    let api: Api<Pod> = Api::namespaced(kubelet.client.clone(), namespace);
    let pod = api
        .get_opt(name)
        .await
        .map_err(|e| (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    let pod = pod.ok_or_else(|| (StatusCode::NOT_FOUND, format!("pods {name:?} not found")))?;
    let previous = is_set(parameters.previous.as_ref());
    let bad = |message: String| (StatusCode::BAD_REQUEST, message);
    let instance = instance(&pod, container, previous).map_err(bad)?;
    let directory = kubelet.pod_directory(&pod).join("containers").join(container);
    let missing = |e: std::io::Error| bad(format!("unable to retrieve container logs for {container}: {e}"));
    kubelet
        .logs
        .read(&directory, instance, parameters.options(kubelet.now()))
        .map_err(missing)
}

/// Which instance's log is asked for.
fn instance(pod: &Pod, container: &str, previous: bool) -> Result<i32, String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let statuses = pod.status.iter().flat_map(|s| {
        s.container_statuses
            .iter()
            .flatten()
            .chain(s.init_container_statuses.iter().flatten())
    });
    let status = statuses
        .into_iter()
        .find(|s: &&ContainerStatus| s.name == container);
    let Some(status) = status else {
        return Err(format!(
            "container {container:?} in pod {name:?} is not available"
        ));
    };
    if previous {
        if status
            .last_state
            .as_ref()
            .and_then(|s| s.terminated.as_ref())
            .is_none()
        {
            return Err(format!(
                "previous terminated container {container:?} in pod {name:?} not found"
            ));
        }
        let waiting = status.state.as_ref().is_some_and(|s| s.waiting.is_some());
        // A container in back-off has not begun its next instance yet.
        return Ok(if waiting {
            status.restart_count
        } else {
            (status.restart_count - 1).max(0)
        });
    }
    let waiting = status.state.as_ref().and_then(|s| s.waiting.as_ref());
    match waiting {
        Some(waiting) if status.container_id.is_none() => {
            let reason = waiting.reason.as_deref().unwrap_or_default();
            let why = match reason {
                "ErrImagePull" => "trying and failing to pull image".to_owned(),
                "ImagePullBackOff" => "image can't be pulled".to_owned(),
                reason => reason.to_owned(),
            };
            Err(format!(
                "container {container:?} in pod {name:?} is waiting to start: {why}"
            ))
        }
        _ => Ok(status.restart_count),
    }
}
