//! Stock kubectl, command by command: what it says, and what it exits with.

mod all_day;
mod apply;
mod create;
mod debug;
mod deletion;
mod every_kind;
mod get;
mod logs;
mod proxy;
mod refusals;
mod rollout;
mod run;
mod selection;
mod streams;
mod tables;
mod top;
