//! Names as they stand in a message (RFC 1035, 3.1): each label behind its length, the empty label of the root last.
//! They are kept in lower case, so that comparing bytes compares names.

use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use std::borrow::Borrow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// The most bytes of a name (RFC 1035, 2.3.4).
pub const LONGEST: usize = 255;
/// The most bytes of a label.
const LONGEST_LABEL: usize = 63;

/// A name in lower case; a copy is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<[u8]>);

impl Name {
    /// The root, `.`.
    pub fn root() -> Self {
        Self([0].into())
    }

    /// The name with one more label in front; `None` if that cannot be a label, or the name becomes too long.
    pub fn child(&self, label: impl AsRef<[u8]>) -> Option<Self> {
        let label = label.as_ref();
        let fits = (1..=LONGEST_LABEL).contains(&label.len()) && label.len() + 1 + self.0.len() <= LONGEST;
        fits.then(|| {
            let length = [u8::try_from(label.len()).expect("at most 63")];
            let lower = label.iter().map(u8::to_ascii_lowercase);
            Self(
                length
                    .into_iter()
                    .chain(lower)
                    .chain(self.0.iter().copied())
                    .collect(),
            )
        })
    }

    /// The name under this one by its labels, the first in front.
    pub fn descendant<L: AsRef<[u8]>>(&self, labels: &[L]) -> Option<Self> {
        labels
            .iter()
            .rev()
            .try_fold(self.clone(), |name, label| name.child(label))
    }

    /// A name as people write it, `web-0.nginx.`, with or without the last dot; the empty text is the root.
    pub fn from_text(text: &str) -> Option<Self> {
        Some(Self::from(&hickory_proto::rr::Name::from_utf8(text).ok()?))
    }

    /// Where PTR records of an address stand: below `in-addr.arpa.` or `ip6.arpa.`.
    pub fn reverse(ip: IpAddr) -> Self {
        Self::from(&hickory_proto::rr::Name::from(ip))
    }

    /// A name whose bytes, in lower case, have been checked.
    pub(crate) fn from_wire(name: &[u8]) -> Self {
        Self(name.into())
    }

    /// The bytes, in lower case.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    /// The name without its first label; `None` of the root.
    pub fn parent(&self) -> Option<Self> {
        suffixes(&self.0).nth(1).map(Self::from_wire)
    }

    /// Whether this is the apex or a name below it.
    pub fn is_within(&self, apex: &Self) -> bool {
        is_within(&self.0, &apex.0)
    }
}

/// Whether a name, in lower case, is the apex or below it.
pub fn is_within(name: &[u8], apex: &[u8]) -> bool {
    name.ends_with(apex) && suffixes(name).any(|suffix| suffix.len() == apex.len())
}

/// How many labels a name has, the root's not counted.
pub fn labels(name: &[u8]) -> usize {
    suffixes(name).count() - 1
}

/// The name itself, the name without its first label, and so on to the root.
fn suffixes(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(name), |rest| match usize::from(rest[0]) {
        0 => None,
        first => Some(&rest[first + 1..]),
    })
}

impl From<&hickory_proto::rr::Name> for Name {
    fn from(name: &hickory_proto::rr::Name) -> Self {
        let mut bytes = Vec::with_capacity(name.len() + 1);
        for label in name.iter() {
            bytes.push(u8::try_from(label.len()).expect("a label is at most 63 bytes"));
            bytes.extend(label.iter().map(u8::to_ascii_lowercase));
        }
        bytes.push(0);
        Self(bytes.into())
    }
}

impl From<&Name> for hickory_proto::rr::Name {
    fn from(name: &Name) -> Self {
        Self::read(&mut BinDecoder::new(&name.0)).expect("what is kept is a name")
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hickory_proto::rr::Name::from(self).fmt(f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_text(text).expect(text)
    }

    #[test]
    fn a_name_is_written_in_lower_case_and_read_back() {
        let web = name("local").descendant(&["WEB-0", "Nginx"]).expect("labels");
        assert_eq!(web.as_wire(), b"\x05web-0\x05nginx\x05local\0");
        assert_eq!(web.to_string(), "web-0.nginx.local.");
        assert_eq!((labels(web.as_wire()), labels(Name::root().as_wire())), (3, 0));
        assert_eq!(web.parent(), Some(name("nginx.local.")));
        assert_eq!(Name::root().parent(), None);
        assert_eq!(
            Name::reverse([127, 0, 0, 7].into()).to_string(),
            "7.0.0.127.in-addr.arpa."
        );
    }

    #[test]
    fn what_cannot_be_a_label_or_a_name_is_none() {
        let root = Name::root();
        assert!(root.child("").is_none() && root.child("x".repeat(64)).is_none());
        let mut long = root;
        for _ in 0..3 {
            long = long.child("x".repeat(63)).expect("short enough");
        }
        assert!(long.child("x".repeat(62)).is_none());
        assert_eq!(
            long.child("x".repeat(61)).expect("just fits").as_wire().len(),
            LONGEST
        );
    }

    #[test]
    fn a_name_is_within_an_apex_at_whole_labels_only() {
        let apex = name("cluster.local");
        assert!(apex.is_within(&apex) && name("a.b.cluster.local").is_within(&apex));
        assert!(!name("xcluster.local").is_within(&apex) && !name("local").is_within(&apex));
        // A label that contains what looks like the apex.
        let odd = Name::root().child(b"\x07cluster\x05local").expect("a label");
        assert!(!odd.is_within(&apex));
    }
}
