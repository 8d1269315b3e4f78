//! An OCI image layout: `index.json` names manifests by digest, these name configurations and layers, and everything is in
//! `blobs/sha256/`.

use super::{Archive, only_one, parse};
use crate::image::config::{Document, architecture_here};
use crate::image::digest::Digest;
use crate::image::reference::Reference;
use crate::image::store::{Error, Image, Progress, Writer};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Indexes within indexes.
const MOST_INDEXES: usize = 4;

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    platform: Option<Platform>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// Put all images of a layout into the store.
pub fn load(
    archive: &Archive,
    writer: &mut Writer,
    name: Option<&Reference>,
    progress: &dyn Progress,
    now: jiff::Timestamp,
) -> Result<Vec<Image>, Error> {
    let index: Index = parse("index.json", &archive.document("index.json")?)?;
    if index.manifests.is_empty() {
        return Err(Error::Invalid("the archive holds no image".to_owned()));
    }
    only_one(name, index.manifests.len())?;
    let mut images = Vec::new();
    for descriptor in &index.manifests {
        let mut reference = match name {
            Some(name) => Some(name.clone()),
            None => named(descriptor)?,
        };
        if let Some(reference) = &mut reference {
            reference.digest = Some(descriptor.digest.clone());
        }
        let manifest = manifest(archive, descriptor)?;
        let text = blob(archive, &manifest.config.digest)?;
        let document = Document::parse(&text)?;
        if document.layers().len() != manifest.layers.len() {
            return Err(Error::Invalid(format!(
                "{}: the configuration has {} layers, the manifest {}",
                descriptor.digest,
                document.layers().len(),
                manifest.layers.len()
            )));
        }
        for (layer, packed) in document.layers().iter().zip(&manifest.layers) {
            if writer.has(layer) {
                progress.done(layer, true);
                continue;
            }
            let mut blob = archive.blob(&path(&packed.digest))?;
            blob.digest = Some(packed.digest.clone());
            writer.add_layer(blob, layer, progress)?;
        }
        let names: Vec<_> = reference.into_iter().collect();
        images.push(writer.add_image(manifest.config.digest, &document, &names, now)?);
    }
    Ok(images)
}

/// The name that whoever wrote the layout gave an image; a tag alone is none.
fn named(descriptor: &Descriptor) -> Result<Option<Reference>, Error> {
    let annotation = |name: &str| descriptor.annotations.as_ref().and_then(|all| all.get(name));
    // containerd's and Docker's first: theirs is whole.
    let whole = annotation("io.containerd.image.name");
    let given = whole
        .or_else(|| annotation("org.opencontainers.image.ref.name").filter(|name| name.contains([':', '/'])));
    given.map(|name| name.parse().map_err(Error::Invalid)).transpose()
}

/// The manifest for this machine behind a descriptor of a manifest or of an index.
fn manifest(archive: &Archive, descriptor: &Descriptor) -> Result<Manifest, Error> {
    let mut descriptor = descriptor.clone();
    for _ in 0..MOST_INDEXES {
        let text = blob(archive, &descriptor.digest)?;
        if !is_index(&descriptor.media_type, &text) {
            return parse(&path(&descriptor.digest), &text);
        }
        let index: Index = parse(&path(&descriptor.digest), &text)?;
        let here =
            |platform: &Platform| platform.os == "linux" && platform.architecture == architecture_here();
        let fitting = index
            .manifests
            .into_iter()
            .find(|each| each.platform.as_ref().is_none_or(here));
        descriptor = fitting.ok_or_else(|| {
            Error::Invalid(format!(
                "the archive has no image for linux/{}",
                architecture_here()
            ))
        })?;
    }
    Err(Error::Invalid("indexes within indexes".to_owned()))
}

fn is_index(media_type: &str, text: &[u8]) -> bool {
    match media_type {
        "application/vnd.oci.image.index.v1+json"
        | "application/vnd.docker.distribution.manifest.list.v2+json" => true,
        "" => parse::<Index>("", text).is_ok(),
        _ => false,
    }
}

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A document, which has the digest that it is asked for by.
fn blob(archive: &Archive, digest: &Digest) -> Result<Vec<u8>, Error> {
    let text = archive.document(&path(digest))?;
    let found = Digest::of(&text);
    match found == *digest {
        true => Ok(text),
        false => Err(Error::Invalid(format!(
            "{} is damaged: its digest is {found}",
            path(digest)
        ))),
    }
}
