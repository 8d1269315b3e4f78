//! Security contexts of pods and containers, and the operating system that they are for.

use super::super::super::json::{flag, items, text};
use crate::validation::{Invalid, Path, go, names, numbers};
use serde_json::Value;

const MAX_ID: i64 = 0xffff_ffff;

fn id(context: &Value, field: &str, path: &Path) -> Vec<Invalid> {
    let Some(id) = context[field].as_i64() else {
        return Vec::new();
    };
    let messages = numbers::in_range(id, 0, MAX_ID).into_iter();
    messages
        .map(|message| Invalid::malformed(path.child(field), id, message))
        .collect()
}

fn optional(context: &Value, field: &str, supported: &[&str], path: &Path) -> Option<Invalid> {
    let value = context[field].as_str()?;
    (!supported.contains(&value)).then(|| Invalid::not_supported(path.child(field), value, supported))
}

/// Problems with the security context of a pod.
pub fn pod(spec: &Value, path: &Path) -> Vec<Invalid> {
    let context = &spec["securityContext"];
    let mut problems = id(context, "fsGroup", path);
    problems.extend(id(context, "runAsUser", path));
    problems.extend(id(context, "runAsGroup", path));
    for (i, group) in context["supplementalGroups"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let group = group.as_i64().unwrap_or_default();
        for message in numbers::in_range(group, 0, MAX_ID) {
            problems.push(Invalid::malformed(
                path.child("supplementalGroups").index(i),
                group,
                message,
            ));
        }
    }
    if flag(spec, "hostPID") && flag(spec, "shareProcessNamespace") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        problems.push(Invalid::malformed(
            path.child("shareProcessNamespace"),
            true,
            detail,
        ));
    }
    problems.extend(sysctls(spec, &path.child("sysctls")));
    problems.extend(optional(
        context,
        "fsGroupChangePolicy",
        &["Always", "OnRootMismatch"],
        path,
    ));
    problems.extend(seccomp(&context["seccompProfile"], &path.child("seccompProfile")));
    problems.extend(app_armor(
        &context["appArmorProfile"],
        &path.child("appArmorProfile"),
    ));
    problems.extend(optional(
        context,
        "supplementalGroupsPolicy",
        &["Merge", "Strict"],
        path,
    ));
    problems.extend(optional(
        context,
        "seLinuxChangePolicy",
        &["MountOption", "Recursive"],
        path,
    ));
    problems
}

/// Problems with the security context of a container.
pub fn container(spec: &Value, container: &Value, path: &Path) -> Vec<Invalid> {
    let context = &container["securityContext"];
    if context.is_null() {
        return Vec::new();
    }
    let mut problems = id(context, "runAsUser", path);
    problems.extend(id(context, "runAsGroup", path));
    problems.extend(optional(context, "procMount", &["Default", "Unmasked"], path));
    if text(context, "procMount") == "Unmasked" && spec["hostUsers"] != false {
        let detail = "`hostUsers` must be false to use `Unmasked`";
        problems.push(Invalid::malformed(path.child("procMount"), "Unmasked", detail));
    }
    problems.extend(seccomp(&context["seccompProfile"], &path.child("seccompProfile")));
    if context["allowPrivilegeEscalation"] == false {
        let conflict = |detail: &str| Invalid::malformed_text(path, print(context), detail);
        if flag(context, "privileged") {
            problems.push(conflict(
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            ));
        }
        if items(&context["capabilities"], "add")
            .iter()
            .any(|c| c == "CAP_SYS_ADMIN")
        {
            problems.push(conflict(
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            ));
        }
    }
    problems.extend(app_armor(
        &context["appArmorProfile"],
        &path.child("appArmorProfile"),
    ));
    problems
}

/// A container's context as Go prints its internal type: every field, by its Go name.
fn print(context: &Value) -> String {
    let fields = [
        ("Capabilities", "capabilities"),
        ("Privileged", "privileged"),
        ("SELinuxOptions", "seLinuxOptions"),
        ("WindowsOptions", "windowsOptions"),
        ("RunAsUser", "runAsUser"),
        ("RunAsGroup", "runAsGroup"),
        ("RunAsNonRoot", "runAsNonRoot"),
        ("ReadOnlyRootFilesystem", "readOnlyRootFilesystem"),
        ("AllowPrivilegeEscalation", "allowPrivilegeEscalation"),
        ("ProcMount", "procMount"),
        ("SeccompProfile", "seccompProfile"),
        ("AppArmorProfile", "appArmorProfile"),
    ];
    let printed = fields.map(|(name, field)| {
        let value = match field {
            "capabilities" if context[field].is_object() => format!(
                "{{\"Add\":{},\"Drop\":{}}}",
                go::json(&context[field]["add"]),
                go::json(&context[field]["drop"])
            ),
            _ => go::json(&context[field]),
        };
        format!("\"{name}\":{value}")
    });
    format!("{{{}}}", printed.join(","))
}

fn sysctls(spec: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let mut seen = Vec::new();
    for (i, sysctl) in items(&spec["securityContext"], "sysctls").iter().enumerate() {
        let name = text(sysctl, "name");
        let path = path.index(i).child("name");
        if name.is_empty() {
            problems.push(Invalid::required(&path, ""));
        } else if !is_sysctl(name) {
            let detail = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            problems.push(Invalid::malformed(&path, name, detail));
        } else if seen.contains(&name) {
            problems.push(Invalid::duplicate(&path, name));
        }
        let dotted = name.replace('/', ".");
        if flag(spec, "hostNetwork") && dotted.starts_with("net.") {
            let detail = "may not be specified when 'hostNetwork' is true";
            problems.push(Invalid::malformed(&path, name, detail));
        }
        let ipc = dotted.starts_with("kernel.shm")
            || dotted.starts_with("kernel.msg")
            || dotted == "kernel.sem"
            || dotted.starts_with("fs.mqueue.");
        if flag(spec, "hostIPC") && ipc {
            let detail = "may not be specified when 'hostIPC' is true";
            problems.push(Invalid::malformed(&path, name, detail));
        }
        seen.push(name);
    }
    problems
}

fn is_sysctl(name: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let segment = |part: &str| {
        part.starts_with(edge)
            && part.ends_with(edge)
            && part.chars().all(|c| edge(c) || matches!(c, '-' | '_'))
    };
    name.len() <= 253 && name.split(['.', '/']).all(segment)
}

const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];

fn seccomp(profile: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    if profile.is_null() {
        return problems;
    }
    let kind = text(profile, "type");
    match kind {
        "" => problems.push(Invalid::required(
            path.child("type"),
            "type is required when seccompProfile is set",
        )),
        kind if PROFILES.contains(&kind) => {}
        other => problems.push(Invalid::not_supported(path.child("type"), other, &PROFILES)),
    }
    let file = path.child("localhostProfile");
    match (kind == "Localhost", profile["localhostProfile"].as_str()) {
        (true, None) => {
            problems.push(Invalid::required(
                file,
                "must be set when seccomp type is Localhost",
            ));
        }
        (true, Some(given)) => {
            if given.starts_with('/') {
                problems.push(Invalid::malformed(&file, given, "must be a relative path"));
            }
            if names::has_backsteps(given) {
                problems.push(Invalid::malformed(file, given, "must not contain '..'"));
            }
        }
        (false, Some(given)) => {
            let printed = format!(
                "{{\"Type\":{},\"LocalhostProfile\":{}}}",
                go::quote(kind),
                go::quote(given)
            );
            problems.push(Invalid::malformed_text(
                file,
                printed,
                "can only be set when seccomp type is Localhost",
            ));
        }
        (false, None) => {}
    }
    problems
}

fn app_armor(profile: &Value, path: &Path) -> Vec<Invalid> {
    if profile.is_null() {
        return Vec::new();
    }
    let file = path.child("localhostProfile");
    let given = profile["localhostProfile"].as_str();
    let required = "must be set when AppArmor type is Localhost";
    match (text(profile, "type"), given) {
        ("Localhost", None | Some("")) => vec![Invalid::required(file, required)],
        ("Localhost", Some(given)) if given.trim() != given => {
            vec![Invalid::malformed(
                file,
                given,
                "must not be padded with whitespace",
            )]
        }
        ("Localhost", Some(given)) if given.len() > 4095 => vec![Invalid::too_long(file, 4095)],
        ("RuntimeDefault" | "Unconfined", Some(given)) => vec![Invalid::malformed(
            file,
            given,
            "can only be set when AppArmor type is Localhost",
        )],
        ("", _) => {
            let detail = "type is required when appArmorProfile is set";
            vec![Invalid::required(path.child("type"), detail)]
        }
        (kind, _) if !PROFILES.contains(&kind) => {
            vec![Invalid::not_supported(path.child("type"), kind, &PROFILES)]
        }
        _ => Vec::new(),
    }
}

/// A pod with its own users may not share other namespaces of its host.
pub fn host_users(spec: &Value, path: &Path) -> Vec<Invalid> {
    if spec["hostUsers"] != false {
        return Vec::new();
    }
    let fields = [
        ("hostNetwork", "hostNetwork"),
        ("hostPID", "HostPID"),
        ("hostIPC", "HostIPC"),
    ];
    fields
        .into_iter()
        .filter(|(field, _)| flag(spec, field))
        .map(|(_, shown)| Invalid::forbidden(path.child(shown), "when `pod.Spec.HostUsers` is false"))
        .collect()
}

/// Problems with the operating system, and with what is not for it.
pub fn operating_system(spec: &Value, path: &Path) -> Vec<Invalid> {
    let os = &spec["os"];
    if os.is_null() {
        return Vec::new();
    }
    match text(os, "name") {
        "" => vec![Invalid::required(
            path.child("os").child("name"),
            "cannot be empty",
        )],
        "linux" => windows_options(spec, path),
        "windows" => not_for_windows(spec, path),
        other => vec![Invalid::not_supported(
            path.child("os"),
            other,
            &["linux", "windows"],
        )],
    }
}

/// Every security context of a spec with its path, the pod's first.
fn contexts<'a>(spec: &'a Value, path: &Path) -> Vec<(&'a Value, Path)> {
    let mut contexts = vec![(&spec["securityContext"], path.child("securityContext"))];
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (i, container) in items(spec, list).iter().enumerate() {
            let path = path.child(list).index(i).child("securityContext");
            contexts.push((&container["securityContext"], path));
        }
    }
    contexts
}

fn windows_options(spec: &Value, path: &Path) -> Vec<Invalid> {
    let detail = "windows options cannot be set for a linux pod";
    contexts(spec, path)
        .into_iter()
        .filter(|(context, _)| !context["windowsOptions"].is_null())
        .map(|(_, path)| Invalid::forbidden(path.child("windowsOptions"), detail))
        .collect()
}

fn not_for_windows(spec: &Value, path: &Path) -> Vec<Invalid> {
    let detail = "cannot be set for a windows pod";
    let of_pod = ["hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"];
    let mut problems: Vec<Invalid> = of_pod
        .into_iter()
        .filter(|field| !spec[*field].is_null())
        .map(|field| Invalid::forbidden(path.child(field), detail))
        .collect();
    let of_contexts = [
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "fsGroup",
        "fsGroupChangePolicy",
        "sysctls",
        "capabilities",
        "readOnlyRootFilesystem",
        "privileged",
        "allowPrivilegeEscalation",
        "procMount",
        "runAsUser",
        "runAsGroup",
        "supplementalGroups",
        "supplementalGroupsPolicy",
        "seLinuxChangePolicy",
    ];
    for (context, path) in contexts(spec, path) {
        for field in of_contexts {
            if !context[field].is_null() {
                problems.push(Invalid::forbidden(path.child(field), detail));
            }
        }
    }
    problems
}
