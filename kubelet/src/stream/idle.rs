//! A connection on which nothing has been said for a long time ends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Upstream's default of `--streaming-connection-idle-timeout`.
pub const TIMEOUT: Duration = Duration::from_secs(4 * 60 * 60);

/// When something was last said. Clones share it.
#[derive(Clone, Debug)]
pub struct Idle(Arc<Mutex<Instant>>);

impl Idle {
    /// As of now.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Something has been said.
    pub fn touch(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Until nothing has been said for [`TIMEOUT`].
    pub async fn expired(&self) {
        loop {
            let end = *self.0.lock().unwrap_or_else(PoisonError::into_inner) + TIMEOUT;
            if Instant::now() >= end {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it_and_a_word_puts_that_off() {
        let started = Instant::now();
        let idle = Idle::new();
        let talk = async {
            tokio::time::sleep(TIMEOUT / 2).await;
            idle.touch();
            std::future::pending::<()>().await;
        };
        tokio::select! { () = idle.expired() => {}, () = talk => {} }
        assert_eq!(started.elapsed(), TIMEOUT + TIMEOUT / 2);
    }
}
