//! Where an HTTP probe is sent on to: as upstream it follows a server to other paths and ports of the same host, and takes a
//! way to another host for an answer.

use http::Uri;

/// Most redirects in a row, Go's.
pub const MOST: usize = 10;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `http` or `https`.
    pub scheme: String,
    /// Name or address.
    pub host: String,
    /// Of TCP.
    pub port: u16,
    /// With the query.
    pub path: String,
}

impl Place {
    /// `http://10.244.0.5:8080/healthz`
    pub fn url(&self) -> String {
        format!("{}://{}:{}{}", self.scheme, self.host, self.port, self.path)
    }

    /// Where an answer with this status and `Location` leads; `None`: it is the answer.
    pub fn follow(&self, status: u16, location: Option<&str>) -> Option<Self> {
        if ![301, 302, 303, 307, 308].contains(&status) {
            return None;
        }
        let location = location?.split('#').next().unwrap_or_default();
        // `//host/path` keeps the scheme.
        let whole = match location.strip_prefix("//") {
            Some(rest) => format!("{}://{rest}", self.scheme),
            None => location.to_owned(),
        };
        if !whole.contains("://") {
            return Some(Self {
                path: self.relative(location),
                ..self.clone()
            });
        }
        let to: Uri = whole.parse().ok()?;
        let (scheme, host) = (to.scheme_str()?, to.host()?);
        let usual = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        (host == self.host).then(|| Self {
            scheme: scheme.to_owned(),
            host: host.to_owned(),
            port: to.port_u16().unwrap_or(usual),
            path: to.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }

    /// A path seen from this one.
    fn relative(&self, location: &str) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        match location.chars().next() {
            None => self.path.clone(),
            Some('/') => location.to_owned(),
            Some('?') => format!("{path}{location}"),
            Some(_) => {
                let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
                format!("{directory}/{location}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_is_followed_on_the_same_host_only() {
        let from = Place {
            scheme: "http".into(),
            host: "10.0.0.5".into(),
            port: 8080,
            path: "/a/b?x=1".into(),
        };
        for (status, location, expected) in [
            (200, Some("/c"), None),
            (304, Some("/c"), None),
            (302, None, None),
            (302, Some("/c"), Some("http://10.0.0.5:8080/c")),
            (301, Some("c?y=2#part"), Some("http://10.0.0.5:8080/a/c?y=2")),
            (307, Some("?y=2"), Some("http://10.0.0.5:8080/a/b?y=2")),
            (308, Some("https://10.0.0.5/c"), Some("https://10.0.0.5:443/c")),
            (303, Some("//10.0.0.5:81"), Some("http://10.0.0.5:81/")),
            (302, Some("http://10.0.0.6:8080/c"), None),
            (302, Some("ftp://10.0.0.5/c"), None),
            (302, Some("http://"), None),
        ] {
            let next = from.follow(status, location).map(|place| place.url());
            assert_eq!(next.as_deref(), expected, "{status} {location:?}");
        }
    }
}
