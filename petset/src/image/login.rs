//! What `docker login` wrote down about a registry.

use base64::Engine;
use serde_json::Value;
use std::path::PathBuf;

/// User and password for a registry, if there are any.
pub fn find(registry: &str) -> Option<(String, String)> {
    let text = std::fs::read(file()?).ok()?;
    of(&serde_json::from_slice(&text).ok()?, registry)
}

fn file() -> Option<PathBuf> {
    let directory = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let docker = directory("DOCKER_CONFIG").or_else(|| directory("HOME").map(|home| home.join(".docker")))?;
    Some(docker.join("config.json"))
}

/// Docker's own registry goes by the name of an address that it once had.
fn of(config: &Value, registry: &str) -> Option<(String, String)> {
    let name = match registry {
        "docker.io" => "https://index.docker.io/v1/",
        other => other,
    };
    let auth = config.get("auths")?.get(name)?.get("auth")?.as_str()?;
    let text = base64::engine::general_purpose::STANDARD.decode(auth).ok()?;
    let text = String::from_utf8(text).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_found_by_its_registry() {
        let config = serde_json::json!({"auths": {
            "https://index.docker.io/v1/": {"auth": "bWU6c2VjcmV0"},
            "r.example.com:5000": {"auth": "eW91OmE6Yg=="},
            "broken.example.com": {"auth": "?"},
            "elsewhere.example.com": {},
        }});
        for (registry, expected) in [
            ("docker.io", Some(("me", "secret"))),
            ("r.example.com:5000", Some(("you", "a:b"))),
            ("broken.example.com", None),
            ("elsewhere.example.com", None),
            ("example.com", None),
        ] {
            let found = of(&config, registry);
            let found = found
                .as_ref()
                .map(|(user, password)| (user.as_str(), password.as_str()));
            assert_eq!(found, expected, "{registry}");
        }
    }
}
