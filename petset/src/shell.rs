//! `petset shell`: a program of the user's where pods' addresses and the cluster's names work.

use crate::args::Shell;
use crate::data::{DataDir, PodDns, Running, write_private};
use anyhow::Context;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kubelet::dns::{ClusterDns, ResolvConf, resolv_conf};
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

/// Become the program; it only comes back with an error. The process must have one thread.
pub fn run(arguments: &Shell) -> anyhow::Result<()> {
    let data = DataDir::existing(arguments.data.data_dir.as_deref())?;
    let running = data.running()?.with_context(|| data.nothing_runs())?;
    let directory = data.shell();
    let apart = running.pods.as_ref().is_some_and(|pods| pods.apart);
    let shell = kubelet::shell::Shell {
        data_dir: data.path().to_owned(),
        apart,
        resolv_conf: resolver(&running, &arguments.namespace),
        command: match arguments.command.as_slice() {
            [] => vec![std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into())],
            command => command.to_vec(),
        },
        env: vec![("KUBECONFIG".into(), kubeconfig(&data, &running, apart)?)],
        directory,
    };
    match kubelet::shell::become_program(&shell).map_err(anyhow::Error::msg)? {}
}

/// As a pod of this namespace has it; `None` where pods have the host's.
fn resolver(running: &Running, namespace: &str) -> Option<String> {
    let Some(PodDns::At(server)) = &running.pod_dns else {
        return None;
    };
    let server: std::net::SocketAddr = server.parse().ok()?;
    let pod = Pod {
        metadata: kube::api::ObjectMeta {
            namespace: Some(namespace.to_owned()),
            ..kube::api::ObjectMeta::default()
        },
        spec: Some(PodSpec::default()),
        ..Pod::default()
    };
    let cluster = ClusterDns {
        servers: vec![server.ip()],
        domain: running.cluster_domain.clone()?,
        ..ClusterDns::default()
    };
    let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let formed = resolv_conf(&pod, &cluster, &ResolvConf::parse(&host))?;
    Some(formed.conf.to_string())
}

/// The path of a kubeconfig that works where the program is.
fn kubeconfig(data: &DataDir, running: &Running, apart: bool) -> anyhow::Result<OsString> {
    let usual = data.kubeconfig();
    let Some(pods) = running.pods.as_ref().filter(|_| apart) else {
        return Ok(usual.into_os_string());
    };
    let text = fs::read_to_string(&usual).with_context(|| format!("cannot read {}", usual.display()))?;
    let path: PathBuf = data.shell().join("kubeconfig");
    fs::create_dir_all(data.shell()).with_context(|| format!("cannot create {}", data.shell().display()))?;
    write_private(&path, text.replace(&running.api, &pods.api).as_bytes())?;
    Ok(path.into_os_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_as_a_pod_of_the_namespace_does() {
        let running = |pod_dns| Running {
            pid: 1,
            version: "0".into(),
            started: jiff::Timestamp::UNIX_EPOCH,
            api: "https://127.0.0.1:6443".into(),
            http: None,
            socket: PathBuf::new(),
            dns: None,
            dns_metrics: None,
            pod_dns,
            pods: None,
            cluster_domain: Some("cluster.local".into()),
            kubeconfig: PathBuf::new(),
        };
        let text = resolver(&running(Some(PodDns::At("10.244.0.1:53".into()))), "shop").expect("a resolver");
        let start = "nameserver 10.244.0.1\nsearch shop.svc.cluster.local svc.cluster.local cluster.local";
        assert!(text.starts_with(start), "{text}");
        assert_eq!(
            resolver(&running(Some(PodDns::Missing("no".into()))), "shop"),
            None
        );
    }
}
