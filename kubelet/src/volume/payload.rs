//! The files that configMap, secret, downwardAPI and projected volumes consist of: pure functions of the objects.

use crate::environment::{Sources, field_value, resource_value};
use k8s_openapi::api::core::v1::{ConfigMap, Container, DownwardAPIVolumeFile, KeyToPath, Pod, Secret};
use std::collections::BTreeMap;

/// Files by their path in the volume.
pub type Payload = BTreeMap<String, File>;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its content.
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

impl File {
    /// A file with the volume's default mode (0644 where it has none).
    pub fn new(bytes: impl Into<Vec<u8>>, mode: Option<i32>) -> Self {
        Self {
            bytes: bytes.into(),
            mode: mode.and_then(|m| u32::try_from(m).ok()).unwrap_or(0o644) & 0o777,
        }
    }
}

/// A ConfigMap's keys as files; nothing where an optional one is missing.
pub fn config_map(
    map: Option<&ConfigMap>,
    items: Option<&[KeyToPath]>,
    mode: Option<i32>,
    optional: Option<bool>,
) -> Result<Payload, String> {
    let Some(map) = map else { return Ok(Payload::new()) };
    let text = map.data.iter().flatten().map(|(k, v)| (k.as_str(), v.as_bytes()));
    let binary = map
        .binary_data
        .iter()
        .flatten()
        .map(|(k, v)| (k.as_str(), v.0.as_slice()));
    pick(
        &text.chain(binary).collect(),
        items,
        mode,
        optional == Some(true),
        "configmap",
    )
}

/// A Secret's keys as files.
pub fn secret(
    secret: Option<&Secret>,
    items: Option<&[KeyToPath]>,
    mode: Option<i32>,
    optional: Option<bool>,
) -> Result<Payload, String> {
    let Some(secret) = secret else {
        return Ok(Payload::new());
    };
    let data = secret
        .data
        .iter()
        .flatten()
        .map(|(k, v)| (k.as_str(), v.0.as_slice()))
        .collect();
    pick(&data, items, mode, optional == Some(true), "secret")
}

fn pick(
    data: &BTreeMap<&str, &[u8]>,
    items: Option<&[KeyToPath]>,
    mode: Option<i32>,
    optional: bool,
    kind: &str,
) -> Result<Payload, String> {
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        return Ok(data
            .iter()
            .map(|(key, bytes)| ((*key).to_owned(), File::new(*bytes, mode)))
            .collect());
    };
    let mut files = Payload::new();
    for item in items {
        match data.get(item.key.as_str()) {
            Some(bytes) => {
                files.insert(item.path.clone(), File::new(*bytes, item.mode.or(mode)));
            }
            None if optional => {}
            None => return Err(format!("{kind} references non-existent config key: {}", item.key)),
        }
    }
    Ok(files)
}

/// Fields and resources of the pod as files.
pub fn downward_api(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    mode: Option<i32>,
    sources: &Sources,
) -> Result<Payload, String> {
    let mut files = Payload::new();
    for item in items {
        let text = if let Some(field) = &item.field_ref {
            field_value(pod, &field.field_path, sources)?
        } else if let Some(resource) = &item.resource_field_ref {
            resource_value(pod, &Container::default(), resource, sources)?
        } else {
            String::new()
        };
        files.insert(item.path.clone(), File::new(text, item.mode.or(mode)));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn all_keys_or_the_chosen_ones_become_files() {
        let map: ConfigMap =
            serde_json::from_value(json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "AA=="}}))
                .expect("a config map");
        let all = config_map(Some(&map), None, None, None).expect("files");
        assert_eq!(all.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(
            all["c"],
            File {
                bytes: vec![0],
                mode: 0o644
            }
        );
        let item = |key: &str| KeyToPath {
            key: key.into(),
            path: "x/y".into(),
            mode: Some(0o400),
        };
        let one = config_map(Some(&map), Some(&[item("b")]), None, None).expect("files");
        assert_eq!(
            one["x/y"],
            File {
                bytes: b"2".to_vec(),
                mode: 0o400
            }
        );
        let missing = config_map(Some(&map), Some(&[item("z")]), None, None);
        assert_eq!(
            missing,
            Err("configmap references non-existent config key: z".into())
        );
        assert_eq!(
            config_map(Some(&map), Some(&[item("z")]), None, Some(true)),
            Ok(Payload::new())
        );
    }
}
