//! Containers as real processes: trees that are killed whole, volumes at their real paths, nothing on the host.

#[path = "support/held.rs"]
mod held;

use held::{Home, Started};
use kubelet::holder::client::Holders;
use kubelet::process::{Container, Launcher, Pod};
use kubelet::shim::protocol::{Exit, Isolation, Log, Memory, Mount, Sandbox, Spec};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};

const DEADLINE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(code) = kubelet::internal_command(&arguments) {
        return code;
    }
    if let [hold, directory] = &arguments[..]
        && hold == "hold"
    {
        return hold_until_killed(directory.as_ref());
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
        trial(
            "in_namespaces_a_program_is_process_one_with_memory_of_the_pods_own_and_a_command_is_inside",
            in_namespaces,
        ),
        trial("a_program_that_is_not_there_is_named", missing_program),
        trial(
            "a_command_runs_inside_the_container_and_sees_its_volumes",
            exec_inside,
        ),
        trial("an_exec_that_is_dropped_is_killed", exec_dropped),
        trial("a_pod_outlives_the_kubelet_and_the_next_one_finds_it", outlives),
        trial(
            "an_end_that_nobody_saw_is_told_to_the_next_kubelet",
            ended_meanwhile,
        ),
        trial("what_a_killed_shim_held_is_gone_before_a_new_one", shim_killed),
        trial(
            "a_killed_shims_control_groups_go_with_what_was_in_them",
            shim_killed_with_cgroup,
        ),
        trial("a_second_instance_waits_for_the_first", one_at_a_time),
        trial("without_its_data_directory_nothing_goes_on", directory_removed),
        trial("a_pod_may_write_to_a_pipe_that_nobody_reads", broken_pipe),
        trial(
            "no_signal_is_ignored_because_petset_ignores_it",
            no_signal_is_ignored,
        ),
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

fn shell(script: &str) -> Spec {
    Spec {
        argv: vec!["sh".into(), "-c".into(), script.into()],
        env: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
        ..Spec::default()
    }
}

/// Without namespaces: most of what these tests are about is the same with them.
fn home() -> Home {
    Home::new(Isolation::None)
}

async fn start(spec: &Spec) -> Started {
    home().start(spec).await.expect("the container starts")
}

/// A home with mount and UTS namespaces; `None`: not on this machine.
async fn isolated() -> Option<Home> {
    let home = Home::new(Isolation::Mounts);
    match home.launcher.pod(&home.sandbox(None)).await {
        Ok(_) => Some(home),
        Err(why) => {
            assert!(why.contains("namespaces"), "{why}");
            None
        }
    }
}

async fn output(started: &mut Started) -> String {
    started.output().await
}

async fn line(started: &mut Started) -> String {
    started.line().await.trim().to_owned()
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
        ..shell(
            "hostname; for d in $TARGETS; do echo $d > $d/file && cat $d/file; done; ls /usr/share | wc -l",
        )
    };
    let mut spec = spec;
    spec.env.push(("TARGETS".into(), targets.join(" ")));
    let Some(home) = isolated().await else { return };
    home.launcher
        .end(home.directory.path().join("pod").as_path())
        .await;
    let sandbox = home.sandbox(Some("web-1"));
    let mut started = home.start_in(&sandbox, 0, &spec).await.expect("it starts");
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
    match home().start(spec).await {
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
        ..shell("touch /petset-read-only/x 2>/dev/null && echo written || echo refused")
    };
    let Some(home) = isolated().await else { return };
    let mut started = home.start(&spec).await.expect("it starts");
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
    let started = start(&shell("read _ < /dev/zero; sleep 1000")).await;
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

async fn in_namespaces() {
    let home = Home::new(Isolation::Namespaces);
    let mut sandbox = home.sandbox(Some("its-name"));
    let memory = home.directory.path().join("memory");
    sandbox.memory = vec![Memory {
        path: memory.clone(),
        size: Some(1 << 20),
        group: None,
    }];
    let scratch = home.directory.path().join("scratch");
    std::fs::create_dir(&scratch).expect("scratch");
    let spec = Spec {
        mounts: vec![Mount {
            source: memory.clone(),
            sub_path: Some("made".into()),
            target: "/of-petset/memory".into(),
            read_only: false,
        }],
        scratch,
        ..shell(
            "echo $$ $(hostname); head -c 2000000 /dev/zero 2>/dev/null >/of-petset/memory/x || echo full; sleep 1000",
        )
    };
    let mut started = match home.start_in(&sandbox, 0, &spec).await {
        Ok(started) => started,
        Err(why) => {
            assert!(
                why.contains("cannot make namespaces") || why.contains("cannot map"),
                "{why}"
            );
            return;
        }
    };
    assert_eq!(started.line().await, "1 its-name");
    assert_eq!(started.line().await, "full");
    let (read, write) = pipe();
    let script = "stat -c %s /of-petset/memory/x; cat /proc/1/comm; ls /proc/1/fd >/dev/null && id -u";
    let argv = ["sh", "-c", script].map(String::from);
    let exec = started.container.exec(&argv, [null(), write, null()]);
    assert_eq!(exec.await.expect("exec").code, 0);
    let mut said = String::new();
    std::io::Read::read_to_string(&mut std::fs::File::from(read), &mut said).expect("text");
    let own = nix::unistd::Uid::current();
    assert_eq!(said, format!("1048576\nsh\n{own}\n"));
    assert_eq!(
        std::fs::read_dir(&memory).expect("there").count(),
        0,
        "the host sees it"
    );
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
    assert!(started.container.state().ending.is_none());
    started.container.kill().await;
    started.container.gone().await;
}

/// A kubelet that starts a container in this directory, says so and then does nothing more.
fn hold_until_killed(directory: &Path) -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        let own = std::env::current_exe().expect("the test knows its own path");
        let launcher = Launcher::new(Arc::new(Holders::new(
            own,
            directory.to_owned(),
            Isolation::None,
            None,
        )));
        let sandbox = Sandbox {
            directory: directory.join("pod"),
            isolation: Isolation::None,
            ..Sandbox::default()
        };
        std::fs::create_dir_all(&sandbox.directory).expect("a directory");
        let pod = launcher.pod(&sandbox).await.expect("a shim");
        let mut spec = shell("sleep 1000 & echo $! $$; wait");
        spec.log = Some(Log {
            path: kubelet::log::path(&sandbox.directory, 0),
            max_size: 1 << 20,
            max_files: 2,
        });
        let container = pod.start("c", 0, spec).await.expect("it starts");
        let said = format!("{}\n", container.pid);
        std::io::Write::write_all(&mut std::io::stdout(), said.as_bytes()).expect("the test listens");
        std::future::pending::<()>().await;
    });
    ExitCode::SUCCESS
}

/// The containers that the next kubelet finds.
async fn found(home: &Home) -> Vec<Container> {
    let pod = home.directory.path().join("pod");
    let found = home.next().launcher.find(&pod).await;
    found.iter().flat_map(Pod::containers).collect()
}

async fn outlives() {
    let home = home();
    let mut kubelet = tokio::process::Command::new(std::env::current_exe().expect("own path"))
        .arg("hold")
        .arg(home.directory.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("a kubelet");
    let mut pid = String::new();
    let stdout = kubelet.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut pid).await.expect("a line");
    kubelet.kill().await.expect("kill -9");
    let containers = found(&home).await;
    assert_eq!(containers.len(), 1);
    assert_eq!(containers[0].pid.to_string(), pid.trim());
    assert!(alive(pid.trim()));
    containers[0].signal(15).await;
    assert_eq!(containers[0].exited().await.signal, Some(15));
    containers[0].gone().await;
}

async fn ended_meanwhile() {
    let home = home();
    let started = home.start(&shell("exit 42")).await.expect("it starts");
    let seen = started.container.ended().await;
    started.container.gone().await;
    let containers = found(&home).await;
    let state = containers[0].state();
    assert_eq!((state.ending, state.gone), (Some(seen), true));
    assert_eq!(seen.exit.code, 42);
}

async fn shim_killed() {
    let home = home();
    let mut first = home
        .start(&shell("setsid sleep 1000 & echo $! $$; wait"))
        .await
        .expect("it starts");
    let pids = line(&mut first).await;
    kill(nix::unistd::Pid::from_raw(first.pod.shim()), Signal::SIGKILL).expect("killed");
    first.container.gone().await;
    assert_eq!(first.container.exited().await.code, 137);
    let mut second = home.start(&shell("exit 0")).await.expect("it starts");
    assert_ne!(first.pod.shim(), second.pod.shim());
    for pid in pids.split_whitespace() {
        until_dead(pid).await;
    }
    output(&mut second).await;
}

async fn shim_killed_with_cgroup() {
    let home = home();
    let mut sandbox = home.sandbox(None);
    sandbox.uid = format!("test-{}", std::process::id());
    let mut spec = shell("cat /proc/self/cgroup; sleep 1000");
    spec.limits.processes = Some(50);
    let mut started = home.start_in(&sandbox, 0, &spec).await.expect("started");
    if !started.container.known.warnings.is_empty() {
        // There is no group that could stay.
        return;
    }
    let own = format!("petset-{}-c", sandbox.uid);
    let groups = async || {
        let found = tokio::process::Command::new("find")
            .args(["/sys/fs/cgroup", "-type", "d", "-name", &own])
            .output()
            .await;
        String::from_utf8_lossy(&found.expect("find").stdout).into_owned()
    };
    while !line(&mut started).await.contains(&own) {}
    assert_ne!(groups().await, "");
    kill(nix::unistd::Pid::from_raw(started.pod.shim()), Signal::SIGKILL).expect("killed");
    started.container.gone().await;
    assert_eq!(groups().await, "");
}

async fn one_at_a_time() {
    let home = home();
    let sandbox = home.sandbox(None);
    let first = home.start(&shell("sleep 1000")).await.expect("it starts");
    let refused = home.start_in(&sandbox, 1, &shell("exit 0")).await;
    assert!(refused.err().expect("refused").contains("not gone"));
    first.container.kill().await;
    first.container.gone().await;
    let second = home.start_in(&sandbox, 1, &shell("exit 0")).await;
    assert_eq!(second.expect("it starts").container.exited().await.code, 0);
}

async fn directory_removed() {
    let mut started = start(&shell("sleep 1000 & echo $!; wait")).await;
    let pid = line(&mut started).await;
    std::fs::remove_dir_all(started.home.directory.path()).expect("removed");
    until_dead(&pid).await;
    until_dead(&started.pod.shim().to_string()).await;
}

async fn broken_pipe() {
    // A program that ignored SIGPIPE, as Rust's do, would complain.
    let mut started = start(&shell("yes 2>&1 | head -n 1")).await;
    assert_eq!(output(&mut started).await, "y\n");
    let mut started = start(&shell("(yes; echo $? >&2) | head -n 1")).await;
    assert!(output(&mut started).await.contains("141"));
}

async fn no_signal_is_ignored() {
    // As nohup does. SAFETY: no handler is set.
    unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) }.expect("it can be ignored");
    let mut started = start(&shell("grep SigIgn /proc/self/status")).await;
    let said = line(&mut started).await;
    let ignored = said.strip_prefix("SigIgn:").expect("a line of status").trim();
    let ignored = u64::from_str_radix(ignored, 16).expect("a mask");
    // The C library's own are above these.
    assert_eq!(ignored & 0x7fff_ffff, 0, "{said}");
}
