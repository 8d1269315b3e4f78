//! All names, put together from what each object says. One object's change costs what it changes, not what the cluster
//! holds, nor what its Service holds.

use crate::Config;
use crate::name::{Name, labels};
use crate::names::{Names, Node};
use crate::records::{self, Common, Fact, Member, TTL, types};
use crate::set::{Data, Set};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use smallvec::SmallVec;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Namespace (empty if there is none) and name.
pub type Key = (String, String);

/// Sets larger than this are searched by an index.
const SMALL: usize = 32;

/// Who says something, but for slices.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Owner {
    Zone,
    Namespace(Key),
    Service(Key),
    Pod(Key),
}

/// A slice as it is.
#[derive(Debug)]
struct Slice {
    object: EndpointSlice,
    /// What it says of its Service, if that is headless, and of which endpoints.
    said: Option<Saying>,
}

/// What a slice says: of which endpoints.
type Saying = (Common, HashSet<Member>);

/// A Service's slices and whether its names are theirs. The Service itself need not exist.
#[derive(Debug, Default)]
struct Endpoints {
    is_headless: bool,
    slices: BTreeSet<Key>,
    /// Endpoints that have names, in all slices.
    published: usize,
}

impl Endpoints {
    /// The SRV records of a Service share a hundred, as far as it goes.
    fn weight(&self) -> u16 {
        u16::try_from(100 / self.published.max(1)).unwrap_or(1).max(1)
    }
}

/// What is said about a name, and how often.
#[derive(Debug, Default)]
struct Said {
    /// Facts about the name, and names right below it.
    times: usize,
    sets: SmallVec<[Counted; 1]>,
}

/// A set of records with how often each is said.
#[derive(Debug)]
struct Counted {
    set: Set,
    /// For each place of the set.
    times: Vec<usize>,
    /// Where each record's data are; empty in a small set.
    places: HashMap<Box<[u8]>, usize>,
}

impl Counted {
    fn new(type_: u16) -> Self {
        Self {
            set: Set::new(type_, TTL),
            times: Vec::new(),
            places: HashMap::new(),
        }
    }

    fn place(&self, data: &[u8]) -> Option<usize> {
        if self.places.is_empty() {
            self.set.iter().position(|other| other == data)
        } else {
            self.places.get(data).copied()
        }
    }

    /// It is said once more; whether that is new.
    fn add(&mut self, data: &[u8]) -> bool {
        if let Some(place) = self.place(data) {
            self.times[place] += 1;
            return false;
        }
        if !self.set.push(data) {
            return false;
        }
        self.times.push(1);
        if !self.places.is_empty() {
            self.places.insert(data.into(), self.set.len() - 1);
        } else if self.set.len() > SMALL {
            self.places = self.set.iter().map(Into::into).zip(0..).collect();
        }
        true
    }

    /// It is said once less; whether it is said no more.
    fn take(&mut self, data: &[u8]) -> bool {
        let Some(place) = self.place(data) else {
            return false;
        };
        self.times[place] -= 1;
        if self.times[place] > 0 {
            return false;
        }
        self.times.swap_remove(place);
        self.set.swap_remove(place);
        if self.places.remove(data).is_some() && place < self.set.len() {
            self.places.insert(self.set.data(place).into(), place);
        }
        true
    }
}

/// The names as they are and what they come from.
#[derive(Debug)]
pub struct Table {
    config: Arc<Config>,
    names: Names,
    facts: HashMap<Owner, Vec<Fact>>,
    said: HashMap<Name, Said>,
    /// Names of which something is said that was not, or no more.
    changed: HashSet<Name>,
    slices: HashMap<Key, Slice>,
    services: HashMap<Key, Endpoints>,
}

impl Table {
    /// The zones themselves and nothing else.
    pub fn new(config: Arc<Config>) -> Self {
        let mut table = Self {
            names: Names::new(config.first_serial),
            config,
            facts: HashMap::new(),
            said: HashMap::new(),
            changed: HashSet::new(),
            slices: HashMap::new(),
            services: HashMap::new(),
        };
        table.say(Owner::Zone, records::apexes(&table.config));
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
        let is_headless = service.is_some_and(records::is_headless);
        let endpoints = self.services.entry(key.clone()).or_default();
        if endpoints.is_headless != is_headless {
            endpoints.is_headless = is_headless;
            self.say_slices_of(key);
        }
        self.forget(key);
    }

    /// An EndpointSlice is so now, or gone.
    pub fn slice(&mut self, key: &Key, slice: Option<&EndpointSlice>) {
        let service = |slice: &EndpointSlice| {
            let (namespace, name) = records::service_of(slice)?;
            Some((namespace.to_owned(), name.to_owned()))
        };
        let before = self.slices.remove(key);
        let service_before = before.as_ref().and_then(|slice| service(&slice.object));
        let service_now = slice.and_then(service);
        let mut weights = Vec::new();
        for service in service_before.iter().chain(&service_now) {
            let endpoints = self.services.entry(service.clone()).or_default();
            weights.push((service.clone(), endpoints.weight()));
        }
        if let (Some(before), Some(service)) = (&before, &service_before) {
            let endpoints = self.services.entry(service.clone()).or_default();
            endpoints.published -= records::published(&before.object).count();
            endpoints.slices.remove(key);
        }
        if let (Some(slice), Some(service)) = (slice, &service_now) {
            let endpoints = self.services.entry(service.clone()).or_default();
            endpoints.published += records::published(slice).count();
            endpoints.slices.insert(key.clone());
        }
        let said = before.and_then(|before| before.said);
        match slice.filter(|_| service_now.is_some()) {
            Some(slice) => {
                let object = slice.clone();
                self.slices.insert(key.clone(), Slice { object, said });
                self.say_slice(key);
            }
            None => self.say_endpoints(said.as_ref(), None),
        }
        for (service, weight) in weights {
            if self.services.get(&service).is_some_and(|s| s.weight() != weight) {
                self.say_slices_of(&service);
            }
            self.forget(&service);
        }
    }

    /// The names with every change so far.
    pub fn commit(&mut self) -> Names {
        if !self.changed.is_empty() {
            self.names.serial = self.names.serial.wrapping_add(1);
        }
        for name in std::mem::take(&mut self.changed) {
            match self.said.get(&name) {
                Some(said) => self.names.insert(node(&name, said)),
                None => self.names.remove(&name),
            }
        }
        self.names.clone()
    }

    /// A Service that does not exist and has no slices needs no place.
    fn forget(&mut self, service: &Key) {
        let is_empty = |s: &Endpoints| !s.is_headless && s.slices.is_empty();
        if self.services.get(service).is_some_and(is_empty) {
            self.services.remove(service);
        }
    }

    fn say_slices_of(&mut self, service: &Key) {
        let slices = self.services.get(service).map(|s| s.slices.clone());
        for key in slices.unwrap_or_default() {
            self.say_slice(&key);
        }
    }

    /// Only slices whose headless Service exists say anything.
    fn say_slice(&mut self, key: &Key) {
        let Some(mut slice) = self.slices.remove(key) else {
            return;
        };
        let service = records::service_of(&slice.object).map(|(ns, name)| (ns.to_owned(), name.to_owned()));
        let endpoints = service.and_then(|service| self.services.get(&service));
        let common = endpoints
            .filter(|endpoints| endpoints.is_headless)
            .and_then(|endpoints| Common::new(&self.config, &slice.object, endpoints.weight()));
        let members = || records::published(&slice.object).map(Member::from).collect();
        let now = common.map(|common| (common, members()));
        self.say_endpoints(slice.said.as_ref(), now.as_ref());
        slice.said = now;
        self.slices.insert(key.clone(), slice);
    }

    /// Say what is new, take back what is said no more.
    fn say_endpoints(&mut self, before: Option<&Saying>, now: Option<&Saying>) {
        let same = before.zip(now).is_some_and(|((a, _), (b, _))| a == b);
        let is_in =
            |saying: Option<&Saying>, member| same && saying.is_some_and(|(_, all)| all.contains(member));
        let config = self.config.clone();
        if let Some((common, members)) = now {
            for member in members.iter().filter(|member| !is_in(before, member)) {
                for (name, data) in records::endpoint(&config, common, member) {
                    self.count(&name, data.as_ref());
                }
            }
        }
        if let Some((common, members)) = before {
            for member in members.iter().filter(|member| !is_in(now, member)) {
                for (name, data) in records::endpoint(&config, common, member) {
                    self.discount(&name, data.as_ref());
                }
            }
        }
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

    fn count(&mut self, name: &Name, data: Option<&Data>) {
        let said = match self.said.get_mut(name) {
            Some(said) => said,
            None => self.said.entry(name.clone()).or_default(),
        };
        said.times += 1;
        let is_new_name = said.times == 1;
        let is_new_data = data.is_some_and(|data| said.set(data.type_).add(&data.bytes));
        if is_new_name || is_new_data {
            self.changed.insert(name.clone());
        }
        // Every name between a name and its apex exists (RFC 8020).
        if let Some(parent) = is_new_name.then(|| self.parent(name)).flatten() {
            self.count(&parent, None);
        }
    }

    fn discount(&mut self, name: &Name, data: Option<&Data>) {
        let Some(said) = self.said.get_mut(name) else {
            return;
        };
        said.times -= 1;
        if let Some(data) = data
            && said.set(data.type_).take(&data.bytes)
        {
            said.sets.retain(|counted| !counted.set.is_empty());
            self.changed.insert(name.clone());
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
    fn parent(&self, name: &Name) -> Option<Name> {
        let is_ours = |parent: &Name| self.config.apexes().any(|apex| parent.is_within(apex));
        name.parent().filter(is_ours)
    }
}

impl Said {
    fn set(&mut self, type_: u16) -> &mut Counted {
        let place = self.sets.iter().position(|counted| counted.set.type_() >= type_);
        let place = place.unwrap_or(self.sets.len());
        if self
            .sets
            .get(place)
            .is_none_or(|counted| counted.set.type_() != type_)
        {
            self.sets.insert(place, Counted::new(type_));
        }
        &mut self.sets[place]
    }
}

fn node(name: &Name, said: &Said) -> Node {
    let sets = said.sets.iter().map(|counted| &counted.set);
    let sets = sets.map(|set| match set.type_() {
        types::PTR => shortest(set),
        _ => set.clone(),
    });
    Node {
        name: name.clone(),
        sets: sets.collect(),
    }
}

/// A Service's name, the shorter one, hides the names of endpoints with the same address.
fn shortest(pointers: &Set) -> Set {
    let fewest = pointers.iter().map(labels).min();
    let mut kept = Set::new(pointers.type_(), pointers.ttl());
    for target in pointers.iter().filter(|target| Some(labels(target)) == fewest) {
        kept.push(target);
    }
    kept
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
    fn one_endpoint_among_ten_thousand_that_goes_takes_its_records_with_it() {
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
        assert!(before.len() > 20_000);
        table.slice(&key("s50"), Some(&hundred(50, false)));
        let after = table.commit();
        // The endpoint's name and its reverse name are gone; what the Service has is one record less.
        assert_eq!(before.len() - after.len(), 2);
        assert_eq!(before.records() - after.records(), 5);
        assert_eq!(after.serial, before.serial + 1);
        assert_eq!(table.commit().serial, after.serial, "nothing is new");
    }
}
