//! A command that goes on, line by line.

use super::PATIENCE;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

/// A command whose lines are read as they come; it ends when this is dropped.
pub struct Lines {
    process: Child,
    lines: Receiver<String>,
}

impl Lines {
    /// Start the command.
    pub fn of(command: &mut Command) -> Self {
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let output = process.stdout.take().expect("it is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { process, lines }
    }

    /// Wait for the line that is the one.
    #[track_caller]
    pub fn until(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if is_it(&line) => return line,
                Ok(line) => seen.push(line),
                Err(error) => panic!("no line: {what}: {error}; seen: {seen:#?}"),
            }
        }
    }

    /// Whether the line that is the one is among those that have come since the last look.
    pub fn seen(&self, is_it: impl Fn(&str) -> bool) -> bool {
        self.lines.try_iter().any(|line| is_it(&line))
    }

    /// Wait until the command ends by itself; what it still said, and whether it succeeded.
    #[track_caller]
    pub fn end(mut self) -> (Vec<String>, bool) {
        let mut rest = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => rest.push(line),
                Err(RecvTimeoutError::Timeout) => panic!("it does not end; it said {rest:#?}"),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = self.process.wait().expect("it is our child");
        (rest, status.success())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
