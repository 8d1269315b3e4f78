//! What a kind is: names, scope, defaults, validation, table columns. One implementation per file in
//! `resources/`; everything else in this crate works through this trait and knows no kind by name.

use crate::validation::Invalid;
use serde_json::Value;

/// The fixed facts of a kind, as discovery tells them.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// API version, for example `v1`.
    pub version: &'static str,
    /// Kind, for example `StatefulSet`.
    pub kind: &'static str,
    /// Resource name in paths, for example `statefulsets`.
    pub plural: &'static str,
    /// Singular name, for example `statefulset`.
    pub singular: &'static str,
    /// Short names that kubectl accepts, for example `sts`.
    pub short_names: &'static [&'static str],
    /// Categories, for example `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// The name of the kind's schema, for example `io.k8s.api.apps.v1.StatefulSet`.
    pub schema: &'static str,
    /// The group under which objects are stored; another version or group of the same objects (core and
    /// `events.k8s.io` Events) names the same one. Empty for the core group.
    pub storage_group: &'static str,
}

/// A subresource that a kind has besides itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    /// `status`: get, update, patch; the main resource ignores status and this one ignores the rest.
    Status,
    /// `scale`: an `autoscaling/v1` Scale over `spec.replicas`.
    Scale,
    /// `pods/binding`: sets `spec.nodeName`.
    Binding,
    /// `pods/eviction`.
    Eviction,
    /// `pods/ephemeralcontainers`.
    EphemeralContainers,
    /// `pods/resize`.
    Resize,
    /// `pods/log`, served by the kubelet's connection.
    Log,
    /// `namespaces/finalize`.
    Finalize,
    /// `serviceaccounts/token`.
    Token,
    /// `pods/exec`, which like the next ones joins the client with somebody else.
    Exec,
    /// `pods/attach`.
    Attach,
    /// `pods/portforward`.
    PortForward,
    /// `pods/proxy`, `services/proxy`, `nodes/proxy`, with a path of its own behind it.
    Proxy,
}

/// One column of server-side printing.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its title.
    pub name: &'static str,
    /// `string`, `integer`, `boolean` …
    pub r#type: &'static str,
    /// `name` for the first column, else usually empty.
    pub format: &'static str,
    /// Upstream's words, which the oracle compares. Where they equal a field's description in the schema,
    /// `table.rs` looks them up: then this is `schema:PATH`, for example `schema:spec.provisioner`.
    pub description: &'static str,
    /// 0 always, 1 only for `-o wide`.
    pub priority: i32,
}

/// A resource quantity or allocation that the server itself must hand out while it creates an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// Nothing.
    None,
    /// A cluster IP and node ports (Service).
    Service,
}

/// A kind. All methods take objects as JSON values that `schema::decode` has already checked for types and
/// pruned of empty optional fields, so a field that is there has the type that the schema gives it.
pub trait Kind: Send + Sync + 'static {
    /// The fixed facts.
    fn names(&self) -> &'static Names;

    /// Its subresources.
    fn subresources(&self) -> &'static [Subresource] {
        &[]
    }

    /// The verbs that discovery lists and the server accepts; most kinds have them all.
    fn verbs(&self) -> &'static [&'static str] {
        &[
            "create",
            "delete",
            "deletecollection",
            "get",
            "list",
            "patch",
            "update",
            "watch",
        ]
    }

    /// Whether `metadata.generation` is kept: set to 1 at creation, raised when `spec` changes.
    fn has_generation(&self) -> bool {
        false
    }

    /// Whether the change from `old` to `new` raises `metadata.generation`: with most kinds any change of
    /// the spec does.
    fn raises_generation(&self, new: &Value, old: &Value) -> bool {
        new["spec"] != old["spec"]
    }

    /// Whether a PUT without resourceVersion is allowed (most kinds), or refused with
    /// `metadata.resourceVersion: Invalid value: "": must be specified for an update`.
    fn allows_unconditional_update(&self) -> bool {
        true
    }

    /// Whether a PUT to a missing name creates it (Lease, Event and few others).
    fn allows_create_on_update(&self) -> bool {
        false
    }

    /// The grace period in seconds of a graceful deletion; `None`: deleted at once.
    /// `asked` is what the request said. Pods answer here.
    fn grace_period(&self, _object: &Value, _asked: Option<i64>) -> Option<i64> {
        None
    }

    /// Upstream's defaulting: runs on every write and, for objects stored earlier, on every read's owner.
    fn set_defaults(&self, _object: &mut Value) {}

    /// What the registry and admission change on create: drop status, add finalizers, tolerations …
    fn prepare_create(&self, _object: &mut Value) {}

    /// What the registry changes on an update of the main resource: by default nothing more than what
    /// the verb does itself (it restores `status` from `old` where the kind has a Status subresource).
    fn prepare_update(&self, _new: &mut Value, _old: &Value) {}

    /// What the registry changes on an update of the status: nothing with most kinds.
    fn prepare_status(&self, _new: &mut Value, _old: &Value, _now: jiff::Timestamp) {}

    /// Validation of a new object; metadata other than the form of the name is checked by the caller.
    fn validate_create(&self, _object: &Value) -> Vec<Invalid> {
        Vec::new()
    }

    /// Validation of a changed object. The default re-runs validate_create, as upstream does for most.
    fn validate_update(&self, new: &Value, _old: &Value) -> Vec<Invalid> {
        self.validate_create(new)
    }

    /// Validation of an update of a pod's ephemeral containers.
    fn validate_ephemeral_containers(&self, _new: &Value, _old: &Value) -> Vec<Invalid> {
        Vec::new()
    }

    /// Validation of a status update.
    fn validate_status(&self, _new: &Value, _old: &Value) -> Vec<Invalid> {
        Vec::new()
    }

    /// Why `name` is not a name for this kind; the message without path and value. Most are DNS subdomains.
    fn validate_name(&self, name: &str) -> Vec<String> {
        crate::validation::dns1123_subdomain(name)
    }

    /// `Warning` header texts for a write, for example about deprecated fields.
    fn warnings(&self, _object: &Value) -> Vec<String> {
        Vec::new()
    }

    /// What the server allocates for it.
    fn allocation(&self) -> Allocation {
        Allocation::None
    }

    /// The field selectors that it supports besides `metadata.name` and `metadata.namespace`, with the
    /// text each compares against: (`status.phase`, `Running`).
    fn selectable_fields(&self, _object: &Value) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Columns of server-side printing.
    fn columns(&self) -> &'static [Column] {
        &crate::resources::DEFAULT_COLUMNS
    }

    /// The cells of one row, as many as there are columns.
    fn cells(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        crate::resources::default_cells(object, now)
    }

    /// The `conditions` of a row: said of an object that has ended, which clients may leave out or shade.
    fn row_conditions(&self, _object: &Value) -> Option<Value> {
        None
    }

    /// Convert from the stored form (another group's or version's) to this one, and back: only for
    /// `events.k8s.io`. `apiVersion` and `kind` are set by the caller.
    #[allow(
        clippy::wrong_self_convention,
        reason = "it is the object that is converted, not the kind"
    )]
    fn from_storage(&self, _object: &mut Value) {}
    /// See [`Kind::from_storage`].
    fn to_storage(&self, _object: &mut Value) {}
}
