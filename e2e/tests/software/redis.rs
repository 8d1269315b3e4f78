//! Redis: a primary and two replicas.

use super::{Software, needs};
use e2e::binary::Level;

fn set(redis: &Software, key: &str) {
    redis.eventually(&format!("redis takes {key}"), || {
        let ran = redis.exec("redis-0", &["redis-cli", "set", key, "there"]);
        if ran.out.trim() == "OK" {
            Ok(())
        } else {
            Err(ran.to_string())
        }
    });
}

/// The primary has all of it now, replicas in a moment.
fn check(redis: &Software) {
    for pod in redis.pods() {
        redis.eventually(&format!("all is in {pod}"), || {
            let keys = redis.written.iter().map(String::as_str);
            let command: Vec<&str> = ["redis-cli", "mget"].into_iter().chain(keys).collect();
            let ran = redis.exec(&pod, &command);
            let there = ran.out.lines().filter(|line| *line == "there").count() == redis.written.len();
            assert!(
                there || pod != "redis-0" || !ran.status.success(),
                "the primary has lost something: {ran}"
            );
            if there { Ok(()) } else { Err(ran.to_string()) }
        });
    }
}

fn replicas_follow_their_primary_and_lose_nothing(level: Level) {
    needs("/usr/bin/redis-server /usr/bin/redis-cli");
    let mut redis = Software::up(level, "redis", 3);
    redis.came_up_in_order();
    redis.write(set, "first");
    check(&redis);
    let role = |pod: &str| redis.exec_eventually(pod, &["redis-cli", "role"]);
    assert!(role("redis-0").starts_with("master"));
    assert!(role("redis-1").starts_with("slave") && role("redis-2").starts_with("slave"));
    redis.lose_every_member_in_turn(set, check);
    redis.scale(4);
    check(&redis);
    redis.scale(3);
    redis.roll("MAX_MEMORY", "32mb");
    for pod in redis.pods() {
        let memory = redis.exec_eventually(&pod, &["redis-cli", "config", "get", "maxmemory"]);
        assert!(memory.contains("33554432"), "{pod}: {memory}");
    }
    // By its virtual address, a Service that any of them answers.
    let read = redis.exec_eventually("redis-1", &["redis-cli", "-h", "redis-read", "get", "first"]);
    assert_eq!(read.trim(), "there");
    check(&redis);
    redis.delete_and_make_again();
    check(&redis);
}

#[test]
fn replicas_follow_their_primary_and_lose_nothing_as_root() {
    replicas_follow_their_primary_and_lose_nothing(Level::ROOT);
}

#[test]
fn replicas_follow_their_primary_and_lose_nothing_as_an_ordinary_user() {
    replicas_follow_their_primary_and_lose_nothing(Level::ORDINARY);
}
