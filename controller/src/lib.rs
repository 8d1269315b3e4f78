//! Kubernetes' controllers: each turns what the API says should be into what is, as a client of the API
//! and nothing else.
//!
//! A controller observes (asks the API afresh, a watch only says *that* something moved), plans (a pure
//! function, time included) and acts. A lost race means: look again.

pub mod clusterrole;
pub mod endpoints;
pub mod endpointslice;
pub mod garbage;
pub mod kinds;
pub mod namespace;
pub mod node;
pub mod quantity;
pub mod runtime;
pub mod scheduler;
pub mod selection;
pub mod selector;
pub mod serviceaccount;
pub mod statefulset;
pub mod token_secret;
pub mod volume;

use events::Clock;
use futures::FutureExt;
use futures::future::BoxFuture;
use runtime::Context;
use selection::Selection;
use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// What can be set about the controllers.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which of them run.
    pub controllers: Selection,
    /// How many objects one controller may sync at the same time (an object is never synced twice at
    /// once). Kubernetes' default for StatefulSets is 5.
    pub concurrent_syncs: usize,
    /// Where the directories of provisioned volumes are. Nothing outside is ever removed.
    pub volumes_dir: PathBuf,
    /// The certificate (PEM) that pods are to trust the API by: the `ca.crt` of every namespace's
    /// `kube-root-ca.crt`. `None`: there is none to hand out.
    pub root_ca: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            controllers: Selection::default(),
            concurrent_syncs: 5,
            volumes_dir: PathBuf::from("volumes"),
            root_ca: None,
        }
    }
}

/// Why the controllers stopped though nobody asked them to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A controller is to run until shutdown, and this one returned.
    #[error("the {0} controller ended before it was told to")]
    Ended(&'static str),
    /// A controller has a defect.
    #[error("the {controller} controller panicked: {message}")]
    Panicked {
        /// Which one.
        controller: &'static str,
        /// What it said.
        message: String,
    },
    /// The runtime that runs the controllers ended them.
    #[error("a controller's task was lost: {0}")]
    Lost(#[from] JoinError),
}

/// Run every controller until `shutdown`; the first one that ends before brings the others down and is
/// named in the error.
pub async fn run(
    client: kube::Client,
    clock: Clock,
    options: Options,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let context = Context {
        client,
        clock,
        options,
    };
    supervise(controllers(&context), shutdown).await
}

/// A controller's name and its endless work.
type Controller = (&'static str, BoxFuture<'static, ()>);

fn controllers(context: &Context) -> Vec<Controller> {
    // Whoever watches every kind tells whoever waits for the last object of a namespace.
    let (vanished, vanishing) = tokio::sync::mpsc::unbounded_channel();
    let all: Vec<Controller> = vec![
        ("clusterrole", clusterrole::run(context.clone()).boxed()),
        ("endpointslice", endpointslice::run(context.clone()).boxed()),
        ("garbage", garbage::run(context.clone(), vanished).boxed()),
        ("namespace", namespace::run(context.clone(), vanishing).boxed()),
        ("node", node::run(context.clone()).boxed()),
        ("scheduler", scheduler::run(context.clone()).boxed()),
        ("serviceaccount", serviceaccount::run(context.clone()).boxed()),
        ("statefulset", statefulset::run(context.clone()).boxed()),
        ("tokensecret", token_secret::run(context.clone()).boxed()),
        ("volume", volume::run(context.clone()).boxed()),
    ];
    let chosen = &context.options.controllers;
    all.into_iter()
        .filter(|(name, _)| chosen.contains(name))
        .collect()
}

async fn supervise(controllers: Vec<Controller>, shutdown: CancellationToken) -> Result<(), Error> {
    let stop = shutdown.child_token();
    let mut tasks = JoinSet::new();
    for (name, work) in controllers {
        let stop = stop.clone();
        tasks.spawn(async move {
            // Dropped at an await when told to stop: a sync is made to be cut off anywhere.
            let ended = stop
                .run_until_cancelled(AssertUnwindSafe(work).catch_unwind())
                .await;
            match ended {
                None => Ok(()),
                Some(Ok(())) => Err(Error::Ended(name)),
                Some(Err(panic)) => Err(Error::Panicked {
                    controller: name,
                    message: panic_message(panic.as_ref()),
                }),
            }
        });
    }
    let mut first = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let result = ended.unwrap_or_else(|lost| Err(Error::Lost(lost)));
        if result.is_err() && first.is_ok() {
            first = result;
            stop.cancel();
        }
    }
    // With nothing to run there is still somebody who expects this to last until told otherwise.
    if first.is_ok() {
        shutdown.cancelled().await;
    }
    first
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    fn with(name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> Controller {
        (name, work.boxed())
    }

    #[tokio::test]
    async fn every_controller_can_be_chosen_by_its_name() {
        let nobody =
            |_| async { Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("no API")) };
        let context = Context {
            client: kube::Client::new(tower::service_fn(nobody), "default"),
            clock: std::sync::Arc::new(jiff::Timestamp::now),
            options: Options::default(),
        };
        let names: Vec<_> = controllers(&context).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, selection::NAMES);
    }

    #[tokio::test]
    async fn shutdown_ends_every_controller_without_an_error() {
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        let ended = supervise(vec![with("a", pending()), with("b", pending())], shutdown).await;
        assert!(ended.is_ok(), "{ended:?}");
    }

    #[tokio::test]
    async fn a_controller_that_ends_early_brings_the_rest_down_and_is_named() {
        let controllers = vec![with("garbage", pending()), with("namespace", ready(()))];
        let ended = supervise(controllers, CancellationToken::new()).await;
        assert!(matches!(ended, Err(Error::Ended("namespace"))), "{ended:?}");
    }

    #[tokio::test]
    async fn a_panic_brings_the_rest_down_and_is_told() {
        let controllers = vec![
            with("garbage", pending()),
            with("node", async { panic!("no such {}", "lease") }),
        ];
        let error = supervise(controllers, CancellationToken::new())
            .await
            .expect_err("panicked");
        assert_eq!(error.to_string(), "the node controller panicked: no such lease");
    }
}
