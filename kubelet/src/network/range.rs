//! Which addresses a cluster's network has: those it had before, unless the host has come to use them. Pure but for the
//! file that remembers.

use crate::address::Range;
use serde::{Deserialize, Serialize};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// What a data directory remembers of its network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Name of the bridge.
    pub bridge: String,
    /// Where pod addresses come from, in CIDR notation.
    pub pods: Option<String>,
}

impl Remembered {
    fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("network.json")
    }

    /// What was remembered last; for a new directory a bridge of its own, since others on this machine have theirs.
    pub fn read(data_dir: &Path) -> Self {
        let text = fs::read(Self::path(data_dir)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_else(|_| {
            let mut hasher = DefaultHasher::new();
            data_dir.hash(&mut hasher);
            // 15 bytes are the most that the name of a link may have.
            let bridge = format!("petset-{:08x}", hasher.finish() & 0xffff_ffff);
            Self { bridge, pods: None }
        })
    }

    /// Remember it, whole or not at all.
    pub fn write(&self, data_dir: &Path) -> io::Result<()> {
        let path = Self::path(data_dir);
        let part = path.with_extension("new");
        fs::write(&part, serde_json::to_vec(self)?)?;
        fs::rename(part, path)
    }

    /// The range that it had.
    pub fn range(&self) -> Option<Range> {
        self.pods.as_deref()?.parse().ok()
    }
}

/// A range of addresses for pods. `others` are the networks that the host has routes to. The error is for the user.
pub fn choose_range(
    wanted: Option<Range>,
    remembered: Option<Range>,
    services: (Ipv4Addr, u8),
    others: &[(Ipv4Addr, u8)],
) -> Result<Range, String> {
    let in_the_way = |range: Range| others.iter().find(|other| range.overlaps(**other));
    if let Some(range) = wanted {
        if range.is_loopback() {
            return Err(format!(
                "--pod-cidr {range}: with network namespaces pods cannot be on loopback (an example is 10.244.0.0/16; \
                 --isolation mounts needs loopback)"
            ));
        }
        if range.overlaps(services) {
            let (network, prefix) = services;
            return Err(format!(
                "--pod-cidr {range}: Services have their addresses in {network}/{prefix}"
            ));
        }
        return match in_the_way(range) {
            Some((network, prefix)) => Err(format!(
                "--pod-cidr {range}: this machine has a route to {network}/{prefix} already; choose another range"
            )),
            None => Ok(range),
        };
    }
    let kept = remembered.filter(|range| !range.is_loopback() && !range.overlaps(services));
    let free = kept
        .into_iter()
        .chain(candidates())
        .find(|range| in_the_way(*range).is_none() && !range.overlaps(services));
    // A longer prefix wins over a shorter one, so this works where a whole 10.0.0.0/8 is somewhere else.
    free.or_else(|| candidates().next())
        .ok_or_else(|| "there is no range of pod addresses".to_owned())
}

/// The usual one first, then the other private networks of its size.
fn candidates() -> impl Iterator<Item = Range> {
    let tens = (244..=255).chain(0..244).map(|second| [10, second]);
    let others = (16..32).map(|second| [172, second]);
    tens.chain(others)
        .filter_map(|[first, second]| format!("{first}.{second}.0.0/16").parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(
        wanted: Option<&str>,
        remembered: Option<&str>,
        others: &[([u8; 4], u8)],
    ) -> Result<String, String> {
        let range = |text: &str| text.parse::<Range>().expect("a range");
        let others: Vec<_> = others
            .iter()
            .map(|(network, prefix)| (Ipv4Addr::from(*network), *prefix))
            .collect();
        let services = (Ipv4Addr::new(10, 96, 0, 0), 12);
        choose_range(wanted.map(range), remembered.map(range), services, &others)
            .map(|range| range.to_string())
    }

    #[test]
    fn a_range_is_kept_while_nobody_else_has_it_and_else_a_free_one_is_taken() {
        type Networks = &'static [([u8; 4], u8)];
        let cases: [(Option<&str>, Networks, &str); 7] = [
            (None, &[], "10.244.0.0/16"),
            (None, &[([192, 168, 0, 0], 24)], "10.244.0.0/16"),
            (None, &[([10, 244, 7, 0], 24)], "10.245.0.0/16"),
            (None, &[([10, 240, 0, 0], 12)], "10.0.0.0/16"),
            (Some("10.250.0.0/16"), &[], "10.250.0.0/16"),
            (Some("10.250.0.0/16"), &[([10, 250, 0, 1], 32)], "10.244.0.0/16"),
            (None, &[([10, 0, 0, 0], 8)], "172.16.0.0/16"),
        ];
        for (remembered, others, expected) in cases {
            assert_eq!(
                chosen(None, remembered, others).as_deref(),
                Ok(expected),
                "{others:?}"
            );
        }
        let everything = [([10, 0, 0, 0], 8), ([172, 16, 0, 0], 12)];
        assert_eq!(chosen(None, None, &everything).as_deref(), Ok("10.244.0.0/16"));
    }

    #[test]
    fn what_is_asked_for_is_taken_or_refused_with_the_reason() {
        assert_eq!(
            chosen(Some("10.7.0.0/20"), Some("10.250.0.0/16"), &[]).as_deref(),
            Ok("10.7.0.0/20")
        );
        for (wanted, others, why) in [
            ("127.244.0.0/16", &[][..], "--isolation mounts"),
            ("10.96.0.0/24", &[][..], "Services"),
            ("10.7.0.0/20", &[([10, 7, 1, 0], 24)][..], "10.7.1.0/24"),
        ] {
            let refused = chosen(Some(wanted), None, others).expect_err(wanted);
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn a_data_directory_remembers_its_network_and_two_have_different_bridges() {
        let (one, two) = (tempfile::tempdir(), tempfile::tempdir());
        let (one, two) = (one.expect("tempdir"), two.expect("tempdir"));
        let mut first = Remembered::read(one.path());
        assert_ne!(first.bridge, Remembered::read(two.path()).bridge);
        assert_eq!(first.bridge.len(), 15);
        first.pods = Some("10.250.0.0/16".into());
        first.write(one.path()).expect("written");
        assert_eq!(Remembered::read(one.path()), first);
        assert_eq!(first.range(), "10.250.0.0/16".parse().ok());
    }
}
