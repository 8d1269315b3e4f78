//! What the tests that need several crates share.

pub mod binary;
pub mod clients;
pub mod in_process;
pub mod storage;
