//! How much volumes hold, asked within a time that people wait: from the file system's own account where there is one,
//! otherwise by walking, and an unfinished walk says so.

use controller::volume::quota;
use controller::volume::usage::{binary, walk};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The longest that all volumes of one answer together may take.
pub const BUDGET: Duration = Duration::from_secs(5);

/// What a volume holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Allocated bytes.
    pub bytes: u64,
    /// Whether that is all; otherwise there may be more.
    pub complete: bool,
    /// Whether the file system enforces the volume's size.
    pub enforced: bool,
}

impl Used {
    /// `1.2Gi`, or `>1.2Gi` where there may be more.
    pub fn text(self) -> String {
        format!("{}{}", if self.complete { "" } else { ">" }, binary(self.bytes))
    }
}

/// Measure each path, `None` where there is nothing. Those still to come share what is left of the budget.
pub async fn measure(paths: Vec<Option<PathBuf>>, budget: Duration) -> anyhow::Result<Vec<Option<Used>>> {
    let measured = tokio::task::spawn_blocking(move || {
        let end = Instant::now() + budget;
        let mut left = paths.iter().flatten().count();
        let one = |path: PathBuf| {
            let now = Instant::now();
            let share = end.saturating_duration_since(now) / u32::try_from(left.max(1)).unwrap_or(u32::MAX);
            left = left.saturating_sub(1);
            measure_one(&path, now + share)
        };
        let mut one = one;
        paths.into_iter().map(|path| path.and_then(&mut one)).collect()
    });
    Ok(measured.await?)
}

fn measure_one(path: &std::path::Path, deadline: Instant) -> Option<Used> {
    if let Some(held) = quota::held(path) {
        return Some(Used {
            bytes: held.used,
            complete: true,
            enforced: true,
        });
    }
    let measured = walk::measure(path, || Instant::now() < deadline).ok()?;
    Some(Used {
        bytes: measured.bytes,
        complete: measured.complete,
        enforced: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_could_not_be_walked_in_time_is_a_lower_bound() {
        let root = tempfile::tempdir().expect("tempdir");
        let paths = vec![Some(root.path().to_owned()), None, Some(root.path().join("gone"))];
        let measured = measure(paths.clone(), BUDGET).await.expect("measured");
        assert!(measured[0].is_some_and(|used| used.complete && !used.text().starts_with('>')));
        assert_eq!(measured[1..], [None, None]);
        let hurried = measure(paths, Duration::ZERO).await.expect("measured");
        assert!(hurried[0].is_some_and(|used| !used.complete && used.text().starts_with('>')));
    }
}
