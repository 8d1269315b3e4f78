//! The contract, sentence by sentence, for each implementation.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use store::{Change, Entry, Error, MemoryStore, OpenError, Options, SledStore, Store, VALUE_LIMIT, Watch};
use tempfile::TempDir;

/// Run a test against a store in memory and against one on disk.
async fn each<F: Future<Output = ()>>(test: impl Fn(Arc<dyn Store>) -> F) {
    test(Arc::new(MemoryStore::new())).await;
    let dir = TempDir::new().expect("a temporary directory");
    let store = Arc::new(open(&dir));
    test(store.clone()).await;
    store.close().await;
}

fn open(dir: &TempDir) -> SledStore {
    SledStore::open(&dir.path().join("store"), Options::default()).expect("the store opens")
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn keys(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.key.as_str()).collect()
}

async fn next(watch: &mut Box<dyn Watch>) -> Result<Vec<Change>, Error> {
    tokio::time::timeout(Duration::from_secs(20), watch.next())
        .await
        .expect("the watch has something to say")
}

#[tokio::test]
async fn writes_get_one_revision_each_and_say_what_they_left() {
    each(|store| async move {
        assert_eq!(store.current(), 0);
        let first = store.create("/a", bytes("1")).await.unwrap();
        let expected = Entry {
            key: "/a".into(),
            value: bytes("1"),
            created: 1,
            modified: 1,
        };
        assert_eq!(first, expected);
        let second = store.update("/a", bytes("2"), 1).await.unwrap();
        assert_eq!(
            second,
            Entry {
                value: bytes("2"),
                modified: 2,
                ..expected
            }
        );
        assert_eq!(store.get("/a").await.unwrap(), Some(second));
        assert_eq!(store.delete("/a", 2).await.unwrap(), 3);
        assert_eq!(store.get("/a").await.unwrap(), None);
        assert_eq!(store.create("/a", bytes("3")).await.unwrap().created, 4);
        assert_eq!(store.current(), 4);
    })
    .await;
}

#[tokio::test]
async fn a_write_that_expects_something_else_is_refused_and_takes_no_revision() {
    each(|store| async move {
        let there = store.create("/a", bytes("1")).await.unwrap();
        assert!(matches!(store.create("/a", bytes("2")).await, Err(Error::Exists(key)) if key == "/a"));
        for refused in [
            store.update("/a", bytes("2"), 7).await.map(drop),
            store.update("/a", bytes("2"), 0).await.map(drop),
            store.delete("/a", 7).await.map(drop),
        ] {
            let Err(Error::Conflict { key, current }) = refused else {
                panic!("{refused:?}")
            };
            assert_eq!((key.as_str(), current.as_ref()), ("/a", Some(&there)));
        }
        for refused in [
            store.update("/b", bytes("2"), 1).await.map(drop),
            store.delete("/b", 1).await.map(drop),
        ] {
            assert!(
                matches!(refused, Err(Error::Conflict { current: None, .. })),
                "{refused:?}"
            );
        }
        assert_eq!(store.current(), 1);
    })
    .await;
}

#[tokio::test]
async fn values_up_to_the_limit_are_kept_and_larger_ones_refused() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let sizes = [0, 1, 16_366, 16_367, 16_368, 32_751, 32_752, 300_000, VALUE_LIMIT];
    let value = |size: usize| Bytes::from_iter((0..size).map(|index| (index % 251) as u8));
    for size in sizes {
        store.create(&format!("/{size}"), value(size)).await.unwrap();
    }
    let refused = store.create("/more", value(VALUE_LIMIT + 1)).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    let refused = store.create(&"k".repeat(5000), value(1)).await;
    assert!(
        matches!(refused, Err(Error::TooLarge { size: 5000, .. })),
        "{refused:?}"
    );
    store.close().await;
    let store = open(&dir);
    for size in sizes {
        assert_eq!(
            store.get(&format!("/{size}")).await.unwrap().unwrap().value,
            value(size)
        );
    }
    store.close().await;
    let beside_the_log = std::fs::read_dir(dir.path().join("store/blobs")).unwrap().count();
    assert_eq!(beside_the_log, 0, "sled syncs only its log");
}

#[tokio::test]
async fn a_list_has_pages_of_one_revision() {
    each(|store| async move {
        for key in ["/p/a", "/p/b", "/p/c", "/q/a", "/p/d"] {
            store.create(key, bytes("1")).await.unwrap();
        }
        let page = store.list("/p/", None, 2, None).await.unwrap();
        assert_eq!(
            (keys(&page.entries), page.revision, page.remaining),
            (vec!["/p/a", "/p/b"], 5, 2)
        );
        store.delete("/p/c", 3).await.unwrap();
        store.create("/p/bb", bytes("1")).await.unwrap();
        store.update("/p/d", bytes("2"), 5).await.unwrap();
        let rest = store.list("/p/", Some("/p/b"), 2, Some(5)).await.unwrap();
        assert_eq!(
            (keys(&rest.entries), rest.revision, rest.remaining),
            (vec!["/p/c", "/p/d"], 5, 0)
        );
        assert_eq!(rest.entries[1].value, bytes("1"));
        let now = store.list("/p/", Some("/p/b"), 0, None).await.unwrap();
        assert_eq!(
            (keys(&now.entries), now.revision, now.remaining),
            (vec!["/p/bb", "/p/d"], 8, 0)
        );
        assert_eq!(store.list("/p/", None, 0, Some(0)).await.unwrap().entries, []);
        let future = store.list("/", None, 0, Some(9)).await;
        assert!(
            matches!(
                future,
                Err(Error::Future {
                    requested: 9,
                    current: 8
                })
            ),
            "{future:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_watch_sees_the_past_then_the_future() {
    each(|store| async move {
        let first = store.create("/p/a", bytes("1")).await.unwrap();
        store.create("/q/a", bytes("1")).await.unwrap();
        let mut watch = store.watch("/p/", 0).unwrap();
        let created = Change {
            revision: 1,
            key: "/p/a".into(),
            before: None,
            after: Some(first.clone()),
        };
        assert_eq!(next(&mut watch).await.unwrap(), [created]);
        assert_eq!(watch.progress(), 2);
        let writer = store.clone();
        let writing = tokio::spawn(async move { writer.update("/p/a", bytes("2"), 1).await.unwrap() });
        let changed = next(&mut watch).await.unwrap();
        let second = writing.await.unwrap();
        let update = Change {
            revision: 3,
            key: "/p/a".into(),
            before: Some(first),
            after: Some(second.clone()),
        };
        assert_eq!(changed, [update]);
        store.delete("/p/a", 3).await.unwrap();
        let deleted = Change {
            revision: 4,
            key: "/p/a".into(),
            before: Some(second),
            after: None,
        };
        assert_eq!(next(&mut watch).await.unwrap(), [deleted]);
        store.create("/q/b", bytes("1")).await.unwrap();
        assert_eq!(watch.progress(), 5);
        assert!(matches!(
            store.watch("/", 6),
            Err(Error::Future {
                requested: 6,
                current: 5
            })
        ));
    })
    .await;
}

#[tokio::test]
async fn what_is_compacted_can_be_neither_listed_nor_watched() {
    each(|store| async move {
        for value in 1..=5 {
            match value {
                1 => drop(store.create("/a", bytes("1")).await.unwrap()),
                _ => drop(store.update("/a", bytes("2"), value - 1).await.unwrap()),
            }
        }
        let mut slow = store.watch("/", 1).unwrap();
        store.compact(3).await.unwrap();
        store.compact(2).await.unwrap();
        assert!(matches!(store.compact(6).await, Err(Error::Future { .. })));
        let gone = |error| matches!(error, Error::Compacted { oldest: 3, .. });
        assert!(gone(store.watch("/", 2).err().unwrap()));
        assert!(gone(store.list("/", None, 0, Some(2)).await.unwrap_err()));
        assert!(gone(next(&mut slow).await.unwrap_err()));
        assert_eq!(
            store.list("/", None, 0, Some(3)).await.unwrap().entries[0].modified,
            3
        );
        let mut watch = store.watch("/", 3).unwrap();
        assert_eq!(next(&mut watch).await.unwrap().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    for (revision, key) in (1..).zip(["/a", "/b", "/c"]) {
        store.create(key, bytes("1")).await.unwrap();
        assert_eq!(store.current(), revision);
    }
    store.update("/a", bytes("2"), 1).await.unwrap();
    store.delete("/b", 2).await.unwrap();
    store.compact(2).await.unwrap();
    let (now, then) = (
        store.list("/", None, 0, None).await.unwrap(),
        store.list("/", None, 0, Some(3)).await.unwrap(),
    );
    let past = next(&mut store.watch("/", 2).unwrap()).await.unwrap();
    store.close().await;

    let store = open(&dir);
    assert_eq!(store.current(), 5);
    assert_eq!(store.list("/", None, 0, None).await.unwrap(), now);
    assert_eq!(store.list("/", None, 0, Some(3)).await.unwrap(), then);
    assert_eq!(next(&mut store.watch("/", 2).unwrap()).await.unwrap(), past);
    assert!(matches!(
        store.watch("/", 1),
        Err(Error::Compacted { oldest: 2, .. })
    ));
    store.compact(5).await.unwrap();
    store.close().await;

    let store = open(&dir);
    assert_eq!(store.current(), 5, "a forgotten deletion keeps its revision");
    assert_eq!(store.list("/", None, 0, None).await.unwrap(), now);
    assert_eq!(store.create("/b", bytes("1")).await.unwrap().modified, 6);
}

#[tokio::test]
async fn a_directory_has_one_store_at_a_time() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let second = SledStore::open(&dir.path().join("store"), Options::default());
    assert!(matches!(second, Err(OpenError::InUse(_))), "{:?}", second.err());
    store.close().await;
    drop(open(&dir));
}

#[tokio::test]
async fn a_closed_store_refuses_writes_ends_watches_and_still_reads() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    store.create("/a", bytes("1")).await.unwrap();
    let mut watch = store.watch("/", 0).unwrap();
    store.close().await;
    store.close().await;
    let refused = store.create("/b", bytes("1")).await;
    assert!(matches!(refused, Err(Error::Broken(_))), "{refused:?}");
    assert_eq!(next(&mut watch).await.unwrap().len(), 1);
    assert!(matches!(next(&mut watch).await, Err(Error::Broken(_))));
    assert!(store.get("/a").await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_paused_clock_does_not_run_ahead_of_the_disk() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    for key in 0..50 {
        let key = format!("/{key}");
        let write = store.create(&key, bytes("1"));
        tokio::time::timeout(Duration::from_millis(1), write)
            .await
            .expect("no time passes")
            .unwrap();
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_writers_with_one_expectation_one_wins() {
    each(|store| async move {
        store.create("/a", bytes("0")).await.unwrap();
        for round in 1..=20 {
            let writers: Vec<_> = (0..16)
                .map(|writer| {
                    let store = store.clone();
                    tokio::spawn(async move { store.update("/a", bytes(&writer.to_string()), round).await })
                })
                .collect();
            let mut won = Vec::new();
            for writer in writers {
                match writer.await.unwrap() {
                    Ok(entry) => won.push(entry),
                    // Told only when it is true for readers too.
                    Err(Error::Conflict {
                        current: Some(current),
                        ..
                    }) => {
                        assert!(store.current() >= current.modified);
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            assert_eq!(won.len(), 1);
            assert_eq!(store.get("/a").await.unwrap(), won.pop());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_call_writes_wholly_or_not_at_all() {
    let dir = TempDir::new().unwrap();
    let store = Arc::new(open(&dir));
    for key in 0..100 {
        let key = format!("/{key}");
        tokio::select! {
            biased;
            _ = store.create(&key, bytes("1")) => {}
            () = tokio::task::yield_now() => {}
        }
    }
    store.create("/last", bytes("1")).await.unwrap();
    let (count, current) = (
        store.list("/", None, 0, None).await.unwrap().entries.len(),
        store.current(),
    );
    assert_eq!(count as u64, current);
    store.close().await;
    assert_eq!(open(&dir).current(), current);
}
