//! What listeners let in, before anybody is asked what they may do.

use crate::https;
use e2e::binary::{Cluster, curl, run};
use std::process::Command;

#[test]
fn who_shows_no_credentials_learns_only_health_and_version() {
    let cluster = Cluster::api_alone();
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(https(&cluster, path, &[]).code, 200, "{path}");
    }
    for path in [
        "/",
        "/api",
        "/apis",
        "/metrics",
        "/openapi/v2",
        "/api/v1/namespaces/default/pods",
        "/nowhere",
    ] {
        let refused = https(&cluster, path, &[]).expect(401);
        assert_eq!(refused["reason"], "Unauthorized", "{path}");
        let wrong = https(&cluster, path, &["-H", "Authorization: Bearer wrong"]);
        assert_eq!(wrong.code, 401, "{path}");
    }
    let (certificate, key) = (cluster.data("pki/admin.crt"), cluster.data("pki/admin.key"));
    https(&cluster, "/api/v1/pods", &["--cert", &certificate, "--key", &key]).expect(200);
}

#[test]
fn tls_is_1_2_or_newer_and_proves_itself_by_the_private_authority() {
    let cluster = Cluster::api_alone();
    let address = cluster.address("api").trim_start_matches("https://").to_owned();
    let (authority, foreign) = (cluster.data("pki/ca.crt"), cluster.write("foreign.key", ""));
    let s_client = |arguments: &[&str]| {
        let fixed = [
            "s_client",
            "-connect",
            &address,
            "-CAfile",
            &authority,
            "-verify_return_error",
        ];
        run(Command::new("openssl").args(fixed).args(arguments))
    };
    assert!(
        s_client(&["-tls1_2", "-verify_ip", "127.0.0.1"])
            .ok()
            .contains("Verify return code: 0")
    );
    assert!(
        s_client(&["-tls1_3", "-verify_hostname", "kubernetes.default.svc"])
            .ok()
            .contains("Verify return code: 0")
    );
    s_client(&["-tls1_1"]).fails();
    s_client(&["-verify_hostname", "evil.example"]).fails();
    // A certificate of somebody else's authority does not get in.
    let forged = run(Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "1",
            "-subj",
            "/O=system:masters/CN=system:admin",
            "-out",
        ])
        .arg(cluster.home().join("forged.crt"))
        .arg("-keyout")
        .arg(&foreign));
    forged.ok();
    let url = format!("{}/api", cluster.address("api"));
    let certificate = cluster.home().join("forged.crt").display().to_string();
    let key = foreign.display().to_string();
    run(Command::new("curl").args([
        "-q",
        "-sS",
        "--noproxy",
        "*",
        "--cacert",
        &authority,
        "--cert",
        &certificate,
        "--key",
        &key,
        &url,
    ]))
    .fails();
}

#[test]
fn plain_http_is_for_this_machine_and_for_no_page_from_elsewhere() {
    let mut cluster = Cluster::new();
    let refused = run(&mut cluster.petset(&["apiserver", "--http", "0.0.0.0:0"])).fails();
    assert!(refused.contains("must be on loopback"), "{refused}");
    cluster.start_as(&["apiserver", "--http", "127.0.0.1:0"]);
    let url = format!("{}/api/v1/namespaces/default/pods", cluster.address("http"));
    let code = |header: &str| {
        let reply = curl(&["-H", header, &url]);
        assert!(!reply.headers.contains("access-control-"), "{reply:?}");
        reply.code
    };
    assert_eq!(code("Accept: application/json"), 200);
    for foreign in [
        "Host: evil.example",
        "Host: 10.0.0.1:8080",
        "Origin: https://evil.example",
        "Origin: null",
        "Sec-Fetch-Site: cross-site",
    ] {
        assert_eq!(code(foreign), 403, "{foreign}");
    }
    let preflight = curl(&[
        "-X",
        "OPTIONS",
        "-H",
        "Origin: http://localhost:3000",
        "-H",
        "Access-Control-Request-Method: POST",
        &url,
    ]);
    assert!(
        preflight.code >= 400 && !preflight.headers.contains("access-control-"),
        "{preflight:?}"
    );
}
