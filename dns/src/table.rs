//! All names, put together from what each object says. One object's change costs what that object says, not what the
//! cluster holds; whoever reads keeps the version it has.

use crate::Config;
use crate::records::{self, Fact, TTL};
use hickory_proto::rr::{LowerName, Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::Arc;

/// What stands at one name: a set of records for each type; none at all at an empty non-terminal.
pub type Node = BTreeMap<RecordType, Vec<Record>>;

/// Namespace (empty if there is none) and name.
pub type Key = (String, String);

/// Into how many parts the names are divided: a change copies only the parts that it touches.
const PARTS: usize = 1024;

type Part = HashMap<LowerName, Arc<Node>>;

/// One version of all names; a copy is cheap and stays as it is.
#[derive(Clone, Debug)]
pub struct Names {
    parts: Vec<Arc<Part>>,
    hasher: RandomState,
}

impl Names {
    fn new() -> Self {
        Self {
            parts: vec![Arc::default(); PARTS],
            hasher: RandomState::new(),
        }
    }

    /// What stands at a name, if it exists.
    pub fn get(&self, name: &LowerName) -> Option<&Node> {
        self.parts[self.part(name)].get(name).map(AsRef::as_ref)
    }

    /// Every name, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&LowerName, &Node)> {
        let names = self.parts.iter().flat_map(|part| part.iter());
        names.map(|(name, node)| (name, node.as_ref()))
    }

    fn part(&self, name: &LowerName) -> usize {
        usize::try_from(self.hasher.hash_one(name) % PARTS as u64).expect("less than PARTS")
    }

    fn set(&mut self, name: &LowerName, node: Option<Node>) {
        let part = self.part(name);
        let part = Arc::make_mut(&mut self.parts[part]);
        match node {
            Some(node) => drop(part.insert(name.clone(), Arc::new(node))),
            None => drop(part.remove(name)),
        }
    }
}

/// Who says something.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Owner {
    Zone,
    Namespace(Key),
    Service(Key),
    Slice(Key),
    Pod(Key),
}

/// What is said about a name, and how often.
#[derive(Debug, Default)]
struct Said {
    /// Facts about the name, and names right below it.
    times: usize,
    data: HashMap<RData, usize>,
}

/// The names as they are and what they come from.
#[derive(Debug)]
pub struct Table {
    config: Arc<Config>,
    apexes: Vec<LowerName>,
    serial: u32,
    names: Names,
    facts: HashMap<Owner, Vec<Fact>>,
    said: HashMap<LowerName, Said>,
    /// Names of which something is said that was not, or no more.
    changed: HashSet<LowerName>,
    slices: HashMap<Key, EndpointSlice>,
    /// The slices of each Service, whether that exists or not.
    of_service: HashMap<Key, BTreeSet<Key>>,
    /// The headless Services with the weight of their SRV records.
    headless: HashMap<Key, u16>,
}

impl Table {
    /// The zones themselves and nothing else.
    pub fn new(config: Arc<Config>) -> Self {
        let mut table = Self {
            apexes: config.apexes().map(LowerName::new).collect(),
            config,
            serial: 0,
            names: Names::new(),
            facts: HashMap::new(),
            said: HashMap::new(),
            changed: HashSet::new(),
            slices: HashMap::new(),
            of_service: HashMap::new(),
            headless: HashMap::new(),
        };
        table.say(Owner::Zone, records::apexes(&table.config, table.serial));
        table
    }

    /// A Namespace is so now, or gone.
    pub fn namespace(&mut self, key: &Key, namespace: Option<&Namespace>) {
        let facts = namespace.map(|n| records::namespace(&self.config, n));
        self.say(Owner::Namespace(key.clone()), facts.unwrap_or_default());
    }

    /// A Pod is so now, or gone.
    pub fn pod(&mut self, key: &Key, pod: Option<&Pod>) {
        let facts = pod.map(|p| records::pod(&self.config, p));
        self.say(Owner::Pod(key.clone()), facts.unwrap_or_default());
    }

    /// A Service is so now, or gone.
    pub fn service(&mut self, key: &Key, service: Option<&Service>) {
        let facts = service.map(|s| records::service(&self.config, s));
        self.say(Owner::Service(key.clone()), facts.unwrap_or_default());
        let was = self.headless.remove(key);
        let is = service.is_some_and(records::is_headless);
        if is {
            self.headless.insert(key.clone(), self.weight(key));
        }
        if was.is_some() != is {
            self.say_slices_of(key);
        }
    }

    /// An EndpointSlice is so now, or gone.
    pub fn slice(&mut self, key: &Key, slice: Option<&EndpointSlice>) {
        let service = |slice: &EndpointSlice| {
            let (namespace, name) = records::service_of(slice)?;
            Some((namespace.to_owned(), name.to_owned()))
        };
        let before = self.slices.remove(key).as_ref().and_then(service);
        let now = slice.and_then(service);
        if let Some(before) = &before
            && let Some(slices) = self.of_service.get_mut(before)
        {
            slices.remove(key);
            if slices.is_empty() {
                self.of_service.remove(before);
            }
        }
        if let (Some(slice), Some(now)) = (slice, &now) {
            self.slices.insert(key.clone(), slice.clone());
            let slices = self.of_service.entry(now.clone()).or_default();
            slices.insert(key.clone());
        }
        for service in BTreeSet::from_iter(before.iter().chain(&now)) {
            let weight = self.weight(service);
            if let Some(old) = self.headless.get_mut(service)
                && *old != weight
            {
                *old = weight;
                self.say_slices_of(service);
            }
        }
        self.say_slice(key);
    }

    /// The names with every change so far.
    pub fn commit(&mut self) -> Names {
        if !self.changed.is_empty() {
            self.serial = self.serial.wrapping_add(1);
            self.say(Owner::Zone, records::apexes(&self.config, self.serial));
        }
        for name in std::mem::take(&mut self.changed) {
            let node = self.said.get(&name).map(|said| node(&name, said));
            self.names.set(&name, node);
        }
        self.names.clone()
    }

    /// The records of a Service share a hundred, as far as it goes.
    fn weight(&self, service: &Key) -> u16 {
        let slices = self.of_service.get(service).into_iter().flatten();
        let slices = slices.filter_map(|key| self.slices.get(key));
        let endpoints: usize = slices.map(|slice| records::published(slice).count()).sum();
        u16::try_from(100 / endpoints.max(1)).unwrap_or(1).max(1)
    }

    fn say_slices_of(&mut self, service: &Key) {
        for key in self.of_service.get(service).cloned().unwrap_or_default() {
            self.say_slice(&key);
        }
    }

    /// Only slices whose headless Service exists say anything.
    fn say_slice(&mut self, key: &Key) {
        let facts = self.slices.get(key).and_then(|slice| {
            let (namespace, service) = records::service_of(slice)?;
            let weight = self.headless.get(&(namespace.to_owned(), service.to_owned()))?;
            Some(records::slice(&self.config, slice, *weight))
        });
        self.say(Owner::Slice(key.clone()), facts.unwrap_or_default());
    }

    /// From now on the owner says this, and nothing that it said before. What it says again does not change.
    fn say(&mut self, owner: Owner, facts: Vec<Fact>) {
        for (name, data) in &facts {
            self.count(name, data.as_ref());
        }
        let before = if facts.is_empty() {
            self.facts.remove(&owner)
        } else {
            self.facts.insert(owner, facts)
        };
        for (name, data) in before.into_iter().flatten() {
            self.discount(&name, data.as_ref());
        }
    }

    fn count(&mut self, name: &LowerName, data: Option<&RData>) {
        let said = self.said.entry(name.clone()).or_default();
        said.times += 1;
        let is_new_name = said.times == 1;
        let is_new_data = data.is_some_and(|data| {
            let times = said.data.entry(data.clone()).or_default();
            *times += 1;
            *times == 1
        });
        if is_new_name || is_new_data {
            self.changed.insert(name.clone());
        }
        // Every name between a name and its apex exists (RFC 8020).
        if let Some(parent) = self.parent(name).filter(|_| is_new_name) {
            self.count(&parent, None);
        }
    }

    fn discount(&mut self, name: &LowerName, data: Option<&RData>) {
        let Some(said) = self.said.get_mut(name) else {
            return;
        };
        said.times -= 1;
        if let Some(data) = data
            && let Some(times) = said.data.get_mut(data)
        {
            *times -= 1;
            if *times == 0 {
                said.data.remove(data);
                self.changed.insert(name.clone());
            }
        }
        if said.times == 0 {
            self.said.remove(name);
            self.changed.insert(name.clone());
            if let Some(parent) = self.parent(name) {
                self.discount(&parent, None);
            }
        }
    }

    /// The name above, if it belongs to a zone of ours.
    fn parent(&self, name: &LowerName) -> Option<LowerName> {
        let parent = name.base_name();
        let is_ours = self.apexes.iter().any(|apex| apex.zone_of(&parent));
        is_ours.then_some(parent)
    }
}

fn node(name: &LowerName, said: &Said) -> Node {
    let owner = Name::from(name.clone());
    let mut node = Node::new();
    for data in said.data.keys() {
        let record = Record::from_rdata(owner.clone(), TTL, data.clone());
        node.entry(data.record_type()).or_default().push(record);
    }
    if let Some(pointers) = node.get_mut(&RecordType::PTR) {
        // A Service's name, the shorter one, hides the names of endpoints with the same address.
        let labels = |record: &Record| match &record.data {
            RData::PTR(target) => target.num_labels(),
            _ => 0,
        };
        let fewest = pointers.iter().map(labels).min();
        pointers.retain(|record| Some(labels(record)) == fewest);
    }
    node
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn key(name: &str) -> Key {
        ("default".into(), name.into())
    }

    /// A slice with a hundred endpoints, of which one may not be ready.
    fn hundred(service: u32, ready: bool) -> EndpointSlice {
        let endpoints: Vec<_> = (0..100)
            .map(|n| {
                json!({
                    "addresses": [format!("127.244.{service}.{n}")], "hostname": format!("n-{n}"),
                    "conditions": {"ready": ready || n != 7},
                })
            })
            .collect();
        let name = format!("s{service}");
        let labels = json!({"kubernetes.io/service-name": name});
        let slice = json!({
            "metadata": {"name": name, "namespace": "default", "labels": labels},
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "port": 80}],
        });
        serde_json::from_value(slice).expect("an EndpointSlice")
    }

    #[test]
    fn a_change_of_one_endpoint_among_ten_thousand_leaves_the_rest_where_it_is() {
        let options = crate::Options {
            reverse_ranges: vec!["127.244.0.0/16".into()],
            ..crate::Options::default()
        };
        let config = Arc::new(Config::new(&options).expect("options"));
        let mut table = Table::new(config);
        for n in 0..100 {
            let name = format!("s{n}");
            let service =
                json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"clusterIP": "None"}});
            let service = serde_json::from_value(service).expect("a Service");
            table.service(&key(&name), Some(&service));
            table.slice(&key(&name), Some(&hundred(n, true)));
        }
        let before = table.commit();
        assert!(before.iter().count() > 20_000);

        let began = std::time::Instant::now();
        table.slice(&key("s50"), Some(&hundred(50, false)));
        let after = table.commit();
        println!("{:?} for one change", began.elapsed());

        let parts = before.parts.iter().zip(&after.parts);
        let copied = parts.filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
        // The Service, its port, the endpoint, the reverse name, the two apexes.
        assert!((1..=6).contains(&copied), "{copied} parts are new");
        assert_eq!(before.iter().count() - after.iter().count(), 2);
    }
}
