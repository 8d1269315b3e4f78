//! The public Node client, unmodified: what is expected is in `e2e/clients/node`.

use e2e::binary::Cluster;
use e2e::clients::{drive, node};

#[test]
fn objects_are_created_read_listed_patched_scaled_and_deleted() {
    drive(&mut Cluster::up(), &mut node("objects.mjs"));
}

#[test]
fn watches_and_informers_survive_restarts() {
    drive(&mut Cluster::up(), &mut node("watch.mjs"));
}

#[test]
fn server_side_apply_has_managers_conflicts_and_force() {
    drive(&mut Cluster::up(), &mut node("apply.mjs"));
}

#[test]
fn programs_are_run_attached_to_and_reached_through_the_api() {
    drive(&mut Cluster::up(), &mut node("streams.mjs"));
}
