//! Query parameters and `DeleteOptions` bodies, read and validated as upstream does.

use crate::error::Error;
use crate::schema::FieldValidation;
use crate::selector::{FieldSelector, LabelSelector};
use crate::validation::Invalid;
use serde_json::Value;

/// The decoded query of a request.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// The query of `uri`; one that cannot be decoded counts as empty.
    pub fn of(uri: &http::Uri) -> Self {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri);
        Query(pairs.map(|pairs| pairs.0).unwrap_or_default())
    }

    /// The first value of a parameter, unless it is empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next().filter(|value| !value.is_empty())
    }

    /// All values of a parameter, in order.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// A boolean that may be left out; whatever is not `false` or `0` is true, as in Go's conversion.
    pub fn flag(&self, name: &str) -> Option<bool> {
        let value = self.get(name)?;
        Some(!value.eq_ignore_ascii_case("false") && value != "0")
    }

    /// An integer; the error is Go's.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, Error> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        let syntax = |_| Error::BadRequest(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"));
        text.parse().map(Some).map_err(syntax)
    }

    fn is_dry_run(&self, problems: &mut Vec<Invalid>) -> bool {
        let values: Vec<&str> = self.all("dryRun").filter(|value| !value.is_empty()).collect();
        check_dry_run(&values, problems)
    }
}

fn check_dry_run(values: &[&str], problems: &mut Vec<Invalid>) -> bool {
    if values.iter().any(|value| *value != "All") {
        problems.push(Invalid::not_supported(
            "dryRun",
            Value::from(values.to_vec()),
            &["All"],
        ));
    }
    !values.is_empty()
}

/// Create-, Update- and PatchOptions.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// Do everything but store.
    pub dry_run: bool,
    /// `?fieldManager=`
    pub field_manager: Option<String>,
    /// `?fieldValidation=`
    pub validation: FieldValidation,
    /// `?force=`, of an apply only.
    pub force: bool,
}

impl WriteOptions {
    /// Read them; `kind` is `CreateOptions`, `UpdateOptions` or `PatchOptions`.
    pub fn parse(kind: &str, query: &Query) -> Result<Self, Error> {
        let mut problems = Vec::new();
        if kind == "PatchOptions" && query.flag("force").is_some() {
            problems.push(Invalid::forbidden(
                "force",
                "may not be specified for non-apply patch",
            ));
        }
        Self::parse_rest(kind, query, problems)
    }

    /// Read the PatchOptions of a server-side apply.
    pub fn parse_apply(query: &Query) -> Result<Self, Error> {
        let mut problems = Vec::new();
        if query.get("fieldManager").is_none() {
            problems.push(Invalid::required("fieldManager", "is required for apply patch"));
        }
        Self::parse_rest("PatchOptions", query, problems)
    }

    fn parse_rest(kind: &str, query: &Query, mut problems: Vec<Invalid>) -> Result<Self, Error> {
        let field_manager = query.get("fieldManager").map(str::to_string);
        if let Some(manager) = &field_manager {
            if manager.len() > 128 {
                problems.push(Invalid::too_long("fieldManager", 128));
            }
            if manager.chars().any(char::is_control) {
                let detail = "should only contain printable characters";
                problems.push(Invalid::malformed("fieldManager", manager.as_str(), detail));
            }
        }
        let dry_run = query.is_dry_run(&mut problems);
        let validation = match query.get("fieldValidation") {
            None => FieldValidation::default(),
            Some("Ignore") => FieldValidation::Ignore,
            Some("Warn") => FieldValidation::Warn,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                let supported = ["", "Ignore", "Strict", "Warn"];
                problems.push(Invalid::not_supported("fieldValidation", other, &supported));
                FieldValidation::default()
            }
        };
        if !problems.is_empty() {
            return Err(Error::invalid_options(kind, problems));
        }
        Ok(Self {
            dry_run,
            field_manager,
            validation,
            force: query.flag("force").unwrap_or(false),
        })
    }
}

/// `?resourceVersionMatch=`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    /// The list as it was at that version.
    Exact,
    /// That version or a later one.
    NotOlderThan,
}

/// ListOptions, of lists and watches.
#[derive(Clone, Debug)]
pub struct ListOptions {
    /// A watch instead of a list.
    pub watch: bool,
    /// Whether a watch may send bookmarks.
    pub bookmarks: bool,
    /// `?sendInitialEvents=`
    pub initial_events: Option<bool>,
    /// `?resourceVersion=`; `None` if it is left out.
    pub version: Option<u64>,
    /// `?resourceVersionMatch=`
    pub version_match: Option<VersionMatch>,
    /// The most items wanted; 0 is all.
    pub limit: usize,
    /// `?continue=`
    pub continue_token: Option<String>,
    /// `?timeoutSeconds=`
    pub timeout_seconds: Option<u64>,
    /// `?labelSelector=`
    pub labels: LabelSelector,
    /// `?fieldSelector=`
    pub fields: FieldSelector,
}

impl ListOptions {
    /// Read them; `watch` is set for the deprecated watch paths.
    pub fn parse(query: &Query, watch: bool) -> Result<Self, Error> {
        let limit = query.integer("limit")?.unwrap_or(0);
        let timeout = query.integer("timeoutSeconds")?;
        let labels = LabelSelector::parse(query.get("labelSelector").unwrap_or_default());
        let fields = FieldSelector::parse(query.get("fieldSelector").unwrap_or_default());
        let (version_text, match_text) = (query.get("resourceVersion"), query.get("resourceVersionMatch"));
        let mut options = Self {
            watch: watch || query.flag("watch").unwrap_or(false),
            bookmarks: query.flag("allowWatchBookmarks").unwrap_or(false),
            initial_events: query.flag("sendInitialEvents"),
            version: None,
            version_match: match match_text {
                Some("Exact") => Some(VersionMatch::Exact),
                Some("NotOlderThan") => Some(VersionMatch::NotOlderThan),
                _ => None,
            },
            limit: usize::try_from(limit).unwrap_or(0),
            continue_token: query.get("continue").map(str::to_string),
            timeout_seconds: timeout.and_then(|seconds| u64::try_from(seconds).ok()),
            labels: labels.map_err(Error::BadRequest)?,
            fields: fields.map_err(Error::BadRequest)?,
        };
        let problems = match options.watch {
            true => options.watch_problems(match_text),
            false => options.list_problems(version_text, match_text),
        };
        if !problems.is_empty() {
            return Err(Error::invalid_options("ListOptions", problems));
        }
        if let Some(text) = version_text {
            let version: Result<u64, _> = text.parse();
            options.version = Some(version.map_err(|_| {
                let detail = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
                Error::invalid_options(
                    "ListOptions",
                    vec![Invalid::malformed("resourceVersion", text, detail)],
                )
            })?);
        }
        Ok(options)
    }

    fn list_problems(&self, version: Option<&str>, match_text: Option<&str>) -> Vec<Invalid> {
        const FIELD: &str = "resourceVersionMatch";
        let mut problems = Vec::new();
        if let Some(text) = match_text {
            if version.is_none() {
                let detail = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                problems.push(Invalid::forbidden(FIELD, detail));
            }
            if self.continue_token.is_some() {
                let detail = "resourceVersionMatch is forbidden when continue is provided";
                problems.push(Invalid::forbidden(FIELD, detail));
            }
            if self.version_match.is_none() {
                problems.push(Invalid::not_supported(
                    FIELD,
                    text,
                    &["Exact", "NotOlderThan", ""],
                ));
            }
            if self.version_match == Some(VersionMatch::Exact) && version == Some("0") {
                let detail = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                problems.push(Invalid::forbidden(FIELD, detail));
            }
        }
        if self.initial_events.is_some() {
            let detail = "sendInitialEvents is forbidden for list";
            problems.push(Invalid::forbidden("sendInitialEvents", detail));
        }
        problems
    }

    fn watch_problems(&self, match_text: Option<&str>) -> Vec<Invalid> {
        const FIELD: &str = "resourceVersionMatch";
        let mut problems = Vec::new();
        let not_older = self.version_match == Some(VersionMatch::NotOlderThan);
        if self.initial_events.is_some() && !not_older {
            let detail = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            problems.push(Invalid::forbidden(FIELD, detail));
        }
        if let Some(text) = match_text {
            if self.initial_events.is_none() {
                let detail =
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                problems.push(Invalid::forbidden(FIELD, detail));
            }
            if !not_older {
                problems.push(Invalid::not_supported(FIELD, text, &["NotOlderThan"]));
            }
        }
        if self.continue_token.is_some() {
            let detail = "resourceVersionMatch is forbidden when continue is provided";
            problems.push(Invalid::forbidden(FIELD, detail));
        }
        problems
    }
}

/// What becomes of an object's dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They are deleted afterwards.
    Background,
    /// They are deleted first.
    Foreground,
    /// They stay.
    Orphan,
}

/// DeleteOptions.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Do everything but delete.
    pub dry_run: bool,
    /// Seconds; a negative one counts as 1.
    pub grace_period: Option<i64>,
    /// Policy, also from the deprecated `orphanDependents`.
    pub propagation: Option<Propagation>,
    /// `orphanDependents: false` was said, which changes the answer's code.
    pub cascades: bool,
    /// The object must have this UID.
    pub uid: Option<String>,
    /// The object must have this resourceVersion.
    pub resource_version: Option<String>,
}

impl DeleteOptions {
    /// From the body if there is one, else from the query.
    pub fn parse(query: &Query, body: Option<&Value>) -> Result<Self, Error> {
        let mut problems = Vec::new();
        let (options, orphan, policy) = match body {
            Some(body) => {
                let texts: Vec<&str> = body["dryRun"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect();
                let text = |value: &Value| value.as_str().map(str::to_string);
                let options = Self {
                    dry_run: check_dry_run(&texts, &mut problems),
                    grace_period: body["gracePeriodSeconds"].as_i64(),
                    uid: text(&body["preconditions"]["uid"]),
                    resource_version: text(&body["preconditions"]["resourceVersion"]),
                    ..Self::default()
                };
                let policy = text(&body["propagationPolicy"]).filter(|policy| !policy.is_empty());
                (options, body["orphanDependents"].as_bool(), policy)
            }
            None => {
                let options = Self {
                    dry_run: query.is_dry_run(&mut problems),
                    grace_period: query.integer("gracePeriodSeconds")?,
                    ..Self::default()
                };
                let policy = query.get("propagationPolicy").map(str::to_string);
                (options, query.flag("orphanDependents"), policy)
            }
        };
        let propagation = match (policy.as_deref(), orphan) {
            (Some("Foreground"), _) => Some(Propagation::Foreground),
            (Some("Background"), _) => Some(Propagation::Background),
            (Some("Orphan"), _) => Some(Propagation::Orphan),
            (_, Some(true)) => Some(Propagation::Orphan),
            (_, Some(false)) => Some(Propagation::Background),
            (_, None) => None,
        };
        if let Some(policy) = policy {
            if !matches!(policy.as_str(), "Foreground" | "Background" | "Orphan") {
                let supported = ["Foreground", "Background", "Orphan", "nil"];
                problems.insert(
                    0,
                    Invalid::not_supported("propagationPolicy", policy.as_str(), &supported),
                );
            }
            if orphan.is_some() {
                let detail = "orphanDependents and deletionPropagation cannot be both set";
                problems.insert(0, Invalid::malformed("propagationPolicy", policy, detail));
            }
        }
        if !problems.is_empty() {
            return Err(Error::invalid_options("DeleteOptions", problems));
        }
        Ok(Self {
            propagation,
            cascades: orphan == Some(false),
            grace_period: options
                .grace_period
                .map(|seconds| if seconds < 0 { 1 } else { seconds }),
            ..options
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn query(text: &str) -> Query {
        Query::of(&format!("/?{text}").parse().expect("a uri"))
    }

    #[test]
    fn options_are_refused_in_upstreams_words() {
        let refused = [
            (
                "resourceVersionMatch=Exact",
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            (
                "sendInitialEvents=true",
                "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
            ),
            (
                "watch=1&continue=x",
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided",
            ),
            ("limit=x", "strconv.ParseInt: parsing \"x\": invalid syntax"),
        ];
        for (text, message) in refused {
            let error = ListOptions::parse(&query(text), false).expect_err(text);
            let status = error.status();
            let actual = status["message"].as_str().unwrap_or_default();
            assert!(actual.ends_with(message), "{text}: {actual}");
        }
    }

    #[test]
    fn a_delete_body_beats_the_query() {
        let body = json!({"gracePeriodSeconds": 9, "preconditions": {"uid": "u"}});
        let options =
            DeleteOptions::parse(&query("gracePeriodSeconds=7"), Some(&body)).expect("valid options");
        assert_eq!(options.grace_period, Some(9));
        assert_eq!(options.uid.as_deref(), Some("u"));
    }

    #[test]
    fn a_negative_grace_period_is_one_second() {
        let options = DeleteOptions::parse(&query("gracePeriodSeconds=-1"), None).expect("valid options");
        assert_eq!(options.grace_period, Some(1));
    }

    #[test]
    fn a_flag_is_true_unless_it_says_false() {
        let query = query("a=false&b=0&c=maybe&d=");
        assert_eq!(
            ["a", "b", "c", "d", "e"].map(|name| query.flag(name)),
            [Some(false), Some(false), Some(true), None, None]
        );
    }
}
