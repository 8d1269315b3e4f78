//! How many durable writes a second the store takes, from 1 to 256 writers that share their flushes (and
//! that do not, for comparison), against what the disk itself takes; and how long opening is.
//!
//! `cargo bench -p store [SECONDS]`; in the directory `$STORE_BENCH_DIR`, else the system's temporary one.

#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use rand::Rng;
use store::{Options, SledStore, Store};

const VALUE: usize = 1024;
const KEYS: usize = 10_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(2.0);
    let time = Duration::from_secs_f64(seconds);
    let within: PathBuf = std::env::var_os("STORE_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(within)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;

    println!("{:<28}{:>12}{:>12}{:>12}", "", "writes/s", "p50 µs", "p99 µs");
    report("the disk: fdatasync of 4 KiB", sync_only(dir.path(), time)?, time);
    for shared in [true, false] {
        for writers in [1, 8, 64, 256] {
            let dir = tempfile::tempdir_in(dir.path())?;
            let name = format!(
                "{writers} writers, {}",
                if shared { "shared flush" } else { "one flush each" }
            );
            report(
                &name,
                runtime.block_on(write(dir.path(), writers, shared, time))?,
                time,
            );
        }
    }
    runtime.block_on(open(dir.path()))
}

fn report(name: &str, mut latencies: Vec<Duration>, time: Duration) {
    latencies.sort_unstable();
    let at = |part: f64| {
        let index = (latencies.len() as f64 * part) as usize;
        latencies.get(index).copied().unwrap_or_default().as_micros()
    };
    let rate = latencies.len() as f64 / time.as_secs_f64();
    println!("{name:<28}{rate:>12.0}{:>12}{:>12}", at(0.5), at(0.99));
}

/// The floor under every durable write: overwrite and sync one page.
fn sync_only(dir: &Path, time: Duration) -> io::Result<Vec<Duration>> {
    let file = File::create(dir.join("page"))?;
    file.write_all_at(&[0; 4096], 0)?;
    file.sync_all()?;
    let (begin, mut latencies) = (Instant::now(), Vec::new());
    while begin.elapsed() < time {
        let start = Instant::now();
        file.write_all_at(&[latencies.len() as u8; 4096], 0)?;
        file.sync_data()?;
        latencies.push(start.elapsed());
    }
    Ok(latencies)
}

/// Each writer creates, then keeps updating keys of its own with 1 KiB that does not compress.
async fn write(
    dir: &Path,
    writers: usize,
    shared: bool,
    time: Duration,
) -> Result<Vec<Duration>, store::Error> {
    let store = Arc::new(
        SledStore::open(dir, Options::default()).map_err(|error| store::Error::Broken(error.to_string()))?,
    );
    let turn = Arc::new(tokio::sync::Mutex::new(()));
    let begin = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (store, turn) = (store.clone(), turn.clone());
            tokio::spawn(async move {
                let mut revisions = vec![0; (KEYS / writers).max(1)];
                let mut latencies = Vec::new();
                for round in 0.. {
                    if begin.elapsed() > time {
                        break;
                    }
                    let index = round % revisions.len();
                    let key = format!("/core/pods/default/{writer}-{index}");
                    let mut value = vec![0; VALUE];
                    rand::rng().fill(value.as_mut_slice());
                    let start = Instant::now();
                    let alone = if shared { None } else { Some(turn.lock().await) };
                    let entry = match revisions[index] {
                        0 => store.create(&key, value.into()).await?,
                        revision => store.update(&key, value.into(), revision).await?,
                    };
                    drop(alone);
                    revisions[index] = entry.modified;
                    latencies.push(start.elapsed());
                }
                Ok(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(
            task.await
                .map_err(|error| store::Error::Broken(error.to_string()))??,
        );
    }
    store.close().await;
    Ok(latencies)
}

/// Opening an empty directory, and one with 1,000 objects.
async fn open(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let dir = dir.join("open");
    for objects in [0, 1000] {
        let start = Instant::now();
        let store = SledStore::open(&dir, Options::default())?;
        println!("open an empty directory{:>17} µs", start.elapsed().as_micros());
        for object in 0..objects {
            store
                .create(&format!("/core/pods/default/{object}"), vec![b'x'; VALUE].into())
                .await?;
        }
        store.close().await;
        let start = Instant::now();
        let store = SledStore::open(&dir, Options::default())?;
        println!(
            "open it with {objects:>4} objects{:>14} µs",
            start.elapsed().as_micros()
        );
        store.close().await;
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(())
}
