//! Names in a cluster that runs: which there are, who finds them, and where they are looked at.

mod objects;
mod pods;
mod records;
