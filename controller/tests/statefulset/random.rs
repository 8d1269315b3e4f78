//! A hundred thousand random steps of sets, users, kubelets and failures, with every plan checked after each of them.
//!
//! Each run is another one. A failure prints the seed of its episode: `PETSET_SEED=<seed> cargo test -p controller
//! --test statefulset random` plays that episode again. `PETSET_STEPS=<number>` makes a run
//! longer.

mod users;

use crate::api::{Api, Refused, is_bad};
use crate::invariants::{check, members, ordinal_of, template_of};
use crate::settings::{BAD_TEMPLATE, RETENTIONS, Settings, Strategy};
use controller::statefulset::action::{Action, Plan};
use controller::statefulset::plan::plan;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::StatefulSetStatus;
use kube::ResourceExt;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many steps a run has at least.
const STEPS: usize = 100_000;

/// How many steps one set lives, before it is left alone and has to come to rest.
const EPISODE: usize = 250;

/// Random numbers that are the same everywhere for the same seed (SplitMix64).
pub struct Random(u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    fn one_in(&mut self, number: usize) -> bool {
        self.below(number) == 0
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }
}

/// A write of a plan that is being carried out.
#[derive(Clone, Debug)]
enum Write {
    /// If it fails nothing more is done.
    Prepare(Action),
    /// If it fails its lane ends, and batches after its own are not begun.
    Step {
        batch: usize,
        lane: usize,
        action: Action,
    },
    Status(StatefulSetStatus),
    Prune(Action),
}

struct Episode {
    api: Api,
    settings: Settings,
    now: Timestamp,
    random: Random,
    /// What the controller would do now, and how many writes there had been and what time it was when that was found
    /// out.
    planned: Option<(u64, Timestamp, Plan)>,
    /// What is left of the plan that is being carried out.
    writes: VecDeque<Write>,
    is_told: bool,
}

/// A set with everything that can be chosen chosen by chance.
fn random_settings(random: &mut Random) -> Settings {
    Settings {
        replicas: random.below(6) as i32,
        start: random.of(&[None, None, Some(0), Some(2), Some(9)]),
        is_ordered: random.one_in(2),
        strategy: random_strategy(random),
        min_ready_seconds: random.of(&[0, 0, 5]),
        retention: random.of(&RETENTIONS),
        claim_templates: random.below(3),
        history_limit: random.of(&[None, Some(10), Some(0), Some(1), Some(-1)]),
        service: random.of(&[None, Some("web")]),
        template: 0,
        unblocks: random.one_in(2),
    }
}

fn random_strategy(random: &mut Random) -> Strategy {
    let budgets = [
        Value::Null,
        Value::Null,
        json!(1),
        json!(2),
        json!(7),
        json!("50%"),
        json!("10%"),
        json!("100%"),
    ];
    match random.below(8) {
        0 => Strategy::OnDelete,
        1 => Strategy::RollingPlain,
        _ => Strategy::Rolling {
            partition: random.of(&[0, 0, 0, 1, 2, 9]),
            max_unavailable: random.of(&budgets),
        },
    }
}

impl Episode {
    fn new(seed: u64, is_told: bool) -> Self {
        let mut random = Random(seed);
        let settings = random_settings(&mut random);
        let api = Api::new(&settings);
        let now = Timestamp::UNIX_EPOCH;
        let episode = Self {
            api,
            settings,
            now,
            random,
            planned: None,
            writes: VecDeque::new(),
            is_told,
        };
        episode.did(|| format!("{:?}", episode.settings));
        episode
    }

    /// Tell what happened, if somebody listens: words take more time than steps.
    fn did(&self, what: impl FnOnce() -> String) {
        if self.is_told {
            eprintln!("{}", what());
        }
    }

    fn plan(&self) -> Plan {
        plan(&self.api.observe(), self.now)
    }

    /// One random step, and the check of what the controller would do after it.
    fn step(&mut self) {
        match self.random.below(20) {
            0..=7 => self.controller_moves(),
            8..=13 => self.kubelet_moves(),
            14..=15 => self.time_passes(),
            16 => {
                self.api.collect_garbage(self.now);
                self.did(|| "garbage is collected".into());
            }
            _ => self.user_moves(),
        }
        let is_known = |known: &(u64, Timestamp, Plan)| (known.0, known.1) == (self.api.writes, self.now);
        if !self.planned.as_ref().is_some_and(is_known) {
            let plan = self.plan();
            check(&self.api, &self.settings, self.now, &plan);
            self.planned = Some((self.api.writes, self.now, plan));
        }
    }

    /// Plan, do the next write, fail at it, or crash.
    fn controller_moves(&mut self) {
        if self.writes.is_empty() {
            let known = self.planned.take();
            let plan = known.map_or_else(|| self.plan(), |(_, _, plan)| plan);
            self.writes = in_some_order(plan, &mut self.random);
            self.did(|| format!("plans {} writes", self.writes.len()));
            return;
        }
        match self.random.below(40) {
            0 => {
                self.writes.clear();
                self.did(|| "the controller crashes".into());
            }
            1 => self.next_write(true),
            2..=9 => self.next_write(false),
            _ => {
                while !self.writes.is_empty() {
                    self.next_write(false);
                }
            }
        }
    }

    fn next_write(&mut self, fails: bool) {
        let Some(write) = self.writes.pop_front() else {
            return;
        };
        let done = match &write {
            _ if fails => Err(Refused::NotNow),
            Write::Prepare(action) | Write::Step { action, .. } | Write::Prune(action) => {
                self.api.act(action, self.now)
            }
            Write::Status(status) => {
                self.api.put_status(status.clone());
                Ok(())
            }
        };
        self.did(|| format!("{}: {done:?}", short(&write)));
        if done.is_err() {
            match write {
                Write::Prepare(_) => self.writes.clear(),
                Write::Step {
                    batch: failed,
                    lane: of,
                    ..
                } => self.writes.retain(|write| match write {
                    Write::Step { batch, lane, .. } => *batch == failed && *lane != of,
                    _ => true,
                }),
                Write::Status(_) => {}
                Write::Prune(_) => self.writes.retain(|write| !matches!(write, Write::Prune(_))),
            }
        }
    }

    fn time_passes(&mut self) {
        let seconds = self.random.below(4) as i64;
        self.now += SignedDuration::from_millis(seconds * 1000 + 1);
        self.did(|| format!("{seconds} seconds pass"));
    }

    fn some_pod(&mut self) -> Option<String> {
        let pods: Vec<_> = self.api.pods.keys().cloned().collect();
        (!pods.is_empty()).then(|| self.random.of(&pods))
    }

    fn some_claim(&mut self) -> Option<String> {
        let claims: Vec<_> = self.api.claims.keys().cloned().collect();
        (!claims.is_empty()).then(|| self.random.of(&claims))
    }

    /// A pod's process starts, gets ready or not, ends; a deleted pod goes.
    fn kubelet_moves(&mut self) {
        let Some(name) = self.some_pod() else { return };
        let pod = &self.api.pods[&name];
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
            .unwrap_or("");
        if pod.metadata.deletion_timestamp.is_some() && self.random.one_in(2) {
            self.api.remove_pod(&name);
            self.did(|| format!("{name} is gone"));
            return;
        }
        let next: &[&'static str] = match phase {
            "Pending" if !self.api.has_claims(pod) => return,
            "Pending" => &["Running", "Ready", "Ready", "Ready", "Ready", "Failed"],
            "Running" => &[
                "Running",
                "Ready",
                "Ready",
                "Ready",
                "Ready",
                "Ready",
                "Failed",
                "Succeeded",
            ],
            _ => return,
        };
        let mut next = self.random.of(next);
        if next == "Ready" && !self.api.can_run(pod) {
            next = "Running";
        }
        self.api.set_phase(&name, next, self.now);
        self.did(|| format!("{name} is {next}"));
    }

    /// Left alone, with a kubelet that works, the set comes to rest as what it should be, and stays so.
    fn comes_to_rest(&mut self) {
        self.writes.clear();
        self.user_tidies_up();
        for _ in 0..200 {
            let before = self.api.writes;
            let plan = self.plan();
            check(&self.api, &self.settings, self.now, &plan);
            let _ = self.api.perform(&plan, self.now);
            self.kubelet_does_its_best();
            self.api.collect_garbage(self.now);
            if self.api.writes == before && plan.wake_at.is_none() {
                self.is_as_it_should_be();
                return;
            }
            self.now += SignedDuration::from_secs(10);
        }
        panic!("it does not come to rest");
    }

    /// The template becomes a good one. What is in the way of upstream's controller, too, is removed by hand: pods of
    /// others that have the set's names, condemned pods that have ended (an ordered set does not remove two of them),
    /// and, unless the set unblocks itself, pods that will never be ready.
    fn user_tidies_up(&mut self) {
        if self.settings.template == BAD_TEMPLATE {
            self.settings.template = 0;
        }
        // Where a bad revision stays current its pods come back, whoever deletes them. A set unblocks itself by rolling
        // out, which does not reach the bad pods below a partition.
        let bad = BAD_TEMPLATE.to_string();
        let mut revisions = self.api.revisions.values();
        let is_bad_kept = revisions.any(|it| template_of(it) == Some(&bad));
        if is_bad_kept || self.settings.unblocks && self.api.pods.values().any(|pod| is_bad(pod)) {
            self.settings.strategy = Strategy::Rolling {
                partition: 0,
                max_unavailable: Value::Null,
            };
        }
        self.api.put_set(&self.settings);
        let members = members(&self.api, &self.settings, self.now);
        let range = self.settings.range();
        let in_the_way = self.api.pods.keys().filter(|name| {
            let member = ordinal_of(name).and_then(|ordinal| members.get(&ordinal));
            member.is_none_or(|it| {
                let is_condemned = !range.contains(&it.ordinal);
                is_condemned && it.is_finished || is_bad(it.pod) && (is_condemned || !self.settings.unblocks)
            })
        });
        let in_the_way: Vec<_> = in_the_way.cloned().collect();
        for name in in_the_way {
            self.api.remove_pod(&name);
            self.did(|| format!("the user tidies up {name}"));
        }
    }

    fn kubelet_does_its_best(&mut self) {
        let pods: Vec<_> = self.api.pods.values().cloned().collect();
        for pod in pods {
            let name = pod.name_any();
            let status = pod.status.clone().unwrap_or_default();
            let can_run = self.api.can_run(&pod);
            let is_ready = status.conditions.iter().flatten().any(|it| it.status == "True");
            if pod.metadata.deletion_timestamp.is_some() {
                self.api.remove_pod(&name);
            } else if !is_ready && can_run && !matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"))
            {
                self.api.set_phase(&name, "Ready", self.now);
            }
        }
    }

    fn is_as_it_should_be(&self) {
        if self.api.is_set_deleted() {
            return;
        }
        let settings = &self.settings;
        let members = members(&self.api, settings, self.now);
        let there: Vec<_> = members.keys().copied().collect();
        assert_eq!(
            there,
            settings.range().collect::<Vec<_>>(),
            "every ordinal has its pod"
        );
        let plan = self.plan();
        let writes = plan
            .prepare
            .iter()
            .chain(&plan.steps)
            .flatten()
            .flatten()
            .chain(&plan.prune);
        let writes: Vec<_> = writes.collect();
        assert!(
            writes.is_empty() && plan.status.is_none(),
            "nothing changed, and yet {plan:#?}"
        );
        let lowest = match &settings.strategy {
            Strategy::OnDelete => i32::MAX,
            Strategy::RollingPlain => 0,
            Strategy::Rolling { partition, .. } => *partition,
        };
        let status = self.api.status();
        for member in members.values() {
            assert!(member.is_well(), "web-{} works", member.ordinal);
            if member.ordinal - settings.range().start >= lowest {
                assert_eq!(Some(member.revision), status.update_revision.as_deref());
            }
            for claim in settings.claims(member.ordinal) {
                assert!(self.api.claims.contains_key(&claim), "{claim} is there");
            }
        }
        // Stored and read again it is the same: nothing is written then either.
        let reread = self.api.reread();
        let again = controller::statefulset::plan::plan(&reread, self.now);
        assert!(
            again.prepare.is_empty()
                && again.steps.is_empty()
                && again.prune.is_empty()
                && again.status.is_none(),
            "what was stored is not what was written: {again:#?}"
        );
    }
}

/// A write in few words.
fn short(write: &Write) -> String {
    let action = match write {
        Write::Status(status) => return format!("status {}", told(status)),
        Write::Prepare(action) | Write::Step { action, .. } | Write::Prune(action) => action,
    };
    match action {
        Action::CreatePod(pod) => format!("create {}", pod.name_any()),
        Action::DeletePod { name, .. } => format!("delete {name}"),
        Action::UpdatePod { name, .. } => format!("update {name}"),
        Action::CreateClaim { claim, .. } => format!("create {}", claim.name_any()),
        Action::OwnClaim { name, owners, .. } => {
            let owners: Vec<_> = owners.iter().map(|owner| &owner.uid).collect();
            format!("{name} is owned by {owners:?}")
        }
        Action::CreateRevision(revision) => format!("create revision {}", revision.name_any()),
        Action::RenumberRevision { name, revision, .. } => format!("renumber {name} {revision}"),
        Action::OwnPod { pod, adopts, .. } => format!("own {} {adopts}", pod.name_any()),
        other => format!("{other:?}"),
    }
}

/// A status without what follows from it.
fn told(status: &StatefulSetStatus) -> String {
    let status = StatefulSetStatus {
        conditions: None,
        ..status.clone()
    };
    format!("{status:?}")
}

/// A plan as single writes: lanes in batches of one, two, four, …, those of a batch mixed up.
fn in_some_order(plan: Plan, random: &mut Random) -> VecDeque<Write> {
    let mut writes: VecDeque<_> = plan
        .prepare
        .into_iter()
        .flatten()
        .flatten()
        .map(Write::Prepare)
        .collect();
    let mut batch = 0;
    for step in plan.steps {
        let mut lanes = step.into_iter();
        let mut size = 1;
        loop {
            let mut lanes: Vec<_> = lanes.by_ref().take(size).map(VecDeque::from).collect();
            if lanes.is_empty() {
                break;
            }
            while lanes.iter().any(|lane| !lane.is_empty()) {
                let lane = random.below(lanes.len());
                writes.extend(
                    lanes[lane]
                        .pop_front()
                        .map(|action| Write::Step { batch, lane, action }),
                );
            }
            size *= 2;
            batch += 1;
        }
    }
    writes.extend(plan.status.map(Write::Status));
    writes.extend(plan.prune.into_iter().map(Write::Prune));
    writes
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")),
    )
}

/// Play an episode; if it fails, once more and aloud.
fn play(seed: u64) -> usize {
    let whole = |is_told| {
        let mut episode = Episode::new(seed, is_told);
        (0..EPISODE).for_each(|_| episode.step());
        episode.comes_to_rest();
    };
    if std::panic::catch_unwind(|| whole(false)).is_err() {
        eprintln!(
            "PETSET_SEED={seed} cargo test -p controller --test statefulset random plays it again. Its steps:"
        );
        whole(true);
        panic!("the episode of PETSET_SEED={seed} failed at first and then did not");
    }
    EPISODE
}

#[test]
fn random_sets_keep_every_invariant_and_come_to_rest() {
    if let Some(seed) = number("PETSET_SEED") {
        play(seed);
        return;
    }
    let wanted = number("PETSET_STEPS").map_or(STEPS, |steps| steps as usize);
    let mut seeds = Random(std::process::id().into());
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
    seeds.0 ^= since.as_nanos() as u64;
    let first = seeds.0;
    let begun = std::time::Instant::now();
    let steps = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let steps = &steps;
        for thread in 0..threads {
            scope.spawn(move || {
                let mut seeds = Random(first.wrapping_add(thread as u64));
                while steps.load(Ordering::Relaxed) < wanted {
                    let seed = seeds.below(usize::MAX) as u64;
                    steps.fetch_add(play(seed), Ordering::Relaxed);
                }
            });
        }
    });
    let steps = steps.into_inner();
    println!("{steps} random steps in {:?}", begun.elapsed());
    assert!(steps >= wanted);
}
