//! Which records are meant: those of one zone, of a name as a pod would ask for it, or of an address.

use anyhow::bail;
use dns::zonefile::{Line, reverse};
use std::net::IpAddr;

/// The records of one zone.
pub fn of_zone(all: &[Line], zone: &str) -> anyhow::Result<Vec<Line>> {
    let apex = absolute(zone);
    let chosen: Vec<Line> = all.iter().filter(|line| line.zone == apex).cloned().collect();
    if chosen.is_empty() {
        bail!(
            "there is no zone {apex} (there are {})",
            super::zones(all).join(", ")
        );
    }
    Ok(chosen)
}

/// The records of a name: the first that has any of those that a pod of the namespace would try. An address stands for
/// its reverse name.
pub fn of_name(all: &[Line], name: &str, namespace: &str) -> anyhow::Result<Vec<Line>> {
    let domain = all.first().map_or("", |line| &line.zone);
    let tried = candidates(name, namespace, domain);
    for name in &tried {
        let chosen: Vec<Line> = all.iter().filter(|line| line.name == *name).cloned().collect();
        if !chosen.is_empty() {
            return Ok(chosen);
        }
    }
    for name in &tried {
        let below = format!(".{name}");
        if all.iter().any(|line| line.name.ends_with(&below)) {
            bail!("{name} has no records of its own, only names below it have");
        }
    }
    bail!("{name} has no records (looked for {})", tried.join(", "))
}

/// What a pod's resolver makes of a name with its search list (`ndots:5`): relative to the namespace, to all Services, to the
/// cluster, and as it is.
fn candidates(name: &str, namespace: &str, domain: &str) -> Vec<String> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return vec![reverse(address)];
    }
    let absolute = absolute(name);
    if name.ends_with('.') {
        return vec![absolute];
    }
    vec![
        format!("{absolute}{namespace}.svc.{domain}"),
        format!("{absolute}svc.{domain}"),
        format!("{absolute}{domain}"),
        absolute,
    ]
}

/// With a dot at its end and in lower case, as names are served.
fn absolute(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    if name.ends_with('.') { name } else { name + "." }
}

#[cfg(test)]
mod tests {
    use super::super::tests::lines;
    use super::*;

    fn found(name: &str, namespace: &str) -> Result<Vec<String>, String> {
        match of_name(&lines(), name, namespace) {
            Ok(lines) => Ok(lines
                .iter()
                .map(|line| format!("{} {}", line.name, line.type_))
                .collect()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_name_is_found_as_a_pod_finds_it() {
        let web = "web-0.nginx.default.svc.cluster.local. A";
        for (name, namespace) in [
            ("web-0.nginx", "default"),
            ("WEB-0.nginx", "default"),
            ("web-0.nginx.default", "shop"),
            ("web-0.nginx.default.svc", "shop"),
            ("web-0.nginx.default.svc.cluster.local", "shop"),
            ("web-0.nginx.default.svc.cluster.local.", "shop"),
        ] {
            assert_eq!(
                found(name, namespace),
                Ok(vec![web.into()]),
                "{name} in {namespace}"
            );
        }
        let service = "nginx.default.svc.cluster.local.";
        let both = vec![format!("{service} A"), format!("{service} SRV")];
        assert_eq!(found("nginx", "default"), Ok(both));
        let apex = vec!["cluster.local. SOA".to_owned()];
        assert_eq!(found("cluster.local", "default"), Ok(apex));
    }

    #[test]
    fn an_address_stands_for_its_reverse_name() {
        let pointer = vec!["2.0.244.127.in-addr.arpa. PTR".to_owned()];
        assert_eq!(found("127.244.0.2", "default"), Ok(pointer));
        let error = found("fd00::1", "default").expect_err("it is nobody's");
        assert!(error.contains("looked for 1.0.0.0."), "{error}");
    }

    #[test]
    fn what_is_not_served_is_an_error_that_says_what_was_looked_for() {
        let error = found("web-0.nginx", "shop").expect_err("it is in another namespace");
        assert_eq!(
            error,
            "web-0.nginx has no records (looked for web-0.nginx.shop.svc.cluster.local., \
             web-0.nginx.svc.cluster.local., web-0.nginx.cluster.local., web-0.nginx.)"
        );
        let error = found("default", "shop").expect_err("it has no records");
        assert_eq!(
            error,
            "default.svc.cluster.local. has no records of its own, only names below it have"
        );
    }

    #[test]
    fn a_zone_is_found_by_its_apex() {
        let of = |zone| {
            of_zone(&lines(), zone)
                .map(|lines| lines.len())
                .map_err(|e| e.to_string())
        };
        assert_eq!(of("cluster.local"), Ok(5));
        assert_eq!(of("244.127.IN-ADDR.arpa."), Ok(2));
        let error = of("example.com").expect_err("there is none");
        assert!(
            error.starts_with("there is no zone example.com. (there are cluster.local., "),
            "{error}"
        );
    }
}
