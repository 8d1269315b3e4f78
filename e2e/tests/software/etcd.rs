//! A cluster of three etcd members that find each other by name.

use super::{Software, needs};
use e2e::binary::Level;

const CLIENT: &str = "--endpoints=http://etcd-client:2379";

/// Through the Service, from whichever member runs.
fn put(etcd: &Software, key: &str) {
    etcd.eventually(&format!("etcd takes {key}"), || {
        let tried = etcd
            .pods()
            .into_iter()
            .map(|pod| etcd.exec(&pod, &["etcdctl", CLIENT, "put", key, "there"]));
        let answers: Vec<_> = tried.take_while(|ran| ran.out.trim() != "OK").collect();
        if answers.len() < etcd.pods().len() {
            return Ok(());
        }
        Err(answers.iter().map(ToString::to_string).collect())
    });
}

/// Every member has it all.
fn check(etcd: &Software) {
    for pod in etcd.pods() {
        let found = etcd.exec_eventually(&pod, &["etcdctl", "get", "--prefix", ""]);
        let found: Vec<&str> = found.lines().collect();
        for key in &etcd.written {
            let is_there = found.chunks(2).any(|pair| pair == [key.as_str(), "there"]);
            assert!(is_there, "{key} in {pod}: {found:?}");
        }
    }
}

fn members_find_each_other_and_lose_nothing(level: Level) {
    needs("/usr/bin/etcd /usr/bin/etcdctl");
    let mut etcd = Software::up(level, "etcd", 3);
    etcd.write(put, "first");
    check(&etcd);
    etcd.lose_every_member_in_turn(put, check);
    etcd.scale(4);
    let members = etcd.exec_eventually("etcd-3", &["etcdctl", "member", "list"]);
    assert_eq!(
        members.lines().filter(|line| line.contains("started")).count(),
        4,
        "{members}"
    );
    etcd.write(put, "with four");
    check(&etcd);
    let fourth = members
        .lines()
        .find(|line| line.contains("etcd-3"))
        .expect("it is a member");
    let id = fourth.split(',').next().expect("an id").to_owned();
    etcd.exec_eventually("etcd-0", &["etcdctl", "member", "remove", &id]);
    etcd.scale(3);
    etcd.roll("ETCD_QUOTA_BACKEND_BYTES", "536870912");
    etcd.write(put, "with a new configuration");
    check(&etcd);
    etcd.delete_and_make_again();
    check(&etcd);
    etcd.write(put, "again");
}

#[test]
fn members_find_each_other_and_lose_nothing_as_root() {
    members_find_each_other_and_lose_nothing(Level::ROOT);
}

#[test]
fn members_find_each_other_and_lose_nothing_as_an_ordinary_user() {
    members_find_each_other_and_lose_nothing(Level::ORDINARY);
}
