//! `petset volumes`.

// clap would show the documentation of a flattened field as the command's own description.
#![allow(missing_docs)]

use super::{Data, Output};
use clap::{Args, Subcommand};

/// `petset volumes`
#[derive(Args, Clone, Debug)]
pub struct Volumes {
    #[command(flatten)]
    pub data: Data,
    #[command(flatten)]
    pub scope: Scope,
    /// List all claims, volumes and directories, not only what nobody needs
    #[arg(long, env = "PETSET_ALL")]
    pub all: bool,
    /// Form of the answer
    #[arg(short = 'o', long, env = "PETSET_OUTPUT", value_enum, default_value_t = Output::Text)]
    pub output: Output,
    #[command(subcommand)]
    pub command: Option<VolumesCommand>,
}

/// Which namespaces are looked at.
#[derive(Args, Clone, Debug)]
pub struct Scope {
    /// Namespace of the claims; volumes and directories count to that of the claim they were made for
    #[arg(
        short = 'n',
        long,
        env = "PETSET_NAMESPACE",
        value_name = "NAME",
        default_value = "default",
        global = true
    )]
    pub namespace: String,
    /// All namespaces
    #[arg(short = 'A', long, env = "PETSET_ALL_NAMESPACES", global = true)]
    pub all_namespaces: bool,
}

impl Scope {
    /// ` in namespace default`, or nothing for all of them.
    pub fn place(&self) -> String {
        if self.all_namespaces {
            String::new()
        } else {
            format!(" in namespace {}", self.namespace)
        }
    }
}

/// What can be done with volumes.
#[derive(Clone, Debug, Subcommand)]
pub enum VolumesCommand {
    /// Remove leftovers: those that are named, or all that are listed, once you have confirmed it
    ///
    /// Nothing that a pod uses or a StatefulSet wants is ever removed. On a terminal the list is shown and a question
    /// asked; elsewhere naming things, or --yes, is the consent. A claim's data goes with it if the reclaim policy is
    /// Delete; a Released, Failed or Available volume goes with its data if that is in a directory that petset made.
    Prune(Prune),
}

/// `petset volumes prune`
#[derive(Args, Clone, Debug)]
pub struct Prune {
    /// What to remove: www-web-3 or pvc/www-web-3 (a claim), pv/NAME (a volume), dir/NAME (a directory)
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Do not ask
    #[arg(short = 'y', long, env = "PETSET_YES")]
    pub yes: bool,
}
