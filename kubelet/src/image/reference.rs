//! Image references, as container runtimes complete them: `nginx` is `docker.io/library/nginx:latest`.

use super::digest::Digest;
use std::fmt;
use std::str::FromStr;

/// A reference with nothing left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// Registry and repository: `docker.io/library/nginx`.
    pub repository: String,
    /// `latest` if neither a tag nor a digest is given.
    pub tag: Option<String>,
    /// Of the image's manifest.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Repository and tag, or digest if there is no tag.
    pub fn name(&self) -> String {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => format!("{}:{tag}", self.repository),
            (None, Some(digest)) => format!("{}@{digest}", self.repository),
            (None, None) => self.repository.clone(),
        }
    }

    /// The registry's host, with its port if that is given.
    pub fn registry(&self) -> &str {
        self.repository
            .split_once('/')
            .map_or(&*self.repository, |(host, _)| host)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.tag, &self.digest) {
            (Some(tag), Some(digest)) => write!(f, "{}:{tag}@{digest}", self.repository),
            _ => f.write_str(&self.name()),
        }
    }
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("couldn't parse image name {text:?}: {why}");
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|e: String| wrong(&e))?)),
            None => (text, None),
        };
        // A colon before the last slash belongs to a registry's port.
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong("invalid tag"));
        }
        let (host, path) = match path.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path.to_owned()),
            Some(_) => ("docker.io", path.to_owned()),
            None => ("docker.io", format!("library/{path}")),
        };
        let host = match host {
            "index.docker.io" => "docker.io",
            host => host,
        };
        if path.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(wrong("repository name must be lowercase"));
        }
        if !is_host(host) || !path.split('/').all(is_component) || path.len() > 255 {
            return Err(wrong("invalid reference format"));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self {
            repository: format!("{host}/{path}"),
            tag,
            digest,
        })
    }
}

/// A name or an address, and perhaps a port.
fn is_host(host: &str) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.chars().all(|c| c.is_ascii_digit());
    if let Some((address, port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return is_port && address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let (name, is_port) = match host.split_once(':') {
        Some((name, port)) => (name, is_port(port)),
        None => (host, true),
    };
    let is_label =
        |label: &str| !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    is_port && name.split('.').all(is_label)
}

fn is_component(part: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.starts_with(plain) && part.ends_with(plain) && part.chars().all(|c| plain(c) || "._-".contains(c))
}

fn is_tag(tag: &str) -> bool {
    tag.len() <= 128
        && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && tag
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_completed() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (given, expected) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("team/app", "docker.io/team/app:latest"),
            ("index.docker.io/team/app:1", "docker.io/team/app:1"),
            ("localhost/app:1", "localhost/app:1"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            (
                "r.example.com:5000/a/b_c.d-e:V1",
                "r.example.com:5000/a/b_c.d-e:V1",
            ),
            (
                &format!("nginx@{digest}"),
                &format!("docker.io/library/nginx@{digest}"),
            ),
            (
                &format!("nginx:1@{digest}"),
                &format!("docker.io/library/nginx:1@{digest}"),
            ),
        ] {
            let reference: Reference = given.parse().expect(given);
            assert_eq!(reference.to_string(), expected);
            assert_eq!(reference.to_string().parse(), Ok(reference), "{given}");
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for wrong in [
            "r.example.com:x/a",
            "[::g]/a",
            "a..b/c",
            "",
            "Nginx",
            "a//b",
            "../a",
            "a/..",
            "a:",
            "a:b c",
            "a@sha256:0",
            "a@md5:00",
            "-a",
            "a/b/",
            ":1",
        ] {
            let refused = wrong.parse::<Reference>().expect_err(wrong);
            assert!(refused.contains("couldn't parse image name"), "{refused}");
        }
    }
}
