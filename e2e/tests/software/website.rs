//! nginx, serving what is in its volume.

use super::{Software, needs};
use e2e::binary::{Level, run};
use std::process::Command;

/// A page on every member's volume.
fn publish(website: &Software, page: &str) {
    for pod in website.pods() {
        let script = format!("echo {page} > /usr/share/nginx/html/{page}");
        website.exec_eventually(&pod, &["sh", "-c", &script]);
    }
}

/// Every member serves every page, and so does the Service on the host.
fn check(website: &Software) {
    let service = website.cluster.get("svc website");
    let port = service["spec"]["ports"][0]["nodePort"].clone();
    let pages = website.written.join(",");
    let all = website.written.join("\n");
    for pod in website.pods() {
        let url = format!("http://{pod}.website-members/{{{pages}}}");
        let served = website.exec_eventually("website-0", &["curl", "-sSf", "--fail-early", &url]);
        assert_eq!(served.trim(), all, "{pod}");
    }
    let url = format!("http://127.0.0.1:{port}/{{{pages}}}");
    website.eventually(&url, || {
        let ran = run(Command::new("curl").args(["-sSf", "--fail-early", &url]));
        if ran.out.trim() == all {
            Ok(())
        } else {
            Err(ran.to_string())
        }
    });
}

fn volumes_are_served_through_everything(level: Level) {
    needs("/usr/sbin/nginx");
    let mut website = Software::up(level, "website", 2);
    website.came_up_in_order();
    website.write(publish, "first");
    check(&website);
    website.lose_every_member_in_turn(publish, check);
    website.scale(3);
    website.scale(2);
    website.roll("SOMETHING", "new");
    check(&website);
    website.delete_and_make_again();
    check(&website);
}

#[test]
fn volumes_are_served_through_everything_as_root() {
    volumes_are_served_through_everything(Level::ROOT);
}

#[test]
fn volumes_are_served_through_everything_as_an_ordinary_user() {
    volumes_are_served_through_everything(Level::ORDINARY);
}
