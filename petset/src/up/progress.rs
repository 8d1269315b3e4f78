//! Showing pods come up: a bar for each StatefulSet on a terminal, plain lines otherwise.

use futures::StreamExt;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{IsTerminal, Write};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Where lines and bars go: standard output.
pub struct Screen {
    bars: Option<MultiProgress>,
}

impl Screen {
    /// Bars only where somebody can see them move.
    pub fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self {
            bars: terminal.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stdout())),
        }
    }

    /// One line, above the bars.
    pub fn say(&self, line: &str) {
        // Whoever closed standard output does not want to know.
        match &self.bars {
            Some(bars) => drop(bars.println(line)),
            None => drop(writeln!(std::io::stdout(), "{line}")),
        }
    }
}

/// Follow StatefulSets, pods and warnings for as long as the cluster runs.
pub async fn follow(client: kube::Client, screen: &Screen) -> anyhow::Result<()> {
    let config = watcher::Config::default;
    let mut sets = watcher(Api::<StatefulSet>::all(client.clone()), config())
        .default_backoff()
        .boxed();
    let mut pods = watcher(Api::<Pod>::all(client.clone()), config())
        .default_backoff()
        .boxed();
    let warnings = config().fields("type=Warning");
    let mut events = watcher(Api::<Event>::all(client), warnings)
        .default_backoff()
        .boxed();
    let mut shown = Shown {
        screen,
        pods: HashMap::new(),
        sets: HashMap::new(),
        warned: HashSet::new(),
        held: BTreeMap::new(),
    };
    loop {
        let next = shown.held.values().map(|(until, _)| *until).min();
        tokio::select! {
            Some(set) = sets.next() => match set {
                Ok(watcher::Event::Apply(set) | watcher::Event::InitApply(set)) => shown.set(&set),
                Ok(watcher::Event::Delete(set)) => shown.set_gone(&set),
                _ => {}
            },
            Some(pod) = pods.next() => match pod {
                Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => shown.pod(&pod),
                Ok(watcher::Event::Delete(pod)) => shown.pod_gone(&pod),
                _ => {}
            },
            Some(event) = events.next() => match event {
                Ok(watcher::Event::Apply(event)) => shown.warning(&event),
                // What happened before this start is not news.
                Ok(watcher::Event::InitApply(event)) => drop(shown.warned.insert(text(&event))),
                _ => {}
            },
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => shown.held_for_long(),
            else => anyhow::bail!("the watches ended"),
        }
    }
}

/// For how long a pod may be without a node before that is said.
const HELD: Duration = Duration::from_secs(1);

struct Shown<'a> {
    screen: &'a Screen,
    pods: HashMap<String, String>,
    sets: HashMap<String, (String, Option<ProgressBar>)>,
    warned: HashSet<String>,
    /// Pods that were not scheduled at first, until when that is kept quiet, and what would be said: mostly their
    /// claims are being bound, which takes a moment.
    held: BTreeMap<String, (Instant, String)>,
}

fn name_of(metadata: &kube::api::ObjectMeta) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", part(&metadata.namespace), part(&metadata.name))
}

fn text(event: &Event) -> String {
    let about = &event.involved_object;
    format!(
        "warning: {} {}: {}: {}",
        about.kind.as_deref().unwrap_or_default().to_lowercase(),
        about.name.as_deref().unwrap_or_default(),
        event.reason.as_deref().unwrap_or_default(),
        event.message.as_deref().unwrap_or_default()
    )
}

impl Shown<'_> {
    fn pod(&mut self, pod: &Pod) {
        let (name, state) = (name_of(&pod.metadata), pod_state(pod));
        if self.pods.insert(name.clone(), state.clone()).as_ref() != Some(&state) {
            self.screen.say(&format!("pod {name}: {state}"));
        }
    }

    fn pod_gone(&mut self, pod: &Pod) {
        let name = name_of(&pod.metadata);
        self.pods.remove(&name);
        self.screen.say(&format!("pod {name}: gone"));
    }

    fn set(&mut self, set: &StatefulSet) {
        let name = name_of(&set.metadata);
        let status = set.status.clone().unwrap_or_default();
        let wanted = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
        let (ready, available) = (
            status.ready_replicas.unwrap_or(0),
            status.available_replicas.unwrap_or(0),
        );
        let state = format!("{ready}/{wanted} ready, {available} available");
        let (shown, bar) = self.sets.entry(name.clone()).or_insert_with(|| {
            let bar = self.screen.bars.as_ref().map(|bars| new_bar(bars, &name));
            (String::new(), bar)
        });
        if *shown == state {
            return;
        }
        shown.clone_from(&state);
        match bar {
            Some(bar) => {
                bar.set_length(u64::try_from(wanted).unwrap_or(0));
                bar.set_position(u64::try_from(available).unwrap_or(0));
                bar.set_message(state);
                if available >= wanted {
                    bar.disable_steady_tick()
                } else {
                    bar.enable_steady_tick(TICK)
                }
            }
            None => self.screen.say(&format!("statefulset {name}: {state}")),
        }
    }

    fn set_gone(&mut self, set: &StatefulSet) {
        let name = name_of(&set.metadata);
        if let Some((_, Some(bar))) = self.sets.remove(&name) {
            bar.finish_and_clear();
        }
        self.screen.say(&format!("statefulset {name}: gone"));
    }

    fn warning(&mut self, event: &Event) {
        let about = &event.involved_object;
        if event.reason.as_deref() == Some("FailedScheduling") {
            let part = |part: &Option<String>| part.clone().unwrap_or_default();
            let pod = format!("{}/{}", part(&about.namespace), part(&about.name));
            self.held
                .entry(pod)
                .or_insert_with(|| (Instant::now() + HELD, text(event)));
        } else {
            self.warn(text(event));
        }
    }

    /// Pods that have no node for so long are worth a warning.
    fn held_for_long(&mut self) {
        let now = Instant::now();
        let due: Vec<_> = self.held.extract_if(.., |_, (until, _)| *until <= now).collect();
        for (pod, (_, text)) in due {
            if self.pods.get(&pod).is_some_and(|state| state == "Pending") {
                self.warn(text);
            }
        }
    }

    fn warn(&mut self, text: String) {
        if !self.warned.contains(&text) {
            self.screen.say(&text);
            self.warned.insert(text);
        }
    }
}

const TICK: Duration = Duration::from_millis(120);

/// Added before anything else is done with it, or it would draw itself somewhere of its own.
fn new_bar(bars: &MultiProgress, name: &str) -> ProgressBar {
    let bar = bars.add(ProgressBar::no_length());
    let template = "{spinner} statefulset {prefix} [{bar:24}] {msg}";
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(name.to_owned());
    bar
}

/// `Pending (ContainerCreating)`, `Running, ready at 127.244.0.2`, `Terminating` …
fn pod_state(pod: &Pod) -> String {
    if pod.metadata.deletion_timestamp.is_some() {
        return "Terminating".into();
    }
    let Some(status) = &pod.status else {
        return "Pending".into();
    };
    let phase = status.phase.as_deref().unwrap_or("Pending");
    let waiting = status
        .container_statuses
        .iter()
        .flatten()
        .find_map(|c| c.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let ready = status
        .conditions
        .iter()
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True");
    match (waiting, ready) {
        (Some(reason), _) => format!("{phase} ({reason})"),
        (None, true) => format!(
            "{phase}, ready at {}",
            status.pod_ip.as_deref().unwrap_or("no address")
        ),
        (None, false) => phase.into(),
    }
}
