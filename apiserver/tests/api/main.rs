//! The API as a client sees it, in-process, over a store in memory.

mod access;
mod client;
mod generic;
mod hostile;
mod refusal;
mod revisions;
mod scale;
mod statefulset_create;
mod statefulset_defaults;
mod statefulset_status;
mod statefulset_update;
mod storage;
mod yaml;
