//! What a pod's security contexts and resources ask of a container's processes: a pure function, in upstream's words.
//! What petset cannot do of it is said in sentences.

use crate::environment::amount;
use crate::shim::protocol::{Isolation, Limits, Security, Spec};
use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SecurityContext};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// Who a container runs as, what it may do and how much it may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// `None`: petset's own user.
    pub user: Option<u32>,
    /// `None`: petset's own group, or 0 for another user.
    pub group: Option<u32>,
    /// Supplementary groups, `fsGroup` included.
    pub groups: Vec<u32>,
    /// Rights.
    pub security: Security,
    /// Limits.
    pub limits: Limits,
    /// What is not enforced.
    pub said: Vec<String>,
}

/// What is known of the machine and of the container's image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// How pods are kept apart.
    pub isolation: Isolation,
    /// Whether petset runs as root.
    pub is_root: bool,
    /// The user and group that the image names, as numbers.
    pub image_user: (Option<u32>, Option<u32>),
    /// How many processes a container may have (`--pod-max-pids`).
    pub most_processes: Option<u64>,
}

impl Confinement {
    /// The part of a spec that this is; what remains are the sentences.
    pub fn fill(self, spec: &mut Spec) -> Vec<String> {
        (spec.user, spec.group, spec.groups) = (self.user, self.group, self.groups);
        (spec.security, spec.limits) = (self.security, self.limits);
        self.said
    }
}

/// Read the contexts; the error is the message of `CreateContainerConfigError`.
pub fn confinement(pod: &Pod, container: &Container, facts: &Facts) -> Result<Confinement, String> {
    let none = (PodSecurityContext::default(), SecurityContext::default());
    let of_pod = pod
        .spec
        .as_ref()
        .and_then(|s| s.security_context.as_ref())
        .unwrap_or(&none.0);
    let own = container.security_context.as_ref().unwrap_or(&none.1);
    let user = id(own.run_as_user.or(of_pod.run_as_user)).or(facts.image_user.0);
    let asked = own.run_as_user.or(of_pod.run_as_user).is_some();
    let group = id(own.run_as_group.or(of_pod.run_as_group));
    // An image's group belongs to the image's user.
    let group = group.or(facts.image_user.1.filter(|_| !asked));
    let runs_as_root = user.map_or(facts.is_root, |user| user == 0);
    if own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true) && runs_as_root {
        return Err(not_root(pod, container, asked));
    }
    let mut groups: Vec<u32> = of_pod
        .supplemental_groups
        .iter()
        .flatten()
        .chain(&of_pod.fs_group)
        .filter_map(|group| u32::try_from(*group).ok())
        .collect();
    groups.dedup();
    let capabilities = own.capabilities.clone().unwrap_or_default();
    let privileged = own.privileged == Some(true);
    let profile = own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref());
    let profile = profile.map_or("Unconfined", |profile| profile.type_.as_str());
    let security = Security {
        read_only_root: own.read_only_root_filesystem == Some(true)
            && facts.isolation == Isolation::Namespaces,
        privileged,
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        container_capabilities: facts.isolation == Isolation::Namespaces,
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        seccomp_default: profile == "RuntimeDefault",
    };
    let mut said = unheld(of_pod, own, profile, facts);
    said.extend(unheld_volumes(pod, facts.isolation));
    Ok(Confinement {
        user,
        group,
        groups,
        security,
        limits: limits(container, facts.most_processes),
        said,
    })
}

fn id(id: Option<i64>) -> Option<u32> {
    id.and_then(|id| u32::try_from(id).ok())
}

/// Upstream's words.
fn not_root(pod: &Pod, container: &Container, asked: bool) -> String {
    let metadata = &pod.metadata;
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    let what = if asked {
        "container's runAsUser breaks non-root policy"
    } else {
        "container has runAsNonRoot and image will run as root"
    };
    format!(
        "{what} (pod: \"{}_{}({})\", container: {})",
        text(&metadata.name),
        text(&metadata.namespace),
        text(&metadata.uid),
        container.name
    )
}

/// What no machine gets from petset, and what this one does not.
fn unheld(of_pod: &PodSecurityContext, own: &SecurityContext, profile: &str, facts: &Facts) -> Vec<String> {
    let mut said = Vec::new();
    let mut say = |holds: bool, sentence: &str| {
        if !holds {
            said.push(sentence.to_owned());
        }
    };
    let apart = facts.isolation == Isolation::Namespaces;
    let selinux = own.se_linux_options.is_some() || of_pod.se_linux_options.is_some();
    say(!selinux, "seLinuxOptions are ignored");
    let apparmor = own
        .app_armor_profile
        .as_ref()
        .or(of_pod.app_armor_profile.as_ref());
    say(
        apparmor.is_none_or(|profile| profile.type_ == "Unconfined"),
        "appArmorProfile is ignored",
    );
    say(
        profile != "Localhost",
        "seccompProfile of type Localhost is ignored",
    );
    say(
        own.proc_mount.as_deref().is_none_or(|kind| kind == "Default"),
        "procMount is ignored",
    );
    say(
        apart || own.read_only_root_filesystem != Some(true),
        "readOnlyRootFilesystem needs the isolation 'namespaces'",
    );
    say(
        facts.is_root || of_pod.supplemental_groups.as_ref().is_none_or(Vec::is_empty),
        "supplementalGroups need root",
    );
    say(
        facts.is_root || own.privileged != Some(true),
        "privileged is as much as petset's own user may do",
    );
    said
}

/// What emptyDirs do not get.
fn unheld_volumes(pod: &Pod, isolation: Isolation) -> Vec<String> {
    let mut said = Vec::new();
    for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        let Some(empty_dir) = &volume.empty_dir else {
            continue;
        };
        let wants_memory = empty_dir.medium.as_deref() == Some("Memory");
        let has_memory = wants_memory && isolation == Isolation::Namespaces;
        if wants_memory && !has_memory {
            said.push(format!(
                "The emptyDir {:?} is on disk: memory needs the isolation 'namespaces'",
                volume.name
            ));
        }
    }
    said
}

fn limits(container: &Container, most_processes: Option<u64>) -> Limits {
    let resources = container.resources.clone().unwrap_or_default();
    let find = |map: &Option<BTreeMap<String, Quantity>>, name: &str| {
        map.as_ref().and_then(|map| amount(map.get(name)?))
    };
    let thousandths = |amount: f64| (amount * 1000.0).ceil() as u64;
    let cpu = find(&resources.limits, "cpu").map(thousandths);
    Limits {
        memory: find(&resources.limits, "memory").map(|amount| amount.ceil() as u64),
        cpu,
        // Where nothing is requested, the limit is.
        cpu_request: find(&resources.requests, "cpu").map(thousandths).or(cpu),
        processes: most_processes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(pod: Value, own: Value, resources: Value, facts: &Facts) -> Result<Confinement, String> {
        let pod = json!({
            "metadata": {"name": "web-0", "namespace": "default", "uid": "u"},
            "spec": {"containers": [], "securityContext": pod}
        });
        let container = json!({"name": "c", "securityContext": own, "resources": resources});
        let (pod, container) = (serde_json::from_value(pod), serde_json::from_value(container));
        confinement(&pod.expect("a pod"), &container.expect("a container"), facts)
    }

    fn apart(is_root: bool) -> Facts {
        Facts {
            isolation: Isolation::Namespaces,
            is_root,
            ..Facts::default()
        }
    }

    #[test]
    fn a_container_that_asks_for_nothing_is_petsets_own_user_with_a_runtimes_capabilities() {
        let found = read(json!({}), json!({}), json!({}), &apart(true)).expect("read");
        let expected = Confinement {
            security: Security {
                container_capabilities: true,
                ..Security::default()
            },
            ..Confinement::default()
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_containers_context_goes_before_the_pods_and_that_before_the_image() {
        let facts = Facts {
            image_user: (Some(70), Some(71)),
            ..apart(true)
        };
        let ids = |pod: Value, own: Value| {
            let found = read(pod, own, json!({}), &facts).expect("read");
            (found.user, found.group, found.groups)
        };
        assert_eq!(ids(json!({}), json!({})), (Some(70), Some(71), vec![]));
        let pod = json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4]});
        assert_eq!(ids(pod.clone(), json!({})), (Some(1), Some(2), vec![4, 3]));
        assert_eq!(ids(pod, json!({"runAsUser": 5})), (Some(5), Some(2), vec![4, 3]));
        assert_eq!(ids(json!({}), json!({"runAsUser": 5})), (Some(5), None, vec![]));
    }

    #[test]
    fn run_as_non_root_refuses_root_in_upstreams_words() {
        let refused = |own: Value, is_root| read(json!({}), own, json!({}), &apart(is_root)).err();
        assert_eq!(
            refused(json!({"runAsNonRoot": true, "runAsUser": 0}), true).as_deref(),
            Some("container's runAsUser breaks non-root policy (pod: \"web-0_default(u)\", container: c)")
        );
        assert_eq!(
            refused(json!({"runAsNonRoot": true}), true).as_deref(),
            Some(
                "container has runAsNonRoot and image will run as root (pod: \"web-0_default(u)\", container: c)"
            )
        );
        assert_eq!(refused(json!({"runAsNonRoot": true}), false), None);
        assert_eq!(refused(json!({"runAsNonRoot": true, "runAsUser": 7}), true), None);
    }

    #[test]
    fn limits_are_bytes_and_thousandths() {
        let resources = json!({"limits": {"memory": "64Mi", "cpu": "1.5"}, "requests": {"cpu": "250m"}});
        let found = read(json!({}), json!({}), resources, &apart(true)).expect("read");
        let expected = Limits {
            memory: Some(64 << 20),
            cpu: Some(1500),
            cpu_request: Some(250),
            processes: None,
        };
        assert_eq!(found.limits, expected);
    }

    #[test]
    fn what_is_not_enforced_is_said() {
        let own = json!({
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "privileged": true,
            "seLinuxOptions": {},
            "seccompProfile": {"type": "Localhost", "localhostProfile": "x"}
        });
        let pod = json!({"supplementalGroups": [1], "seccompProfile": {"type": "RuntimeDefault"}});
        let found = read(pod.clone(), own, json!({}), &Facts::default()).expect("read");
        assert_eq!(
            found.said,
            [
                "seLinuxOptions are ignored",
                "seccompProfile of type Localhost is ignored",
                "readOnlyRootFilesystem needs the isolation 'namespaces'",
                "supplementalGroups need root",
                "privileged is as much as petset's own user may do"
            ]
        );
        assert!(!found.security.seccomp_default && !found.security.read_only_root);
        assert!(found.security.no_new_privileges && !found.security.container_capabilities);
        let found = read(
            pod,
            json!({"readOnlyRootFilesystem": true}),
            json!({}),
            &apart(true),
        )
        .expect("read");
        assert_eq!(found.said, Vec::<String>::new());
        assert!(found.security.seccomp_default && found.security.read_only_root);
    }
}
