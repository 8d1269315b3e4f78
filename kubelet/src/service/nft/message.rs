//! A batch of nftables messages as bytes: netlink headers, attributes, and the objects of one table.
//!
//! The numbers are those of `linux/netfilter/nf_tables.h` and `linux/netfilter/nfnetlink.h`.

use super::expression;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_NEWSET: u16 = 9;
const NFT_MSG_NEWSETELEM: u16 = 12;

const NFPROTO_IPV4: u8 = 2;
const NFT_SET_MAP: u32 = 0x8;

/// `nlattr.nla_type`: the value is a list of attributes.
const NLA_F_NESTED: u16 = 1 << 15;

/// Elements in one message: an attribute's length has 16 bits.
const ELEMENTS: usize = 500;

/// Of a `nlmsghdr`.
const HEADER: usize = 16;

/// A list of attributes that grows.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).expect("attributes are short");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    pub fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub fn list(self, kind: u16, value: Self) -> Self {
        self.bytes(kind | NLA_F_NESTED, &value.0)
    }
}

/// What a set's elements are made of. The types are only for those who look at them (`nft list`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Set {
    key_type: u32,
    key_length: u32,
    /// Type and length of what a map has for each key.
    data: Option<(u32, u32)>,
}

/// How nft names types: by numbers of its own, six bits for each part.
const IPV4_ADDR: u32 = 7;
const INET_PROTO: u32 = 12;
const INET_SERVICE: u32 = 13;
const MARK: u32 = 19;

impl Set {
    pub const ADDRESSES: Self = Self {
        key_type: IPV4_ADDR,
        key_length: 4,
        data: None,
    };
    pub const PAIRS: Self = Self {
        key_type: IPV4_ADDR << 6 | IPV4_ADDR,
        key_length: 8,
        data: None,
    };
    pub const DESTINATIONS: Self = Self {
        key_type: IPV4_ADDR << 12 | INET_PROTO << 6 | INET_SERVICE,
        key_length: 12,
        data: None,
    };
    pub const NUMBERED_DESTINATIONS: Self = Self {
        key_type: Self::DESTINATIONS.key_type << 6 | MARK,
        key_length: 16,
        data: Some((IPV4_ADDR << 6 | INET_SERVICE, 8)),
    };
}

/// Where in the kernel a base chain is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hook {
    Prerouting = 0,
    Output = 3,
    Postrouting = 4,
}

/// What is done with a packet, one expression after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Rule(pub(super) Attributes);

impl Rule {
    /// One more expression.
    pub fn then(self, name: &str, data: Attributes) -> Self {
        let one = Attributes::default()
            .text(expression::NFTA_EXPR_NAME, name)
            .list(expression::NFTA_EXPR_DATA, data);
        Self(self.0.list(1, one))
    }
}

/// Messages that are carried out together or not at all.
pub(super) struct Batch {
    bytes: Vec<u8>,
    table: String,
    sequence: u32,
    sets: u32,
}

impl Batch {
    pub fn new(table: &str) -> Self {
        let mut batch = Self {
            bytes: Vec::new(),
            table: table.into(),
            sequence: 0,
            sets: 0,
        };
        batch.bound(NFNL_MSG_BATCH_BEGIN);
        batch
    }

    pub fn end(mut self) -> Vec<u8> {
        self.bound(NFNL_MSG_BATCH_END);
        self.bytes
    }

    fn bound(&mut self, kind: u16) {
        let subsystem = NFNL_SUBSYS_NFTABLES.to_be_bytes();
        self.message(kind, 0, [0, 0, subsystem[0], subsystem[1]], Attributes::default());
    }

    fn change(&mut self, kind: u16, flags: i32, attributes: Attributes) {
        let flags = u16::try_from(flags | libc::NLM_F_ACK).expect("flags have 16 bits");
        self.message(
            NFNL_SUBSYS_NFTABLES << 8 | kind,
            flags,
            [NFPROTO_IPV4, 0, 0, 0],
            attributes,
        );
    }

    fn message(&mut self, kind: u16, flags: u16, family: [u8; 4], attributes: Attributes) {
        let length = HEADER + family.len() + attributes.0.len();
        let length = u32::try_from(length).expect("a message is short");
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | 1).to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend(family);
        self.bytes.extend(attributes.0);
        self.sequence += 1;
    }

    /// Attributes that begin with the table's name, as those of every object but its own do.
    fn of_table(&self) -> Attributes {
        Attributes::default().text(1, &self.table)
    }

    pub fn add_table(&mut self) {
        self.change(NFT_MSG_NEWTABLE, libc::NLM_F_CREATE, self.of_table());
    }

    pub fn delete_table(&mut self) {
        self.change(NFT_MSG_DELTABLE, 0, self.of_table());
    }

    /// A chain that others jump to.
    pub fn add_chain(&mut self, name: &str) {
        let chain = self.of_table().text(3, name);
        self.change(NFT_MSG_NEWCHAIN, libc::NLM_F_CREATE, chain);
    }

    /// A chain that packets come to from the kernel.
    pub fn add_base_chain(&mut self, name: &str, kind: &str, hook: Hook, priority: i32) {
        let hook = Attributes::default()
            .number(1, hook as u32)
            .number(2, priority.cast_unsigned());
        let chain = self.of_table().text(3, name).list(4, hook).text(7, kind);
        self.change(NFT_MSG_NEWCHAIN, libc::NLM_F_CREATE, chain);
    }

    pub fn add_rule(&mut self, chain: &str, rule: Rule) {
        let rule = self.of_table().text(2, chain).list(4, rule.0);
        self.change(NFT_MSG_NEWRULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND, rule);
    }

    /// A set or map with its elements: keys, and what a map has for them.
    pub fn add_set(&mut self, name: &str, set: Set, elements: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) {
        self.sets += 1;
        let flags = if set.data.is_some() { NFT_SET_MAP } else { 0 };
        let mut made = self
            .of_table()
            .text(2, name)
            .number(3, flags)
            .number(4, set.key_type)
            .number(5, set.key_length);
        if let Some((data_type, data_length)) = set.data {
            made = made.number(6, data_type).number(7, data_length);
        }
        self.change(NFT_MSG_NEWSET, libc::NLM_F_CREATE, made.number(10, self.sets));
        let elements: Vec<_> = elements.collect();
        for some in elements.chunks(ELEMENTS) {
            let mut list = Attributes::default();
            for (key, data) in some {
                let value = |bytes: &[u8]| Attributes::default().bytes(1, bytes);
                let mut element = Attributes::default().list(1, value(key));
                if set.data.is_some() {
                    element = element.list(2, value(data));
                }
                list = list.list(1, element);
            }
            let added = self.of_table().text(2, name).list(3, list);
            self.change(NFT_MSG_NEWSETELEM, libc::NLM_F_CREATE, added);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_but_their_length_is_what_is_in_them() {
        let attributes = Attributes::default().text(1, "ab").number(2, 1);
        let length = |n: u16| n.to_ne_bytes();
        let expected = [
            &length(7)[..],
            &length(1),
            b"ab\0\0",
            &length(8),
            &length(2),
            &[0, 0, 0, 1],
        ];
        assert_eq!(attributes.0, expected.concat());
    }

    #[test]
    fn messages_have_their_length_and_follow_one_another() {
        let mut batch = Batch::new("t");
        batch.add_table();
        let bytes = batch.end();
        let mut rest = &bytes[..];
        let mut sequences = Vec::new();
        while let Some((length, _)) = rest.split_first_chunk() {
            let (message, after) = rest.split_at(u32::from_ne_bytes(*length) as usize);
            sequences.push(message[8]);
            rest = after;
        }
        assert_eq!(sequences, [0, 1, 2]);
    }

    #[test]
    fn a_large_set_goes_in_several_messages() {
        let mut batch = Batch::new("t");
        let elements = (0..1200u32).map(|n| (n.to_be_bytes().to_vec(), Vec::new()));
        batch.add_set("s", Set::ADDRESSES, elements);
        // The beginning, the set, and its elements.
        assert_eq!(batch.sequence, 2 + 3);
    }
}
