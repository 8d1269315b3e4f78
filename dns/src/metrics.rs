//! What is counted, in Prometheus' text format: answers by type and code, how long they took, the table and how fast it
//! follows the cluster.
//!
//! Each thread that answers has a [`Worker`] of its own, so that counting costs no lock, no allocation and no cache line
//! that another thread writes; they are added up when somebody looks.

use crate::{log, presentation};
use std::fmt::Write;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A datagram.
    Udp,
    /// A message of a connection.
    Tcp,
}

impl Protocol {
    /// `udp`
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Udp => "udp",
            Protocol::Tcp => "tcp",
        }
    }
}

/// Codes that are counted by themselves; the others are one.
const CODES: [u16; 8] = [0, 1, 2, 3, 4, 5, 9, 16];
const CODE_SLOTS: usize = CODES.len() + 1;
const TYPE_SLOTS: usize = presentation::TYPES.len() + 1;

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// Upper bounds of how long work may take, in nanoseconds: 1 µs to 1 s.
const WORK: [u64; 19] = [
    MICROSECOND,
    2 * MICROSECOND,
    5 * MICROSECOND,
    10 * MICROSECOND,
    20 * MICROSECOND,
    50 * MICROSECOND,
    100 * MICROSECOND,
    200 * MICROSECOND,
    500 * MICROSECOND,
    MILLISECOND,
    2 * MILLISECOND,
    5 * MILLISECOND,
    10 * MILLISECOND,
    20 * MILLISECOND,
    50 * MILLISECOND,
    100 * MILLISECOND,
    200 * MILLISECOND,
    500 * MILLISECOND,
    SECOND,
];

/// Upper bounds of how late the names may be, in nanoseconds: 1 ms, and twice as long each, to 524 s as CoreDNS has them.
/// The time of the change is told in whole seconds where a pod's condition tells it.
const DELAY: [u64; 20] = {
    let mut bounds = [MILLISECOND; 20];
    let mut n = 1;
    while n < bounds.len() {
        bounds[n] = 2 * bounds[n - 1];
        n += 1;
    }
    bounds
};

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    workers: Mutex<Vec<Arc<Worker>>>,
    names: AtomicUsize,
    records: AtomicUsize,
    serial: AtomicU32,
    updates: Histogram<{ WORK.len() }>,
    delays: Histogram<{ DELAY.len() }>,
}

/// What one thread counts. Its memory begins and ends with cache lines that nobody else writes.
#[derive(Debug)]
#[repr(align(128))]
pub struct Worker {
    answered: [[[AtomicU64; CODE_SLOTS]; TYPE_SLOTS]; 2],
    took: Histogram<{ WORK.len() }>,
    dropped: AtomicU64,
    forwarded: AtomicU64,
}

impl Worker {
    fn new() -> Self {
        Self {
            answered: [const { [const { [const { AtomicU64::new(0) }; CODE_SLOTS] }; TYPE_SLOTS] }; 2],
            took: Histogram::new(&WORK),
            dropped: AtomicU64::new(0),
            forwarded: AtomicU64::new(0),
        }
    }

    /// A question of this type was answered with this code, the upper bits of EDNS included.
    pub fn answered(&self, protocol: Protocol, type_: u16, code: u16) {
        self.answered[protocol as usize][type_slot(type_)][code_slot(code)].fetch_add(1, Relaxed);
    }

    /// A question was answered with these bytes, which somebody else wrote.
    pub fn answered_with(&self, protocol: Protocol, query: &[u8], answer: &[u8]) {
        if let (Some(type_), Some(code)) = (log::type_asked(query), log::code_answered(answer)) {
            self.answered(protocol, type_, code);
        }
    }

    /// So many answers took so long each: one reading of the clock can do for a batch.
    pub fn took(&self, each: Duration, answers: u64) {
        self.took.add(each, answers);
    }

    /// Something came that is not answered at all.
    pub fn dropped(&self) {
        self.dropped.fetch_add(1, Relaxed);
    }

    /// A question was handed to another server.
    pub fn forwarded(&self) {
        self.forwarded.fetch_add(1, Relaxed);
    }
}

/// The types that everybody asks for are found first.
fn type_slot(type_: u16) -> usize {
    let known = presentation::TYPES
        .iter()
        .position(|(number, _)| *number == type_);
    known.unwrap_or(presentation::TYPES.len())
}

fn code_slot(code: u16) -> usize {
    let known = CODES.iter().position(|number| *number == code);
    known.unwrap_or(CODES.len())
}

impl Metrics {
    /// Nothing has been counted yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            workers: Mutex::default(),
            names: AtomicUsize::new(0),
            records: AtomicUsize::new(0),
            serial: AtomicU32::new(0),
            updates: Histogram::new(&WORK),
            delays: Histogram::new(&DELAY),
        })
    }

    /// Counters for one more thread, which count as long as these metrics: for a thread, not for a connection.
    pub fn worker(&self) -> Arc<Worker> {
        let worker = Arc::new(Worker::new());
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.push(worker.clone());
        worker
    }

    /// A version of the table is in place; `took` is the time since the change was taken from the watch.
    pub fn published(&self, names: usize, records: usize, serial: u32, took: Duration) {
        self.names.store(names, Relaxed);
        self.records.store(records, Relaxed);
        self.serial.store(serial, Relaxed);
        self.updates.add(took, 1);
    }

    /// A change of endpoints is answered so long after it happened: after the time that the EndpointSlice's annotation
    /// `endpoints.kubernetes.io/last-change-trigger-time` tells.
    pub fn programmed(&self, delay: Duration) {
        self.delays.add(delay, 1);
    }

    /// Prometheus' text format, version 0.0.4. What has never happened has no line.
    pub fn print(&self) -> String {
        let workers = self
            .workers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let sum = |count: &dyn Fn(&Worker) -> u64| workers.iter().map(|worker| count(worker)).sum::<u64>();
        let mut out = String::new();
        head(
            &mut out,
            "petset_dns_responses_total",
            "counter",
            "Answers by protocol, response code and type of the question.",
        );
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            for (type_slot, type_) in labels(presentation::TYPES.map(|(_, name)| name.to_owned())).enumerate()
            {
                for (code_slot, code) in labels(CODES.map(presentation::code_name)).enumerate() {
                    let count =
                        sum(&|worker| worker.answered[protocol as usize][type_slot][code_slot].load(Relaxed));
                    if count > 0 {
                        let proto = protocol.name();
                        line(
                            &mut out,
                            &format!(
                                "petset_dns_responses_total{{proto=\"{proto}\",rcode=\"{code}\",type=\"{type_}\"}}"
                            ),
                            count,
                        );
                    }
                }
            }
        }
        let mut took = Counts::new(&WORK);
        workers.iter().for_each(|worker| took.add(&worker.took));
        took.print(
            &mut out,
            "petset_dns_request_duration_seconds",
            "Seconds from a question to its answer, without the network.",
        );
        let mut one = |name: &str, kind: &str, help: &str, value: u64| {
            head(&mut out, name, kind, help);
            line(&mut out, name, value);
        };
        one(
            "petset_dns_dropped_total",
            "counter",
            "Messages that were no question and got no answer.",
            sum(&|worker| worker.dropped.load(Relaxed)),
        );
        one(
            "petset_dns_forwarded_total",
            "counter",
            "Questions for names of others, handed to the upstream servers.",
            sum(&|worker| worker.forwarded.load(Relaxed)),
        );
        one(
            "petset_dns_names",
            "gauge",
            "Names that exist.",
            self.names.load(Relaxed) as u64,
        );
        one(
            "petset_dns_records",
            "gauge",
            "Records at these names.",
            self.records.load(Relaxed) as u64,
        );
        one(
            "petset_dns_serial",
            "gauge",
            "Serial number of the zones.",
            self.serial.load(Relaxed).into(),
        );
        let mut updates = Counts::new(&WORK);
        updates.add(&self.updates);
        updates.print(
            &mut out,
            "petset_dns_update_duration_seconds",
            "Seconds from a change that a watch told to answers that know it.",
        );
        let mut delays = Counts::new(&DELAY);
        delays.add(&self.delays);
        delays.print(
            &mut out,
            "petset_dns_programming_duration_seconds",
            "Seconds from the change that made an EndpointSlice to answers that know it.",
        );
        out
    }
}

/// The names of the slots of a table, whose last one is for everything else.
fn labels<const N: usize>(known: [String; N]) -> impl Iterator<Item = String> {
    known.into_iter().chain(["other".to_owned()])
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String cannot fail, here and below.
    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn line(out: &mut String, name: &str, value: u64) {
    let _ = writeln!(out, "{name} {value}");
}

/// How often something took how long.
#[derive(Debug)]
struct Histogram<const N: usize> {
    bounds: &'static [u64; N],
    /// Each counts what is in it and in none before; the last is for what is beyond all bounds.
    buckets: [AtomicU64; N],
    beyond: AtomicU64,
    /// In nanoseconds: enough for 584 years.
    sum: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    fn new(bounds: &'static [u64; N]) -> Self {
        Self {
            bounds,
            buckets: [const { AtomicU64::new(0) }; N],
            beyond: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }

    fn add(&self, each: Duration, times: u64) {
        let nanoseconds = u64::try_from(each.as_nanos()).unwrap_or(u64::MAX);
        let bucket = self.bounds.partition_point(|bound| *bound < nanoseconds);
        let bucket = self.buckets.get(bucket).unwrap_or(&self.beyond);
        bucket.fetch_add(times, Relaxed);
        self.sum.fetch_add(nanoseconds.saturating_mul(times), Relaxed);
    }
}

/// Histograms added up.
struct Counts<const N: usize> {
    bounds: &'static [u64; N],
    buckets: [u64; N],
    beyond: u64,
    sum: u64,
}

impl<const N: usize> Counts<N> {
    fn new(bounds: &'static [u64; N]) -> Self {
        Self {
            bounds,
            buckets: [0; N],
            beyond: 0,
            sum: 0,
        }
    }

    fn add(&mut self, histogram: &Histogram<N>) {
        for (bucket, more) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *bucket += more.load(Relaxed);
        }
        self.beyond += histogram.beyond.load(Relaxed);
        self.sum += histogram.sum.load(Relaxed);
    }

    fn print(&self, out: &mut String, name: &str, help: &str) {
        head(out, name, "histogram", help);
        let seconds = |nanoseconds: u64| Duration::from_nanos(nanoseconds).as_secs_f64();
        let mut count = 0;
        for (bound, bucket) in self.bounds.iter().zip(self.buckets) {
            count += bucket;
            line(
                out,
                &format!("{name}_bucket{{le=\"{}\"}}", seconds(*bound)),
                count,
            );
        }
        count += self.beyond;
        line(out, &format!("{name}_bucket{{le=\"+Inf\"}}"), count);
        let _ = writeln!(out, "{name}_sum {}", seconds(self.sum));
        line(out, &format!("{name}_count"), count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(text: &str, line: &str) -> bool {
        text.lines().any(|printed| printed == line)
    }

    #[track_caller]
    fn shows(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(has(text, line), "{line}\nin\n{text}");
        }
    }

    #[test]
    fn answers_of_all_threads_are_counted_by_protocol_type_and_code() {
        let metrics = Metrics::new();
        let (one, other) = (metrics.worker(), metrics.worker());
        for _ in 0..3 {
            one.answered(Protocol::Udp, 1, 0);
        }
        other.answered(Protocol::Udp, 1, 0);
        other.answered(Protocol::Tcp, 28, 3);
        other.answered(Protocol::Tcp, 6, 16);
        one.dropped();
        other.forwarded();
        other.forwarded();
        let query = [&[0; 4][..], &[0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 33, 0, 1]].concat();
        other.answered_with(Protocol::Udp, &query, &[0, 0, 0x80, 5, 0, 0, 0, 0, 0, 0, 0, 0]);
        other.answered_with(Protocol::Udp, &query[..14], &[0; 12]);
        shows(
            &metrics.print(),
            &[
                "# TYPE petset_dns_responses_total counter",
                "petset_dns_responses_total{proto=\"udp\",rcode=\"NOERROR\",type=\"A\"} 4",
                "petset_dns_responses_total{proto=\"tcp\",rcode=\"NXDOMAIN\",type=\"AAAA\"} 1",
                "petset_dns_responses_total{proto=\"tcp\",rcode=\"BADVERS\",type=\"SOA\"} 1",
                "petset_dns_responses_total{proto=\"udp\",rcode=\"REFUSED\",type=\"SRV\"} 1",
                "petset_dns_dropped_total 1",
                "petset_dns_forwarded_total 2",
            ],
        );
    }

    #[test]
    fn no_question_makes_the_table_endless() {
        let metrics = Metrics::new();
        let worker = metrics.worker();
        let lines = |text: String| text.lines().count();
        worker.answered(Protocol::Udp, 1000, 23);
        let before = lines(metrics.print());
        for number in 1000..2000 {
            worker.answered(Protocol::Udp, number, number);
        }
        let text = metrics.print();
        shows(
            &text,
            &["petset_dns_responses_total{proto=\"udp\",rcode=\"other\",type=\"other\"} 1001"],
        );
        assert_eq!(lines(text), before);
    }

    #[test]
    fn a_duration_is_in_its_bucket_and_in_every_larger_one() {
        let metrics = Metrics::new();
        let worker = metrics.worker();
        worker.took(Duration::from_nanos(1_000), 10);
        worker.took(Duration::from_micros(3), 2);
        worker.took(Duration::from_secs(2), 1);
        shows(
            &metrics.print(),
            &[
                "# TYPE petset_dns_request_duration_seconds histogram",
                "petset_dns_request_duration_seconds_bucket{le=\"0.000001\"} 10",
                "petset_dns_request_duration_seconds_bucket{le=\"0.000002\"} 10",
                "petset_dns_request_duration_seconds_bucket{le=\"0.000005\"} 12",
                "petset_dns_request_duration_seconds_bucket{le=\"1\"} 12",
                "petset_dns_request_duration_seconds_bucket{le=\"+Inf\"} 13",
                "petset_dns_request_duration_seconds_sum 2.000016",
                "petset_dns_request_duration_seconds_count 13",
            ],
        );
    }

    #[test]
    fn the_table_and_how_late_it_is_are_shown() {
        let metrics = Metrics::new();
        metrics.published(7, 9, 3, Duration::from_micros(80));
        metrics.published(8, 10, 4, Duration::from_micros(90));
        metrics.programmed(Duration::from_millis(3));
        shows(
            &metrics.print(),
            &[
                "petset_dns_names 8",
                "petset_dns_records 10",
                "petset_dns_serial 4",
                "petset_dns_update_duration_seconds_bucket{le=\"0.0001\"} 2",
                "petset_dns_update_duration_seconds_count 2",
                "petset_dns_programming_duration_seconds_bucket{le=\"0.002\"} 0",
                "petset_dns_programming_duration_seconds_bucket{le=\"0.004\"} 1",
                "petset_dns_programming_duration_seconds_bucket{le=\"524.288\"} 1",
            ],
        );
    }

    #[test]
    fn every_line_is_one_that_prometheus_reads() {
        let metrics = Metrics::new();
        metrics.worker().answered(Protocol::Udp, 33, 0);
        let text = metrics.print();
        let mut typed = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let name = rest.split(' ').next().unwrap_or_default();
                assert!(!typed.contains(&name), "{name} twice");
                typed.push(name);
            } else if !line.starts_with("# HELP ") {
                let (name, value) = line.rsplit_once(' ').expect("a name and a value");
                let family = typed.last().expect("a type comes first");
                assert!(name.starts_with(family), "{line} is not of {family}");
                value.parse::<f64>().expect("a number");
            }
        }
        assert_eq!(typed.len(), 9);
    }
}
