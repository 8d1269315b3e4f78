//! Reading manifests: files, directories, standard input; YAML with several documents, JSON, Lists.

use anyhow::{Context, anyhow, bail};
use apiserver::yaml;
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// One object and where it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// `web.yaml, document 2`
    pub origin: String,
    /// The object; it has apiVersion, kind and a name.
    pub object: Value,
}

/// Read everything that `-f` names, in order; a directory's files by name.
pub fn read_all(paths: &[PathBuf]) -> anyhow::Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("cannot read standard input")?;
            manifests.extend(parse("standard input", &text)?);
        } else if path.is_dir() {
            for file in files_in(path)? {
                manifests.extend(read(&file)?);
            }
        } else {
            manifests.extend(read(path)?);
        }
    }
    Ok(manifests)
}

fn files_in(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|p| {
            p.extension()
                .is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
        })
        .collect();
    if files.is_empty() {
        bail!(
            "{}: no .yaml, .yml or .json file in this directory",
            directory.display()
        );
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> anyhow::Result<Vec<Manifest>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&path.display().to_string(), &text)
}

/// Parse text; the error says which document and line is wrong.
fn parse(source: &str, text: &str) -> anyhow::Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for (number, document) in yaml::documents(text).into_iter().enumerate() {
        let origin = format!("{source}, document {}", number + 1);
        let value = document.map_err(|why| anyhow!("{origin}: {why}"))?;
        flatten(&origin, value, &mut manifests)?;
    }
    if manifests.is_empty() {
        bail!("{source}: no object in it");
    }
    Ok(manifests)
}

fn flatten(origin: &str, value: Value, manifests: &mut Vec<Manifest>) -> anyhow::Result<()> {
    match value {
        Value::Null => Ok(()),
        Value::Object(ref map) => {
            let text = |key: &str| map.get(key).and_then(Value::as_str).unwrap_or_default();
            if text("apiVersion").is_empty() || text("kind").is_empty() {
                bail!("{origin}: apiVersion and kind must be set");
            }
            if text("kind") == "List" {
                for item in map.get("items").and_then(Value::as_array).into_iter().flatten() {
                    flatten(origin, item.clone(), manifests)?;
                }
                return Ok(());
            }
            let metadata = map.get("metadata");
            let name = |key: &str| metadata.and_then(|m| m.get(key)).filter(|name| !name.is_null());
            match name("name").or_else(|| name("generateName")) {
                Some(Value::String(_)) => {}
                Some(other) => bail!(
                    "{origin}: the name of this {} is read as {other}, which is no text: put it in quotes",
                    text("kind")
                ),
                None => bail!("{origin}: {} has no metadata.name", text("kind")),
            }
            manifests.push(Manifest {
                origin: origin.to_owned(),
                object: value,
            });
            Ok(())
        }
        _ => bail!("{origin}: this is no object"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_lists_are_flattened_in_order() {
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\n# nothing\n---\n\
            apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: b}}\n";
        let manifests = parse("x.yaml", text).expect("parsed");
        let names: Vec<_> = manifests
            .iter()
            .map(|m| m.object["metadata"]["name"].as_str())
            .collect();
        assert_eq!(names, [Some("a"), Some("b")]);
    }

    #[test]
    fn what_is_wrong_is_named_by_file_document_and_line() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\nkind: Pod\n  bad: [\n";
        let error = format!("{:#}", parse("x.yaml", text).expect_err("malformed"));
        assert!(
            error.contains("x.yaml, document 2") && error.contains("line 6"),
            "{error}"
        );
        let error = parse("x.yaml", "a: b\n").expect_err("no kind").to_string();
        assert_eq!(error, "x.yaml, document 1: apiVersion and kind must be set");
        assert!(parse("x.yaml", "apiVersion: v1\nkind: Pod\n").is_err());
        let error =
            parse("x.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: y}\n").expect_err("a boolean");
        assert_eq!(
            error.to_string(),
            "x.yaml, document 1: the name of this Pod is read as true, which is no text: put it in quotes"
        );
        assert_eq!(
            parse("x.yaml", "").expect_err("empty").to_string(),
            "x.yaml: no object in it"
        );
    }
}
