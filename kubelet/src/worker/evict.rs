//! Looking at what the pod uses of the disk, and evicting it if that is more than it may.

use super::{Notice, Worker};
use crate::eviction::{self, usage::Usage};
use crate::plan;
use events::EventType;
use std::time::Duration;
use tokio::time::Instant;

/// A look at many files takes time: at most so small a part of it is spent with looking.
const PART: u32 = 10;

impl Worker {
    /// Look, in a thread beside, if there is a limit and the last look is not too recent.
    pub(super) fn look_at_disk(&mut self) {
        let pod = self.pod();
        let is_going = pod.metadata.deletion_timestamp.is_some() || self.record.evicted.is_some();
        if !self.record.prepared || is_going || plan::is_terminal(&pod) || !eviction::is_limited(&pod) {
            return;
        }
        if self.look_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        // Until this look is over.
        self.look_at = None;
        let (directory, tell) = (self.kubelet.pod_directory(&pod), self.notices.clone());
        self.tasks.spawn_blocking(move || {
            let begun = Instant::now();
            let usage = Usage::of(&directory);
            let took = begun.elapsed();
            let _ = tell.send(Notice::Used { usage, took });
        });
    }

    pub(super) fn note_used(&mut self, usage: &Usage, took: Duration) {
        let now = Instant::now();
        self.look_at = Some(now.checked_add(took * PART).unwrap_or(now));
        let pod = self.pod();
        let is_going = pod.metadata.deletion_timestamp.is_some() || self.record.evicted.is_some();
        if is_going || plan::is_terminal(&pod) {
            return;
        }
        if let Some(message) = eviction::exceeded(&pod, usage) {
            let events = &self.kubelet.events;
            events.tell(&pod, None, EventType::Warning, eviction::REASON, message.clone());
            self.record.evicted = Some(message);
        }
    }
}
