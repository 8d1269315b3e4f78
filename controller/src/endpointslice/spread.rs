//! How the endpoints of a group are spread over slices: each stays where it is, as far as it can.

use super::plan::{Group, MAX_ENDPOINTS};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use std::collections::{BTreeMap, BTreeSet};

/// What makes an endpoint the same one, whatever its conditions are: its addresses and its pod's UID.
type Identity = (Vec<String>, Option<String>);

fn identity(endpoint: &Endpoint) -> Identity {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
    (endpoint.addresses.clone(), uid)
}

fn held(slice: &EndpointSlice) -> impl Iterator<Item = &Endpoint> {
    slice.endpoints.iter().flatten()
}

/// Where endpoints belong, and which are in some slice already.
pub(super) struct Homes<'a> {
    groups: BTreeMap<Identity, &'a Group>,
    held: BTreeSet<Identity>,
}

impl<'a> Homes<'a> {
    pub(super) fn new(wanted: &'a BTreeMap<Group, Vec<Endpoint>>, slices: &[&EndpointSlice]) -> Self {
        let groups = wanted.iter().flat_map(|(group, endpoints)| {
            let identities = endpoints.iter().map(identity);
            identities.map(move |identity| (identity, group))
        });
        Self {
            groups: groups.collect(),
            held: slices
                .iter()
                .flat_map(|slice| held(slice))
                .map(identity)
                .collect(),
        }
    }

    /// The group of an endpoint that is still wanted.
    pub(super) fn group(&self, endpoint: &Endpoint) -> Option<&'a Group> {
        self.groups.get(&identity(endpoint)).copied()
    }
}

/// How the endpoints of a group are spread.
pub(super) struct Spread {
    /// For each slice that there is.
    pub kept: Vec<Kept>,
    /// What new slices hold.
    pub new: Vec<Vec<Endpoint>>,
}

/// What a slice goes on with.
#[derive(Default)]
pub(super) struct Kept {
    pub endpoints: Vec<Endpoint>,
    /// An endpoint that it held is wanted and has to be in another one from now on.
    pub gives: bool,
}

impl Kept {
    /// Put in what there is room for.
    fn take(&mut self, from: &mut Vec<Endpoint>) {
        let room = MAX_ENDPOINTS.saturating_sub(self.endpoints.len());
        self.endpoints.extend(from.drain(..room.min(from.len())));
    }
}

/// Each endpoint stays where it is, and a pod's successor of the same name gets its place, so that nobody who reads sees
/// both. Others go first to slices that are written anyway (because of what they lose, or as `is_rewritten` says),
/// then to the fullest that takes all of them, then to new slices. One that comes from another slice never goes to one
/// that gives an endpoint away itself: neither could then be written before the other.
pub(super) fn fill(
    endpoints: &[Endpoint],
    slices: &[&EndpointSlice],
    homes: &Homes<'_>,
    is_rewritten: impl Fn(&EndpointSlice) -> bool,
) -> Spread {
    let mut waiting: BTreeMap<Identity, &Endpoint> = endpoints.iter().map(|e| (identity(e), e)).collect();
    let mut kept: Vec<Kept> = Vec::new();
    for slice in slices {
        let keep = held(slice).filter_map(|endpoint| waiting.remove(&identity(endpoint)));
        kept.push(Kept {
            endpoints: keep.take(MAX_ENDPOINTS).cloned().collect(),
            gives: false,
        });
    }
    let is_fresh = |identity: &Identity| !homes.held.contains(identity);
    let fresh = waiting.iter().filter(|(identity, _)| is_fresh(identity));
    let mut fresh_by_name: BTreeMap<&str, Identity> = fresh
        .filter_map(|(identity, endpoint)| Some((pod_name(endpoint)?, identity.clone())))
        .collect();
    let mut written = BTreeSet::new();
    for (index, slice) in slices.iter().enumerate() {
        let stay: BTreeSet<Identity> = kept[index].endpoints.iter().map(identity).collect();
        let lost = || held(slice).filter(|endpoint| !stay.contains(&identity(endpoint)));
        kept[index].gives = lost().any(|endpoint| homes.group(endpoint).is_some());
        if is_rewritten(slice) || slice.endpoints.as_deref().unwrap_or_default() != kept[index].endpoints {
            written.insert(index);
        }
        for gone in lost() {
            if kept[index].endpoints.len() < MAX_ENDPOINTS
                && let Some(successor) = pod_name(gone).and_then(|name| fresh_by_name.remove(name))
                && let Some(endpoint) = waiting.remove(&successor)
            {
                kept[index].endpoints.push(endpoint.clone());
            }
        }
    }
    let mut movers = Vec::new();
    let mut fresh = Vec::new();
    for endpoint in endpoints {
        let identity = identity(endpoint);
        if let Some(endpoint) = waiting.remove(&identity) {
            let list = if is_fresh(&identity) {
                &mut fresh
            } else {
                &mut movers
            };
            list.push(endpoint.clone());
        }
    }
    for index in written {
        if !kept[index].gives {
            kept[index].take(&mut movers);
        }
        kept[index].take(&mut fresh);
    }
    let mut new = movers;
    new.append(&mut fresh);
    if !new.is_empty() && new.len() <= MAX_ENDPOINTS {
        let fits = |kept: &&mut Kept| !kept.gives && kept.endpoints.len() + new.len() <= MAX_ENDPOINTS;
        if let Some(fullest) = kept
            .iter_mut()
            .filter(fits)
            .max_by_key(|kept| kept.endpoints.len())
        {
            fullest.endpoints.append(&mut new);
        }
    }
    let mut new: Vec<Vec<Endpoint>> = new.chunks(MAX_ENDPOINTS).map(<[Endpoint]>::to_vec).collect();
    if endpoints.is_empty() && slices.is_empty() {
        // A family without endpoints has an empty slice.
        new.push(Vec::new());
    }
    Spread { kept, new }
}

fn pod_name(endpoint: &Endpoint) -> Option<&str> {
    endpoint.target_ref.as_ref()?.name.as_deref()
}
