//! One pod's worker: observe, plan, act, until the pod is gone.
//!
//! Everything that happens comes in as a `Notice` or as a new [`Wanted`]; after each the worker plans afresh and writes
//! the status if it has changed. What takes time runs beside it and reports back.

mod adopt;
mod ends;
mod evict;
mod leave;
mod message;
mod notes;
mod recollect;
mod tell;

use crate::Kubelet;
use crate::ephemeral;
use crate::eviction::{self, usage::Usage};
use crate::handler::Target;
use crate::own_name;
use crate::plan::{self, Action, plan};
use crate::probe::{Kind, Outcome};
use crate::process::Container as Process;
use crate::record::{PodRecord, State};
use crate::sandbox;
use crate::shim::protocol::Isolation;
use crate::shim::protocol::pod::Ending;
use crate::start::{Failure, Running, Start};
use crate::status::go_duration;
use crate::stop::Stop;
use crate::volume::{NotReady, Ready, Volumes};
use ends::Ends;
use events::EventType;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use kube::api::Api;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The pod as the API last showed it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The object.
    pub pod: Arc<Pod>,
    /// Whether the object is gone: then so must be its processes, at once.
    pub removed: bool,
}

/// Delays between tries of what does not depend on the pod: its volumes, the API server.
const FIRST_RETRY: Duration = Duration::from_millis(20);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// The longest pause before another look for a ConfigMap or Secret that a container needs.
const CONFIG_RETRY: SignedDuration = SignedDuration::from_secs(2);

/// For how long a pod that is being started keeps quiet: mostly it runs before, and one write tells it all.
const QUIET: SignedDuration = SignedDuration::from_millis(50);

/// How long a pod that was deleted with a grace period stays at least. A client that waits for it to go first looks
/// (kubectl: GET, LIST, WATCH); were it gone and replaced by another of its name in between, the client would wait for
/// ever.
const FAREWELL: SignedDuration = SignedDuration::from_millis(200);

/// How often files that follow other objects are brought up to date, and the disk is looked at.
const REFRESH: Duration = Duration::from_secs(10);

/// What happened beside the worker.
enum Notice {
    /// The pod's address must be known before it runs.
    Hurry,
    Volumes(Result<BTreeMap<String, Ready>, NotReady>),
    Started {
        container: String,
        result: Result<Box<Running>, Failure>,
    },
    Ended {
        container: String,
        ending: Ending,
    },
    Probed {
        container: String,
        kind: Kind,
        outcome: Outcome,
    },
    /// What the pod uses of the disk, and how long it took to find out.
    Used {
        usage: Usage,
        took: Duration,
    },
    /// The API has been told this status, or could not be.
    Told(Box<PodStatus>, Result<Option<u64>, kube::Error>),
}

struct Live {
    process: Process,
    probes: Vec<AbortHandle>,
}

struct Worker {
    kubelet: Arc<Kubelet>,
    wanted: watch::Receiver<Wanted>,
    record: PodRecord,
    volumes: BTreeMap<String, Ready>,
    live: BTreeMap<String, Live>,
    notices: mpsc::UnboundedSender<Notice>,
    tasks: JoinSet<()>,
    /// Whether volumes are being made.
    preparing: bool,
    retry: Duration,
    /// Why a volume could not be made, as far as it has been told.
    mount_failure: Option<NotReady>,
    /// What the API has been told.
    told: Option<PodStatus>,
    /// The resource version that came of it: a watch that is behind it knows less than we do.
    told_version: Option<u64>,
    /// Whether it is being told something.
    telling: bool,
    /// When to try again after it could not be.
    tell_at: Option<Timestamp>,
    /// When a pod that is being started has been quiet for long enough; and, while it is, when to look again.
    quiet_until: Option<Timestamp>,
    speak_at: Option<Timestamp>,
    /// When it was first seen to be deleted.
    deleted_at: Option<Timestamp>,
    /// Whether it has been told that the pod was active for too long.
    is_overdue: bool,
    /// When the disk may be looked at again; `None`: it is being looked at.
    look_at: Option<Instant>,
    finished: bool,
    /// The pod's containers are to be stopped: hooks that would make them wait are given up.
    ending: CancellationToken,
    shutdown: CancellationToken,
}

/// Run one pod until it is gone, or until `shutdown`, with its processes stopped unless they are to be kept.
pub async fn run(kubelet: Arc<Kubelet>, wanted: watch::Receiver<Wanted>, shutdown: CancellationToken) {
    let (notices, mut received) = mpsc::unbounded_channel();
    let pod = wanted.borrow().pod.clone();
    let found = kubelet.launcher.find(&kubelet.pod_directory(&pod)).await;
    let held: Vec<Process> = found.iter().flat_map(|pod| pod.containers()).collect();
    let mut record = recollect::recollect(&pod, kubelet.now(), !held.is_empty());
    let containers = kubelet.pod_directory(&pod).join("containers");
    for (name, record) in &mut record.containers {
        if let Some(ends) = Ends::read(&containers.join(name)) {
            ends.recall(record, kubelet.options.back_off);
        }
    }
    if recollect::is_made_anew(&pod, &record, !held.is_empty()) {
        let message = "Pod sandbox changed, it will be killed and re-created.".to_owned();
        let events = &kubelet.events;
        events.tell(&pod, None, EventType::Normal, "SandboxChanged", message);
    }
    let mut worker = Worker {
        record,
        told: pod.status.clone(),
        told_version: version(&pod),
        quiet_until: None,
        speak_at: None,
        telling: false,
        tell_at: None,
        kubelet,
        wanted,
        volumes: BTreeMap::new(),
        live: BTreeMap::new(),
        notices,
        tasks: JoinSet::new(),
        preparing: false,
        retry: FIRST_RETRY,
        mount_failure: None,
        deleted_at: None,
        is_overdue: false,
        look_at: Some(Instant::now()),
        finished: false,
        ending: CancellationToken::new(),
        shutdown: shutdown.clone(),
    };
    worker.adopt(held).await;
    let mut refresh = tokio::time::interval(REFRESH);
    refresh.tick().await;
    loop {
        let wake_at = if shutdown.is_cancelled() {
            None
        } else {
            worker.step().await
        };
        if worker.finished || shutdown.is_cancelled() {
            break;
        }
        let sleep = wake_at
            .map(|at| at.duration_since(worker.kubelet.now()))
            .map(|d| d.unsigned_abs());
        tokio::select! {
            Some(notice) = received.recv() => worker.note(notice),
            changed = worker.wanted.changed() => if changed.is_err() { break },
            () = tokio::time::sleep(sleep.unwrap_or_default()), if sleep.is_some() => {}
            _ = refresh.tick() => {
                worker.refresh();
                worker.look_at_disk();
            }
            () = shutdown.cancelled() => {}
        }
        while let Ok(notice) = received.try_recv() {
            worker.note(notice);
        }
        while worker.tasks.try_join_next().is_some() {}
    }
    if !worker.finished && !worker.kubelet.options.keep_pods {
        worker.stop_for_shutdown(&mut received).await;
        worker.end_sandboxes().await;
    }
}

/// The version of an object; versions can be compared.
fn version(pod: &Pod) -> Option<u64> {
    pod.metadata.resource_version.as_ref()?.parse().ok()
}

impl Worker {
    fn pod(&self) -> Arc<Pod> {
        self.wanted.borrow().pod.clone()
    }

    fn container(&self, pod: &Pod, name: &str) -> Option<Container> {
        let spec = pod.spec.as_ref()?;
        let found = spec
            .containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
            .find(|c| c.name == name)
            .cloned();
        let ephemeral = || ephemeral::containers(spec).into_iter().find(|c| c.name == name);
        found.or_else(ephemeral)
    }

    /// Plan and act once; when to look again.
    async fn step(&mut self) -> Option<Timestamp> {
        if self.wanted.borrow_and_update().removed {
            self.remove_by_force().await;
            return None;
        }
        let pod = self.pod();
        let plan = plan(&pod, &self.record, self.kubelet.now());
        if plan.is_overdue && !std::mem::replace(&mut self.is_overdue, true) {
            let message = "Pod was active on the node longer than specified deadline".to_owned();
            let events = &self.kubelet.events;
            events.tell(&pod, None, EventType::Normal, "DeadlineExceeded", message);
        }
        if plan.is_ending {
            self.ending.cancel();
        }
        let mut finish = false;
        for action in plan.actions {
            match action {
                Action::Prepare => self.prepare(&pod),
                Action::Start { container } => self.start(&pod, &container),
                Action::Stop { container, message } => {
                    let grace = self.record.evicted.as_ref().map(|_| eviction::GRACE);
                    self.stop(&pod, &container, message, grace);
                }
                Action::Finish => finish = true,
            }
        }
        let told = self.tell_status(&pod);
        let farewell = self.farewell(&pod);
        if finish && told && farewell.is_none() {
            self.finish(&pod).await;
        }
        [plan.wake_at, self.tell_at, self.speak_at, farewell]
            .into_iter()
            .flatten()
            .min()
    }

    /// Until when a deleted pod's object has to stay, if that is still to come. With no grace it goes at once.
    fn farewell(&mut self, pod: &Pod) -> Option<Timestamp> {
        pod.metadata.deletion_timestamp.as_ref()?;
        let now = self.kubelet.now();
        let until = self.deleted_at.get_or_insert(now).checked_add(FAREWELL).ok()?;
        let is_graceful = pod.metadata.deletion_grace_period_seconds != Some(0);
        (is_graceful && until > now).then_some(until)
    }

    /// A little later, and later each time.
    fn soon(&mut self) -> Option<Timestamp> {
        let pause = SignedDuration::try_from(self.retry).ok()?;
        self.retry = (self.retry * 2).min(LAST_RETRY);
        self.kubelet.now().checked_add(pause).ok()
    }

    fn prepare(&mut self, pod: &Arc<Pod>) {
        if self.record.address.is_none() {
            self.record.address = self.kubelet.assign_address(pod);
            if let Some(address) = self.record.address {
                // Known before anybody else is, whatever becomes of us.
                let _ = sandbox::note_address(&self.kubelet.pod_directory(pod), address);
            } else {
                let message = format!(
                    "no address is free in {}: see --pod-cidr",
                    self.kubelet.options.pod_range
                );
                self.kubelet
                    .events
                    .tell(pod, None, EventType::Warning, "FailedCreatePodSandBox", message);
            }
        }
        if !self.preparing {
            self.preparing = true;
            let pause = if self.record.address.is_some() {
                Duration::ZERO
            } else {
                LAST_RETRY
            };
            self.make_volumes(pod, pause);
        }
    }

    fn make_volumes(&mut self, pod: &Arc<Pod>, after: Duration) {
        let (kubelet, pod, address) = (self.kubelet.clone(), pod.clone(), self.record.address);
        let tell = self.notices.clone();
        let is_first = !self.record.prepared;
        let named = address.filter(|_| is_first);
        self.make_sandbox(&pod);
        self.tasks.spawn(async move {
            tokio::time::sleep(after).await;
            kubelet.api_known().await;
            let directory = kubelet.pod_directory(&pod);
            let sources = kubelet.sources(address);
            let volumes = Volumes {
                client: &kubelet.client,
                pod: &pod,
                directory: &directory,
                sources: &sources,
                tokens: &kubelet.tokens,
                now: kubelet.now(),
                is_first,
            };
            let named = async {
                if let Some(address) = named {
                    let hurry = || drop(tell.send(Notice::Hurry));
                    own_name::until_answered(&kubelet, &pod, address, hurry).await;
                }
            };
            let (volumes, ()) = tokio::join!(volumes.make(), named);
            let _ = tell.send(Notice::Volumes(volumes));
        });
    }

    /// Where a pod's containers share one, it is made while its volumes are. Whether it could be, the first container sees.
    fn make_sandbox(&mut self, pod: &Arc<Pod>) {
        let (kubelet, pod, address) = (self.kubelet.clone(), pod.clone(), self.record.address);
        if self.record.prepared || address.is_none() {
            return;
        }
        let isolation = kubelet.launcher.isolation();
        if isolation == Isolation::Namespaces {
            self.tasks.spawn(async move {
                let sandbox = kubelet.sandbox(&pod, "", address, isolation);
                let _ = kubelet.launcher.pod(&sandbox).await;
            });
        }
    }

    /// Nothing of the pod goes on.
    async fn end_sandboxes(&self) {
        let directory = self.kubelet.pod_directory(&self.pod());
        self.kubelet.launcher.end(&directory).await;
    }

    /// Bring files that follow other objects up to date.
    fn refresh(&mut self) {
        let pod = self.pod();
        if self.record.prepared && Volumes::follow_objects(&pod) && !plan::is_terminal(&pod) {
            self.make_volumes(&pod, Duration::ZERO);
        }
    }

    fn start(&mut self, pod: &Arc<Pod>, name: &str) {
        let Some(container) = self.container(pod, name) else {
            return;
        };
        let spec = pod.spec.as_ref();
        self.record.initialized |= spec.is_some_and(|s| s.containers.iter().any(|c| c.name == name));
        let record = self.record.containers.entry(name.to_owned()).or_default();
        if matches!(record.state, State::Ended(_)) && record.delay > SignedDuration::ZERO {
            tracing::debug!(container = name, delay = %go_duration(record.delay), "restarting after back-off");
        }
        record.starting_with(container.image.as_ref());
        let start = Start {
            kubelet: self.kubelet.clone(),
            pod: pod.clone(),
            container,
            volumes: self.volumes.clone(),
            address: self.record.address,
            instance: record.next_instance(),
            ending: self.ending.clone(),
        };
        let (tell, container) = (self.notices.clone(), name.to_owned());
        self.tasks.spawn(async move {
            let result = start.run().await.map(Box::new);
            let _ = tell.send(Notice::Started { container, result });
        });
    }

    fn stop(&mut self, pod: &Pod, name: &str, message: String, grace: Option<i64>) {
        let Some(container) = self.container(pod, name) else {
            return;
        };
        let Some(live) = self.live.get(name) else { return };
        if let Some(State::Running { stopping, .. }) =
            self.record.containers.get_mut(name).map(|r| &mut r.state)
        {
            if *stopping {
                return;
            }
            *stopping = true;
        }
        self.kubelet
            .events
            .tell(pod, Some(name), EventType::Normal, "Killing", message);
        let stop = Stop {
            kubelet: self.kubelet.clone(),
            container,
            target: Target {
                process: live.process.clone(),
                address: self.record.address,
                network: self.kubelet.options.network.clone(),
            },
            wanted: self.wanted.clone(),
            grace,
        };
        self.tasks.spawn(stop.run());
    }

    /// The pods of the pod's namespace, and its name.
    fn api(&self, pod: &Pod) -> (Api<Pod>, String) {
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        let client = self.kubelet.client.clone();
        let pods = Api::namespaced(client, &part(&pod.metadata.namespace));
        (pods, part(&pod.metadata.name))
    }
}
