//! All names that are answered, as readers see them: a version stays as it is for as long as somebody has it, and the
//! next one copies only what is on the way to the names that changed (a hash trie of two levels with small tables as
//! leaves: 4,096 of them, so that a name among a million has two hundred neighbours to copy).

use crate::name::Name;
use crate::set::Set;
use hashbrown::{DefaultHashBuilder, HashTable};
use smallvec::SmallVec;
use std::hash::BuildHasher;
use std::sync::Arc;

/// How many ways there are at each level.
const WAYS: usize = 64;

/// What stands at one name: a set of records for each type, in the order of the types' numbers; none at all at an empty
/// non-terminal.
#[derive(Clone, Debug)]
pub struct Node {
    /// The name.
    pub name: Name,
    /// The sets; none is empty.
    pub sets: SmallVec<[Set; 2]>,
}

impl Node {
    /// The set of a type.
    pub fn set(&self, type_: u16) -> Option<&Set> {
        self.sets.iter().find(|set| set.type_() == type_)
    }
}

/// Every value says its hash, so that moving it does not read the name.
type Leaf = HashTable<(u64, Arc<Node>)>;
type Branch = [Arc<Leaf>; WAYS];

/// One version of all names.
#[derive(Clone, Debug)]
pub struct Names {
    branches: [Arc<Branch>; WAYS],
    hasher: DefaultHashBuilder,
    len: usize,
    records: usize,
    /// The SOA's; each version has one of its own.
    pub serial: u32,
}

impl Names {
    /// None.
    pub fn new(serial: u32) -> Self {
        let leaf = Arc::new(Leaf::new());
        let branch: Arc<Branch> = Arc::new(std::array::from_fn(|_| leaf.clone()));
        Self {
            branches: std::array::from_fn(|_| branch.clone()),
            hasher: DefaultHashBuilder::default(),
            len: 0,
            records: 0,
            serial,
        }
    }

    /// What stands at a name in lower case, if it exists.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Node>> {
        let hash = self.hasher.hash_one(name);
        let (branch, leaf) = path(hash);
        let found = self.branches[branch][leaf].find(hash, |(_, node)| node.name.as_wire() == name);
        found.map(|(_, node)| node)
    }

    /// Every name, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Node> {
        let leaves = self.branches.iter().flat_map(|branch| branch.iter());
        leaves.flat_map(|leaf| leaf.iter()).map(|(_, node)| node.as_ref())
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many records there are at all names.
    pub fn records(&self) -> usize {
        self.records
    }

    /// From now on this stands at its name.
    pub fn insert(&mut self, node: Node) {
        self.remove(&node.name);
        self.len += 1;
        self.records += count(&node);
        let hash = self.hasher.hash_one(node.name.as_wire());
        self.leaf(hash)
            .insert_unique(hash, (hash, Arc::new(node)), |(hash, _)| *hash);
    }

    /// From now on the name does not exist.
    pub fn remove(&mut self, name: &Name) {
        let hash = self.hasher.hash_one(name.as_wire());
        let found = self.leaf(hash).find_entry(hash, |(_, node)| node.name == *name);
        if let Ok(entry) = found {
            let ((_, node), _) = entry.remove();
            self.len -= 1;
            self.records -= count(&node);
        }
    }

    fn leaf(&mut self, hash: u64) -> &mut Leaf {
        let (branch, leaf) = path(hash);
        let branch = Arc::make_mut(&mut self.branches[branch]);
        Arc::make_mut(&mut branch[leaf])
    }
}

fn count(node: &Node) -> usize {
    node.sets.iter().map(Set::len).sum()
}

/// Bits from the middle: the table takes the lowest and the highest ones.
fn path(hash: u64) -> (usize, usize) {
    let ways = |bits: u64| usize::try_from(bits % WAYS as u64).expect("less than WAYS");
    (ways(hash >> 32), ways(hash >> 38))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u32) -> Node {
        let name = Name::root().child(format!("n{n}")).expect("a label");
        let mut set = Set::new(1, 5);
        set.push(&n.to_be_bytes());
        Node {
            name,
            sets: SmallVec::from_iter([set]),
        }
    }

    fn find(names: &Names, n: u32) -> Option<&Arc<Node>> {
        names.get(node(n).name.as_wire())
    }

    #[test]
    fn a_version_stays_as_it_is_and_shares_all_but_what_changed() {
        let mut names = Names::new(1);
        (0..50_000).for_each(|n| names.insert(node(n)));
        let before = names.clone();
        names.remove(&node(7).name);
        names.insert(node(60_000));
        names.insert(node(8));
        assert!(find(&before, 7).is_some() && find(&before, 60_000).is_none());
        assert!(find(&names, 7).is_none() && find(&names, 60_000).is_some());
        assert_eq!(
            (before.len(), names.len(), names.records()),
            (50_000, 50_000, 50_000)
        );
        assert_eq!(names.iter().count(), 50_000);
        let leaves = |names: &Names| {
            let all = names.branches.iter().flat_map(|branch| branch.iter().cloned());
            all.collect::<Vec<_>>()
        };
        let pairs = leaves(&before).into_iter().zip(leaves(&names));
        let copied = pairs.filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
        assert!((1..=3).contains(&copied), "{copied} leaves are new");
    }
}
