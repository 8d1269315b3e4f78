//! How often a container has ended in a row, written down in its directory: its back-off goes on where it was when
//! petset is started again. (Upstream's kubelet forgets.)

use crate::record::{BackOff, Record, State};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::Path;

const FILE: &str = "ends.json";

/// What is written down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ends {
    /// The instance that ended last.
    instance: i32,
    /// Its image, as the container named it: another one has a clean slate.
    image: Option<String>,
    /// How many have ended in a row.
    count: u32,
}

impl Ends {
    /// Those of a container that has just ended.
    pub fn of(record: &Record) -> Self {
        Self {
            instance: record.restarts,
            image: record.image.clone(),
            count: record.ends,
        }
    }

    /// Write them into the container's directory.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let new = directory.join("ends.json.new");
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::rename(new, directory.join(FILE))
    }

    /// What was written there; what cannot be read was not.
    pub fn read(directory: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(directory.join(FILE)).ok()?).ok()
    }

    pub fn forget(directory: &Path) {
        let _ = fs::remove_file(directory.join(FILE));
    }

    /// Go on from here with a container that is otherwise known. Only the instance that was written down is waited for: a
    /// later one was ended by petset, or went with the machine.
    pub fn recall(&self, record: &mut Record, back_off: BackOff) {
        if self.image != record.image {
            return;
        }
        record.ends = self.count;
        record.delay = match &record.state {
            State::Ended(_) if record.restarts == self.instance => back_off.delay(self.count),
            _ => SignedDuration::ZERO,
        };
    }

    /// How many had ended before this instance.
    pub fn before(&self, instance: i32, image: Option<&String>) -> u32 {
        match self.image.as_ref() == image {
            true => self.count - u32::from(self.instance == instance && self.count > 0),
            false => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::terminated;
    use crate::shim::protocol::Exit;
    use jiff::Timestamp;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).expect("a time")
    }

    /// A container that has ended so often, each time at once.
    fn ended(times: i64) -> Record {
        let mut record = Record::default();
        for n in 0..times {
            record.starting_with(Some(&"i".to_owned()));
            record.started(format!("petset://{n}"), at(n), true, true);
            let exit = Exit {
                code: 1,
                signal: None,
            };
            record.ended(terminated(exit, None), at(n), BackOff::default());
        }
        record
    }

    /// The same as the API knows it.
    fn recollected(record: &Record) -> Record {
        Record {
            ends: 0,
            delay: SignedDuration::ZERO,
            ..record.clone()
        }
    }

    #[test]
    fn a_back_off_goes_on_where_it_was() {
        let directory = tempfile::tempdir().expect("tempdir");
        assert_eq!(Ends::read(directory.path()), None);
        let before = ended(5);
        Ends::of(&before).write(directory.path()).expect("written");
        let ends = Ends::read(directory.path()).expect("written down");
        let mut record = recollected(&before);
        ends.recall(&mut record, BackOff::default());
        assert_eq!(record, before);
        assert_eq!(record.restart_at(), Some(at(4 + 80)));
        Ends::forget(directory.path());
        assert_eq!(Ends::read(directory.path()), None);
    }

    #[test]
    fn what_petset_has_ended_itself_is_not_waited_for_but_what_was_before_is_not_forgotten() {
        let ends = Ends::of(&ended(5));
        let mut later = recollected(&ended(6));
        ends.recall(&mut later, BackOff::default());
        assert_eq!((later.ends, later.delay), (5, SignedDuration::ZERO));
        assert_eq!(ends.before(5, Some(&"i".to_owned())), 5);
        // Its end was written down, but the API has not been told.
        assert_eq!(ends.before(4, Some(&"i".to_owned())), 4);
    }

    #[test]
    fn another_image_has_a_clean_slate() {
        let ends = Ends::of(&ended(5));
        let mut other = recollected(&ended(5));
        other.image = Some("j".into());
        ends.recall(&mut other, BackOff::default());
        assert_eq!((other.ends, other.delay), (0, SignedDuration::ZERO));
        assert_eq!(ends.before(5, other.image.as_ref()), 0);
    }
}
