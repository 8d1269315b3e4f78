//! PodTemplate: a pod's description that is kept by itself.

use super::{parts, pod};
use crate::resource::{Column, Kind, Names};
use crate::validation::{Invalid, Path};
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

    fn set_defaults(&self, object: &mut Value) {
        if let Some(spec) = object.pointer_mut("/template/spec") {
            pod::defaults::pod_spec(spec);
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<Invalid> {
        pod::validate::template(&object["template"], &Path::new("template"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template() -> Value {
        let spec =
            json!({"containers": [{"name": "c", "image": "nginx:1.27"}, {"name": "d", "image": "x:1"}]});
        let mut object = json!({"metadata": {"name": "t"}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": spec}});
        PodTemplate.set_defaults(&mut object);
        object
    }

    #[test]
    fn a_template_gets_a_pods_defaults_and_rules() {
        let mut object = template();
        assert_eq!(object["template"]["spec"]["restartPolicy"], "Always");
        assert_eq!(PodTemplate.validate_create(&object), []);
        object["template"]["spec"]["containers"][0]["name"] = "C_".into();
        assert_eq!(
            PodTemplate.validate_create(&object)[0].field,
            "template.spec.containers[0].name"
        );
    }

    #[test]
    fn the_table_lists_containers_and_labels() {
        let cells = PodTemplate.cells(&template(), jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(cells, ["t", "c,d", "nginx:1.27,x:1", "a=b"]);
    }
}
