//! Acting as somebody else: the headers `Impersonate-User`, `-Group`, `-Uid` and `-Extra-KEY`, each of which the
//! real user must be allowed to use.

use super::attributes::Attributes;
use crate::auth::User;
use crate::error::Error;
use http::HeaderMap;
use std::collections::BTreeMap;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

const AUTHENTICATION: &str = "authentication.k8s.io";

/// Who is to be acted as, and everything that must be allowed for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Impersonation {
    /// The user that the request counts as.
    pub user: User,
    /// What the real user must be allowed.
    pub needs: Vec<Attributes>,
}

/// What the headers ask for; `None` if it is nothing.
pub fn requested(headers: &HeaderMap) -> Result<Option<Impersonation>, Error> {
    let all = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).into_iter();
        values
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect()
    };
    let name = all(USER).into_iter().next().unwrap_or_default();
    let groups = all(GROUP);
    let uid = all(UID).into_iter().next().filter(|uid| !uid.is_empty());
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for key in headers.keys() {
        if let Some(suffix) = key.as_str().strip_prefix(EXTRA) {
            let values = all(key.as_str());
            extra
                .entry(crate::path::decode(suffix))
                .or_default()
                .extend(values);
        }
    }
    if name.is_empty() {
        if groups.is_empty() && uid.is_none() && extra.is_empty() {
            return Ok(None);
        }
        let why = "groups, a UID or extra values are to be impersonated without a user";
        return Err(Error::Internal(why.into()));
    }
    let needs = needs(&name, &groups, uid.as_deref(), &extra);
    let user = User {
        groups: groups_of(&name, groups),
        name,
        uid,
        extra,
    };
    Ok(Some(Impersonation { user, needs }))
}

/// Namespace and name of a service account's user name.
fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

fn needs(
    user: &str,
    groups: &[String],
    uid: Option<&str>,
    extra: &BTreeMap<String, Vec<String>>,
) -> Vec<Attributes> {
    let to = |group: &str, resource: &str, name: &str| Attributes {
        verb: "impersonate".into(),
        group: group.into(),
        resource: resource.into(),
        name: name.into(),
        ..Attributes::default()
    };
    let mut needs = vec![match service_account(user) {
        Some((namespace, name)) => Attributes {
            namespace: namespace.into(),
            ..to("", "serviceaccounts", name)
        },
        None => to("", "users", user),
    }];
    needs.extend(groups.iter().map(|group| to("", "groups", group)));
    for (key, values) in extra {
        needs.extend(values.iter().map(|value| Attributes {
            subresource: key.clone(),
            ..to(AUTHENTICATION, "userextras", value)
        }));
    }
    needs.extend(uid.map(|uid| to(AUTHENTICATION, "uids", uid)));
    needs
}

/// The groups asked for, or those that such a user has.
fn groups_of(user: &str, mut groups: Vec<String>) -> Vec<String> {
    if let Some((namespace, _)) = service_account(user)
        && groups.is_empty()
    {
        groups.push("system:serviceaccounts".into());
        groups.push(format!("system:serviceaccounts:{namespace}"));
    }
    let everybodys = match user {
        "system:anonymous" => "system:unauthenticated",
        _ => "system:authenticated",
    };
    if !groups.iter().any(|group| group == everybodys) {
        groups.push(everybodys.into());
    }
    groups
}

/// Take the headers out of a request whose user is settled.
pub fn remove(headers: &mut HeaderMap) {
    let names: Vec<_> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("impersonate-"))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn asked(pairs: &[(&'static str, &'static str)]) -> (String, Vec<String>, Vec<String>) {
        let found = requested(&headers(pairs)).unwrap().expect("somebody");
        let needs = found
            .needs
            .iter()
            .map(|need| format!("{} {} {}", need.namespace, need.combined_resource(), need.name));
        (found.user.name, found.user.groups, needs.collect())
    }

    #[test]
    fn everything_that_is_claimed_must_be_allowed() {
        assert_eq!(requested(&HeaderMap::new()), Ok(None));
        let (name, groups, needs) = asked(&[
            (USER, "jane"),
            (GROUP, "a"),
            (GROUP, "b"),
            (UID, "u"),
            ("impersonate-extra-example.com%2fscope", "x"),
        ]);
        assert_eq!(name, "jane");
        assert_eq!(groups, ["a", "b", "system:authenticated"]);
        assert_eq!(
            needs,
            [
                " users jane",
                " groups a",
                " groups b",
                " userextras/example.com/scope x",
                " uids u"
            ]
        );
    }

    #[test]
    fn a_service_account_has_its_own_groups() {
        let (_, groups, needs) = asked(&[(USER, "system:serviceaccount:a:web")]);
        assert_eq!(
            groups,
            [
                "system:serviceaccounts",
                "system:serviceaccounts:a",
                "system:authenticated"
            ]
        );
        assert_eq!(needs, ["a serviceaccounts web"]);
        let (_, groups, _) = asked(&[(USER, "system:anonymous")]);
        assert_eq!(groups, ["system:unauthenticated"]);
    }

    #[test]
    fn groups_without_a_user_are_nobodys() {
        assert!(requested(&headers(&[(GROUP, "a")])).is_err());
    }
}
