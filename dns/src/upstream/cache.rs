//! Replies, kept for as long as they say. Bounded by number and by bytes without looking at every entry: there are two
//! generations, and when the younger one is full the older one goes.

use super::reply::Reply;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The question's name in lower case with type and class, and whether DNSSEC's records are wished for.
pub type Key = (Vec<u8>, bool);

/// How much one generation holds.
#[derive(Clone, Copy, Debug)]
struct Room {
    entries: usize,
    bytes: usize,
}

const ROOM: Room = Room {
    entries: 4096,
    bytes: 4 << 20,
};

#[derive(Clone, Debug)]
struct Entry {
    reply: Arc<Reply>,
    since: Instant,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Key, Entry>,
    old: HashMap<Key, Entry>,
    /// Of the young ones.
    bytes: usize,
}

/// Replies by question.
#[derive(Debug)]
pub struct Cache {
    room: Room,
    generations: Mutex<Generations>,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            room: ROOM,
            generations: Mutex::default(),
        }
    }
}

impl Cache {
    /// The reply to a question and its age, if it is still true at `now`.
    pub fn get(&self, key: &Key, now: Instant) -> Option<(Arc<Reply>, Duration)> {
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = generations.young.get(key).or_else(|| generations.old.get(key))?;
        let age = now.duration_since(entry.since);
        (age < entry.reply.ttl).then(|| (entry.reply.clone(), age))
    }

    /// Keep a reply that came at `now`, unless it may not be kept.
    pub fn put(&self, key: Key, reply: Arc<Reply>, now: Instant) {
        let size = reply.size() + key.0.len();
        if reply.ttl.is_zero() || size > self.room.bytes {
            return;
        }
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let full = generations.young.len() >= self.room.entries;
        if full || generations.bytes + size > self.room.bytes {
            generations.old = std::mem::take(&mut generations.young);
            generations.bytes = 0;
        }
        generations.bytes += size;
        generations.young.insert(key, Entry { reply, since: now });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Key {
        (vec![n as u8, (n >> 8) as u8], false)
    }

    #[test]
    fn a_reply_is_kept_for_as_long_as_it_is_true() {
        let cache = Cache::default();
        let start = Instant::now();
        let reply = Arc::new(Reply::failure());
        cache.put(key(1), reply.clone(), start);
        let age = Duration::from_millis(900);
        assert_eq!(cache.get(&key(1), start + age), Some((reply, age)));
        assert_eq!(cache.get(&key(1), start + Duration::from_secs(1)), None);
        cache.put(key(2), Arc::new(Reply::refused()), start);
        assert_eq!(cache.get(&key(2), start), None, "it may not be kept");
    }

    #[test]
    fn whatever_is_put_in_it_holds_no_more_than_two_generations() {
        let room = Room {
            entries: 10,
            bytes: usize::MAX,
        };
        let by_number = Cache {
            room,
            ..Cache::default()
        };
        let room = Room {
            entries: usize::MAX,
            bytes: 10 * (Reply::failure().size() + 2),
        };
        let by_size = Cache {
            room,
            ..Cache::default()
        };
        let now = Instant::now();
        for cache in [by_number, by_size] {
            for n in 0..1000 {
                cache.put(key(n), Arc::new(Reply::failure()), now);
                assert!(cache.get(&key(n), now).is_some(), "the newest is there");
            }
            let held = (0..1000).filter(|n| cache.get(&key(*n), now).is_some()).count();
            assert!((10..=20).contains(&held), "{held}");
        }
    }
}
