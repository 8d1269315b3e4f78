//! How a pod resolves names: its policy, its resolver's configuration, its own hosts.

use super::super::super::json::{items, text};
use super::one_of;
use crate::validation::{Invalid, Path, dns1123_subdomain, names};
use serde_json::Value;

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCH_PATHS: usize = 32;
const MAX_SEARCH_CHARACTERS: usize = 2048;

/// Problems with `dnsPolicy`.
pub fn policy(spec: &Value, path: &Path) -> Vec<Invalid> {
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    one_of(text(spec, "dnsPolicy"), &policies, path)
}

/// Problems with `dnsConfig`.
pub fn config(spec: &Value, path: &Path) -> Vec<Invalid> {
    let config = &spec["dnsConfig"];
    let servers = items(config, "nameservers");
    if text(spec, "dnsPolicy") == "None" {
        if config.is_null() {
            let detail = "must provide `dnsConfig` when `dnsPolicy` is None";
            return vec![Invalid::required(path, detail)];
        }
        if servers.is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return vec![Invalid::required(path.child("nameservers"), detail)];
        }
    }
    let mut problems = Vec::new();
    if servers.len() > MAX_NAMESERVERS {
        let detail = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        problems.push(Invalid::malformed(
            path.child("nameservers"),
            config["nameservers"].clone(),
            detail,
        ));
    }
    for (i, server) in servers.iter().enumerate() {
        let server = server.as_str().unwrap_or_default();
        problems.extend(Invalid::each(
            path.child("nameservers").index(i),
            server,
            names::ip(server),
        ));
    }
    problems.extend(searches(config, &path.child("searches")));
    for (i, option) in items(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            problems.push(Invalid::required(
                path.child("options").index(i),
                "must not be empty",
            ));
        }
    }
    problems
}

fn searches(config: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let searches: Vec<&str> = items(config, "searches")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let whole = &config["searches"];
    if searches.len() > MAX_SEARCH_PATHS {
        let detail = format!("must not have more than {MAX_SEARCH_PATHS} search paths");
        problems.push(Invalid::malformed(path, whole.clone(), detail));
    }
    if searches.join(" ").len() > MAX_SEARCH_CHARACTERS {
        let detail = format!(
            "must not have more than {MAX_SEARCH_CHARACTERS} characters (including spaces) in the search list"
        );
        problems.push(Invalid::malformed(path, whole.clone(), detail));
    }
    for (i, search) in searches.into_iter().enumerate() {
        if search != "." {
            let search = search.strip_suffix('.').unwrap_or(search);
            let wrong = names::dns1123_subdomain_with_underscore(search);
            problems.extend(Invalid::each(path.index(i), search, wrong));
        }
    }
    problems
}

/// Problems with the lines that a pod adds to its hosts file.
pub fn host_aliases(aliases: &[Value], path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    for (i, alias) in aliases.iter().enumerate() {
        let ip = text(alias, "ip");
        problems.extend(Invalid::each(path.index(i).child("ip"), ip, names::ip(ip)));
        for (j, name) in items(alias, "hostnames").iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            let path = path.index(i).child("hostnames").index(j);
            problems.extend(Invalid::each(path, name, dns1123_subdomain(name)));
        }
    }
    problems
}
