//! `kill -9` at random instants under concurrent writers: what was acknowledged is there, revisions have
//! neither gaps nor repetitions, the log replays to the objects, and watches go on where they were.
//!
//! The test runs itself as the child that is killed. The child prints a line per write *before* asking for
//! it and a line when it is acknowledged; a pipe keeps what was printed when the printer is killed.

#![allow(
    clippy::unwrap_used,
    reason = "a step that fails, here or in the child, is the test's failure"
)]

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rand::Rng;
use store::{Change, Entry, Options, Revision, SledStore, Store, Window};

const CRASHES: usize = 50;
const WRITERS: usize = 16;
const KEYS: usize = 12;
const CHILD: &str = "STORE_CRASH_CHILD";

/// Small, so that forgetting is always under way too.
fn options() -> Options {
    Options {
        window: Window {
            changes: 3000,
            ..Window::default()
        },
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    if let Ok(dir) = std::env::var(CHILD) {
        return child(Path::new(&dir));
    }
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("store");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut seen = Seen::default();
    let (mut acknowledged, mut in_flight) = (0, 0);
    for crash in 0..CRASHES {
        let round = run_and_kill(&dir, crash);
        acknowledged += round.acknowledged.len();
        in_flight += usize::from(round.acknowledged.len() < round.asked);
        runtime.block_on(seen.check(&dir, &round));
    }
    println!(
        "{CRASHES} crashes, {acknowledged} acknowledged writes, {in_flight} crashes with writes under way"
    );
    assert!(
        acknowledged > 50 * CRASHES,
        "only {acknowledged} writes were acknowledged: that tells nothing"
    );
    assert!(
        in_flight > CRASHES / 2,
        "only {in_flight} crashes hit a write: that tells nothing"
    );
}

/// What one child said before it was killed.
struct Round {
    asked: usize,
    /// Key, revision, and the size of the value; `None` for a deletion.
    acknowledged: Vec<(String, Revision, Option<usize>)>,
}

fn run_and_kill(dir: &Path, crash: usize) -> Round {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "nothing_acknowledged_is_lost_by_kill_9", "--nocapture"])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.stdout.take().unwrap();
    let (sender, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            sender.send(line).unwrap();
        }
    });
    let mut round = Round {
        asked: 0,
        acknowledged: Vec::new(),
    };
    let mut take = |line: String| {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["ask"] => round.asked += 1,
            ["ack", key, revision, size] => {
                round
                    .acknowledged
                    .push((key.to_owned(), revision.parse().unwrap(), size.parse().ok()));
            }
            _ => return false,
        }
        true
    };
    // Every fifth crash may hit the opening, the others a store that is written to.
    let opening = crash.is_multiple_of(5);
    while !opening
        && !take(
            lines
                .recv_timeout(Duration::from_secs(30))
                .expect("the child writes"),
        )
    {}
    let most = if opening { 50_000 } else { 300_000 };
    let end = Instant::now() + Duration::from_micros(rand::rng().random_range(0..most));
    while let Ok(line) = lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
        take(line);
    }
    kill(&mut child);
    reader.join().unwrap();
    for line in lines {
        take(line);
    }
    round
}

fn kill(child: &mut Child) {
    assert_eq!(
        child.try_wait().unwrap(),
        None,
        "the child runs until it is killed"
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What the store has shown so far, which it may never take back.
#[derive(Default)]
struct Seen {
    revision: Revision,
    objects: BTreeMap<String, Entry>,
    /// By revision: everything that was ever in the log.
    log: HashMap<Revision, Change>,
}

impl Seen {
    async fn check(&mut self, dir: &Path, round: &Round) {
        let store = SledStore::open(dir, options()).expect("the store opens after a crash");
        let now = store.current();
        assert!(now >= self.revision, "revision {now} after {}", self.revision);

        // A watch resumed where the last one ended: no gap, no duplicate.
        let mut watch = store
            .watch("/", self.revision)
            .or_else(|_| store.watch("/", now))
            .unwrap();
        let oldest = match store.list("/", None, 1, Some(0)).await {
            Err(store::Error::Compacted { oldest, .. }) => oldest,
            _ => 0,
        };
        let resumed = oldest <= self.revision;
        let mut next = self.revision + 1;
        while resumed && next <= now {
            for change in watch.next().await.unwrap() {
                assert_eq!(change.revision, next, "the log has no gap and no duplicate");
                self.replay(&change);
                assert_eq!(self.log.insert(next, change), None);
                next += 1;
            }
        }

        let page = store.list("/", None, 0, None).await.unwrap();
        assert_eq!(page.revision, now);
        let objects: BTreeMap<_, _> = page
            .entries
            .into_iter()
            .map(|entry| (entry.key.clone(), entry))
            .collect();
        for entry in objects.values() {
            let size = entry.value.len();
            assert_eq!(
                entry.value,
                value(&entry.key, size),
                "{} is not what was written",
                entry.key
            );
        }
        if resumed {
            assert_eq!(objects, self.objects, "the log replays to the objects");
        } else {
            self.objects = objects;
        }
        self.revision = now;

        // Everything still in the log is as it was seen before.
        let mut again = store.watch("/", oldest).unwrap();
        let mut at = oldest;
        while at < now {
            for change in again.next().await.unwrap() {
                at += 1;
                assert_eq!(change.revision, at);
                if let Some(seen) = self.log.get(&at) {
                    assert_eq!(&change, seen, "revision {at} was given twice");
                }
            }
        }

        // Every acknowledged write is there, under the revision that was told.
        let mut told = HashMap::new();
        for (key, revision, size) in &round.acknowledged {
            assert_eq!(
                told.insert(*revision, key),
                None,
                "revision {revision} was acknowledged twice"
            );
            assert!(
                *revision <= now,
                "{key} at {revision} was acknowledged, the newest is {now}"
            );
            let Some(change) = self.log.get(revision) else {
                assert!(
                    !resumed,
                    "{key} at {revision} was acknowledged and is not in the log"
                );
                continue;
            };
            assert_eq!(
                (&change.key, change.after.as_ref().map(|entry| entry.value.len())),
                (key, *size)
            );
        }
        store.close().await;
    }

    fn replay(&mut self, change: &Change) {
        let before = match &change.after {
            Some(entry) => self.objects.insert(entry.key.clone(), entry.clone()),
            None => self.objects.remove(&change.key),
        };
        assert_eq!(
            before, change.before,
            "what stood there before revision {}",
            change.revision
        );
    }
}

/// A value that can be checked: it depends on its key and size.
fn value(key: &str, size: usize) -> Bytes {
    key.bytes().cycle().take(size).collect()
}

/// Write until killed.
fn child(dir: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Arc::new(SledStore::open(dir, options()).unwrap());
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| tokio::spawn(write(store.clone(), writer)))
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

async fn write(store: Arc<SledStore>, writer: usize) {
    loop {
        let key = format!("/{writer}/{}", rand::rng().random_range(0..KEYS));
        let size = match rand::rng().random_range(0..1000) {
            0 => 300_000,
            1..30 => 20_000,
            _ => rand::rng().random_range(0..2000),
        };
        let there = store.get(&key).await.unwrap();
        say(format_args!("ask"));
        let (revision, size) = match there {
            None => (
                store.create(&key, value(&key, size)).await.unwrap().modified,
                Some(size),
            ),
            Some(entry) if rand::rng().random_range(0..4) == 0 => {
                (store.delete(&key, entry.modified).await.unwrap(), None)
            }
            Some(entry) => (
                store
                    .update(&key, value(&key, size), entry.modified)
                    .await
                    .unwrap()
                    .modified,
                Some(size),
            ),
        };
        say(format_args!(
            "ack {key} {revision} {}",
            size.map_or("-".to_owned(), |size| size.to_string())
        ));
    }
}

/// One whole line straight into the pipe: what is in a buffer of ours dies with us.
fn say(line: std::fmt::Arguments<'_>) {
    std::io::stdout()
        .write_all(format!("{line}\n").as_bytes())
        .unwrap();
}
