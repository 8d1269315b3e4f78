//! The embedded store: the state in memory, every write on disk before it is answered.
//!
//! Writers that come together share one flush (*group commit*). Whoever finds the disk free starts a
//! committer on a blocking thread; it takes all waiting writes, checks them in order, makes those that
//! stand durable in one batch, shows them, answers, and goes on until nothing waits. So no await lies
//! between a check and its commit, and a caller that gives up leaves its write to run its course.

mod disk;

use std::{
    collections::VecDeque,
    mem,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
    time::Instant,
};

use self::disk::Disk;
pub use self::disk::OpenError;
use crate::{
    Entry, Error, Page, Revision, Store, Watch,
    memory::{Done, Expect, Window, Write},
    record,
    watch::Published,
};

/// One batch takes at most so many writes, and no further one after so many bytes.
const MOST_WRITES: usize = 1024;
const MOST_BYTES: usize = 4 << 20;

/// One batch forgets at most so many changes: more than it can add, so that the window is kept.
const MOST_FORGOTTEN: usize = 2 * MOST_WRITES;

/// What can be chosen when a store is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// How much of the past is kept.
    pub window: Window,
}

/// A [`Store`] in a directory of its own, on sled.
///
/// Cheap to share behind an `Arc`. Dropping it releases the directory at some later moment;
/// [`SledStore::close`] says when.
pub struct SledStore {
    shared: Arc<Shared>,
}

struct Shared {
    published: Arc<Published>,
    window: Window,
    queue: Mutex<Queue>,
    /// Notified whenever the committer has put the disk back.
    idle: Notify,
}

struct Queue {
    waiting: VecDeque<Request>,
    disk: Holder,
    /// No further requests are taken.
    closing: bool,
}

/// Who has the disk.
enum Holder {
    /// Nobody: the next request starts a committer.
    Free(Disk),
    /// A committer, or a close.
    Busy,
    /// Nobody ever again: writing failed, for this reason. Kept so that nobody else opens the directory.
    Broken(String, Disk),
    /// It is closed.
    Closed,
}

enum Request {
    Write {
        write: Write,
        answer: oneshot::Sender<Result<Done, Error>>,
    },
    Compact {
        revision: Revision,
        answer: oneshot::Sender<Result<(), Error>>,
    },
}

impl Request {
    fn fail(self, error: Error) {
        // Whoever asked may have left.
        match self {
            Request::Write { answer, .. } => drop(answer.send(Err(error))),
            Request::Compact { answer, .. } => drop(answer.send(Err(error))),
        }
    }
}

impl SledStore {
    /// Open the store in `dir`, which is created if it is not there. Blocks for some milliseconds; more
    /// after a crash or with many objects.
    pub fn open(dir: &Path, options: Options) -> Result<SledStore, OpenError> {
        let (disk, state) = Disk::open(dir)?;
        let shared = Shared {
            published: Arc::new(Published::new(state)),
            window: options.window,
            queue: Mutex::new(Queue {
                waiting: VecDeque::new(),
                disk: Holder::Free(disk),
                closing: false,
            }),
            idle: Notify::new(),
        };
        Ok(SledStore {
            shared: Arc::new(shared),
        })
    }

    /// Finish the writes under way, refuse further ones, and release the directory: once this has
    /// returned it can be opened again. Watches end after the last change; reads go on.
    pub async fn close(&self) {
        let shared = &self.shared;
        loop {
            let mut idle = std::pin::pin!(shared.idle.notified());
            idle.as_mut().enable();
            let held = {
                let mut queue = shared.lock();
                queue.closing = true;
                mem::replace(&mut queue.disk, Holder::Busy)
            };
            let disk = match held {
                Holder::Busy => {
                    idle.await;
                    continue;
                }
                Holder::Free(disk) | Holder::Broken(_, disk) => Some(disk),
                Holder::Closed => None,
            };
            let closer = shared.clone();
            let close = move || {
                if let Some(disk) = disk {
                    disk.close();
                }
                closer.lock().disk = Holder::Closed;
                closer.published.end();
                closer.idle.notify_waiters();
            };
            match Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn_blocking(close).await),
                Err(_) => close(),
            }
            return;
        }
    }

    async fn write(&self, key: &str, value: Option<Bytes>, expect: Expect) -> Result<Done, Error> {
        let write = Write::new(key, value, expect)?;
        let (answer, answered) = oneshot::channel();
        self.shared.submit(Request::Write { write, answer });
        answered.await.unwrap_or_else(|_| Err(abandoned()))
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        self.shared.published.end();
    }
}

/// The answer when a committer never came to run, because its runtime is shutting down.
fn abandoned() -> Error {
    Error::Broken("the process is shutting down".to_owned())
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queue a request, and start a committer if none is running.
    fn submit(self: &Arc<Self>, request: Request) {
        let mut queue = self.lock();
        if queue.closing {
            drop(queue);
            return request.fail(Error::Broken("it is closed".to_owned()));
        }
        if let Holder::Broken(reason, _) = &queue.disk {
            let error = Error::Broken(reason.clone());
            drop(queue);
            return request.fail(error);
        }
        queue.waiting.push_back(request);
        if let Holder::Free(_) = &queue.disk
            && let Holder::Free(disk) = mem::replace(&mut queue.disk, Holder::Busy)
        {
            drop(queue);
            let committer = Committer {
                shared: self.clone(),
                disk: Some(disk),
                compactions: Vec::new(),
            };
            match Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn_blocking(move || committer.run())),
                Err(_) => committer.run(),
            }
        }
    }
}

/// Has the disk, until nothing waits any more.
struct Committer {
    shared: Arc<Shared>,
    /// Taken when it is put back.
    disk: Option<Disk>,
    /// Asked for and not finished.
    compactions: Vec<(Revision, oneshot::Sender<Result<(), Error>>)>,
}

impl Committer {
    fn run(mut self) {
        while let Some(requests) = self.take() {
            if let Err(reason) = self.commit(requests) {
                return self.give_up(&reason);
            }
        }
    }

    /// The next requests, or none: then the disk has been put back.
    fn take(&mut self) -> Option<Vec<Request>> {
        let mut queue = self.shared.lock();
        if queue.waiting.is_empty() && self.compactions.is_empty() {
            if let Some(disk) = self.disk.take() {
                queue.disk = Holder::Free(disk);
            }
            drop(queue);
            self.shared.idle.notify_waiters();
            return None;
        }
        let (mut requests, mut bytes) = (Vec::new(), 0);
        while requests.len() < MOST_WRITES && bytes < MOST_BYTES {
            let Some(request) = queue.waiting.pop_front() else {
                break;
            };
            if let Request::Write { write, .. } = &request {
                bytes += write.value.as_ref().map_or(0, Bytes::len);
            }
            requests.push(request);
        }
        Some(requests)
    }

    /// One batch: check, encode, make durable, show, answer. An error means that nothing can be written
    /// any more.
    fn commit(&mut self, requests: Vec<Request>) -> Result<(), String> {
        let disk = self
            .disk
            .as_mut()
            .expect("the disk is put back only when the committer ends");
        let published = self.shared.published.clone();
        let room = disk.room();
        let now = Instant::now();
        let state = published.read();
        let mut batch = state.batch(now);
        let mut answers = Vec::new();
        for request in requests {
            match request {
                Request::Compact { revision, answer } => self.compactions.push((revision, answer)),
                Request::Write { write, answer } => {
                    if let Err(full) = room.check(write.value.is_some()) {
                        drop(answer.send(Err(Error::Broken(full))));
                        continue;
                    }
                    match batch.add(write) {
                        Err(refused) if !refused.on_pending => drop(answer.send(Err(refused.error))),
                        verdict => answers.push((answer, verdict.map_err(|refused| refused.error))),
                    }
                }
            }
        }
        let asked = self
            .compactions
            .iter()
            .map(|(revision, _)| *revision)
            .max()
            .unwrap_or_default();
        let forget = state
            .outside(&self.shared.window, now, MOST_FORGOTTEN)
            .max(asked.min(state.compacted() + MOST_FORGOTTEN as Revision));

        let mut records: Vec<_> = batch
            .changes()
            .flat_map(|(revision, change)| disk.slots.put(revision, change))
            .collect();
        if forget > state.compacted() {
            records.extend(disk.slots.remove(state.garbage(forget)));
            records.push((record::COMPACTED_KEY.to_vec(), Some(record::number(forget))));
        }
        let changes = batch.into_changes();
        drop(state);

        let nothing = records.is_empty();
        let durable = if nothing { Ok(()) } else { disk.commit(records) };
        if let Err(reason) = durable {
            for (answer, _) in answers {
                drop(answer.send(Err(Error::Broken(reason.clone()))));
            }
            return Err(reason);
        }
        if !nothing {
            published.publish(changes, forget);
        }
        for (answer, verdict) in answers {
            drop(answer.send(verdict));
        }
        for (_, answer) in self
            .compactions
            .extract_if(.., |(revision, _)| *revision <= forget)
        {
            drop(answer.send(Ok(())));
        }
        Ok(())
    }

    /// Refuse everything from now on.
    fn give_up(&mut self, reason: &str) {
        tracing::error!(
            reason,
            "the store cannot write any more; reads go on, a restart recovers"
        );
        let mut queue = self.shared.lock();
        let failed = mem::take(&mut queue.waiting);
        if let Some(disk) = self.disk.take() {
            queue.disk = Holder::Broken(reason.to_owned(), disk);
        }
        drop(queue);
        for request in failed {
            request.fail(Error::Broken(reason.to_owned()));
        }
        for (_, answer) in self.compactions.drain(..) {
            drop(answer.send(Err(Error::Broken(reason.to_owned()))));
        }
        self.shared.idle.notify_waiters();
    }
}

impl Drop for Committer {
    /// Reached with the disk in hand only when `run` panicked or when the runtime shut down before it.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return self.give_up("a bug: committing panicked");
        }
        let Some(disk) = self.disk.take() else { return };
        let mut queue = self.shared.lock();
        queue.disk = Holder::Free(disk);
        let failed = mem::take(&mut queue.waiting);
        drop(queue);
        for request in failed {
            request.fail(abandoned());
        }
        self.shared.idle.notify_waiters();
    }
}

#[async_trait::async_trait]
impl Store for SledStore {
    fn current(&self) -> Revision {
        self.shared.published.read().current()
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        Ok(self.shared.published.get(key))
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, Error> {
        self.shared.published.list(prefix, after, limit, at)
    }

    async fn create(&self, key: &str, value: Bytes) -> Result<Entry, Error> {
        self.write(key, Some(value), Expect::Absent)
            .await
            .map(|done| done.entry(key))
    }

    async fn update(&self, key: &str, value: Bytes, expected: Revision) -> Result<Entry, Error> {
        self.write(key, Some(value), Expect::At(expected))
            .await
            .map(|done| done.entry(key))
    }

    async fn delete(&self, key: &str, expected: Revision) -> Result<Revision, Error> {
        self.write(key, None, Expect::At(expected))
            .await
            .map(|done| done.revision)
    }

    fn watch(&self, prefix: &str, since: Revision) -> Result<Box<dyn Watch>, Error> {
        self.shared.published.watch(prefix, since)
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.shared.published.read().check_compactable(revision)?;
        let (answer, answered) = oneshot::channel();
        self.shared.submit(Request::Compact { revision, answer });
        answered.await.unwrap_or_else(|_| Err(abandoned()))
    }
}
