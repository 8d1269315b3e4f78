//! Any sequence of operations against a plain map and a plain list of changes: writes alone and at once,
//! lists of every kind, watchers that run all along, compaction, and closing and reopening.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use proptest::prelude::*;
use store::{Change, Entry, Error, MemoryStore, Options, Revision, SledStore, Store};
use tempfile::TempDir;
use tokio::task::JoinHandle;

const KEYS: [&str; 6] = ["/a/1", "/a/2", "/a/20", "/ab", "/b/1", "/b/1\0"];
const PREFIXES: [&str; 6] = ["", "/", "/a/", "/a/2", "/b/", "/none"];

/// A write whose expectation is right (`off` 0), or so many revisions too high, or that nothing is there.
#[derive(Clone, Debug)]
struct Write {
    key: &'static str,
    /// The size of the value; `None` deletes.
    size: Option<usize>,
    off: Option<Revision>,
}

#[derive(Clone, Debug)]
enum Step {
    /// All at once.
    Write(Vec<Write>),
    /// As of so many revisions ago, `None`: now.
    List {
        prefix: &'static str,
        after: Option<&'static str>,
        limit: usize,
        ago: Option<Revision>,
    },
    /// From so many revisions ago.
    Watch {
        prefix: &'static str,
        ago: Revision,
    },
    Compact {
        ago: Revision,
    },
    Reopen,
}

fn write() -> impl Strategy<Value = Write> {
    let size = prop_oneof![1 => Just(None), 6 => (0..40usize).prop_map(Some), 1 => Just(Some(40_000))];
    let off = prop_oneof![6 => Just(Some(0)), 1 => Just(Some(1)), 2 => Just(None)];
    (prop::sample::select(&KEYS[..]), size, off).prop_map(|(key, size, off)| Write { key, size, off })
}

fn step() -> impl Strategy<Value = Step> {
    let prefix = || prop::sample::select(&PREFIXES[..]);
    let after = prop::option::of(prop::sample::select(&KEYS[..]));
    prop_oneof![
        10 => prop::collection::vec(write(), 1..8).prop_map(Step::Write),
        6 => (prefix(), after, 0..4usize, prop::option::of(0..12u64))
            .prop_map(|(prefix, after, limit, ago)| Step::List { prefix, after, limit, ago }),
        3 => (prefix(), 0..12u64).prop_map(|(prefix, ago)| Step::Watch { prefix, ago }),
        1 => (0..12u64).prop_map(|ago| Step::Compact { ago }),
        1 => Just(Step::Reopen),
    ]
}

/// What the store ought to be: every state it has had, and what led from one to the next.
struct Model {
    /// By revision, from 0.
    states: Vec<BTreeMap<String, Entry>>,
    /// That of revision n at n - 1.
    log: Vec<Change>,
    compacted: Revision,
}

impl Model {
    fn current(&self) -> Revision {
        self.log.len() as Revision
    }

    fn now(&self) -> &BTreeMap<String, Entry> {
        self.states.last().expect("revision 0 is there")
    }

    fn changes(&self, prefix: &str, since: Revision) -> Vec<Change> {
        let after = self.log.iter().filter(|change| change.revision > since);
        after
            .filter(|change| change.key.starts_with(prefix))
            .cloned()
            .collect()
    }

    fn apply(&mut self, key: &str, value: Option<Bytes>) {
        let (revision, mut state) = (self.current() + 1, self.now().clone());
        let before = state.remove(key);
        let after = value.map(|value| {
            let created = before.as_ref().map_or(revision, |entry| entry.created);
            Entry {
                key: key.to_owned(),
                value,
                created,
                modified: revision,
            }
        });
        state.extend(after.clone().map(|entry| (key.to_owned(), entry)));
        self.states.push(state);
        self.log.push(Change {
            revision,
            key: key.to_owned(),
            before,
            after,
        });
    }
}

/// A watcher that collects until its watch ends.
struct Watcher {
    prefix: &'static str,
    since: Revision,
    seen: JoinHandle<(Vec<Change>, Error)>,
}

impl Watcher {
    fn start(store: &Arc<dyn Store>, prefix: &'static str, since: Revision) -> Result<Watcher, Error> {
        let mut watch = store.watch(prefix, since)?;
        let seen = tokio::spawn(async move {
            let mut seen: Vec<Change> = Vec::new();
            loop {
                match watch.next().await {
                    Ok(changes) => {
                        assert!(!changes.is_empty());
                        seen.extend(changes);
                        let last = seen.last().map_or(since, |change| change.revision);
                        assert!(watch.progress() >= last);
                    }
                    Err(end) => return (seen, end),
                }
            }
        });
        Ok(Watcher { prefix, since, seen })
    }

    /// Everything, if the store was closed; the beginning of everything, if compaction overtook it.
    async fn check(self, model: &Model) {
        let (seen, end) = self.seen.await.expect("the watcher ends");
        let expected = model.changes(self.prefix, self.since);
        match end {
            Error::Broken(_) => assert_eq!(seen, expected),
            Error::Compacted { requested, oldest } => {
                assert!(requested < oldest && oldest <= model.compacted);
                assert_eq!(seen, expected[..seen.len()]);
            }
            other => panic!("{other}"),
        }
    }
}

/// The store under test, with a directory if it can be reopened.
struct Subject {
    store: Arc<dyn Store>,
    disk: Option<(Arc<SledStore>, TempDir)>,
}

impl Subject {
    fn new(on_disk: bool) -> Subject {
        if !on_disk {
            return Subject {
                store: Arc::new(MemoryStore::new()),
                disk: None,
            };
        }
        let dir = TempDir::new().expect("a temporary directory");
        let store = Arc::new(SledStore::open(dir.path(), Options::default()).expect("an empty store opens"));
        Subject {
            store: store.clone(),
            disk: Some((store, dir)),
        }
    }

    async fn close(self) -> Option<TempDir> {
        let Subject { store, disk } = self;
        drop(store);
        let (store, dir) = disk?;
        store.close().await;
        Some(dir)
    }
}

async fn run(on_disk: bool, steps: Vec<Step>) {
    let mut subject = Subject::new(on_disk);
    let mut model = Model {
        states: vec![BTreeMap::new()],
        log: Vec::new(),
        compacted: 0,
    };
    let mut watchers = Vec::new();
    for step in steps {
        match step {
            Step::Write(writes) => write_at_once(&subject.store, &mut model, writes).await,
            Step::List {
                prefix,
                after,
                limit,
                ago,
            } => {
                list(&subject.store, &model, prefix, after, limit, ago).await;
            }
            Step::Watch { prefix, ago } => {
                let since = model.current().saturating_sub(ago);
                match Watcher::start(&subject.store, prefix, since) {
                    Ok(watcher) => watchers.push(watcher),
                    Err(Error::Compacted { .. }) => assert!(since < model.compacted),
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Compact { ago } => {
                let revision = model.current().saturating_sub(ago);
                subject
                    .store
                    .compact(revision)
                    .await
                    .expect("what was written can be compacted");
                model.compacted = model.compacted.max(revision);
            }
            Step::Reopen if on_disk => {
                let dir = subject.close().await.expect("it has a directory");
                let mut resumed = Vec::new();
                for watcher in watchers.drain(..) {
                    resumed.push((watcher.prefix, model.current()));
                    watcher.check(&model).await;
                }
                let store =
                    Arc::new(SledStore::open(dir.path(), Options::default()).expect("it opens again"));
                subject = Subject {
                    store: store.clone(),
                    disk: Some((store, dir)),
                };
                for (prefix, since) in resumed {
                    watchers.push(Watcher::start(&subject.store, prefix, since).expect("the newest is kept"));
                }
            }
            Step::Reopen => {}
        }
        assert_eq!(subject.store.current(), model.current());
    }
    subject.close().await;
    for watcher in watchers {
        watcher.check(&model).await;
    }
}

/// Do writes at once, put those that were done in the order of their revisions, and see that each outcome
/// is right at some moment of that order.
async fn write_at_once(store: &Arc<dyn Store>, model: &mut Model, writes: Vec<Write>) {
    let first = model.states.len() - 1;
    let mut calls = Vec::new();
    for (index, Write { key, size, off }) in writes.into_iter().enumerate() {
        let value = size.map(|size| Bytes::from(vec![index as u8; size]));
        let there = model.now().get(key).map_or(1, |entry| entry.modified);
        // A deletion always expects a revision.
        let expected = off.or(value.is_none().then_some(0)).map(|off| there + off);
        let (store, given) = (store.clone(), value.clone());
        let call = tokio::spawn(async move {
            match (given, expected) {
                (Some(value), None) => store
                    .create(key, value)
                    .await
                    .map(|entry| (entry.modified, Some(entry))),
                (Some(value), Some(expected)) => store
                    .update(key, value, expected)
                    .await
                    .map(|entry| (entry.modified, Some(entry))),
                (None, expected) => {
                    let expected = expected.expect("a deletion expects a revision");
                    store.delete(key, expected).await.map(|revision| (revision, None))
                }
            }
        });
        calls.push((key, value, expected, call));
    }
    let (mut done, mut refused) = (BTreeMap::new(), Vec::new());
    for (key, value, expected, call) in calls {
        match call.await.expect("no panic") {
            Ok((revision, entry)) => {
                assert!(
                    done.insert(revision, (key, value, expected, entry)).is_none(),
                    "{revision} twice"
                );
            }
            Err(error) => refused.push((key, expected, error)),
        }
    }
    for (revision, (key, value, expected, entry)) in done {
        assert_eq!(revision, model.current() + 1, "revisions have no gap");
        assert_eq!(
            model.now().get(key).map(|entry| entry.modified),
            expected,
            "{key} at {revision}"
        );
        model.apply(key, value);
        assert_eq!(model.now().get(key), entry.as_ref());
    }
    for (key, expected, error) in refused {
        let explains = |state: &BTreeMap<String, Entry>| match (&error, state.get(key), expected) {
            (Error::Exists(taken), Some(_), None) => taken == key,
            (Error::Conflict { key: taken, current }, there, Some(expected)) => {
                taken == key
                    && current.as_ref() == there
                    && there.map(|entry| entry.modified) != Some(expected)
            }
            _ => false,
        };
        assert!(
            model.states[first..].iter().any(explains),
            "{key} expected at {expected:?}: {error}"
        );
    }
}

async fn list(
    store: &Arc<dyn Store>,
    model: &Model,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
    ago: Option<Revision>,
) {
    let at = ago.map(|ago| model.current().saturating_sub(ago));
    let page = match store.list(prefix, after, limit, at).await {
        Err(Error::Compacted { requested, oldest }) => {
            assert_eq!((Some(requested), oldest), (at, model.compacted));
            assert!(requested < oldest);
            return;
        }
        page => page.expect("a list within the window"),
    };
    let revision = at.unwrap_or(model.current());
    assert!(revision >= model.compacted);
    let mut expected: Vec<_> = model.states[revision as usize]
        .values()
        .filter(|entry| entry.key.starts_with(prefix) && after.is_none_or(|after| entry.key.as_str() > after))
        .cloned()
        .collect();
    let rest = if limit == 0 {
        0
    } else {
        expected.len().saturating_sub(limit)
    };
    expected.truncate(expected.len() - rest);
    assert_eq!(
        (page.entries, page.revision, page.remaining),
        (expected, revision, rest)
    );
}

fn check(on_disk: bool, steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(run(on_disk, steps));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_store_in_memory_does_what_the_model_does(steps in prop::collection::vec(step(), 1..60)) {
        check(false, steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_store_on_disk_does_what_the_model_does(steps in prop::collection::vec(step(), 1..60)) {
        check(true, steps);
    }
}
