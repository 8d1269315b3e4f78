//! Keeping the names up to date: watches on what they are made of, and new names after each change, at once.

mod kind;
mod trouble;

use crate::Config;
use crate::metrics::Metrics;
use crate::table::Table;
use crate::zone::{Live, Zone};
use futures::stream::StreamExt;
use k8s_openapi::jiff::Timestamp;
use kind::Kind;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trouble::Troubles;

/// How many waiting events are taken before the names are renewed: a burst costs one renewal, and a stream of events
/// without end cannot hold it up.
const BURST: usize = 1000;

/// Watch until the watches end, which they do only when the client is gone.
pub async fn follow(client: kube::Client, config: Arc<Config>, live: Arc<Live>, metrics: Arc<Metrics>) {
    let mut serial = None;
    let mut table = Table::new(config.clone());
    let mut services = Kind::new(&client, Table::service);
    let mut slices = Kind::new(&client, Table::slice);
    let mut pods = Kind::new(&client, Table::pod);
    let mut namespaces = Kind::new(&client, Table::namespace);
    let mut troubles = Troubles::default();
    loop {
        tokio::select! {
            Some(event) = services.events.next() => services.take(event, &mut table),
            Some(event) = slices.events.next() => slices.take(event, &mut table),
            Some(event) = pods.events.next() => pods.take(event, &mut table),
            Some(event) = namespaces.events.next() => namespaces.take(event, &mut table),
            else => return,
        }
        let began = Instant::now();
        for _ in 0..BURST {
            let more = services.take_waiting(&mut table)
                | slices.take_waiting(&mut table)
                | pods.take_waiting(&mut table)
                | namespaces.take_waiting(&mut table);
            if !more {
                break;
            }
        }
        troubles.tell([
            services.trouble(),
            slices.trouble(),
            pods.trouble(),
            namespaces.trouble(),
        ]);
        // Without the Services and their endpoints there is nothing to serve. Without the right to see pods or namespaces
        // only their own names are missing, for good: that is no reason to be unsure about all others.
        let complete =
            services.is_listed() && slices.is_listed() && pods.is_settled() && namespaces.is_settled();
        let names = table.commit();
        let records = names.records() + config.apexes().count();
        let (len, newest) = (names.len(), names.serial);
        live.replace(Zone::new(&config, names, complete));
        if serial.replace(newest) != Some(newest) {
            metrics.published(len, records, newest, began.elapsed());
        }
        let now = Timestamp::now();
        for changed in slices.changed.drain(..) {
            // A clock that was set back in between measures nothing.
            let delay = Duration::try_from(now.duration_since(changed)).unwrap_or_default();
            metrics.programmed(delay);
        }
    }
}
