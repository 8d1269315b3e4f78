//! An API, a kubelet and a garbage collector, as far as StatefulSets see them, without any task or clock.

use controller::statefulset::action::{Action, Plan, Verb};
use controller::statefulset::event::{self, Told};
use controller::statefulset::plan::plan;
use controller::statefulset::{Observed, Surroundings};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::ResourceExt;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How long the stand-in kubelet takes for everything.
const KUBELET: SignedDuration = SignedDuration::from_millis(500);

/// What there is, and what has happened.
pub struct World {
    pub now: Timestamp,
    pub set: Option<Value>,
    pub pods: BTreeMap<String, Pod>,
    pub claims: BTreeMap<String, PersistentVolumeClaim>,
    pub revisions: BTreeMap<String, ControllerRevision>,
    /// Changes in the words of the recorded traces, by kind.
    pub pod_log: Vec<Value>,
    pub claim_log: Vec<Value>,
    pub revision_log: Vec<Value>,
    /// Every revision as it was created.
    pub created_revisions: Vec<ControllerRevision>,
    /// The first pod as the controller sent it.
    pub first_pod: Option<Pod>,
    pub events: Vec<Told>,
    /// What is told that Kubernetes does not tell.
    pub news: Vec<Told>,
    /// When the kubelet is next to do something with a pod.
    due: BTreeMap<String, Timestamp>,
    written: u64,
}

impl World {
    pub fn new() -> Self {
        Self {
            now: Timestamp::UNIX_EPOCH,
            set: None,
            pods: BTreeMap::new(),
            claims: BTreeMap::new(),
            revisions: BTreeMap::new(),
            pod_log: vec![],
            claim_log: vec![],
            revision_log: vec![],
            created_revisions: vec![],
            first_pod: None,
            events: vec![],
            news: vec![],
            due: BTreeMap::new(),
            written: 0,
        }
    }

    /// A new uid or resourceVersion.
    fn next(&mut self) -> String {
        self.written += 1;
        self.written.to_string()
    }

    /// Sync, let the kubelet and the garbage collector work and time pass, until nothing moves any more.
    pub fn settle(&mut self) {
        for _ in 0..1000 {
            let wake_at = self.sync_until_quiet();
            self.collect_garbage();
            let Some(next) = self.due.values().copied().chain(wake_at).min() else {
                return;
            };
            self.now = self.now.max(next);
            let due = self
                .due
                .iter()
                .find(|(_, at)| **at <= self.now)
                .map(|(pod, _)| pod.clone());
            if let Some(pod) = due {
                self.kubelet_moves(&pod);
            }
        }
        panic!("the world does not come to rest: {:#?}", self.pod_log);
    }

    fn sync_until_quiet(&mut self) -> Option<Timestamp> {
        for _ in 0..100 {
            let plan = self.plan()?;
            let wake_at = plan.wake_at;
            let is_quiet = plan.prepare.is_empty()
                && plan.steps.is_empty()
                && plan.status.is_none()
                && plan.prune.is_empty();
            if is_quiet {
                return wake_at;
            }
            self.perform(plan);
        }
        panic!("the controller does not come to rest: {:#?}", self.pod_log);
    }

    fn plan(&self) -> Option<Plan> {
        let around = Surroundings {
            pods: shared(&self.pods),
            revisions: shared(&self.revisions),
            claims: shared(&self.claims),
            ..Surroundings::default()
        };
        let alone = Observed::new(self.set.as_ref()?).expect("a readable set");
        Some(plan(&alone.among(around), self.now))
    }

    fn perform(&mut self, plan: Plan) {
        for action in plan.prepare.into_iter().flatten().flatten() {
            self.act(action).expect("preparation succeeds");
        }
        // A step that fails ends the others; the status is written nevertheless.
        let _ = plan
            .steps
            .into_iter()
            .flatten()
            .flatten()
            .try_for_each(|action| self.act(action));
        if let (Some(status), Some(set)) = (plan.status, &mut self.set) {
            set["status"] = serde_json::to_value(status).expect("a status is JSON");
            self.news.extend(plan.news);
        }
        for action in plan.prune {
            self.act(action).expect("revisions can be deleted");
        }
    }

    fn act(&mut self, action: Action) -> Result<(), ()> {
        let set = self.set.as_ref().expect("only a set acts")["metadata"]["name"]
            .as_str()
            .expect("a name")
            .to_owned();
        let version = self.next();
        match action {
            Action::AdoptRevision(revision) => {
                let uid = self.set.as_ref().expect("a set")["metadata"]["uid"].clone();
                let ours =
                    serde_json::from_value(owner_json("StatefulSet", &set, &uid)).expect("a reference");
                self.revisions
                    .get_mut(&revision.name_any())
                    .ok_or(())?
                    .owner_references_mut()
                    .push(ours);
            }
            Action::OwnPod { pod, owners, .. } => {
                self.pod_log
                    .push(json!({"pod": pod.name_any(), "what": "owners", "owners": owners_log(&owners)}));
                self.pods
                    .get_mut(&pod.name_any())
                    .ok_or(())?
                    .metadata
                    .owner_references = Some(owners);
            }
            Action::CreateRevision(mut revision) => {
                let name = revision.name_any();
                assert!(!self.revisions.contains_key(&name), "{name} exists");
                revision.metadata.uid = Some(version);
                revision.metadata.creation_timestamp = Some(Time(self.now));
                self.revision_log.push(
                    json!({"controllerrevision": name, "what": "created", "revision": revision.revision}),
                );
                self.created_revisions.push((*revision).clone());
                self.revisions.insert(name, *revision);
            }
            Action::RenumberRevision { name, revision, .. } => {
                self.revision_log
                    .push(json!({"controllerrevision": name, "what": "changed", "revision": revision}));
                self.revisions.get_mut(&name).ok_or(())?.revision = revision;
            }
            Action::DeleteRevision { name, .. } => {
                self.revision_log
                    .push(json!({"controllerrevision": name, "what": "gone"}));
                self.revisions.remove(&name).ok_or(())?;
            }
            Action::CreateClaim { claim, pod, .. } => {
                self.events
                    .push(event::about_claim(&set, &claim.name_any(), &pod, Ok(())));
                self.create_claim(*claim);
            }
            Action::OwnClaim { name, owners, .. } => {
                self.claim_log
                    .push(json!({"claim": name, "what": "owners", "owners": owners_log(&owners)}));
                self.claims.get_mut(&name).ok_or(())?.metadata.owner_references = Some(owners);
            }
            Action::CreatePod(pod) => {
                if self.pods.contains_key(&pod.name_any()) {
                    return Err(());
                }
                self.events
                    .push(event::about_pod(&set, Verb::Create, &pod.name_any(), Ok(())));
                self.first_pod.get_or_insert_with(|| (*pod).clone());
                self.create_pod(*pod);
            }
            Action::UpdatePod { name, labels, .. } => {
                self.events
                    .push(event::about_pod(&set, Verb::Update, &name, Ok(())));
                let pod = self.pods.get_mut(&name).ok_or(())?;
                pod.labels_mut().extend(labels);
                self.pod_log
                    .push(json!({"pod": name, "what": "labels", "labels": pod.labels()}));
            }
            Action::DeletePod { name, uid } => {
                assert_eq!(self.pods.get(&name).and_then(ResourceExt::uid), Some(uid));
                self.events
                    .push(event::about_pod(&set, Verb::Delete, &name, Ok(())));
                self.delete_pod(&name);
            }
            Action::GrowClaim { name, .. } => panic!("{name} is not asked to grow"),
            Action::Tell(told) => self.events.push(told),
            Action::Refuse { pod, verb, message } => {
                self.events
                    .extend(verb.map(|verb| event::about_pod(&set, verb, &pod, Err(&message))));
                return Err(());
            }
        }
        Ok(())
    }

    pub fn create_pod(&mut self, mut pod: Pod) {
        let name = pod.name_any();
        pod.metadata.uid = Some(self.next());
        pod.metadata.creation_timestamp = Some(Time(self.now));
        pod.status.get_or_insert_default().phase = Some("Pending".into());
        let image = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.containers[0].image.clone())
            .unwrap_or_default();
        self.pod_log.push(json!({"pod": name, "what": "created", "image": image,
            "revision": pod.labels().get("controller-revision-hash"), "owners": owners_log(pod.owner_references())}));
        if !image.contains("bad") {
            self.due.insert(name.clone(), self.now + KUBELET);
        }
        self.pods.insert(name, pod);
    }

    pub fn create_claim(&mut self, mut claim: PersistentVolumeClaim) {
        let name = claim.name_any();
        claim.metadata.uid = Some(self.next());
        claim.status = None;
        self.claim_log
            .push(json!({"claim": name, "what": "created", "labels": claim.labels(),
            "owners": owners_log(claim.owner_references()), "spec": claim.spec}));
        self.claims.insert(name, claim);
    }

    pub fn delete_pod(&mut self, name: &str) {
        let pod = self.pods.get_mut(name).expect("the pod is there");
        if pod.metadata.deletion_timestamp.is_none() {
            pod.metadata.deletion_timestamp = Some(Time(self.now));
            self.pod_log.push(json!({"pod": name, "what": "deleting"}));
            self.due.insert(name.into(), self.now + KUBELET);
        }
    }

    pub fn finish_pod(&mut self, name: &str, phase: &str) {
        let pod = self.pods.get_mut(name).expect("the pod is there");
        pod.status.get_or_insert_default().phase = Some(phase.into());
        self.pod_log
            .push(json!({"pod": name, "what": phase.to_lowercase()}));
    }

    /// Make a pod ready, or let one go that was deleted.
    fn kubelet_moves(&mut self, name: &str) {
        self.due.remove(name);
        let pod = self.pods.get_mut(name).expect("the pod is there");
        if pod.metadata.deletion_timestamp.is_some() {
            self.pods.remove(name);
            self.pod_log.push(json!({"pod": name, "what": "gone"}));
            return;
        }
        let ready = json!({"phase": "Running", "conditions":
            [{"type": "Ready", "status": "True", "lastTransitionTime": self.now.to_string()}]});
        pod.status = Some(serde_json::from_value(ready).expect("a status"));
        self.pod_log.push(json!({"pod": name, "what": "ready"}));
    }

    /// Delete the set, as the API server and the garbage collector do.
    pub fn delete_set(&mut self, policy: &str) {
        if policy == "Orphan" {
            let set = self.set.as_mut().expect("a set");
            set["metadata"]["deletionTimestamp"] = json!(self.now.to_string());
            set["metadata"]["generation"] = json!(set["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
            self.sync_until_quiet();
            for pod in self.pods.values_mut() {
                pod.metadata.owner_references = None;
                self.pod_log
                    .push(json!({"pod": pod.name_any(), "what": "owners", "owners": []}));
            }
            for revision in self.revisions.values_mut() {
                revision.metadata.owner_references = None;
                let (name, number) = (revision.name_any(), revision.revision);
                self.revision_log
                    .push(json!({"controllerrevision": name, "what": "changed", "revision": number}));
            }
        }
        self.set = None;
    }

    /// Remove what had owners and has none that exists.
    fn collect_garbage(&mut self) {
        let set = self
            .set
            .as_ref()
            .and_then(|set| set["metadata"]["uid"].as_str())
            .map(str::to_owned);
        let pods: Vec<_> = self.pods.values().filter_map(ResourceExt::uid).collect();
        let is_garbage = |owners: &[OwnerReference]| {
            !owners.is_empty()
                && !owners
                    .iter()
                    .any(|owner| Some(&owner.uid) == set.as_ref() || pods.contains(&owner.uid))
        };
        let garbage = self
            .pods
            .iter()
            .filter(|(_, pod)| is_garbage(pod.owner_references()));
        for name in garbage.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.delete_pod(&name);
        }
        let garbage: Vec<_> = self
            .revisions
            .iter()
            .filter(|(_, it)| is_garbage(it.owner_references()))
            .collect();
        for name in garbage
            .into_iter()
            .map(|(name, _)| name.clone())
            .collect::<Vec<_>>()
        {
            self.revision_log
                .push(json!({"controllerrevision": name, "what": "gone"}));
            self.revisions.remove(&name);
        }
        let garbage: Vec<_> = self
            .claims
            .iter()
            .filter(|(_, it)| is_garbage(it.owner_references()))
            .collect();
        for name in garbage
            .into_iter()
            .map(|(name, _)| name.clone())
            .collect::<Vec<_>>()
        {
            self.claim_log.push(json!({"claim": name, "what": "deleting"}));
            self.claim_log.push(json!({"claim": name, "what": "gone"}));
            self.claims.remove(&name);
        }
    }

    /// Store a set that the user sends, with the API server's defaults.
    pub fn create_set(&mut self, mut set: Value) {
        default_set(&mut set["spec"]);
        set["metadata"]["uid"] = json!(self.next());
        set["metadata"]["namespace"] = json!("ns");
        set["metadata"]["generation"] = json!(1);
        set["status"] = json!({"replicas": 0, "availableReplicas": 0});
        self.set = Some(set);
    }

    /// Patch the set as the user does; lists of named things are merged by name.
    pub fn patch_set(&mut self, patch: &Value) {
        let set = self.set.as_mut().expect("a set");
        let before = set["spec"].clone();
        merge(set, patch);
        default_set(&mut set["spec"]);
        if set["spec"] != before {
            set["metadata"]["generation"] = json!(set["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
        }
    }
}

fn owner_json(kind: &str, name: &str, uid: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": true,
        "blockOwnerDeletion": true})
}

/// Owners as the traces tell them: without uids.
pub fn owners_log(owners: &[OwnerReference]) -> Value {
    let mut owners = serde_json::to_value(owners).expect("owners are JSON");
    for owner in owners.as_array_mut().expect("a list") {
        owner.as_object_mut().expect("an object").remove("uid");
    }
    owners
}

fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(target), Value::Array(patch)) if patch.iter().all(|item| item["name"].is_string()) => {
            for item in patch {
                match target.iter_mut().find(|there| there["name"] == item["name"]) {
                    Some(there) => merge(there, item),
                    None => target.push(item.clone()),
                }
            }
        }
        (target, patch) => *target = patch.clone(),
    }
}

/// Set what is not set.
fn default(object: &mut Value, defaults: Value) {
    for (key, value) in defaults.as_object().expect("defaults are an object") {
        if object.get(key).is_none() {
            object[key] = value.clone();
        }
    }
}

/// The defaults that the recorded sets get.
fn default_set(spec: &mut Value) {
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}});
    default(
        spec,
        json!({"replicas": 1, "podManagementPolicy": "OrderedReady", "revisionHistoryLimit": 10,
        "updateStrategy": strategy}),
    );
    default(spec, json!({"persistentVolumeClaimRetentionPolicy": {}}));
    default(
        &mut spec["persistentVolumeClaimRetentionPolicy"],
        json!({"whenDeleted": "Retain", "whenScaled": "Retain"}),
    );
    for claim in spec
        .get_mut("volumeClaimTemplates")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        default(
            claim,
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "status": {"phase": "Pending"}}),
        );
        default(&mut claim["spec"], json!({"volumeMode": "Filesystem"}));
    }
    let pod = &mut spec["template"]["spec"];
    default(
        pod,
        json!({"restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "securityContext": {},
        "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler"}),
    );
    for containers in ["containers", "initContainers"] {
        for container in pod
            .get_mut(containers)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            default_container(container);
        }
    }
}

fn default_container(container: &mut Value) {
    default(
        container,
        json!({"imagePullPolicy": "IfNotPresent", "resources": {},
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}),
    );
    for port in container
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        default(port, json!({"protocol": "TCP"}));
    }
    for probe in ["readinessProbe", "livenessProbe"] {
        let Some(probe) = container.get_mut(probe) else {
            continue;
        };
        default(
            probe,
            json!({"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}),
        );
        if let Some(get) = probe.get_mut("httpGet") {
            default(get, json!({"path": "/", "scheme": "HTTP"}));
        }
    }
    for quantities in ["requests", "limits"] {
        let quantities = container["resources"]
            .get_mut(quantities)
            .and_then(Value::as_object_mut);
        for quantity in quantities.into_iter().flat_map(|map| map.values_mut()) {
            // Quantities are stored in their canonical form; these are the ones that the traces use.
            match quantity.as_str() {
                Some("0.10") => *quantity = json!("100m"),
                Some("1024Mi") => *quantity = json!("1Gi"),
                _ => {}
            }
        }
    }
}

fn shared<T: Clone>(objects: &BTreeMap<String, T>) -> Vec<Arc<T>> {
    objects.values().cloned().map(Arc::new).collect()
}
