//! Containers as real processes: trees that are killed whole, volumes at their real paths, nothing on the host.

use kubelet::process::{Launcher, Started};
use kubelet::shim::protocol::{Exit, Mount, Spec};
use libtest_mimic::{Arguments, Failed, Trial};
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

const DEADLINE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|a| a == "shim") {
        return kubelet::shim::main(&arguments[1..]);
    }
    if arguments.first().is_some_and(|a| a == "hold") {
        return hold();
    }
    let trials = vec![
        trial("a_container_says_what_it_says_and_how_it_ended", says_and_ends),
        trial("a_signal_reaches_the_main_process", signalled),
        trial(
            "a_daemon_that_detached_is_killed_with_its_container",
            daemon_killed,
        ),
        trial(
            "a_volume_appears_at_a_path_that_the_host_does_not_have",
            volume_at_new_path,
        ),
        trial("a_read_only_volume_cannot_be_written", read_only),
        trial("a_program_that_is_not_there_is_named", missing_program),
        trial(
            "a_command_runs_inside_the_container_and_sees_its_volumes",
            exec_inside,
        ),
        trial("an_exec_that_is_dropped_is_killed", exec_dropped),
        trial("no_process_outlives_the_kubelet", nothing_outlives),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial<F: Future<Output = ()> + 'static>(name: &str, test: fn() -> F) -> Trial {
    Trial::test(name, move || {
        let runtime = tokio::runtime::Runtime::new().map_err(Failed::from)?;
        runtime.block_on(async {
            tokio::time::timeout(DEADLINE, test())
                .await
                .map_err(|_| Failed::from("took too long"))
        })
    })
}

fn launcher() -> Launcher {
    Launcher::new(std::env::current_exe().expect("the test knows its own path"))
}

fn shell(script: &str) -> Spec {
    Spec {
        argv: vec!["sh".into(), "-c".into(), script.into()],
        env: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
        ..Spec::default()
    }
}

async fn start(spec: &Spec) -> Started {
    launcher().start(spec).await.expect("the container starts")
}

async fn output(started: &mut Started) -> String {
    let mut text = String::new();
    started
        .stdout
        .read_to_string(&mut text)
        .await
        .expect("the output is text");
    text
}

async fn line(started: &mut Started) -> String {
    let mut text = String::new();
    BufReader::new(&mut started.stdout)
        .read_line(&mut text)
        .await
        .expect("a line");
    text.trim().to_owned()
}

fn alive(pid: &str) -> bool {
    // A zombie is dead: nothing of it runs, its parent has only not looked yet.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit_once(')')
            .is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
    })
}

async fn until_dead(pid: &str) {
    while alive(pid) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn says_and_ends() {
    let mut started = start(&shell("echo hello; exit 3")).await;
    assert_eq!(output(&mut started).await, "hello\n");
    assert_eq!(
        started.container.exited().await,
        Exit {
            code: 3,
            signal: None
        }
    );
    started.container.gone().await;
}

async fn signalled() {
    let mut started = start(&shell(
        "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done",
    ))
    .await;
    assert_eq!(line(&mut started).await, "ready");
    started.container.signal(15).await;
    assert_eq!(
        started.container.exited().await,
        Exit {
            code: 0,
            signal: None
        }
    );
    started.container.gone().await;
}

async fn daemon_killed() {
    let script = "setsid sh -c 'echo $$; trap \"\" TERM; exec sleep 1000' & wait $!; read _";
    let mut started = start(&shell(script)).await;
    let daemon = line(&mut started).await;
    assert!(alive(&daemon));
    started.container.signal(9).await;
    started.container.gone().await;
    assert!(!alive(&daemon), "the daemon {daemon} still runs");
}

async fn volume_at_new_path() {
    let directory = tempfile::tempdir().expect("tempdir");
    let (volume, scratch) = (directory.path().join("volume"), directory.path().join("scratch"));
    std::fs::create_dir_all(&volume).expect("volume");
    std::fs::create_dir_all(&scratch).expect("scratch");
    let targets = [
        "/petset-test-data",
        "/usr/share/petset-test/html",
        "/petset-test-data/inner/deep",
    ];
    let spec = Spec {
        mounts: targets
            .iter()
            .enumerate()
            .map(|(n, target)| {
                let source = volume.join(format!("v{n}"));
                std::fs::create_dir(&source).expect("source");
                Mount {
                    sub_path: None,
                    source,
                    target: target.into(),
                    read_only: false,
                }
            })
            .collect(),
        scratch,
        namespaces: true,
        hostname: Some("web-1".into()),
        ..shell(
            "hostname; for d in $TARGETS; do echo $d > $d/file && cat $d/file; done; ls /usr/share | wc -l",
        )
    };
    let mut spec = spec;
    spec.env.push(("TARGETS".into(), targets.join(" ")));
    if launcher().isolation().await.is_err() {
        assert!(start_fails(&spec).await.contains("namespace"));
        return;
    }
    let mut started = start(&spec).await;
    let said = output(&mut started).await;
    let entries = std::fs::read_dir("/usr/share").expect("/usr/share").count();
    assert_eq!(said, format!("web-1\n{}\n{}\n", targets.join("\n"), entries + 1));
    started.container.gone().await;
    for (n, target) in targets.iter().enumerate() {
        assert!(!Path::new(target).exists(), "{target} was made on the host");
        let kept = std::fs::read_to_string(volume.join(format!("v{n}/file")))
            .unwrap_or_else(|e| panic!("v{n}: {e}"));
        assert_eq!(kept.trim(), *target);
    }
}

async fn start_fails(spec: &Spec) -> String {
    match launcher().start(spec).await {
        Ok(_) => panic!("it started"),
        Err(message) => message,
    }
}

async fn read_only() {
    let directory = tempfile::tempdir().expect("tempdir");
    let (source, scratch) = (directory.path().join("v"), directory.path().join("s"));
    std::fs::create_dir(&source).expect("source");
    std::fs::create_dir(&scratch).expect("scratch");
    let spec = Spec {
        mounts: vec![Mount {
            sub_path: None,
            source,
            target: "/petset-read-only".into(),
            read_only: true,
        }],
        scratch,
        namespaces: true,
        ..shell("touch /petset-read-only/x 2>/dev/null && echo written || echo refused")
    };
    if launcher().isolation().await.is_err() {
        return;
    }
    let mut started = start(&spec).await;
    assert_eq!(output(&mut started).await, "refused\n");
}

async fn missing_program() {
    let mut spec = shell("");
    spec.argv = vec!["no-such-program".into()];
    assert!(
        start_fails(&spec)
            .await
            .contains("\"no-such-program\": executable file not found in $PATH")
    );
    spec.argv = vec!["/no/such".into()];
    assert!(start_fails(&spec).await.contains("/no/such"));
    spec = shell("true");
    spec.working_dir = Some("/no/such/directory".into());
    assert!(
        start_fails(&spec)
            .await
            .contains("working directory /no/such/directory")
    );
}

fn pipe() -> (OwnedFd, OwnedFd) {
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("pipe")
}

fn null() -> OwnedFd {
    std::fs::File::open("/dev/null").expect("/dev/null").into()
}

async fn exec_inside() {
    let started = start(&Spec {
        hostname: None,
        ..shell("read _ < /dev/zero; sleep 1000")
    })
    .await;
    let (read, write) = pipe();
    let argv = ["sh", "-c", "echo from inside; exit 7"].map(String::from);
    let exit = started
        .container
        .exec(&argv, [null(), write, null()])
        .await
        .expect("exec");
    assert_eq!(exit.code, 7);
    let mut said = String::new();
    std::io::Read::read_to_string(&mut std::fs::File::from(read), &mut said).expect("text");
    assert_eq!(said, "from inside\n");
    let failed = started
        .container
        .exec(&["nope".into()], [null(), null(), null()])
        .await;
    assert!(failed.expect_err("there is no such program").contains("nope"));
    started.container.kill().await;
    started.container.gone().await;
}

async fn exec_dropped() {
    let started = start(&shell("exec sleep 1000")).await;
    let (read, write) = pipe();
    let argv = ["sh", "-c", "echo $$; exec sleep 1000"].map(String::from);
    let container = started.container.clone();
    let exec = tokio::spawn(async move { container.exec(&argv, [null(), write, null()]).await });
    let pid = tokio::task::spawn_blocking(move || {
        let mut pid = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(std::fs::File::from(read)), &mut pid)
            .expect("a line");
        pid.trim().to_owned()
    })
    .await
    .expect("reads");
    exec.abort();
    until_dead(&pid).await;
    assert!(started.container.state().exit.is_none());
    started.container.kill().await;
    started.container.gone().await;
}

/// A kubelet that starts a container, says which processes it has and then does nothing more.
fn hold() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        let mut started = start(&shell("sleep 1000 & echo $! $$; wait")).await;
        let said = line(&mut started).await + "\n";
        std::io::Write::write_all(&mut std::io::stdout(), said.as_bytes()).expect("the test listens");
        std::future::pending::<()>().await;
    });
    ExitCode::SUCCESS
}

async fn nothing_outlives() {
    let mut kubelet = tokio::process::Command::new(std::env::current_exe().expect("own path"))
        .arg("hold")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("a kubelet");
    let mut pids = String::new();
    let stdout = kubelet.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut pids).await.expect("a line");
    kubelet.kill().await.expect("kill -9");
    let pids: Vec<&str> = pids.split_whitespace().collect();
    assert_eq!(pids.len(), 2);
    for pid in pids {
        until_dead(pid).await;
    }
}
