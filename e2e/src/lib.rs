//! What the tests that need several crates share.

pub mod binary;
pub mod in_process;
pub mod storage;
