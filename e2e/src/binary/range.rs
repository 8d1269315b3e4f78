//! A range of loopback addresses for one cluster's pods.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Whoever holds this port on the last address of a range has that range.
const GUARD_PORT: u16 = 41_999;

/// A /24 in 127.0.0.0/8, which no other test on this machine has for as long as this lives.
pub struct PodRange {
    network: [u8; 3],
    _guard: TcpListener,
}

impl PodRange {
    /// Take one that is free.
    pub fn reserve() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        for _ in 0..10_000 {
            // Processes start at different places, so that most first tries succeed.
            let next = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = std::process::id().wrapping_mul(31).wrapping_add(next);
            // 127.0 is the host's own, and 127.244 is where petset puts pods when nobody says otherwise.
            let [_, _, low, high] = number.to_be_bytes();
            let network = [127, 1 + low % 240, high];
            if let Ok(guard) = TcpListener::bind((guard(network), GUARD_PORT)) {
                return Self {
                    network,
                    _guard: guard,
                };
            }
        }
        panic!("no range of loopback addresses is free");
    }

    /// `127.17.4.0/24`
    pub fn cidr(&self) -> String {
        let [a, b, c] = self.network;
        format!("{a}.{b}.{c}.0/24")
    }

    /// An address in it that no pod gets before the others are used up.
    pub fn guard(&self) -> Ipv4Addr {
        guard(self.network)
    }
}

fn guard([a, b, c]: [u8; 3]) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, 254)
}
