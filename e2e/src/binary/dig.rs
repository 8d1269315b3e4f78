//! What dig says, in parts.

use super::run;
use std::process::Command;

/// An answer. Names and types are as dig prints them.
#[derive(Clone, Debug, Default)]
pub struct Dug {
    /// `NOERROR`, `NXDOMAIN`, …
    pub status: String,
    /// `qr aa rd`
    pub flags: String,
    /// The answer section.
    pub answer: Vec<Record>,
    /// The authority section.
    pub authority: Vec<Record>,
    /// The additional section.
    pub additional: Vec<Record>,
    /// Everything that dig printed.
    pub text: String,
}

/// A resource record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its owner, with the final dot.
    pub name: String,
    /// Seconds.
    pub ttl: String,
    /// `A`, `SRV`, …
    pub type_: String,
    /// `127.0.0.1`, `0 33 80 web-0.nginx.default.svc.cluster.local.`, …
    pub data: String,
}

impl Dug {
    /// The answers' data, in order of text.
    pub fn data(&self) -> Vec<&str> {
        let mut data: Vec<&str> = self.answer.iter().map(|r| r.data.as_str()).collect();
        data.sort_unstable();
        data
    }

    /// No answer, and whose zone it is.
    pub fn is_empty_with_soa(&self, status: &str) -> bool {
        let soa = |r: &Record| r.type_ == "SOA" && r.name == "cluster.local.";
        self.status == status && self.answer.is_empty() && self.authority.iter().any(soa)
    }
}

/// Ask the server at `address` (`127.0.0.1:1053`).
pub fn ask(address: &str, name: &str, type_: &str) -> Dug {
    let (host, port) = address.rsplit_once(':').expect("it has a port");
    let server = format!("@{host}");
    let arguments = [&server, "-p", port, "+tries=2", "+time=10", name, type_];
    parse(&run(Command::new("dig").arg("-r").args(arguments)).ok())
}

fn parse(text: &str) -> Dug {
    let mut dug = Dug {
        text: text.to_owned(),
        ..Dug::default()
    };
    let mut section = "";
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("status: ") {
            dug.status = rest.split(',').next().unwrap_or_default().to_owned();
        } else if let Some(rest) = line.strip_prefix(";; flags: ") {
            dug.flags = rest.split(';').next().unwrap_or_default().to_owned();
        } else if let Some(name) = line.strip_suffix(" SECTION:") {
            section = name.trim_start_matches(";; ");
        } else if !line.starts_with(';') && !line.is_empty() {
            let record = record(line);
            match section {
                "ANSWER" => dug.answer.push(record),
                "AUTHORITY" => dug.authority.push(record),
                "ADDITIONAL" => dug.additional.push(record),
                _ => panic!("{line:?} is in no section of\n{text}"),
            }
        }
    }
    dug
}

fn record(line: &str) -> Record {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name, ttl, _class, type_, data @ ..] = words.as_slice() else {
        panic!("dig printed no record: {line:?}");
    };
    Record {
        name: (*name).to_owned(),
        ttl: (*ttl).to_owned(),
        type_: (*type_).to_owned(),
        data: data.join(" "),
    }
}
