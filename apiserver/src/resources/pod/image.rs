//! Image names, as far as their defaults depend on them.

/// The pull policy of an image that names none: `Always` for `latest`, said or implied, else `IfNotPresent`.
/// A name that cannot be parsed implies no tag, as upstream has it.
pub fn default_pull_policy(image: &str) -> &'static str {
    if tag(image) == Some("latest") {
        "Always"
    } else {
        "IfNotPresent"
    }
}

/// The tag of an image; `latest` if it has neither tag nor digest, `None` if it has only a digest or is no name.
fn tag(image: &str) -> Option<&str> {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let (repository, tag) = match name[last..].rfind(':') {
        Some(colon) => (&name[..last + colon], Some(&name[last + colon + 1..])),
        None => (name, None),
    };
    if !is_repository(repository) {
        return None;
    }
    match (tag, digest) {
        (Some(tag), _) => Some(tag),
        (None, Some(_)) => None,
        (None, None) => Some("latest"),
    }
}

/// Paths are lower case; a first part with a dot, a port or a capital is a host.
fn is_repository(name: &str) -> bool {
    let path = match name.split_once('/') {
        Some((host, path))
            if host.contains(['.', ':'])
                || host == "localhost"
                || host.contains(|c: char| c.is_ascii_uppercase()) =>
        {
            path
        }
        _ => name,
    };
    let component = |part: &str| {
        let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        part.starts_with(alphanumeric)
            && part.ends_with(alphanumeric)
            && part
                .chars()
                .all(|c| alphanumeric(c) || matches!(c, '.' | '_' | '-'))
    };
    path.split('/').all(component)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_latest_is_always_pulled() {
        for image in [
            "nginx",
            "nginx:latest",
            "r.example.com:5000/nginx",
            "a/b",
            "localhost:1/a/b:latest",
        ] {
            assert_eq!(default_pull_policy(image), "Always", "{image}");
        }
        for image in [
            "nginx:1.27",
            "nginx@sha256:aa",
            "r:5000/a:2",
            "UPPER",
            "",
            " nginx",
            "a b",
        ] {
            assert_eq!(default_pull_policy(image), "IfNotPresent", "{image}");
        }
    }
}
