//! Waiting on a condition, never for a time.

use std::time::{Duration, Instant};

/// How often a condition is looked at. Each look may start a process, on a machine that has other things to do.
const TICK: Duration = Duration::from_millis(100);

/// Look until it is so; the last error when it never is.
pub fn within<T>(limit: Duration, mut look: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => std::thread::sleep(TICK),
        }
    }
}

/// As [`within`]; a panic that shows the last state when it never is.
#[track_caller]
pub fn eventually<T>(what: &str, limit: Duration, look: impl FnMut() -> Result<T, String>) -> T {
    match within(limit, look) {
        Ok(found) => found,
        Err(last) => panic!("after {}s still not: {what}; last seen:\n{last}", limit.as_secs()),
    }
}
