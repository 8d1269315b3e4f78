//! Pods as processes, seen from the kubelet: each is held by a [shim](crate::shim), which is spoken to over a socket and
//! outlives the kubelet. A container counts as gone only when the shim has seen its last process end.

mod container;

pub use container::{Attachment, Container, Program, Root, State};

use crate::holder::client::{Holder, Holders};
use crate::leftover;
use crate::shim::protocol::pod::{self, Ending, Report, Request, SOCKET};
use crate::shim::protocol::{Exit, Isolation, Sandbox, Spec};
use crate::wire::{self, Receiver, Wire};
use jiff::Timestamp;
use std::collections::HashMap;
use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{oneshot, watch};

/// Finds pods' shims, and starts new ones.
#[derive(Debug)]
pub struct Launcher {
    holders: Arc<Holders>,
    /// By directory. A slot is locked while its shim is looked for or started, so that there is never a second one.
    pods: Mutex<HashMap<PathBuf, Slot>>,
}

type Slot = Arc<tokio::sync::Mutex<Option<Pod>>>;

/// What a shim holds: the containers of a pod, or without PID namespaces a single one.
#[derive(Clone, Debug)]
pub struct Pod(Arc<Shim>);

#[derive(Debug)]
struct Shim {
    pid: i32,
    sandbox: Sandbox,
    wire: Arc<Wire>,
    next: AtomicU64,
    inner: Mutex<Inner>,
    gone: watch::Receiver<bool>,
}

/// What is known of containers, and who waits for what.
#[derive(Debug, Default)]
struct Inner {
    containers: HashMap<String, Known>,
    starts: HashMap<String, oneshot::Sender<Result<Container, String>>>,
    execs: HashMap<u64, oneshot::Sender<Result<Exit, String>>>,
    /// For those with a terminal of the container's own.
    terminals: HashMap<u64, oneshot::Sender<OwnedFd>>,
    attaches: HashMap<u64, oneshot::Sender<Result<Option<OwnedFd>, String>>>,
    /// The shim is gone: nothing more will be known.
    lost: bool,
}

#[derive(Debug)]
struct Known {
    container: pod::Container,
    state: watch::Sender<State>,
}

/// What is said of a main process whose shim ended without a word: as after SIGKILL.
fn lost() -> Ending {
    Ending {
        exit: Exit {
            code: 137,
            signal: Some(9),
        },
        at: Timestamp::now(),
        oom_killed: false,
    }
}

impl Launcher {
    /// A launcher whose shims these holders fork.
    pub fn new(holders: Arc<Holders>) -> Self {
        Self {
            holders,
            pods: Mutex::default(),
        }
    }

    /// How pods are isolated.
    pub fn isolation(&self) -> Isolation {
        self.holders.isolation()
    }

    /// The holder of this data directory, started if none answers.
    pub async fn holder(&self) -> Result<Holder, String> {
        self.holders.current().await
    }

    fn slot(&self, directory: &Path) -> Slot {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.entry(directory.to_owned()).or_default().clone()
    }

    /// The shim of a sandbox; a new one if there is none, and nothing is left of one before it. The error says what could
    /// not be done, in words for the user.
    pub async fn pod(&self, sandbox: &Sandbox) -> Result<Pod, String> {
        let slot = self.slot(&sandbox.directory);
        let mut slot = slot.lock().await;
        if let Some(pod) = find(&mut slot, &sandbox.directory).await {
            return Ok(pod);
        }
        self.holder().await?.fork(sandbox).await?;
        let pod = Pod::connect(&sandbox.directory).await?;
        *slot = Some(pod.clone());
        Ok(pod)
    }

    /// The shims that answer in this directory or below it, at a pod's place or a container's.
    pub async fn find(&self, directory: &Path) -> Vec<Pod> {
        let containers = std::fs::read_dir(directory.join("containers"));
        let containers = containers.into_iter().flatten().flatten();
        let mut found = Vec::new();
        for place in [directory.to_owned()]
            .into_iter()
            .chain(containers.map(|entry| entry.path()))
        {
            let slot = self.slot(&place);
            let mut slot = slot.lock().await;
            found.extend(find(&mut slot, &place).await);
        }
        found
    }

    /// Kill all that shims hold in this directory and below, and wait until it is gone.
    pub async fn end(&self, directory: &Path) {
        for pod in self.find(directory).await {
            pod.end().await;
        }
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.retain(|place, _| !place.starts_with(directory));
    }

    /// Let the holder go, once there are no pods any more.
    pub async fn leave(&self) {
        if let Err(why) = self.holders.leave().await {
            tracing::warn!(why, "the holder stays");
        }
    }
}

/// The shim that answers in a directory. If there is none, nothing is left of one before.
async fn find(slot: &mut Option<Pod>, directory: &Path) -> Option<Pod> {
    if let Some(pod) = slot.as_ref() {
        if !*pod.0.gone.borrow() {
            return Some(pod.clone());
        }
        *slot = None;
    }
    if !directory.join(SOCKET).exists() {
        leftover::settle(directory).await;
        return None;
    }
    match Pod::connect(directory).await {
        Ok(pod) => *slot = Some(pod),
        Err(why) => {
            tracing::debug!(directory = %directory.display(), why, "a shim does not answer");
            leftover::settle(directory).await;
        }
    }
    slot.clone()
}

impl Pod {
    async fn connect(directory: &Path) -> Result<Self, String> {
        let failed = |e: std::io::Error| format!("the shim does not answer: {e}");
        let (wire, mut receiver) = wire::connect(directory, SOCKET).await.map_err(failed)?;
        let line = receiver.next().await;
        let hello = match line.map(|line| serde_json::from_slice(&line)) {
            Some(Ok(Report::Hello(hello))) => *hello,
            Some(Err(error)) => return Err(format!("cannot understand the shim: {error}")),
            _ => return Err("the shim ended before the pod was made".into()),
        };
        if let Some(failure) = hello.failure {
            return Err(failure);
        }
        let (tell, gone) = watch::channel(false);
        let known = |container: pod::Container| {
            let state = watch::channel(State::of(&container)).0;
            (container.name.clone(), Known { container, state })
        };
        let inner = Inner {
            containers: hello.containers.into_iter().map(known).collect(),
            ..Inner::default()
        };
        let pod = Self(Arc::new(Shim {
            pid: hello.pid,
            sandbox: hello.sandbox,
            wire,
            next: AtomicU64::new(0),
            inner: Mutex::new(inner),
            gone,
        }));
        tokio::spawn(pod.clone().listen(receiver, tell));
        Ok(pod)
    }

    /// Process id of the shim.
    pub fn shim(&self) -> i32 {
        self.0.pid
    }

    /// What it was made of.
    pub fn sandbox(&self) -> &Sandbox {
        &self.0.sandbox
    }

    /// The newest instance of each container that has been started.
    pub fn containers(&self) -> Vec<Container> {
        let inner = self.inner();
        let handle = |known: &Known| self.handle(known);
        inner.containers.values().map(handle).collect()
    }

    /// Start an instance of a container. The error says what could not be done, in words for the user.
    pub async fn start(&self, container: &str, instance: i32, spec: Spec) -> Result<Container, String> {
        let (tell, told) = oneshot::channel();
        self.inner().starts.insert(container.to_owned(), tell);
        let request = Request::Start {
            container: container.to_owned(),
            instance,
            spec: Box::new(spec),
        };
        self.request(&request, &[]).await;
        self.forget_if_lost();
        told.await
            .unwrap_or_else(|_| Err("the shim ended before the container started".into()))
    }

    /// Kill everything that it holds, and wait until it is gone.
    pub async fn end(&self) {
        self.request(&Request::End, &[]).await;
        self.gone().await;
    }

    /// Wait until nothing of it is left.
    pub async fn gone(&self) {
        let mut gone = self.0.gone.clone();
        // An error says that the listener has ended, which it does only after the shim.
        let _ = gone.wait_for(|gone| *gone).await;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, known: &Known) -> Container {
        Container::new(self.clone(), known.container.clone(), known.state.subscribe())
    }

    fn next(&self) -> u64 {
        self.0.next.fetch_add(1, Ordering::Relaxed)
    }

    async fn request(&self, request: &Request, descriptors: &[RawFd]) {
        if let Err(error) = self.0.wire.send(request, descriptors).await {
            tracing::debug!(shim = self.0.pid, %error, "the shim is gone");
        }
    }

    /// Nobody answers who is gone; who waits for an answer is told so.
    fn forget_if_lost(&self) {
        let mut inner = self.inner();
        if inner.lost {
            inner.starts.clear();
            inner.execs.clear();
            inner.terminals.clear();
            inner.attaches.clear();
        }
    }

    /// Take note of what the shim reports, until it is gone, and all that it held with it.
    async fn listen(self, mut receiver: Receiver, tell: watch::Sender<bool>) {
        while let Some(line) = receiver.next().await {
            match serde_json::from_slice(&line) {
                Ok(report) => self.note(report, &mut receiver),
                Err(error) => tracing::warn!(%error, "cannot understand the shim"),
            }
        }
        leftover::settle(&self.0.sandbox.directory).await;
        self.inner().lost = true;
        self.forget_if_lost();
        // First of all: who hears that a container is gone may start the next at once, and not with this shim.
        tell.send_replace(true);
        let lost = lost();
        for known in self.inner().containers.values() {
            known.state.send_modify(|state| {
                state.ending.get_or_insert(lost);
                state.gone = true;
            });
        }
    }

    fn note(&self, report: Report, receiver: &mut Receiver) {
        let mut inner = self.inner();
        match report {
            Report::Started(container) => {
                let state = watch::channel(State::of(&container)).0;
                let name = container.name.clone();
                let known = Known { container, state };
                let handle = self.handle(&known);
                inner.containers.insert(name.clone(), known);
                if let Some(waiting) = inner.starts.remove(&name) {
                    let _ = waiting.send(Ok(handle));
                }
            }
            Report::Failed {
                container, message, ..
            } => {
                if let Some(waiting) = inner.starts.remove(&container) {
                    let _ = waiting.send(Err(message));
                }
            }
            Report::Exited { container, ending } => {
                if let Some(known) = inner.containers.get_mut(&container) {
                    known.container.ending = Some(ending);
                    known.state.send_modify(|state| state.ending = Some(ending));
                }
            }
            Report::Gone { container } => {
                if let Some(known) = inner.containers.get_mut(&container) {
                    known.container.gone = true;
                    known.state.send_modify(|state| state.gone = true);
                }
            }
            Report::ExecStarted { id } => {
                if let (Some(waiting), Some(terminal)) = (inner.terminals.remove(&id), receiver.take()) {
                    let _ = waiting.send(terminal);
                }
            }
            Report::ExecExited { id, exit } => answer(&mut inner.execs, id, Ok(exit)),
            Report::ExecFailed { id, message } => {
                inner.terminals.remove(&id);
                answer(&mut inner.execs, id, Err(message));
            }
            Report::Attached { id, input } => {
                let input = if input { receiver.take() } else { None };
                answer(&mut inner.attaches, id, Ok(input));
            }
            Report::NotAttached { id, message } => answer(&mut inner.attaches, id, Err(message)),
            Report::Hello(_) => {}
        }
    }
}

fn answer<T>(
    waiting: &mut HashMap<u64, oneshot::Sender<Result<T, String>>>,
    id: u64,
    result: Result<T, String>,
) {
    if let Some(waiting) = waiting.remove(&id) {
        let _ = waiting.send(result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixListener;
    use std::sync::atomic::AtomicBool;
    use std::task::{Context, Wake, Waker};

    /// What looks whether a pod is gone in the moment in which it is woken.
    struct Looks {
        pod: Pod,
        saw_it_gone: AtomicBool,
    }

    impl Wake for Looks {
        fn wake(self: Arc<Self>) {
            self.saw_it_gone
                .store(*self.pod.0.gone.borrow(), Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn when_a_killed_shims_container_is_gone_its_pod_is() {
        let directory = tempfile::tempdir().expect("tempdir");
        let listener = UnixListener::bind(directory.path().join(SOCKET)).expect("a socket");
        let shim = std::thread::spawn(move || {
            let container = pod::Container {
                name: "c".into(),
                instance: 0,
                pid: 2,
                started: Timestamp::now(),
                ending: None,
                gone: false,
                tty: false,
                user: None,
                warnings: Vec::new(),
            };
            let hello = pod::Pod {
                pid: 1,
                sandbox: Sandbox::default(),
                failure: None,
                warnings: Vec::new(),
                containers: vec![container],
            };
            let (mut kubelet, _) = listener.accept().expect("it connects");
            let line = crate::shim::wire::line(&Report::Hello(Box::new(hello))).expect("JSON");
            kubelet.write_all(&line).expect("it listens");
        });
        let pod = Pod::connect(directory.path()).await.expect("it answers");
        let container = &pod.containers()[0];
        let looks = Arc::new(Looks {
            pod: pod.clone(),
            saw_it_gone: AtomicBool::new(false),
        });
        let mut gone = Box::pin(container.gone());
        let waker = Waker::from(looks.clone());
        assert!(gone.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        shim.join().expect("it ends");
        container.gone().await;
        assert!(looks.saw_it_gone.load(Ordering::Relaxed));
    }
}
