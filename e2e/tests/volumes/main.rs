//! Claims, their volumes, and what the scheduler and petset's own commands make of them.

mod binding;
mod reclaim;
mod scheduling;
mod usage;
