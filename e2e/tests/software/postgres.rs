//! PostgreSQL: a primary and a standby that streams from it.

use super::{Software, needs};
use e2e::binary::Level;

const PSQL: [&str; 6] = [
    "psql",
    "--no-psqlrc",
    "--tuples-only",
    "--no-align",
    "--quiet",
    "--command",
];

fn ask(postgres: &Software, pod: &str, sql: &str) -> e2e::binary::Ran {
    postgres.exec(pod, &[&PSQL[..], &[sql]].concat())
}

fn insert(postgres: &Software, what: &str) {
    postgres.eventually(&format!("PostgreSQL takes {what}"), || {
        let sql = format!("insert into log values ('{what}') on conflict do nothing");
        let ran = ask(postgres, "postgres-0", &sql);
        if ran.status.success() {
            Ok(())
        } else {
            Err(ran.to_string())
        }
    });
}

/// The primary has all of it now, standbys in a moment.
fn check(postgres: &Software) {
    for pod in postgres.pods() {
        postgres.eventually(&format!("all is in {pod}"), || {
            let ran = ask(postgres, &pod, "select what from log");
            let lost: Vec<_> = postgres
                .written
                .iter()
                .filter(|what| !ran.out.lines().any(|l| l == *what))
                .collect();
            let may_wait = pod != "postgres-0" || !ran.status.success();
            assert!(
                lost.is_empty() || may_wait,
                "the primary has lost {lost:?}: {ran}"
            );
            if lost.is_empty() {
                Ok(())
            } else {
                Err(ran.to_string())
            }
        });
    }
}

fn a_standby_follows_its_primary_and_loses_nothing(level: Level) {
    needs("/usr/lib/postgresql/*/bin/postgres");
    let mut postgres = Software::up(level, "postgres", 2);
    postgres.came_up_in_order();
    let made = ask(
        &postgres,
        "postgres-0",
        "create table log (what text primary key)",
    );
    made.ok();
    postgres.write(insert, "first");
    check(&postgres);
    let recovers = |pod: &str| ask(&postgres, pod, "select pg_is_in_recovery()").ok();
    assert_eq!(
        (recovers("postgres-0").trim(), recovers("postgres-1").trim()),
        ("f", "t")
    );
    postgres.lose_every_member_in_turn(insert, check);
    postgres.scale(3);
    check(&postgres);
    postgres.scale(2);
    postgres.roll("WORK_MEM", "8MB");
    for pod in postgres.pods() {
        assert_eq!(ask(&postgres, &pod, "show work_mem").ok().trim(), "8MB", "{pod}");
    }
    check(&postgres);
    postgres.delete_and_make_again();
    check(&postgres);
}

#[test]
fn a_standby_follows_its_primary_and_loses_nothing_as_root() {
    a_standby_follows_its_primary_and_loses_nothing(Level::ROOT);
}

#[test]
fn a_standby_follows_its_primary_and_loses_nothing_as_an_ordinary_user() {
    a_standby_follows_its_primary_and_loses_nothing(Level::ORDINARY);
}
