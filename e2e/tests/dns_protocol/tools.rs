//! dig and kdig, each over UDP without EDNS, UDP with EDNS, and TCP. Both take many questions at a time.

use crate::said::{Said, parse};
use e2e::binary::{Cluster, run};
use std::process::Command;

/// How a question goes to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// UDP, at most 512 bytes.
    Plain,
    /// UDP with room for 1232 bytes.
    Edns,
    /// TCP without EDNS.
    Tcp,
}

/// All of them.
pub const WAYS: [Way; 3] = [Way::Plain, Way::Edns, Way::Tcp];

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Of BIND.
    Dig,
    /// Of Knot.
    Kdig,
}

/// Both.
pub const TOOLS: [Tool; 2] = [Tool::Dig, Tool::Kdig];

/// Ask name and type of each question in turn; as many answers.
#[track_caller]
pub fn ask(cluster: &Cluster, server: &str, tool: Tool, way: Way, questions: &[(&str, &str)]) -> Vec<Said> {
    let (host, port) = server.rsplit_once(':').expect("it has a port");
    let host = format!("@{host}");
    let mut command = Command::new(match tool {
        Tool::Dig => "dig",
        Tool::Kdig => "kdig",
    });
    command.args([&host, "-p", port]).args(match way {
        Way::Plain => ["+notcp", "+noedns", "+ignore"].as_slice(),
        Way::Edns => &["+notcp", "+edns=0", "+bufsize=1232", "+ignore"],
        Way::Tcp => &["+tcp", "+noedns"],
    });
    match tool {
        Tool::Dig => {
            let lines: Vec<String> = questions
                .iter()
                .map(|(name, type_)| format!("{name} {type_}\n"))
                .collect();
            let file = cluster.write("questions", &lines.concat());
            command.args(["-r", "+time=10", "+tries=2", "-f"]).arg(file);
        }
        Tool::Kdig => {
            command.args(["+timeout=10", "+retry=1"]);
            for (name, type_) in questions {
                command.arg(name).args(type_.split(' '));
            }
        }
    }
    let said = run(&mut command).ok();
    for bad in ["malformed", "extra byte", "timed out", "timeout", "mismatch"] {
        assert!(!said.contains(bad), "{bad} in what {tool:?} says:\n{said}");
    }
    let messages = parse(&said);
    assert_eq!(messages.len(), questions.len(), "answers of {tool:?}:\n{said}");
    messages
}
