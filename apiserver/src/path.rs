//! What a request's path names: `/api/v1/namespaces/default/pods/web-0/log` and its like.

/// The parts of a path below `/api/v1` or `/apis/GROUP/VERSION`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourcePath {
    /// API group; empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// The deprecated form with `watch` before the resource.
    pub watch: bool,
    /// The namespace, if the path has one.
    pub namespace: Option<String>,
    /// The resource in the plural.
    pub plural: String,
    /// The object's name, if the path has one.
    pub name: Option<String>,
    /// `status`, `scale` …
    pub subresource: Option<String>,
}

/// The parts of `path`; `None` if it is no path of a resource.
pub fn parse(path: &str) -> Option<ResourcePath> {
    let mut segments = path.strip_prefix('/')?.split('/').map(decode);
    let mut parsed = ResourcePath::default();
    match segments.next()?.as_str() {
        "api" => {}
        "apis" => parsed.group = segments.next().filter(|group| !group.is_empty())?,
        _ => return None,
    }
    parsed.version = segments.next()?;
    let mut rest: Vec<String> = segments.collect();
    // One trailing slash is no part of the path.
    if rest.len() > 1 && rest.last().is_some_and(String::is_empty) {
        rest.pop();
    }
    let mut rest = rest.as_slice();
    if let [first, tail @ ..] = rest
        && first == "watch"
        && !tail.is_empty()
    {
        parsed.watch = true;
        rest = tail;
    }
    // `namespaces/x/status` and `namespaces/x/finalize` are of the namespace itself, as is `namespaces/x`.
    match rest {
        [namespaces, namespace, plural, tail @ ..]
            if namespaces == "namespaces"
                && !(tail.is_empty() && matches!(plural.as_str(), "status" | "finalize")) =>
        {
            parsed.namespace = Some(namespace.clone());
            parsed.plural = plural.clone();
            rest = tail;
        }
        [plural, tail @ ..] => {
            parsed.plural = plural.clone();
            rest = tail;
        }
        [] => return None,
    }
    match rest {
        [] => {}
        [name] => parsed.name = Some(name.clone()),
        // What comes after `proxy` is somebody else's path.
        [name, subresource, tail @ ..] if tail.is_empty() || subresource == "proxy" => {
            parsed.name = Some(name.clone());
            parsed.subresource = Some(subresource.clone());
        }
        _ => return None,
    }
    let empty = |part: &Option<String>| part.as_ref().is_some_and(String::is_empty);
    let holes = parsed.plural.is_empty()
        || empty(&parsed.namespace)
        || empty(&parsed.name)
        || empty(&parsed.subresource);
    (!holes).then_some(parsed)
}

/// A path segment without its percent encoding; what is no valid encoding stays as it is.
pub(crate) fn decode(segment: &str) -> String {
    if !segment.contains('%') {
        return segment.to_string();
    }
    let bytes = segment.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = segment
            .get(at + 1..at + 3)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_resource() {
        // group, namespace, plural, name, subresource
        let cases = [
            ("/api/v1/pods", ["", "", "pods", "", ""]),
            ("/api/v1/namespaces", ["", "", "namespaces", "", ""]),
            ("/api/v1/namespaces/x", ["", "", "namespaces", "x", ""]),
            (
                "/api/v1/namespaces/x/finalize",
                ["", "", "namespaces", "x", "finalize"],
            ),
            ("/api/v1/namespaces/x/pods", ["", "x", "pods", "", ""]),
            ("/api/v1/namespaces/x/pods/", ["", "x", "pods", "", ""]),
            ("/api/v1/namespaces/x/pods/p", ["", "x", "pods", "p", ""]),
            ("/api/v1/namespaces/x/pods/p/log", ["", "x", "pods", "p", "log"]),
            (
                "/apis/apps/v1/namespaces/x/statefulsets/a%2Eb",
                ["apps", "x", "statefulsets", "a.b", ""],
            ),
        ];
        for (path, [group, namespace, plural, name, subresource]) in cases {
            let some = |part: &str| (!part.is_empty()).then(|| part.to_string());
            let expected = ResourcePath {
                group: group.into(),
                version: "v1".into(),
                watch: false,
                namespace: some(namespace),
                plural: plural.into(),
                name: some(name),
                subresource: some(subresource),
            };
            assert_eq!(parse(path), Some(expected), "{path}");
        }
    }

    #[test]
    fn other_paths_name_none() {
        for path in [
            "/",
            "/api",
            "/api/v1",
            "/apis/apps/v1",
            "/nope",
            "/api/v1//x",
            "/api/v1/a/b/c/d/e",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
    }

    #[test]
    fn the_deprecated_watch_form_is_known() {
        let parsed = parse("/api/v1/watch/namespaces/x/secrets/s").expect("a resource path");
        assert!(parsed.watch);
        assert_eq!(
            (parsed.plural.as_str(), parsed.name.as_deref()),
            ("secrets", Some("s"))
        );
    }
}
