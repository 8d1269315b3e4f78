//! nslookup, as people use it to look around in a cluster.

use e2e::binary::run;
use std::process::Command;

/// Arguments, and lines that it prints; `Z` is the cluster's domain.
const LOOKS: [(&[&str], &[&str]); 7] = [
    (
        &["nginx.default.svc.Z"],
        &[
            "Name: nginx.default.svc.Z",
            "Address: 127.244.0.10",
            "Address: 127.244.0.11",
        ],
    ),
    (
        &["web-0.nginx.default.svc.Z"],
        &["Name: web-0.nginx.default.svc.Z", "Address: 127.244.0.10"],
    ),
    (
        &["127.244.0.10"],
        &["10.0.244.127.in-addr.arpa name = web-0.nginx.default.svc.Z."],
    ),
    (
        &["-type=SRV", "_peer._udp.raft.default.svc.Z"],
        &[
            "_peer._udp.raft.default.svc.Z service = 0 33 7000 raft-0.raft.default.svc.Z.",
            "_peer._udp.raft.default.svc.Z service = 0 33 7000 raft-1.raft.default.svc.Z.",
            "_peer._udp.raft.default.svc.Z service = 0 33 7000 raft-2.raft.default.svc.Z.",
        ],
    ),
    (
        &["ext-in.default.svc.Z"],
        &["ext-in.default.svc.Z canonical name = nginx.default.svc.Z."],
    ),
    (&["-type=AAAA", "db.manual.default.svc.Z"], &["Address: fd00::10"]),
    (
        &["web-2.nginx.default.svc.Z"],
        &["** server can't find web-2.nginx.default.svc.Z: NXDOMAIN"],
    ),
];

/// Forward, backward, SRV, aliases, and a pod that is not ready; over UDP and TCP.
pub fn look_around(server: &str) {
    let (host, port) = server.rsplit_once(':').expect("it has a port");
    for (arguments, lines) in LOOKS {
        for way in ["-novc", "-vc"] {
            let arguments = arguments.iter().map(|argument| domain(argument));
            let mut command = Command::new("nslookup");
            command
                .args([&format!("-port={port}"), way])
                .args(arguments)
                .arg(host);
            let ran = run(&mut command);
            let said: Vec<String> = ran.out.lines().map(words).collect();
            for line in lines {
                assert!(said.contains(&domain(line)), "{line} is not in {ran}");
            }
            let is_there = !lines[0].starts_with("**");
            assert_eq!(ran.status.success(), is_there, "{ran}");
        }
    }
}

fn domain(text: &str) -> String {
    text.replace(".Z", ".cluster.local")
}

/// With one space between two words.
fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}
