//! What can be done to every kind, one file per verb.

pub mod apply;
pub mod create;
pub mod delete;
pub mod deletecollection;
pub mod get;
pub mod list;
pub mod patch;
pub mod update;
pub mod watch;

#[cfg(test)]
pub mod testing;
