//! A queue of keys and the loop that syncs them: no key is synced twice at once, a key that fails is
//! synced again after a while that doubles from 5 ms (upstream's rate limiter), a key that asked to be looked
//! at later is.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt::Display;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

const FIRST_RETRY: Duration = Duration::from_millis(5);
const LAST_RETRY: Duration = Duration::from_secs(1000);

/// Failures before they are worth a warning: a lost race is usually won the next time.
const QUIET_FAILURES: u32 = 3;

/// Keys that wait to be synced. A key added several times before its turn is synced once; one added during
/// its own sync is synced again afterwards.
pub struct Queue<K> {
    state: Mutex<State<K>>,
    moved: Notify,
}

struct State<K> {
    /// Whose turn it is, in the order they came.
    ready: VecDeque<K>,
    /// What is in `ready`, or will be once its sync is over.
    dirty: HashSet<K>,
    /// What is being synced.
    running: HashSet<K>,
    /// When to look again, at most once per key.
    timers: HashMap<K, Instant>,
    alarms: BTreeSet<(Instant, K)>,
    /// How often in a row a key has failed.
    failures: HashMap<K, u32>,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                dirty: HashSet::new(),
                running: HashSet::new(),
                timers: HashMap::new(),
                alarms: BTreeSet::new(),
                failures: HashMap::new(),
            }),
            moved: Notify::new(),
        }
    }
}

impl<K: Clone + Ord + Hash> Queue<K> {
    /// Have `key` synced as soon as there is room.
    pub fn add(&self, key: K) {
        self.lock().add(key);
        self.moved.notify_one();
    }

    /// Have `key` synced after `delay`, or earlier when it is due earlier anyway.
    pub fn add_after(&self, key: K, delay: Duration) {
        self.lock().set_timer(key, Instant::now() + delay);
        self.moved.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        // No code that can panic runs under the lock, so what it guards is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Ord + Hash> State<K> {
    fn add(&mut self, key: K) {
        if self.dirty.insert(key.clone()) && !self.running.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn take(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.running.insert(key.clone());
        // What a timer was to look at is looked at now, and the sync says when to look next.
        self.clear_timer(&key);
        Some(key)
    }

    /// The sync of `key` is over; `Ok` says after how long to look again though nothing moves.
    fn done<E>(&mut self, key: K, outcome: &Result<Option<Duration>, E>, now: Instant) -> u32 {
        self.running.remove(&key);
        if self.dirty.contains(&key) {
            self.ready.push_back(key.clone());
        }
        match outcome {
            Ok(again) => {
                self.failures.remove(&key);
                if let Some(delay) = again {
                    self.set_timer(key, now + *delay);
                }
                0
            }
            Err(_) => {
                let failures = self.failures.entry(key.clone()).or_insert(0);
                *failures = failures.saturating_add(1);
                let count = *failures;
                self.set_timer(key, now + retry_after(count));
                count
            }
        }
    }

    fn set_timer(&mut self, key: K, at: Instant) {
        if self.timers.get(&key).is_some_and(|earlier| *earlier <= at) {
            return;
        }
        self.clear_timer(&key);
        self.timers.insert(key.clone(), at);
        self.alarms.insert((at, key));
    }

    fn clear_timer(&mut self, key: &K) {
        if let Some(at) = self.timers.remove(key) {
            self.alarms.remove(&(at, key.clone()));
        }
    }

    /// Move what is due to its place in the queue and say when the next thing is.
    fn ring(&mut self, now: Instant) -> Option<Instant> {
        while let Some((at, key)) = self.alarms.first().cloned() {
            if at > now {
                return Some(at);
            }
            self.clear_timer(&key);
            self.add(key);
        }
        None
    }
}

/// 5 ms after the first failure, doubling, 1000 s at most.
fn retry_after(failures: u32) -> Duration {
    let doubled = 2u32.checked_pow(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    FIRST_RETRY.saturating_mul(doubled).min(LAST_RETRY)
}

/// Sync keys from `queue` as they come, at most `concurrent` at once, for ever. `sync` says after how long
/// to look again though nothing moves (`None`: not at all); an error means to try again after a while.
pub async fn work<K, S, F, E>(queue: &Queue<K>, concurrent: usize, sync: S)
where
    K: Clone + Ord + Hash + Display,
    S: Fn(K) -> F,
    F: Future<Output = Result<Option<Duration>, E>>,
    E: Display,
{
    let mut running = FuturesUnordered::new();
    loop {
        let next_alarm = {
            let mut state = queue.lock();
            let next = state.ring(Instant::now());
            while running.len() < concurrent.max(1)
                && let Some(key) = state.take()
            {
                let outcome = sync(key.clone());
                running.push(async move { (key, outcome.await) });
            }
            next
        };
        tokio::select! {
            Some((key, outcome)) = running.next(), if !running.is_empty() => {
                let failures = queue.lock().done(key.clone(), &outcome, Instant::now());
                match outcome {
                    Err(error) if failures > QUIET_FAILURES => tracing::warn!(%key, failures, %error, "sync failed"),
                    Err(error) => tracing::debug!(%key, failures, %error, "sync failed"),
                    Ok(_) => {}
                }
            }
            () = queue.moved.notified() => {}
            () = alarm(next_alarm) => {}
        }
    }
}

async fn alarm(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::mpsc;

    /// Runs `sync` on a paused clock and tells the keys it is called with and when (ms).
    async fn first_syncs(
        queue: Queue<&'static str>,
        count: usize,
        outcome: impl Fn(usize) -> Result<Option<Duration>, &'static str>,
    ) -> Vec<(&'static str, u128)> {
        let start = Instant::now();
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let calls = std::cell::Cell::new(0);
        let run = work(&queue, 2, |key| {
            let _ = sender.send((key, start.elapsed().as_millis()));
            calls.set(calls.get() + 1);
            std::future::ready(outcome(calls.get()))
        });
        let collect = async {
            let mut seen = vec![];
            while seen.len() < count {
                seen.extend(receiver.recv().await);
            }
            seen
        };
        tokio::select! { () = run => unreachable!("work never ends"), seen = collect => seen }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_added_twice_before_its_turn_is_synced_once() {
        let queue = Queue::default();
        for key in ["a", "b", "a"] {
            queue.add(key);
        }
        queue.add_after("end", Duration::from_millis(50));
        let seen = first_syncs(queue, 3, |_| Ok(None)).await;
        assert_eq!(seen, [("a", 0), ("b", 0), ("end", 50)]);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_retried_after_5_ms_doubling_until_one_succeeds() {
        let queue = Queue::default();
        queue.add("a");
        let seen = first_syncs(queue, 6, |call| match call {
            1..=3 | 5 => Err("no"),
            _ => Ok(Some(Duration::from_millis(100))),
        });
        // 5, 10, 20 ms; then a success that asks for 100 ms; then 5 ms again.
        let times: Vec<_> = seen.await.into_iter().map(|(_, at)| at).collect();
        assert_eq!(times, [0, 5, 15, 35, 135, 140]);
    }

    #[test]
    fn the_longest_pause_is_1000_seconds() {
        let pauses = [1, 2, 18, 19, 40, u32::MAX].map(|n| retry_after(n).as_millis());
        assert_eq!(pauses, [5, 10, 655_360, 1_000_000, 1_000_000, 1_000_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_timers_the_earlier_one_rings_and_a_sync_before_it_replaces_it() {
        let queue = Queue::default();
        queue.add_after("a", Duration::from_millis(80));
        queue.add_after("a", Duration::from_millis(20));
        queue.add_after("a", Duration::from_millis(40));
        queue.add_after("end", Duration::from_millis(200));
        let seen = first_syncs(queue, 2, |_| Ok(None)).await;
        assert_eq!(seen, [("a", 20), ("end", 200)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_never_synced_twice_at_once_and_what_came_meanwhile_is_not_lost() {
        let queue = Arc::new(Queue::default());
        let running = std::cell::Cell::new(0);
        let (sender, mut receiver) = mpsc::unbounded_channel();
        queue.add("a");
        let run = work(&queue, 4, |key| {
            let (running, sender, queue) = (&running, &sender, &queue);
            async move {
                running.set(running.get() + 1);
                assert_eq!(running.get(), 1, "{key} is synced twice at once");
                queue.add(key);
                tokio::time::sleep(Duration::from_millis(10)).await;
                running.set(running.get() - 1);
                let _ = sender.send(key);
                Ok::<_, &str>(None)
            }
        });
        let collect = async {
            for _ in 0..5 {
                receiver.recv().await;
            }
        };
        tokio::select! { () = run => unreachable!("work never ends"), () = collect => {} }
    }
}
