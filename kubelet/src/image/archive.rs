//! Archives that hold whole images: what `docker save` and `podman save` write, and OCI image layouts.
//!
//! Such an archive is read twice: once for where its members are, then member by member, in the order of the manifest.

use super::compressed;
use super::config::Document;
use super::digest::Digest;
use super::entries::Entries;
use super::reference::Reference;
use super::store::{Blob, Error, Image, Progress, Writer};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use tar::EntryType;

mod layout;

/// Most members of an archive; names are kept in memory.
const MOST_MEMBERS: usize = 100_000;

/// Longest manifest, index or configuration.
const LONGEST_DOCUMENT: u64 = 8 << 20;

/// Links from a member to another, as old versions of Docker write for layers that are the same.
const MOST_LINKS: usize = 8;

/// An archive whose members can be read in any order.
pub struct Archive {
    file: File,
    members: BTreeMap<String, Member>,
}

enum Member {
    /// Where it is in the file, and how long.
    Content { at: u64, size: u64 },
    /// The path of another member.
    Link(String),
}

/// `manifest.json`, one for each image.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Put all images of an archive into the store, which `writer` writes to. `name` is for an archive with one image that
/// has no name of its own, or is to have another.
pub fn load(
    writer: &mut Writer,
    from: File,
    name: Option<&Reference>,
    progress: &dyn Progress,
    now: jiff::Timestamp,
) -> Result<Vec<Image>, Error> {
    let archive = Archive::open(from, writer)?;
    if archive.members.contains_key("manifest.json") {
        return archive.load_saved(writer, name, progress, now);
    }
    if archive.members.contains_key("index.json") {
        return layout::load(&archive, writer, name, progress, now);
    }
    Err(Error::Invalid(
        "this is no image: an archive of docker save has a manifest.json, an OCI image layout an index.json"
            .to_owned(),
    ))
}

impl Archive {
    /// Look at what there is. What is compressed, or cannot be read twice, is written to a temporary file.
    fn open(from: File, writer: &Writer) -> Result<Self, Error> {
        let file = plain(from, writer).map_err(Error::io("cannot read the archive"))?;
        let members = index(&file).map_err(Error::io("cannot read the archive"))?;
        Ok(Self { file, members })
    }

    fn load_saved(
        &self,
        writer: &mut Writer,
        name: Option<&Reference>,
        progress: &dyn Progress,
        now: jiff::Timestamp,
    ) -> Result<Vec<Image>, Error> {
        let saved: Vec<Saved> = parse("manifest.json", &self.document("manifest.json")?)?;
        if saved.is_empty() {
            return Err(Error::Invalid("the archive holds no image".to_owned()));
        }
        only_one(name, saved.len())?;
        let mut images = Vec::new();
        for each in &saved {
            let text = self.document(&each.config)?;
            let id = Digest::of(&text);
            promised(&each.config, &id)?;
            let document = Document::parse(&text)?;
            if document.layers().len() != each.layers.len() {
                return Err(Error::Invalid(format!(
                    "{}: the configuration has {} layers, the manifest {}",
                    each.config,
                    document.layers().len(),
                    each.layers.len()
                )));
            }
            let tags = each.repo_tags.iter().flatten();
            let names: Result<Vec<Reference>, _> = tags.map(|tag| tag.parse()).collect();
            let names = match name {
                Some(name) => vec![name.clone()],
                None => names.map_err(Error::Invalid)?,
            };
            for (layer, path) in document.layers().iter().zip(&each.layers) {
                if writer.has(layer) {
                    progress.done(layer, true);
                    continue;
                }
                writer.add_layer(self.blob(path)?, layer, progress)?;
            }
            images.push(writer.add_image(id, &document, &names, now)?);
        }
        Ok(images)
    }

    /// A member as a layer's content.
    fn blob(&self, path: &str) -> Result<Blob<Section<'_>>, Error> {
        let (at, size) = self.member(path)?;
        Ok(Blob {
            content: Section {
                file: &self.file,
                at,
                left: size,
            },
            size,
            digest: None,
        })
    }

    /// A short member, whole.
    fn document(&self, path: &str) -> Result<Vec<u8>, Error> {
        let blob = self.blob(path)?;
        if blob.size > LONGEST_DOCUMENT {
            return Err(Error::Invalid(format!(
                "{path} is longer than {} MiB",
                LONGEST_DOCUMENT >> 20
            )));
        }
        let mut text = Vec::new();
        let mut content = blob.content;
        content
            .read_to_end(&mut text)
            .map_err(Error::io(format!("cannot read {path}")))?;
        Ok(text)
    }

    fn member(&self, path: &str) -> Result<(u64, u64), Error> {
        let mut path = path;
        for _ in 0..MOST_LINKS {
            match self.members.get(path) {
                Some(Member::Content { at, size }) => return Ok((*at, *size)),
                Some(Member::Link(to)) => path = to,
                None => return Err(Error::Invalid(format!("{path} is missing in the archive"))),
            }
        }
        Err(Error::Invalid(format!("{path} is a link in a circle")))
    }
}

/// A part of a file.
struct Section<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

/// The archive uncompressed and in a file with random access.
fn plain(mut from: File, writer: &Writer) -> io::Result<File> {
    if from.metadata()?.is_file() {
        let mut start = [0; 4];
        let read = from.read_at(&mut start, 0)?;
        if !compressed::is_compressed(&start[..read]) {
            from.rewind()?;
            return Ok(from);
        }
    }
    let mut file = tempfile::tempfile_in(writer.scratch())?;
    let most = writer.limits().bytes;
    let copied = io::copy(
        &mut compressed::open(from)?.take(most.saturating_add(1)),
        &mut file,
    )?;
    if copied > most {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is larger than {most} bytes"),
        ));
    }
    file.rewind()?;
    Ok(file)
}

fn index(file: &File) -> io::Result<BTreeMap<String, Member>> {
    let size = file.metadata()?.len();
    let mut members = BTreeMap::new();
    let mut entries = Entries::new(Section {
        file,
        at: 0,
        left: size,
    });
    while let Some(entry) = entries.next_entry()? {
        if members.len() >= MOST_MEMBERS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it has more than {MOST_MEMBERS} members"),
            ));
        }
        let path = normal("", &entry.path);
        let member = match entry.kind() {
            EntryType::Regular | EntryType::Continuous => Member::Content {
                at: entries.inner().at,
                size: entry.size,
            },
            EntryType::Symlink => {
                let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
                Member::Link(normal(directory, &entry.link))
            }
            EntryType::Link => Member::Link(normal("", &entry.link)),
            _ => continue,
        };
        members.insert(path, member);
    }
    Ok(members)
}

/// A member's path from the archive's root, by the directory that it is said in. It only serves as a key.
fn normal(directory: &str, path: &[u8]) -> String {
    let path = String::from_utf8_lossy(path);
    let mut parts: Vec<&str> = match path.starts_with('/') {
        true => Vec::new(),
        false => directory.split('/').filter(|part| !part.is_empty()).collect(),
    };
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn parse<T: serde::de::DeserializeOwned>(path: &str, text: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(text).map_err(|error| Error::Invalid(format!("{path} cannot be read: {error}")))
}

fn only_one(name: Option<&Reference>, images: usize) -> Result<(), Error> {
    match name {
        Some(name) if images > 1 => Err(Error::Invalid(format!(
            "the archive holds {images} images, which cannot all be {name}"
        ))),
        _ => Ok(()),
    }
}

/// A member whose name is a digest must have it.
fn promised(path: &str, found: &Digest) -> Result<(), Error> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let name = name.strip_suffix(".json").unwrap_or(name);
    match format!("sha256:{name}").parse::<Digest>() {
        Ok(promised) if promised != *found => Err(Error::Invalid(format!(
            "{path} is damaged: its digest is {found}"
        ))),
        _ => Ok(()),
    }
}
