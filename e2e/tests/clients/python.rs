//! The public Python client, unmodified: what is expected is in `e2e/clients/python`.

use e2e::binary::Cluster;
use e2e::clients::{drive, python};

#[test]
fn objects_are_created_read_listed_patched_scaled_and_deleted() {
    drive(&mut Cluster::up(), &mut python("test_objects.py"));
}

#[test]
fn watches_go_on_where_they_were_and_informers_know_what_there_is() {
    drive(&mut Cluster::up(), &mut python("test_watch.py"));
}

#[test]
fn the_dynamic_client_manifests_and_leader_election_work() {
    drive(&mut Cluster::up(), &mut python("test_dynamic.py"));
}

#[test]
fn watches_and_informers_survive_restarts() {
    drive(&mut Cluster::up(), &mut python("test_restart.py"));
}

#[test]
fn logs_are_read_and_followed() {
    drive(&mut Cluster::up(), &mut python("test_logs.py"));
}

#[test]
fn server_side_apply_has_managers_conflicts_and_force() {
    drive(&mut Cluster::up(), &mut python("test_apply.py"));
}

#[test]
fn programs_are_run_attached_to_and_reached_through_the_api() {
    drive(&mut Cluster::up(), &mut python("test_streams.py"));
}
