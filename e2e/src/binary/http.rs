//! curl, once or as a watch.

use super::{PATIENCE, missing, run};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// `200`
    pub code: u16,
    /// Header lines, in lower case.
    pub headers: String,
    /// The body.
    pub body: String,
}

impl Reply {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_str(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("{error} in {self:?}"),
        }
    }

    /// The body as JSON, of an answer with this code.
    #[track_caller]
    pub fn expect(&self, code: u16) -> Value {
        assert_eq!(self.code, code, "{self:?}");
        self.json()
    }
}

/// Run curl; that it gets an answer is expected, whatever the answer is.
#[track_caller]
pub fn curl(arguments: &[&str]) -> Reply {
    let fixed = ["-q", "-sS", "-i", "--max-time", "60", "--noproxy", "*"];
    let text = run(Command::new("curl").args(fixed).args(arguments)).ok();
    let mut rest = text.as_str();
    loop {
        let (head, body) = rest.split_once("\r\n\r\n").expect("an answer has a head");
        let code = head.split_whitespace().nth(1).and_then(|code| code.parse().ok());
        let code = code.expect("an answer has a code");
        // 100 Continue comes before the answer.
        if code >= 200 {
            return Reply {
                code,
                headers: head.to_lowercase(),
                body: body.to_owned(),
            };
        }
        rest = body;
    }
}

/// A watch that goes on until it is dropped.
pub struct Watch {
    curl: Child,
    lines: Receiver<String>,
    /// What has been seen so far.
    pub seen: Vec<Value>,
}

impl Watch {
    /// curl arguments of the watch.
    pub fn start(arguments: &[&str]) -> Self {
        let mut curl = Command::new("curl")
            .args(["-q", "-sS", "-N", "--noproxy", "*"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| missing("curl", &error));
        let output = curl.stdout.take().expect("it is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            curl,
            lines,
            seen: Vec::new(),
        }
    }

    /// Wait for the event that is the one.
    #[track_caller]
    pub fn until(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let event: Value = serde_json::from_str(&line).expect("an event is JSON on a line");
                    self.seen.push(event.clone());
                    if is_it(&event) {
                        return event;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no event: {what}; seen: {:#?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("the watch ended before: {what}; seen: {:#?}", self.seen)
                }
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.curl.kill();
        let _ = self.curl.wait();
    }
}
