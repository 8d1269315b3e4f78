//! Client libraries as their makers publish them.

mod kube_rs;
mod kubectl;
mod node;
mod python;
