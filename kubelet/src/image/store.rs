//! Images on disk: each layer unpacked once, by its digest, and shared read-only by everything that runs from it.
//!
//! ```text
//! DATA/images/
//!   images.json    what there is: names, layers, how to run it
//!   layers/DIGEST/ a layer's files, as overlayfs takes them (half of the digest: overlayfs' options have little room)
//!   new/           what is being unpacked or removed; what an interrupted run left is removed by the next
//!   writer         locked by whoever loads, pulls or removes: one at a time
//!   lock           locked for a moment by who changes images.json, or begins to use an image
//! ```
//!
//! An image is used as long as a file `pods/POD/containers/CONTAINER/image` names it ([`Store::hold`]): that outlives
//! petset as pods may, and goes with the pod's directory.

use super::compressed;
use super::config::{Config, Document};
use super::digest::{Digest, Hashing};
use super::reference::Reference;
use super::unpack::{Limits, unpack};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What can go wrong with images.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk, and at what.
    #[error("{what}: {why}")]
    Io {
        /// What was tried, and where.
        what: String,
        /// Why that did not work; part of the message, so not a source besides.
        why: io::Error,
    },
    /// What was given cannot be an image, or cannot be done.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// For `map_err`.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |why| Self::Io { what, why }
    }
}

/// One image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Digest of its configuration.
    pub id: Digest,
    /// `docker.io/library/nginx:1.27`; an image whose names were given to others has none.
    pub names: BTreeSet<String>,
    /// `docker.io/library/nginx@sha256:…`, by the digest of a manifest.
    pub digests: BTreeSet<String>,
    /// The lowest first.
    pub layers: Vec<Layer>,
    /// How to run it.
    pub config: Config,
    /// When it came.
    pub added: jiff::Timestamp,
}

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Of the uncompressed archive.
    pub digest: Digest,
    /// Bytes of its files.
    pub size: u64,
}

impl Image {
    /// Bytes of its files.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }

    /// What `imageID` says: a repository with a digest if one is known.
    pub fn image_id(&self) -> String {
        self.digests
            .first()
            .cloned()
            .unwrap_or_else(|| self.id.to_string())
    }

    /// A name for people.
    pub fn shown(&self) -> String {
        let first = self.names.first().or(self.digests.first());
        first.cloned().unwrap_or_else(|| self.id.to_string())
    }

    fn is(&self, wanted: &Reference) -> bool {
        match (&wanted.digest, &wanted.tag) {
            // As everywhere, a digest decides and a tag beside it is decoration.
            (Some(digest), _) => self.digests.contains(&format!("{}@{digest}", wanted.repository)),
            (None, _) => self.names.contains(&wanted.name()),
        }
    }
}

/// The images of a data directory.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
    pods: PathBuf,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Index {
    images: Vec<Image>,
}

impl Store {
    /// The one of this data directory; it need not exist.
    pub fn new(data: &Path) -> Self {
        Self {
            directory: data.join("images"),
            pods: data.join("pods"),
        }
    }

    /// All images, by name.
    pub fn list(&self) -> Result<Vec<Image>, Error> {
        let mut images = self.index()?.images;
        images.sort_by_cached_key(|image| (image.names.is_empty(), image.shown()));
        Ok(images)
    }

    /// The image that a container means with `text`: a reference, or an image's id as `sha256:…`.
    pub fn find(&self, text: &str) -> Result<Option<Image>, Error> {
        Ok(find(&self.index()?.images, text)?.cloned())
    }

    /// Where its layers are, the uppermost first.
    pub fn layers(&self, image: &Image) -> Vec<PathBuf> {
        image
            .layers
            .iter()
            .rev()
            .map(|layer| self.layer(&layer.digest))
            .collect()
    }

    /// Note that a container uses an image. `container` is its directory among the pods'. An image that was removed meanwhile
    /// is an error.
    pub fn hold(&self, image: &Digest, container: &Path) -> Result<(), Error> {
        let _lock = self.lock("lock", FlockArg::LockShared)?;
        if !self.index()?.images.iter().any(|known| known.id == *image) {
            return Err(Error::Invalid(format!("image {image} has been removed")));
        }
        let note = container.join("image");
        fs::write(&note, image.to_string()).map_err(Error::io(format!("cannot write {}", note.display())))
    }

    /// The image that a container was started from, by what [`Store::hold`] noted.
    pub fn held(&self, container: &Path) -> Option<Image> {
        let id: Digest = fs::read_to_string(container.join("image")).ok()?.parse().ok()?;
        self.index().ok()?.images.into_iter().find(|image| image.id == id)
    }

    /// Become the one who changes images, once nobody else is.
    pub fn writer(&self, limits: Limits) -> Result<Writer, Error> {
        for directory in [
            self.directory.clone(),
            self.directory.join("layers"),
            self.directory.join("new"),
        ] {
            // Nobody else is to find set-user-id programs in here.
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .and_then(|()| fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)))
                .map_err(Error::io(format!("cannot create {}", directory.display())))?;
        }
        let lock = self.lock("writer", FlockArg::LockExclusive)?;
        let writer = Writer {
            store: self.clone(),
            limits,
            sizes: BTreeMap::new(),
            _lock: lock,
        };
        writer.empty_new();
        Ok(writer)
    }

    fn layer(&self, digest: &Digest) -> PathBuf {
        self.directory.join("layers").join(&digest.hex()[..32])
    }

    fn lock(&self, name: &str, how: FlockArg) -> Result<Flock<File>, Error> {
        let path = self.directory.join(name);
        let failed = || Error::io(format!("cannot lock {}", path.display()));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed())?;
        Flock::lock(file, how).map_err(|(_, error)| failed()(error.into()))
    }

    fn index(&self) -> Result<Index, Error> {
        let path = self.directory.join("images.json");
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| Error::Invalid(format!("{} cannot be read: {error}", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Index::default()),
            Err(error) => Err(Error::io(format!("cannot read {}", path.display()))(error)),
        }
    }

    /// The pods that use an image, by their directories' names.
    fn users(&self, id: &Digest) -> Vec<String> {
        let entries = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten();
        let uses = |container: fs::DirEntry| {
            fs::read_to_string(container.path().join("image")).is_ok_and(|used| used == id.to_string())
        };
        entries(self.pods.clone())
            .filter(|pod| entries(pod.path().join("containers")).any(uses))
            .map(|pod| pod.file_name().to_string_lossy().into_owned())
            .collect()
    }
}

fn find<'a>(images: &'a [Image], text: &str) -> Result<Option<&'a Image>, Error> {
    if let Ok(id) = text.parse::<Digest>() {
        return Ok(images.iter().find(|image| image.id == id));
    }
    let wanted: Reference = text.parse().map_err(Error::Invalid)?;
    Ok(images.iter().find(|image| image.is(&wanted)))
}

/// Told how a layer comes along, in bytes of what is read.
pub trait Progress: Sync {
    /// A layer of so many bytes begins.
    fn begin(&self, layer: &Digest, bytes: u64);
    /// So many more have been read.
    fn advance(&self, bytes: u64);
    /// It is there; or it was there already, and nothing began.
    fn done(&self, layer: &Digest, was_there: bool);
}

/// Tells nobody.
impl Progress for () {
    fn begin(&self, _: &Digest, _: u64) {}
    fn advance(&self, _: u64) {}
    fn done(&self, _: &Digest, _: bool) {}
}

/// A layer as it comes: an archive, perhaps compressed.
pub struct Blob<R> {
    /// The bytes.
    pub content: R,
    /// How many.
    pub size: u64,
    /// Their digest, where one is promised.
    pub digest: Option<Digest>,
}

/// What was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name only: the image has others.
    Name(String),
    /// The image and the layers that no other has.
    Image(Box<Image>),
}

/// Changes the images; there is one at a time.
pub struct Writer {
    store: Store,
    limits: Limits,
    /// Of layers that were unpacked or found.
    sizes: BTreeMap<Digest, u64>,
    _lock: Flock<File>,
}

impl Writer {
    /// A directory for temporary files, on the same disk.
    pub fn scratch(&self) -> PathBuf {
        self.store.directory.join("new")
    }

    /// The bounds that are kept.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Whether a layer is there.
    pub fn has(&self, layer: &Digest) -> bool {
        self.store.layer(layer).is_dir()
    }

    /// Unpack a layer. It is kept only if its digests are what they should be.
    pub fn add_layer<R: Read>(
        &mut self,
        blob: Blob<R>,
        layer: &Digest,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let failed = |why| Error::Io {
            what: format!("layer {layer}"),
            why,
        };
        progress.begin(layer, blob.size);
        let new = tempfile::tempdir_in(self.scratch()).map_err(failed)?;
        // The root directory of containers, unless the layer says otherwise.
        fs::set_permissions(new.path(), fs::Permissions::from_mode(0o755)).map_err(failed)?;
        let result = self.unpack(blob, layer, new.path(), progress);
        let size = match result {
            Ok(size) => size,
            Err(error) => {
                remove_tree(new.path());
                return Err(error);
            }
        };
        // On disk before it has its name, so that a name always stands for the whole layer.
        sync(new.path()).map_err(failed)?;
        let size_file = self.store.layer(layer).with_extension("size");
        fs::write(&size_file, size.to_string()).map_err(failed)?;
        let new = new.keep();
        if let Err(error) = fs::rename(&new, self.store.layer(layer)) {
            remove_tree(&new);
            return Err(failed(error));
        }
        self.sizes.insert(layer.clone(), size);
        progress.done(layer, false);
        Ok(())
    }

    fn unpack<R: Read>(
        &self,
        blob: Blob<R>,
        layer: &Digest,
        into: &Path,
        progress: &dyn Progress,
    ) -> Result<u64, Error> {
        let failed = |why| Error::Io {
            what: format!("layer {layer}"),
            why,
        };
        let mut compressed = Hashing::new(Told {
            from: blob.content.take(blob.size),
            progress,
        });
        let mut plain = Hashing::new(compressed::open(&mut compressed).map_err(failed)?);
        let size = unpack(&mut plain, into, self.limits).map_err(failed)?;
        let found = plain.finish().map_err(failed)?;
        if found != *layer {
            return Err(Error::Invalid(format!(
                "layer {layer}: its content has another digest, {found}"
            )));
        }
        let found = compressed.finish().map_err(failed)?;
        match blob.digest {
            Some(promised) if promised != found => Err(Error::Invalid(format!(
                "layer {layer}: {promised} was promised, {found} has come"
            ))),
            _ => Ok(size),
        }
    }

    /// Make an image of layers that are there. A name that another image had is this one's now.
    pub fn add_image(
        &mut self,
        id: Digest,
        document: &Document,
        names: &[Reference],
        now: jiff::Timestamp,
    ) -> Result<Image, Error> {
        let layers: Result<Vec<_>, _> = document
            .layers()
            .iter()
            .map(|digest| self.describe(digest))
            .collect();
        let layers = layers?;
        let _lock = self.store.lock("lock", FlockArg::LockExclusive)?;
        let mut index = self.store.index()?;
        let position = index.images.iter().position(|image| image.id == id);
        let mut image = match position {
            Some(position) => index.images.remove(position),
            None => Image {
                id,
                names: BTreeSet::new(),
                digests: BTreeSet::new(),
                layers,
                config: document.config().clone(),
                added: now,
            },
        };
        for name in names {
            if name.tag.is_some() {
                let name = Reference {
                    digest: None,
                    ..name.clone()
                }
                .name();
                for other in &mut index.images {
                    other.names.remove(&name);
                }
                image.names.insert(name);
            }
            if let Some(digest) = &name.digest {
                image.digests.insert(format!("{}@{digest}", name.repository));
            }
        }
        index.images.push(image.clone());
        self.write(&index)?;
        Ok(image)
    }

    /// Remove a name, and the image with its last name or by its id. One that a pod uses stays.
    pub fn remove(&mut self, text: &str) -> Result<Removed, Error> {
        let lock = self.store.lock("lock", FlockArg::LockExclusive)?;
        let mut index = self.store.index()?;
        let found = find(&index.images, text)?.map(|image| image.id.clone());
        let position = found.and_then(|id| index.images.iter().position(|image| image.id == id));
        let Some(position) = position else {
            return Err(Error::Invalid(format!(
                "there is no image {text:?} (see: petset image ls)"
            )));
        };
        let image = &mut index.images[position];
        let name = text
            .parse::<Reference>()
            .ok()
            .filter(|wanted| wanted.digest.is_none());
        if let Some(name) = name.map(|wanted| wanted.name())
            && image.names.len() > 1
        {
            image.names.remove(&name);
            self.write(&index)?;
            return Ok(Removed::Name(name));
        }
        let users = self.store.users(&image.id);
        if !users.is_empty() {
            return Err(Error::Invalid(format!(
                "image {text:?} is used by {}",
                users.join(", ")
            )));
        }
        let image = index.images.remove(position);
        self.write(&index)?;
        drop(lock);
        self.sweep(&index);
        Ok(Removed::Image(Box::new(image)))
    }

    fn describe(&self, digest: &Digest) -> Result<Layer, Error> {
        let size = match self.sizes.get(digest) {
            Some(size) => *size,
            None if self.has(digest) => {
                let noted = fs::read_to_string(self.store.layer(digest).with_extension("size"));
                noted.ok().and_then(|text| text.parse().ok()).unwrap_or(0)
            }
            None => return Err(Error::Invalid(format!("layer {digest} is missing"))),
        };
        Ok(Layer {
            digest: digest.clone(),
            size,
        })
    }

    fn write(&self, index: &Index) -> Result<(), Error> {
        let path = self.store.directory.join("images.json");
        let failed = || Error::io(format!("cannot write {}", path.display()));
        let text = serde_json::to_vec_pretty(index).map_err(|error| failed()(error.into()))?;
        let new = path.with_extension("new");
        fs::write(&new, text)
            .and_then(|()| File::open(&new)?.sync_all())
            .and_then(|()| fs::rename(&new, &path))
            .and_then(|()| File::open(&self.store.directory)?.sync_all())
            .map_err(failed())
    }

    /// Remove layers that no image has: those of a removed image, or of a load that did not come to its end.
    fn sweep(&self, index: &Index) {
        let layers = self.store.directory.join("layers");
        let needed: BTreeSet<_> = index
            .images
            .iter()
            .flat_map(|image| &image.layers)
            .map(|layer| self.store.layer(&layer.digest))
            .collect();
        for entry in fs::read_dir(layers).into_iter().flatten().flatten() {
            let path = entry.path();
            if needed.contains(&path.with_extension("")) {
                continue;
            }
            // Away under its name at once, file by file afterwards.
            let away = self.scratch().join(entry.file_name());
            if fs::rename(&path, &away).is_ok() {
                remove_tree(&away);
            }
        }
    }

    fn empty_new(&self) {
        for entry in fs::read_dir(self.scratch()).into_iter().flatten().flatten() {
            remove_tree(&entry.path());
        }
    }
}

/// Remove a file or a tree, also one with directories that their owner may not write to.
fn remove_tree(path: &Path) {
    let result = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => {
            open_up(path);
            fs::remove_dir_all(path)
        }
        Ok(_) => fs::remove_file(path),
        Err(_) => return,
    };
    if let Err(error) = result {
        tracing::warn!(path = %path.display(), %error, "cannot remove what is left of an image");
    }
}

fn open_up(directory: &Path) {
    let _ = fs::set_permissions(directory, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

/// Have everything on the disk of `path` written.
fn sync(path: &Path) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let directory = File::open(path)?;
    // SAFETY: the descriptor is open.
    match unsafe { libc::syncfs(directory.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A reader whose progress is told.
struct Told<'a, R> {
    from: R,
    progress: &'a dyn Progress,
}

impl<R: Read> Read for Told<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.progress.advance(read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
