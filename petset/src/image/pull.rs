//! `petset image pull`: an image from its registry. What comes is hostile like any archive: lengths are bounded by what the
//! manifest promises, digests are compared, and the unpacking is the same.

use super::login;
use super::progress::Bars;
use crate::args::ImagePull;
use anyhow::{Context, bail};
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use jiff::Timestamp;
use kubelet::image::config::Document;
use kubelet::image::digest::Digest;
use kubelet::image::reference::Reference;
use kubelet::image::store::{Blob, Progress, Store};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference as Remote};
use std::fs::File;
use std::io::{self, Seek};
use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::io::AsyncWrite;

/// Layers that are fetched at a time.
const AT_A_TIME: usize = 3;

/// Longest configuration.
const LONGEST_CONFIG: u64 = 8 << 20;

/// A registry that says nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(60);

/// `petset image pull REF`
pub async fn run(store: &Store, arguments: &ImagePull) -> anyhow::Result<()> {
    let reference = &arguments.image;
    let registry = Registry::new(reference)?;
    let bars = Bars::new();
    let fetched = registry.fetch(store, arguments, &bars).await;
    bars.finish();
    let image = fetched.with_context(|| format!("cannot pull {reference}"))?;
    super::say("pulled", &image)
}

/// One image at its registry.
struct Registry {
    client: Client,
    image: Remote,
    auth: RegistryAuth,
}

impl Registry {
    fn new(reference: &Reference) -> anyhow::Result<Self> {
        // Only the first time; whoever was first chose the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let host = reference.registry();
        let protocol = match is_loopback(host) {
            true => ClientProtocol::HttpsExcept(vec![host.to_owned()]),
            false => ClientProtocol::Https,
        };
        let config = ClientConfig {
            protocol,
            read_timeout: Some(SILENCE),
            connect_timeout: Some(SILENCE),
            user_agent: concat!("petset/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let auth = match login::find(host) {
            Some((user, password)) => RegistryAuth::Basic(user, password),
            None => RegistryAuth::Anonymous,
        };
        Ok(Self {
            client: Client::try_from(config)?,
            image: reference.to_string().parse()?,
            auth,
        })
    }

    async fn fetch(
        &self,
        store: &Store,
        arguments: &ImagePull,
        bars: &Bars,
    ) -> anyhow::Result<kubelet::image::store::Image> {
        let (manifest, digest) = self.client.pull_image_manifest(&self.image, &self.auth).await?;
        let digest: Digest = digest.parse().map_err(anyhow::Error::msg)?;
        let id: Digest = manifest.config.digest.parse().map_err(anyhow::Error::msg)?;
        let document = Document::parse(&self.config(&manifest.config).await?)?;
        let layers = document.layers();
        if layers.len() != manifest.layers.len() {
            bail!(
                "the configuration has {} layers, the manifest {}",
                layers.len(),
                manifest.layers.len()
            );
        }
        // From here on others wait, so that nobody removes a layer that is counted on.
        let mut writer = tokio::task::block_in_place(|| store.writer(arguments.bounds.limits()))?;
        let scratch = writer.scratch();
        let wanted = layers
            .iter()
            .zip(&manifest.layers)
            .filter(|(layer, _)| !writer.has(layer));
        let wanted: Vec<_> = wanted.collect();
        for layer in layers.iter().filter(|layer| writer.has(layer)) {
            bars.done(layer, true);
        }
        let fetched: Vec<_> = stream::iter(wanted)
            .map(|(layer, packed)| self.layer(layer, packed, &scratch, bars))
            .buffered(AT_A_TIME)
            .try_collect()
            .await?;
        tokio::task::block_in_place(|| {
            for (layer, blob) in fetched {
                // The same layer may be in an image twice.
                if !writer.has(&layer) {
                    writer.add_layer(blob, &layer, bars)?;
                }
            }
            let mut name = arguments.image.clone();
            name.digest = Some(digest);
            Ok(writer.add_image(id, &document, &[name], Timestamp::now())?)
        })
    }

    async fn config(&self, descriptor: &OciDescriptor) -> anyhow::Result<Vec<u8>> {
        let mut text = Vec::new();
        let into = Bounded {
            left: promised(descriptor)?.min(LONGEST_CONFIG),
            to: &mut text,
            bar: ProgressBar::hidden(),
        };
        self.client
            .pull_blob(&self.image, descriptor, into)
            .await
            .context("the image's configuration")?;
        Ok(text)
    }

    /// Fetch a layer into a file without a name, still packed.
    async fn layer(
        &self,
        layer: &Digest,
        packed: &OciDescriptor,
        scratch: &Path,
        bars: &Bars,
    ) -> anyhow::Result<(Digest, Blob<File>)> {
        let size = promised(packed)?;
        let mut file = tempfile::tempfile_in(scratch)?;
        let bar = bars.bar("fetching", layer, size);
        let into = Bounded {
            left: size,
            to: tokio::fs::File::from_std(file.try_clone()?),
            bar: bar.clone(),
        };
        let fetched = self.client.pull_blob(&self.image, packed, into).await;
        bar.finish_and_clear();
        fetched.with_context(|| format!("layer {layer}"))?;
        file.rewind()?;
        let blob = Blob {
            content: file,
            size,
            digest: Some(packed.digest.parse().map_err(anyhow::Error::msg)?),
        };
        Ok((layer.clone(), blob))
    }
}

fn promised(descriptor: &OciDescriptor) -> anyhow::Result<u64> {
    u64::try_from(descriptor.size).with_context(|| format!("{} has a negative size", descriptor.digest))
}

/// Whether a registry is on this machine, where nobody listens in and nobody has certificates.
fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => registry.split(':').next().unwrap_or(registry),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Takes no more than was promised, and moves a bar.
struct Bounded<W> {
    left: u64,
    to: W,
    bar: ProgressBar,
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Bounded<W> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if buffer.len() as u64 > this.left {
            let error = io::Error::new(
                io::ErrorKind::InvalidData,
                "more comes than the manifest promises",
            );
            return Poll::Ready(Err(error));
        }
        let written = ready!(Pin::new(&mut this.to).poll_write(context, buffer))?;
        this.left -= written as u64;
        this.bar.inc(written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().to).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().to).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[test]
    fn only_registries_of_this_machine_are_spoken_to_in_the_clear() {
        for (registry, expected) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("docker.io", false),
            ("10.0.0.1:5000", false),
            ("localhost.example.com", false),
            ("127.0.0.1.example.com", false),
        ] {
            assert_eq!(is_loopback(registry), expected, "{registry}");
        }
    }

    #[tokio::test]
    async fn no_more_is_taken_than_was_promised() {
        let mut text = Vec::new();
        let mut into = Bounded {
            left: 3,
            to: &mut text,
            bar: ProgressBar::hidden(),
        };
        into.write_all(b"ab").await.expect("within");
        into.write_all(b"cd").await.expect_err("beyond");
        assert_eq!(text, b"ab");
    }
}
