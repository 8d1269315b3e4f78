//! Small images for tests, made in memory.

use super::config::architecture_here;
use super::digest::Digest;
use serde_json::json;
use std::io::Write;

/// How layers are packed, or for what the image is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As they are.
    Plain,
    /// With gzip.
    Gzip,
    /// With zstd.
    Zstd,
    /// For another machine.
    Sparc,
}

impl Kind {
    fn pack(self, layer: &[u8]) -> Vec<u8> {
        match self {
            Self::Plain | Self::Sparc => layer.to_vec(),
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
                encoder.write_all(layer).expect("compressed");
                encoder.finish().expect("compressed")
            }
            Self::Zstd => {
                ruzstd::encoding::compress_to_vec(layer, ruzstd::encoding::CompressionLevel::Fastest)
            }
        }
    }
}

/// An archive of these files, whose names are taken as they are.
pub fn layer(files: &[(&str, &str)]) -> Vec<u8> {
    let owned = files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()));
    archive(owned)
}

fn archive(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_uid(nix::unistd::Uid::effective().as_raw().into());
        header.set_gid(nix::unistd::Gid::effective().as_raw().into());
        let gnu = header.as_gnu_mut().expect("gnu");
        gnu.name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, &content[..]).expect("added");
    }
    builder.into_inner().expect("archive")
}

fn document(layers: &[Vec<u8>], config: &str, kind: Kind) -> Vec<u8> {
    let config: serde_json::Value = serde_json::from_str(config).expect("config");
    let digests: Vec<_> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let architecture = if kind == Kind::Sparc {
        "sparc"
    } else {
        architecture_here()
    };
    let document = json!({
        "architecture": architecture, "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": digests},
    });
    document.to_string().into_bytes()
}

/// As `docker save` writes it.
pub fn saved(layers: &[Vec<u8>], config: &str, tags: &[&str], kind: Kind) -> Vec<u8> {
    let document = document(layers, config, kind);
    let config = format!("{}.json", Digest::of(&document).hex());
    let paths: Vec<_> = (0..layers.len()).map(|n| format!("{n}/layer.tar")).collect();
    let manifest = json!([{"Config": config, "RepoTags": tags, "Layers": paths}]);
    let mut files = vec![(config, document)];
    files.extend(paths.into_iter().zip(layers.iter().map(|layer| kind.pack(layer))));
    files.push(("manifest.json".to_owned(), manifest.to_string().into_bytes()));
    archive(files)
}

/// An OCI image layout: an index of an index of the image.
pub fn layout(layers: &[Vec<u8>], config: &str, name: Option<&str>, kind: Kind) -> Vec<u8> {
    let mut files = Vec::new();
    let mut blob = |bytes: Vec<u8>, media_type: &str| {
        let digest = Digest::of(&bytes);
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        files.push((format!("blobs/sha256/{}", digest.hex()), bytes));
        descriptor
    };
    let packed: Vec<_> = layers
        .iter()
        .map(|layer| blob(kind.pack(layer), "application/vnd.oci.image.layer.v1.tar"))
        .collect();
    let config = blob(
        document(layers, config, kind),
        "application/vnd.oci.image.config.v1+json",
    );
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": packed});
    let mut manifest = blob(
        manifest.to_string().into_bytes(),
        "application/vnd.oci.image.manifest.v1+json",
    );
    manifest["platform"] = json!({"os": "linux", "architecture": architecture_here()});
    let mut other = manifest.clone();
    other["platform"]["architecture"] = json!("sparc");
    let index = json!({"schemaVersion": 2, "manifests": [other, manifest]});
    let mut index = blob(
        index.to_string().into_bytes(),
        "application/vnd.oci.image.index.v1+json",
    );
    if let Some(name) = name {
        index["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    }
    let index = json!({"schemaVersion": 2, "manifests": [index]});
    files.push((
        "oci-layout".to_owned(),
        br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
    ));
    files.push(("index.json".to_owned(), index.to_string().into_bytes()));
    archive(files)
}
