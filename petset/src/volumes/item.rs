//! One claim, volume or directory, and whether somebody needs it.

use jiff::Timestamp;
use serde_json::{Value, json};
use std::fmt;
use std::path::PathBuf;

/// What kind of thing an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A PersistentVolumeClaim.
    Claim,
    /// A PersistentVolume.
    Volume,
    /// A directory in `volumes/` that no PersistentVolume mentions.
    Directory,
}

impl What {
    /// How names of this kind begin on the command line.
    pub fn prefix(self) -> &'static str {
        match self {
            What::Claim => "pvc/",
            What::Volume => "pv/",
            What::Directory => "dir/",
        }
    }
}

/// Whether somebody needs an item. All but `Leftover` may not be removed; each says why it is so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A pod uses it.
    InUse(String),
    /// A StatefulSet will use it.
    Wanted(String),
    /// A volume that a claim has; the claim is what to look at (`namespace/name`).
    Bound(String),
    /// It is already on its way to something else.
    Going(String),
    /// Nobody needs it.
    Leftover(String),
}

impl Standing {
    /// In a word or two.
    pub fn word(&self) -> &'static str {
        match self {
            Standing::InUse(_) => "in use",
            Standing::Wanted(_) => "wanted",
            Standing::Bound(_) => "bound",
            Standing::Going(_) => "going",
            Standing::Leftover(_) => "leftover",
        }
    }

    /// In a sentence.
    pub fn why(&self) -> String {
        match self {
            Standing::Bound(claim) => format!("bound to claim {claim}"),
            Standing::InUse(why) | Standing::Wanted(why) | Standing::Going(why) | Standing::Leftover(why) => {
                why.clone()
            }
        }
    }

    /// Whether it may be removed.
    pub fn is_leftover(&self) -> bool {
        matches!(self, Standing::Leftover(_))
    }
}

/// A claim, a volume or a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Which of them.
    pub what: What,
    /// The claim's namespace: its own, or that of the claim that a volume or directory was made for.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its UID and resourceVersion when it was observed; a directory has none.
    pub uid: Option<String>,
    /// See `uid`.
    pub resource_version: Option<String>,
    /// The phase that its status says.
    pub phase: Option<String>,
    /// The volume that a claim is bound to.
    pub volume: Option<String>,
    /// Its volume's reclaim policy.
    pub reclaim_policy: Option<String>,
    /// Where the data is.
    pub path: Option<PathBuf>,
    /// Whether that is a directory that petset made and nobody else mentions: only such data is ever removed.
    pub own_data: bool,
    /// Bytes asked for, or provided.
    pub capacity: Option<u64>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// Pods that use it now.
    pub used_by: Vec<String>,
    /// The pod that used it last, as `namespace/name`, if petset has seen one end.
    pub last_used_by: Option<String>,
    /// When that pod was gone.
    pub last_used: Option<Timestamp>,
    /// Whether somebody needs it.
    pub standing: Standing,
}

/// As it is named on the command line: `pvc/www-web-3`.
impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.what.prefix(), self.name)
    }
}

impl Item {
    /// The claim's namespace, empty for what has none.
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    /// What goes when this is removed, for whoever has to confirm it.
    pub fn consequence(&self) -> String {
        let path = self
            .path
            .as_ref()
            .map(|path| path.display().to_string())
            .unwrap_or_default();
        match self.what {
            What::Directory => format!("directory {path} with all its data"),
            What::Volume if self.own_data => format!("volume {} with the data in {path}", self.name),
            What::Volume if path.is_empty() => format!("volume {}", self.name),
            What::Volume => format!("volume {}; the data in {path} stays", self.name),
            What::Claim => {
                let claim = format!("claim {}/{}", self.namespace(), self.name);
                match (&self.volume, self.reclaim_policy.as_deref()) {
                    (None, _) => format!("{claim}, which has no volume"),
                    (Some(volume), Some("Delete")) if self.own_data => {
                        format!(
                            "{claim} with its volume {volume} and the data in {path} (reclaim policy Delete)"
                        )
                    }
                    (Some(volume), policy) => {
                        let policy = policy.unwrap_or("Retain");
                        format!("{claim}; its volume pv/{volume} and the data stay (reclaim policy {policy})")
                    }
                }
            }
        }
    }

    /// Whether data is lost when it is removed.
    pub fn loses_data(&self) -> bool {
        let claim_keeps = self.what == What::Claim && self.reclaim_policy.as_deref() != Some("Delete");
        self.own_data && !claim_keeps
    }

    /// For `-o json`; sizes in bytes.
    pub fn json(&self, used: Option<super::usage::Used>) -> Value {
        let kind = match self.what {
            What::Claim => "PersistentVolumeClaim",
            What::Volume => "PersistentVolume",
            What::Directory => "Directory",
        };
        json!({
            "kind": kind,
            "namespace": self.namespace,
            "name": self.name,
            "phase": self.phase,
            "volume": self.volume,
            "reclaimPolicy": self.reclaim_policy,
            "path": self.path,
            "capacityBytes": self.capacity,
            "usedBytes": used.map(|used| used.bytes),
            "usedIsComplete": used.map(|used| used.complete),
            "enforced": used.map(|used| used.enforced),
            "created": self.created,
            "usedBy": self.used_by,
            "lastUsedBy": self.last_used_by,
            "lastUsed": self.last_used,
            "standing": self.standing.word(),
            "why": self.standing.why(),
        })
    }
}
