//! PodTemplate: a pod's description that is kept by itself.

use super::parts;
use crate::resource::{Column, Kind, Names};
use serde_json::Value;

static NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "PodTemplate",
    plural: "podtemplates",
    singular: "podtemplate",
    short_names: &[],
    categories: &[],
    namespaced: true,
    schema: "io.k8s.api.core.v1.PodTemplate",
    storage_group: "",
};

static COLUMNS: [Column; 4] = [
    parts::NAME,
    parts::column("Containers", "Names of each container in the template."),
    parts::column("Images", "Images referenced by each container in the template."),
    parts::column("Pod Labels", "The labels for the pod template."),
];

/// See [the module](self).
pub struct PodTemplate;

impl Kind for PodTemplate {
    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn raises_generation(&self, new: &Value, old: &Value) -> bool {
        new["template"] != old["template"]
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn cells(&self, object: &Value, _now: jiff::Timestamp) -> Vec<Value> {
        let template = &object["template"];
        let each = |field: &str| -> Value {
            let containers = parts::items(&template["spec"]["containers"]);
            let texts: Vec<&str> = containers.filter_map(|c| c[field].as_str()).collect();
            texts.join(",").into()
        };
        vec![
            parts::name(object),
            each("name"),
            each("image"),
            parts::labels(&template["metadata"]["labels"]),
        ]
    }
}
