//! petset
fn main() {}
