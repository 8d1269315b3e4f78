//! What an image says about how to run it: the part of its configuration that petset needs.

use super::digest::Digest;
use super::store::Error;
use serde::{Deserialize, Deserializer, Serialize};

/// An image's configuration, as the OCI image specification has it (Docker's is the same in these fields).
#[derive(Debug, Deserialize)]
pub struct Document {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default, deserialize_with = "or_default")]
    config: Config,
    rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    #[serde(default, deserialize_with = "or_default")]
    diff_ids: Vec<Digest>,
}

/// How to run it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// Program and first arguments.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Arguments where a container gives none; the program if there is no entry point.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// `NAME=VALUE`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Empty is `/`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// `USER[:GROUP]`, names or numbers; empty is root.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Such as `SIGQUIT` or `3`; empty is TERM.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
}

/// Most layers that an image may have: overlayfs allows no more than 500.
const MOST_LAYERS: usize = 500;

impl Document {
    /// Read the text of a configuration that is meant for this machine.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let document: Self = serde_json::from_slice(text)
            .map_err(|error| Error::Invalid(format!("the image's configuration cannot be read: {error}")))?;
        let (os, architecture) = (&*document.os, &*document.architecture);
        if !["", "linux"].contains(&os) || !["", architecture_here()].contains(&architecture) {
            return Err(Error::Invalid(format!(
                "the image is for {os}/{architecture}, this machine is linux/{}",
                architecture_here()
            )));
        }
        if document.rootfs.diff_ids.len() > MOST_LAYERS {
            return Err(Error::Invalid(format!(
                "the image has more than {MOST_LAYERS} layers"
            )));
        }
        Ok(document)
    }

    /// Digests of the uncompressed layers, the lowest first.
    pub fn layers(&self) -> &[Digest] {
        &self.rootfs.diff_ids
    }

    /// How to run it.
    pub fn config(&self) -> &Config {
        &self.config
    }
}

impl Config {
    /// The program with its arguments, under Kubernetes' rules: `command` stands for the entry point and `args` for the
    /// arguments, and an entry point of the container's own takes the image's arguments away.
    pub fn argv(&self, command: &[String], args: &[String]) -> Vec<String> {
        // `$(VAR)` is expanded in what the container says, not in what the image says.
        let literal = |texts: &[String]| {
            texts
                .iter()
                .map(|text| text.replace('$', "$$"))
                .collect::<Vec<_>>()
        };
        let (entrypoint, cmd) = match (command, args) {
            ([], []) => (literal(&self.entrypoint), literal(&self.cmd)),
            ([], args) => (literal(&self.entrypoint), args.to_vec()),
            (command, args) => (command.to_vec(), args.to_vec()),
        };
        [entrypoint, cmd].concat()
    }

    /// Names and values of the environment; with a `PATH`, as runtimes give one.
    pub fn environment(&self) -> Vec<(String, String)> {
        let pairs = self.env.iter().map(|text| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            (name.to_owned(), value.to_owned())
        });
        let mut pairs: Vec<_> = pairs.filter(|(name, _)| !name.is_empty()).collect();
        if !pairs.iter().any(|(name, _)| name == "PATH") {
            pairs.insert(0, ("PATH".to_owned(), crate::environment::PATH.to_owned()));
        }
        pairs
    }

    /// The signal that asks it to end, if it is not TERM.
    pub fn stop_signal(&self) -> Option<i32> {
        signal(&self.stop_signal)
    }
}

/// The number of a signal by its number or its name, with or without `SIG`.
pub fn signal(text: &str) -> Option<i32> {
    use nix::sys::signal::Signal;
    let text = text.trim();
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let text = text.to_ascii_uppercase();
    let short = text.strip_prefix("SIG").unwrap_or(&text);
    // SIGRTMIN+3 is what systemd is stopped with; the first two real-time signals are the C library's.
    let real_time = |text: &str, from: i32| match text.strip_prefix(['+', '-'])?.parse::<i32>().ok()? {
        by @ 0..=30 => Some(if text.starts_with('+') {
            from + by
        } else {
            from - by
        }),
        _ => None,
    };
    match short {
        "RTMIN" => Some(34),
        "RTMAX" => Some(64),
        _ => match (short.strip_prefix("RTMIN"), short.strip_prefix("RTMAX")) {
            (Some(rest), _) => real_time(rest, 34),
            (_, Some(rest)) => real_time(rest, 64),
            _ => format!("SIG{short}")
                .parse::<Signal>()
                .ok()
                .map(|signal| signal as i32),
        },
    }
}

/// This machine's architecture, in Go's words.
pub fn architecture_here() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// Go writes what is empty as `null`.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn command_and_args_stand_for_entry_point_and_arguments() {
        let config = Config {
            entrypoint: strings(&["/entry", "$(HOME)"]),
            cmd: strings(&["serve"]),
            ..Config::default()
        };
        for (command, args, expected) in [
            (&[][..], &[][..], &["/entry", "$$(HOME)", "serve"][..]),
            (&[], &["check"], &["/entry", "$$(HOME)", "check"]),
            (&["sh"], &[], &["sh"]),
            (&["sh"], &["-c"], &["sh", "-c"]),
        ] {
            assert_eq!(config.argv(&strings(command), &strings(args)), strings(expected));
        }
    }

    #[test]
    fn null_and_missing_fields_are_empty() {
        let text = br#"{"architecture":"","os":"linux","config":{"Entrypoint":null,"Cmd":["x"]},"rootfs":{"diff_ids":null}}"#;
        let document = Document::parse(text).expect("parsed");
        assert_eq!(document.config().cmd, ["x"]);
        assert!(document.layers().is_empty());
        assert!(Document::parse(br#"{"config":null,"rootfs":{}}"#).is_ok());
    }

    #[test]
    fn an_image_for_another_machine_says_so() {
        let text = br#"{"architecture":"sparc","os":"linux","rootfs":{}}"#;
        let refused = Document::parse(text).expect_err("another").to_string();
        assert!(refused.contains("linux/sparc"), "{refused}");
    }

    #[test]
    fn an_environment_has_a_path() {
        let config = Config {
            env: strings(&["A=b=c", "=x", "EMPTY"]),
            ..Config::default()
        };
        let environment = config.environment();
        assert_eq!(environment[0].0, "PATH");
        assert_eq!(
            environment[1..],
            [("A".into(), "b=c".into()), ("EMPTY".into(), String::new())]
        );
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, expected) in [
            ("SIGQUIT", Some(3)),
            ("quit", Some(3)),
            ("15", Some(15)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("", None),
            ("SIGNONE", None),
            ("65", None),
            ("RTMIN+99", None),
        ] {
            assert_eq!(signal(text), expected, "{text}");
        }
    }
}
