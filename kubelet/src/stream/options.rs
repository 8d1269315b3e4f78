//! What a client asks for in the query of a streaming request, as the API server passes it on.

/// Which streams a client wants, and what it wants to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `input=1`
    pub stdin: bool,
    /// `output=1`
    pub stdout: bool,
    /// `error=1`; a terminal has only one output, so it goes with `tty` unheard.
    pub stderr: bool,
    /// `tty=1`
    pub tty: bool,
    /// Every `command=`, in order.
    pub command: Vec<String>,
}

impl Wanted {
    /// Read them; the error is the text of a 400.
    pub fn parse(query: &[(String, String)]) -> Result<Self, String> {
        let is_set = |name: &str| {
            query
                .iter()
                .find(|(key, _)| key == name)
                .is_some_and(|(_, v)| v == "1")
        };
        let tty = is_set("tty");
        let wanted = Self {
            stdin: is_set("input"),
            stdout: is_set("output"),
            stderr: is_set("error") && !tty,
            tty,
            command: values(query, "command").map(str::to_owned).collect(),
        };
        if !wanted.stdin && !wanted.stdout && !wanted.stderr {
            return Err("you must specify at least 1 of stdin, stdout, stderr".into());
        }
        Ok(wanted)
    }
}

/// The ports of a port-forward whose channels are fixed from the start (`port=80,81` or several of them); the error is
/// the text of a 400.
pub fn ports(query: &[(String, String)]) -> Result<Vec<u16>, String> {
    let mut ports = Vec::new();
    for list in values(query, "port") {
        if list.is_empty() {
            return Err("query parameter \"port\" cannot be empty".into());
        }
        for text in list.split(',') {
            let port = text.parse().map_err(|_| {
                format!(
                    "unable to parse {list:?} as a port: strconv.ParseUint: parsing {text:?}: invalid syntax"
                )
            })?;
            if port == 0 {
                return Err(format!("port {list:?} must be > 0"));
            }
            ports.push(port);
        }
    }
    if ports.is_empty() {
        return Err("query parameter \"port\" is required".into());
    }
    // A channel's number is one byte, a port has two channels, and 255 is the close signal's.
    if ports.len() > 127 {
        return Err(format!(
            "{} ports are more than the 127 of one connection",
            ports.len()
        ));
    }
    Ok(ports)
}

fn values<'a>(query: &'a [(String, String)], name: &'static str) -> impl Iterator<Item = &'a str> {
    query
        .iter()
        .filter(move |(key, _)| key == name)
        .map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Vec<(String, String)> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| pair.split_once('=').expect("a pair"))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    }

    #[test]
    fn streams_are_those_that_are_asked_for_and_a_terminal_has_no_second_output() {
        let parse = |text| Wanted::parse(&query(text));
        let wanted = parse("command=sh&command=-c&output=1&error=1&input=0").expect("streams");
        assert_eq!(
            (wanted.stdin, wanted.stdout, wanted.stderr, wanted.tty),
            (false, true, true, false)
        );
        assert_eq!(wanted.command, ["sh", "-c"]);
        let wanted = parse("command=sh&input=1&output=1&error=1&tty=1").expect("streams");
        assert_eq!((wanted.stdout, wanted.stderr, wanted.tty), (true, false, true));
        let refused = "you must specify at least 1 of stdin, stdout, stderr";
        assert_eq!(parse("command=sh"), Err(refused.into()));
        assert_eq!(parse("command=sh&error=1&tty=1"), Err(refused.into()));
    }

    #[test]
    fn ports_come_in_lists_and_are_numbers() {
        assert_eq!(ports(&query("port=80,81&port=82")), Ok(vec![80, 81, 82]));
        for (text, why) in [
            ("", "query parameter \"port\" is required"),
            ("port=", "query parameter \"port\" cannot be empty"),
            ("port=0", "port \"0\" must be > 0"),
            (
                "port=http",
                "unable to parse \"http\" as a port: strconv.ParseUint: parsing \"http\": invalid syntax",
            ),
        ] {
            assert_eq!(ports(&query(text)), Err(why.to_owned()), "{text}");
        }
        let many = (1..=128)
            .map(|port| format!("port={port}"))
            .collect::<Vec<_>>()
            .join("&");
        assert!(ports(&query(&many)).is_err());
    }
}
