//! `petset image`.

// clap would show the documentation of a flattened field as the command's own description.
#![allow(missing_docs)]

use super::{Data, Output};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `petset image`
#[derive(Args, Clone, Debug)]
pub struct Image {
    #[command(flatten)]
    pub data: Data,
    #[command(subcommand)]
    pub command: ImageCommand,
}

/// What can be done with images.
#[derive(Clone, Debug, Subcommand)]
pub enum ImageCommand {
    /// Load the images of an archive: what docker save writes, or an OCI image layout; also compressed
    Load(ImageLoad),
    /// Fetch an image from its registry
    ///
    /// Registries that need a login are entered with what docker login wrote to ~/.docker/config.json; registries on a
    /// loopback address are spoken to over plain HTTP.
    Pull(ImagePull),
    /// List images
    Ls(ImageList),
    /// Remove images, by name or by id; the layers that no other image has go with the last name
    Rm(ImageRemove),
}

/// `petset image load`
#[derive(Args, Clone, Debug)]
pub struct ImageLoad {
    /// The archive, or - for standard input
    #[arg(value_name = "FILE|-")]
    pub file: PathBuf,
    /// Name for the archive's image instead of the one that it brings
    #[arg(long, env = "PETSET_IMAGE_NAME", value_name = "REF")]
    pub name: Option<kubelet::image::reference::Reference>,
    #[command(flatten)]
    pub bounds: ImageBounds,
}

/// `petset image pull`
#[derive(Args, Clone, Debug)]
pub struct ImagePull {
    /// The image, as a pod names it: nginx:1.27, registry.example.com/team/app@sha256:…
    #[arg(value_name = "REF")]
    pub image: kubelet::image::reference::Reference,
    #[command(flatten)]
    pub bounds: ImageBounds,
}

/// What a layer may hold.
#[derive(Args, Clone, Copy, Debug)]
pub struct ImageBounds {
    /// Largest layer that is unpacked, in GiB
    #[arg(long, env = "PETSET_MAX_LAYER_SIZE", value_name = "GIB", default_value_t = 32,
        value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub max_layer_size: u64,
}

impl ImageBounds {
    /// With the bounds that are always the same.
    pub fn limits(self) -> kubelet::image::unpack::Limits {
        kubelet::image::unpack::Limits {
            bytes: self.max_layer_size << 30,
            ..kubelet::image::unpack::Limits::default()
        }
    }
}

/// `petset image ls`
#[derive(Args, Clone, Debug)]
pub struct ImageList {
    /// Form of the answer
    #[arg(short = 'o', long, env = "PETSET_OUTPUT", value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// `petset image rm`
#[derive(Args, Clone, Debug)]
pub struct ImageRemove {
    /// Names or ids (sha256:…)
    #[arg(value_name = "REF", required = true)]
    pub images: Vec<String>,
}
