//! What the tests that need several crates share.

pub mod in_process;
