//! Ranges of addresses.

// clap would show the documentation of a flattened field as the command's own description.
#![allow(missing_docs)]

use clap::Args;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Whose reverse names there are.
#[derive(Args, Clone, Debug)]
pub struct Ranges {
    /// Ranges of pod addresses, IPv4 or IPv6, whose reverse names are answered
    #[arg(
        long,
        env = "PETSET_POD_CIDR",
        value_name = "CIDR[,CIDR]",
        value_delimiter = ',',
        default_value = "10.244.0.0/16,127.244.0.0/16"
    )]
    pub pod_cidr: Vec<Cidr>,
    /// Ranges of Service addresses, IPv4 or IPv6, whose reverse names are answered
    #[arg(
        long,
        env = "PETSET_SERVICE_CIDR",
        value_name = "CIDR[,CIDR]",
        value_delimiter = ',',
        default_value = "10.96.0.0/12"
    )]
    pub service_cidr: Vec<Cidr>,
}

impl Ranges {
    /// All of them, as text.
    pub fn reverse(&self) -> Vec<String> {
        let all = self.pod_cidr.iter().chain(&self.service_cidr);
        all.map(ToString::to_string).collect()
    }
}

/// A range of addresses, of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
            let most = if address.is_ipv4() { 32 } else { 128 };
            (1..=most).contains(&prefix).then_some(Self { address, prefix })
        };
        parse().ok_or_else(|| {
            format!("{text:?} is no range of addresses (examples are 10.244.0.0/16 and fd00:10:244::/56)")
        })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Arguments, Command};
    use super::*;
    use clap::Parser;

    #[test]
    fn ranges_of_both_families_are_taken_one_by_one_or_with_commas() {
        let given = "petset dns --pod-cidr 10.244.0.0/16,fd00:10:244::/56 --pod-cidr 10.245.0.0/16";
        let parsed = Arguments::try_parse_from(given.split(' ')).expect("flags");
        let Command::Dns(dns) = parsed.command else {
            panic!("{parsed:?}")
        };
        assert_eq!(
            dns.ranges.reverse(),
            [
                "10.244.0.0/16",
                "fd00:10:244::/56",
                "10.245.0.0/16",
                "10.96.0.0/12"
            ]
        );
        for wrong in ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/0", "fd00::/129", "x/8"] {
            assert!(
                wrong.parse::<Cidr>().expect_err(wrong).contains("no range"),
                "{wrong}"
            );
        }
    }
}
