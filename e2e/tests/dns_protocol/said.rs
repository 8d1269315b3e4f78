//! What dig and kdig print, in parts. They print nearly the same.

/// One answer.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// `NOERROR`, …
    pub status: String,
    /// `qr`, `aa`, …
    pub flags: Vec<String>,
    /// Name, class and type.
    pub question: Vec<String>,
    /// The answer section.
    pub answer: Vec<Record>,
    /// The authority section.
    pub authority: Vec<Record>,
    /// The additional section, without OPT.
    pub additional: Vec<Record>,
    /// The line about EDNS, if there is an OPT record.
    pub edns: Option<String>,
    /// The message's bytes.
    pub size: usize,
    /// Everything.
    pub text: String,
}

/// A resource record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// With the final dot.
    pub owner: String,
    /// Seconds.
    pub ttl: u32,
    /// `A 127.0.0.1`
    pub data: String,
}

impl Said {
    /// Type and data of the answers.
    pub fn data(&self) -> Vec<&str> {
        self.answer.iter().map(|record| record.data.as_str()).collect()
    }

    /// Whether a flag is set.
    pub fn is(&self, flag: &str) -> bool {
        self.flags.iter().any(|f| f == flag)
    }
}

/// All messages of an output.
pub fn parse(text: &str) -> Vec<Said> {
    let mut messages: Vec<Said> = Vec::new();
    let mut section = "";
    for line in text.lines() {
        if line.contains("->>HEADER<<-") {
            messages.push(Said::default());
            section = "";
        }
        let Some(said) = messages.last_mut() else {
            continue;
        };
        said.text += line;
        said.text.push('\n');
        if let Some((_, rest)) = line.split_once(" status: ") {
            said.status = until(rest, &[',', ';']).to_owned();
        } else if let Some(rest) = after(line, &[";; flags: ", ";; Flags: "]) {
            said.flags = until(rest, &[';']).split_whitespace().map(Into::into).collect();
        } else if let Some(rest) = after(line, &["; EDNS: ", ";; Version: "]) {
            said.edns = Some(rest.to_owned());
        } else if let Some(rest) = after(line, &[";; MSG SIZE  rcvd: ", ";; Received "]) {
            said.size = rest
                .split(' ')
                .next()
                .and_then(|n| n.parse().ok())
                .unwrap_or_default();
        } else if let Some(title) = line.strip_suffix(" SECTION:") {
            section = title.trim_start_matches(";; ");
        } else if line.is_empty() {
            section = "";
        } else if section == "QUESTION" {
            let words = line.trim_start_matches([';', ' ']).split_whitespace();
            said.question = words.map(Into::into).collect();
        } else if !line.starts_with(';') && !section.is_empty() {
            let list = match section {
                "ANSWER" => &mut said.answer,
                "AUTHORITY" => &mut said.authority,
                _ => &mut said.additional,
            };
            list.push(record(line));
        }
    }
    messages
}

fn after<'a>(line: &'a str, starts: &[&str]) -> Option<&'a str> {
    starts.iter().find_map(|start| line.strip_prefix(start))
}

fn until<'a>(text: &'a str, ends: &[char]) -> &'a str {
    text.split(ends).next().unwrap_or_default()
}

fn record(line: &str) -> Record {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [owner, ttl, _class, data @ ..] = words.as_slice() else {
        panic!("no record: {line:?}");
    };
    let ttl = ttl.parse().unwrap_or_else(|error| panic!("{line:?}: {error}"));
    Record {
        owner: (*owner).to_owned(),
        ttl,
        data: data.join(" "),
    }
}
