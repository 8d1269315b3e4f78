//! The expressions that rules are made of. Each works on registers of four bytes; what they are used for is the same in every
//! rule, so nothing has to be passed around: the key of a lookup begins in the first, and so does what is found.
//!
//! The numbers are those of `linux/netfilter/nf_tables.h`.

use super::message::{Attributes, Rule};
use std::net::Ipv4Addr;

pub(super) const NFTA_EXPR_NAME: u16 = 1;
pub(super) const NFTA_EXPR_DATA: u16 = 2;

/// The first register of four bytes (`NFT_REG32_00`).
const FIRST: u32 = 8;
/// Where verdicts go (`NFT_REG_VERDICT`).
const VERDICT: u32 = 0;

const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_L4PROTO: u32 = 16;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const EQUAL: u32 = 0;
const UNEQUAL: u32 = 1;
const NG_RANDOM: u32 = 1;
const NAT_DNAT: u32 = 1;
const ICMP_UNREACH: u32 = 0;
const NF_DROP: u32 = 0;
/// -3 as 32 bits.
const NFT_JUMP: u32 = 3u32.wrapping_neg();

/// Space for an interface's name.
const IFNAMSIZ: usize = 16;

/// One of a packet's two addresses.
#[derive(Clone, Copy, Debug)]
pub(super) enum Destined {
    From,
    To,
}

/// How a packet ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    Drop,
    /// Another chain says, and if it does not this one goes on.
    Jump(&'static str),
}

/// What the sender is told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reject {
    PortUnreachable = 3,
}

impl Rule {
    /// Address, protocol and port that the packet is for, in the first three registers.
    pub fn load_destination(self) -> Self {
        let protocol = Attributes::default().number(1, FIRST + 1).number(2, META_L4PROTO);
        self.load_address(Destined::To)
            .then("meta", protocol)
            .load(FIRST + 2, TRANSPORT_HEADER, 2, 2)
    }

    /// In the first register.
    pub fn load_address(self, which: Destined) -> Self {
        self.load_address_to(FIRST, which)
    }

    /// Both addresses, in the first two registers.
    pub fn load_pair(self) -> Self {
        self.load_address_to(FIRST, Destined::From)
            .load_address_to(FIRST + 1, Destined::To)
    }

    fn load_address_to(self, register: u32, which: Destined) -> Self {
        let offset = match which {
            Destined::From => 12,
            Destined::To => 16,
        };
        self.load(register, NETWORK_HEADER, offset, 4)
    }

    fn load(self, register: u32, header: u32, offset: u32, length: u32) -> Self {
        let payload = Attributes::default()
            .number(1, register)
            .number(2, header)
            .number(3, offset)
            .number(4, length);
        self.then("payload", payload)
    }

    /// A random number in the fourth register.
    pub fn load_chance(self, below: u32) -> Self {
        let numgen = Attributes::default()
            .number(1, FIRST + 3)
            .number(2, below)
            .number(3, NG_RANDOM);
        self.then("numgen", numgen)
    }

    /// A number in the fourth register that is always the same for the same client. The seed is given, so that it stays when
    /// the table is replaced.
    pub fn load_client(self, below: u32) -> Self {
        let hash = Attributes::default()
            .number(1, FIRST + 4)
            .number(2, FIRST + 3)
            .number(3, 4)
            .number(4, below)
            .number(5, 0x7065_7473);
        self.load_address_to(FIRST + 4, Destined::From).then("hash", hash)
    }

    /// Go on only if the set has what is in the registers.
    pub fn contained_in(self, set: &str) -> Self {
        self.then("lookup", Attributes::default().text(1, set).number(2, FIRST))
    }

    /// Go on only if the map has what is in the registers, with what it has there in the first two.
    pub fn look_up_endpoint(self, map: &str) -> Self {
        let lookup = Attributes::default()
            .text(1, map)
            .number(2, FIRST)
            .number(3, FIRST);
        self.then("lookup", lookup)
    }

    /// The packet is for address and port in the first two registers from now on.
    pub fn translate(self) -> Self {
        let family = u32::try_from(libc::AF_INET).expect("it is two");
        let nat = Attributes::default()
            .number(1, NAT_DNAT)
            .number(2, family)
            .number(3, FIRST)
            .number(5, FIRST + 1);
        self.then("nat", nat)
    }

    /// The packet comes from the address of the interface that it leaves by.
    pub fn masquerade(self) -> Self {
        self.then("masq", Attributes::default())
    }

    pub fn reject(self, how: Reject) -> Self {
        let code = Attributes::default()
            .number(1, ICMP_UNREACH)
            .bytes(2, &[how as u8]);
        self.then("reject", code)
    }

    pub fn verdict(self, verdict: Verdict) -> Self {
        let verdict = match verdict {
            Verdict::Drop => Attributes::default().number(1, NF_DROP),
            Verdict::Jump(chain) => Attributes::default().number(1, NFT_JUMP).text(2, chain),
        };
        let data = Attributes::default().list(2, verdict);
        self.then(
            "immediate",
            Attributes::default().number(1, VERDICT).list(2, data),
        )
    }

    /// Go on only with packets that came in here.
    pub fn comes_from(self, interface: &str) -> Self {
        self.interface(META_IIFNAME, EQUAL, interface)
    }

    /// Go on only with packets that go out elsewhere.
    pub fn leaves_not_by(self, interface: &str) -> Self {
        self.interface(META_OIFNAME, UNEQUAL, interface)
    }

    fn interface(self, which: u32, how: u32, interface: &str) -> Self {
        let mut name = interface.as_bytes().to_vec();
        name.resize(IFNAMSIZ, 0);
        self.then("meta", Attributes::default().number(1, FIRST).number(2, which))
            .compare(how, &name)
    }

    /// Go on only if the address is (or is not) in a network.
    pub fn address_within(self, which: Destined, network: Ipv4Addr, prefix: u8, within: bool) -> Self {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
        let value = |bytes: u32| Attributes::default().bytes(1, &bytes.to_be_bytes());
        let bitwise = Attributes::default()
            .number(1, FIRST)
            .number(2, FIRST)
            .number(3, 4)
            .list(4, value(mask))
            .list(5, value(0));
        let how = if within { EQUAL } else { UNEQUAL };
        self.load_address(which)
            .then("bitwise", bitwise)
            .compare(how, &(network.to_bits() & mask).to_be_bytes())
    }

    fn compare(self, how: u32, value: &[u8]) -> Self {
        let compare = Attributes::default()
            .number(1, FIRST)
            .number(2, how)
            .list(3, Attributes::default().bytes(1, value));
        self.then("cmp", compare)
    }
}
