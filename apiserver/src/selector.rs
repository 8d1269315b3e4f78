//! Label and field selectors: upstream's grammar, its error texts, and what they match.

mod field;
mod label;

pub use field::FieldSelector;
pub use label::LabelSelector;
