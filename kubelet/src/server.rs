//! The kubelet's own API, to which the API server passes on `kubectl logs` (`GET /containerLogs/NAMESPACE/POD/CONTAINER`
//! with the parameters of PodLogOptions), and what streams (see [`crate::stream`]).

use crate::Kubelet;
use crate::log::{Options, Reader};
use crate::stream;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{Response, StatusCode, header};
use axum::routing::{any, get};
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
        .route("/exec/{namespace}/{pod}/{container}", any(stream::exec))
        .route("/attach/{namespace}/{pod}/{container}", any(stream::attach))
        .route("/portForward/{namespace}/{pod}", any(stream::port_forward))
        .route("/stats/summary", get(crate::usage::answer))
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
            .chain(s.ephemeral_container_statuses.iter().flatten())
    });
    let status = statuses
        .into_iter()
        .find(|s: &&ContainerStatus| s.name == container);
    let Some(status) = status else {
        return Err(format!(
            "container {container:?} in pod {name:?} is not available"
        ));
    };
    let last = status.last_state.as_ref().and_then(|s| s.terminated.as_ref());
    if previous {
        if last.is_none() {
            return Err(format!(
                "previous terminated container {container:?} in pod {name:?} not found"
            ));
        }
        // A container that waits has not begun its next instance yet: its newest one is also the last one.
        let waiting = status.state.as_ref().is_some_and(|s| s.waiting.is_some());
        return Ok(status.restart_count - i32::from(!waiting));
    }
    let waiting = status.state.as_ref().and_then(|s| s.waiting.as_ref());
    match waiting {
        Some(waiting) if last.is_none() => {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn asked(state: Value, last: Value, restarts: i32, previous: bool) -> Result<i32, String> {
        let status = json!({"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": restarts,
            "state": state, "lastState": last});
        let pod = json!({"metadata": {"name": "p"}, "status": {"containerStatuses": [status]}});
        instance(&serde_json::from_value(pod).expect("a pod"), "c", previous)
    }

    #[test]
    fn the_log_is_that_of_the_newest_instance_and_the_previous_one_of_the_one_before() {
        let running = json!({"running": {}});
        let ended = json!({"terminated": {"exitCode": 1}});
        let backing_off = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let table = [
            (&running, json!({}), 0, Ok(0), None),
            (&running, ended.clone(), 3, Ok(3), Some(2)),
            (&ended, json!({}), 0, Ok(0), None),
            (&ended, ended.clone(), 2, Ok(2), Some(1)),
            (&backing_off, ended.clone(), 2, Ok(2), Some(2)),
        ];
        for (state, last, restarts, now, before) in table {
            assert_eq!(
                asked(state.clone(), last.clone(), restarts, false),
                now,
                "{state} {last}"
            );
            let none = "previous terminated container \"c\" in pod \"p\" not found";
            let before = before.ok_or_else(|| none.to_owned());
            assert_eq!(
                asked(state.clone(), last.clone(), restarts, true),
                before,
                "{state} {last}"
            );
        }
    }

    #[test]
    fn a_container_that_never_ran_says_why_there_is_no_log() {
        let table = [
            ("ErrImagePull", "trying and failing to pull image"),
            ("ImagePullBackOff", "image can't be pulled"),
            ("ContainerCreating", "ContainerCreating"),
            ("CreateContainerConfigError", "CreateContainerConfigError"),
        ];
        for (reason, why) in table {
            let refusal = asked(json!({"waiting": {"reason": reason}}), json!({}), 0, false);
            let expected = format!("container \"c\" in pod \"p\" is waiting to start: {why}");
            assert_eq!(refusal, Err(expected));
        }
        let unknown = instance(&Pod::default(), "c", false);
        assert_eq!(
            unknown,
            Err("container \"c\" in pod \"\" is not available".into())
        );
    }
}
