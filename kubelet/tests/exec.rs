//! `exec` and `attach` between plain streams and real processes, without a wire.

#[path = "support/held.rs"]
mod held;

use held::{Home, Started};
use kubelet::console::Console;
use kubelet::exec::{Exit, Running, Streams};
use kubelet::shim::protocol::{Isolation, MainStdio, Spec};
use kubelet::terminal::TerminalSize;
use libtest_mimic::{Arguments, Failed, Trial};
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

const DEADLINE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(code) = kubelet::internal_command(&arguments) {
        return code;
    }
    let trials = vec![
        trial("both_outputs_and_the_exit_code_arrive", outputs),
        trial("the_end_of_the_input_is_the_programs", input_ends),
        trial("much_in_and_out_at_once_does_not_block", both_ways),
        trial("a_slow_reader_slows_the_program", slow_reader),
        trial(
            "output_that_a_grandchild_holds_open_is_not_waited_for_for_ever",
            grandchild,
        ),
        trial("a_program_that_is_not_there_is_refused_in_runcs_words", refused),
        trial("a_container_that_has_ended_runs_nothing", ended),
        trial("a_client_that_goes_takes_its_program_along", client_goes),
        trial("a_program_has_a_terminal_of_the_clients_size", terminal),
        trial("a_terminal_in_namespaces_is_the_containers_own", own_terminal),
        trial("control_c_at_a_terminal_is_an_interrupt", control_c),
        trial(
            "a_client_that_goes_takes_its_terminals_program_along",
            terminal_client_goes,
        ),
        trial("who_attaches_hears_what_comes_and_how_it_ends", attach_hears),
        trial("two_clients_hear_the_same_and_the_log_has_all", two_clients),
        trial(
            "with_stdin_once_the_first_clients_end_is_the_processs",
            stdin_once,
        ),
        trial(
            "without_stdin_once_the_process_waits_for_the_next_client",
            stdin_again,
        ),
        trial(
            "a_main_process_has_a_terminal_that_one_can_type_at",
            main_terminal,
        ),
        trial(
            "a_client_that_does_not_read_does_not_stop_the_container",
            deaf_client,
        ),
        trial("without_stdin_there_is_no_input", no_stdin),
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

/// A container.
struct Container {
    running: Running,
    process: kubelet::process::Container,
    started: Started,
}

impl Container {
    async fn start(script: &str, stdio: MainStdio, stdin_once: bool) -> Self {
        let spec = Spec {
            argv: vec!["sh".into(), "-c".into(), script.into()],
            env: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
            stdio,
            ..Spec::default()
        };
        let started = Home::new(Isolation::None).start(&spec).await;
        let started = started.expect("the container starts");
        let process = started.container.clone();
        let console = Console::new(process.clone(), stdio, stdin_once);
        Self {
            running: Running::new(process.clone(), console, None),
            process,
            started,
        }
    }

    async fn idle() -> Self {
        Self::start("exec sleep 1000", MainStdio::NoInput, false).await
    }

    fn exec(&self, argv: &[&str], tty: bool, streams: Streams) -> JoinHandle<Result<Exit, String>> {
        let (running, argv) = (
            self.running.clone(),
            argv.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>(),
        );
        tokio::spawn(async move { running.exec(&argv, tty, streams).await })
    }

    fn attach(&self, streams: Streams) -> JoinHandle<Result<Exit, String>> {
        let running = self.running.clone();
        tokio::spawn(async move { running.attach(streams).await })
    }

    async fn end(self) {
        self.process.kill().await;
        self.process.gone().await;
    }
}

/// The client's ends of all streams.
struct Client {
    stdin: DuplexStream,
    stdout: DuplexStream,
    stderr: DuplexStream,
    resize: mpsc::Sender<TerminalSize>,
}

fn connect(room: usize) -> (Client, Streams) {
    let (stdin, for_stdin) = duplex(room);
    let (stdout, for_stdout) = duplex(room);
    let (stderr, for_stderr) = duplex(room);
    let (resize, sizes) = mpsc::channel(4);
    let client = Client {
        stdin,
        stdout,
        stderr,
        resize,
    };
    let streams = Streams {
        stdin: Some(Box::new(for_stdin)),
        stdout: Some(Box::new(for_stdout)),
        stderr: Some(Box::new(for_stderr)),
        resize: Some(sizes),
    };
    (client, streams)
}

async fn all(mut from: impl AsyncRead + Unpin) -> String {
    let mut text = Vec::new();
    from.read_to_end(&mut text).await.expect("readable");
    String::from_utf8(text).expect("text")
}

/// Read until `wanted` has come.
async fn until(from: &mut (impl AsyncRead + Unpin), wanted: &str) -> String {
    let mut text = String::new();
    let mut chunk = [0; 256];
    while !text.contains(wanted) {
        let length = from.read(&mut chunk).await.expect("readable");
        assert!(length > 0, "{wanted:?} did not come: {text:?}");
        text += &String::from_utf8_lossy(&chunk[..length]);
    }
    text
}

fn exited(code: i32) -> Exit {
    Exit { code, signal: None }
}

async fn outputs() {
    let container = Container::idle().await;
    let (client, streams) = connect(1024);
    let exec = container.exec(&["sh", "-c", "echo out; echo err >&2; exit 3"], false, streams);
    assert_eq!(all(client.stdout).await, "out\n");
    assert_eq!(all(client.stderr).await, "err\n");
    assert_eq!(exec.await.expect("no panic"), Ok(exited(3)));
    let killed = container.exec(&["sh", "-c", "kill -9 $$"], false, Streams::default());
    let exit = killed.await.expect("no panic").expect("started");
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
    container.end().await;
}

async fn input_ends() {
    let container = Container::idle().await;
    let (mut client, streams) = connect(1024);
    let exec = container.exec(&["cat"], false, streams);
    client.stdin.write_all(b"hello").await.expect("typed");
    drop(client.stdin);
    assert_eq!(all(client.stdout).await, "hello");
    assert_eq!(exec.await.expect("no panic"), Ok(exited(0)));
    container.end().await;
}

async fn both_ways() {
    let container = Container::idle().await;
    let (client, streams) = connect(8 << 10);
    let exec = container.exec(&["cat"], false, streams);
    let sent: Vec<u8> = (0..4 << 20).map(|n: u32| (n % 251) as u8).collect();
    let expected = sent.clone();
    let mut stdin = client.stdin;
    let typing = tokio::spawn(async move { stdin.write_all(&sent).await.expect("typed") });
    let mut received = Vec::new();
    let mut stdout = client.stdout;
    stdout.read_to_end(&mut received).await.expect("readable");
    typing.await.expect("typed all");
    assert!(received == expected, "{} bytes came back", received.len());
    assert_eq!(exec.await.expect("no panic"), Ok(exited(0)));
    container.end().await;
}

async fn slow_reader() {
    let container = Container::idle().await;
    let (mut client, streams) = connect(1024);
    // It says on standard error that it is through, which it can be only when somebody has read.
    let script = "head -c 1000000 /dev/zero; echo through >&2";
    let exec = container.exec(&["sh", "-c", script], false, streams);
    let through = tokio::time::timeout(Duration::from_millis(300), until(&mut client.stderr, "through"));
    assert!(through.await.is_err(), "a megabyte went somewhere");
    let mut zeros = Vec::new();
    client.stdout.read_to_end(&mut zeros).await.expect("readable");
    assert_eq!(zeros.len(), 1_000_000);
    assert_eq!(all(client.stderr).await, "through\n");
    assert_eq!(exec.await.expect("no panic"), Ok(exited(0)));
    container.end().await;
}

async fn grandchild() {
    let container = Container::idle().await;
    for script in ["sleep 1000 & echo done", "yes & echo done"] {
        let (client, streams) = connect(1024);
        let exec = container.exec(&["sh", "-c", script], false, streams);
        let (said, exit) = tokio::join!(all(client.stdout), exec);
        assert!(said.contains("done\n"), "{script}");
        assert_eq!(exit.expect("no panic"), Ok(exited(0)));
    }
    container.end().await;
}

async fn refused() {
    let container = Container::idle().await;
    let table = [
        ("nope", "exec: \"nope\": executable file not found in $PATH"),
        (
            "/no/such",
            "exec: \"/no/such\": stat /no/such: no such file or directory",
        ),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
        ("/tmp", "exec: \"/tmp\": is a directory"),
    ];
    for (program, why) in table {
        for tty in [false, true] {
            let refused = container.exec(&[program], tty, Streams::default());
            let message = refused.await.expect("no panic").expect_err("no such program");
            assert!(
                message.starts_with("failed to exec in container: failed to start exec "),
                "{message}"
            );
            assert!(
                message.ends_with(&format!("unable to start container process: {why}: unknown")),
                "{message}"
            );
        }
    }
    container.end().await;
}

async fn ended() {
    let container = Container::idle().await;
    let (client, streams) = connect(1024);
    let exec = container.exec(&["sh", "-c", "echo up; exec sleep 1000"], false, streams);
    let mut stdout = client.stdout;
    until(&mut stdout, "up").await;
    container.process.kill().await;
    container.process.gone().await;
    let exit = exec.await.expect("no panic").expect("it was killed");
    assert_eq!(exit.signal, Some(9));
    let again = container.exec(&["true"], false, Streams::default());
    assert_eq!(
        again.await.expect("no panic"),
        Err("failed to exec in container: container is in CONTAINER_EXITED state".into())
    );
}

/// Whether a process is there and no zombie.
fn alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('Z'))
    })
}

async fn until_dead(pid: &str) {
    while alive(pid) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn client_goes() {
    let container = Container::idle().await;
    let (mut client, streams) = connect(1024);
    let exec = container.exec(&["sh", "-c", "sleep 1000 & echo $! end; wait"], false, streams);
    let said = until(&mut client.stdout, "end").await;
    let pid = said.split_whitespace().next().expect("a pid").to_owned();
    exec.abort();
    until_dead(&pid).await;
    assert!(container.process.state().ending.is_none());
    container.end().await;
}

async fn terminal() {
    let container = Container::idle().await;
    let (mut client, streams) = connect(1024);
    let size = |width, height| TerminalSize { width, height };
    client.resize.send(size(81, 23)).await.expect("sent");
    let script =
        "trap 'stty size; exit 4' WINCH; echo $TERM; stty size; tty; echo up; while :; do sleep 0.05; done";
    let exec = container.exec(&["sh", "-c", script], true, streams);
    let said = until(&mut client.stdout, "up\r\n").await;
    let lines: Vec<&str> = said.split("\r\n").collect();
    assert_eq!(lines[..2], ["xterm", "23 81"]);
    assert!(lines[2].starts_with("/dev/pts/"), "{said}");
    client.resize.send(size(132, 50)).await.expect("sent");
    assert_eq!(all(client.stdout).await, "50 132\r\n");
    assert_eq!(exec.await.expect("no panic"), Ok(exited(4)));
    container.end().await;
}

async fn own_terminal() {
    let home = Home::new(Isolation::Namespaces);
    let scratch = home.directory.path().join("scratch");
    std::fs::create_dir(&scratch).expect("scratch");
    let script = "tty; [ /dev/console -ef /dev/pts/0 ] && echo console; exec sleep 1000";
    let spec = Spec {
        argv: ["sh", "-c", script].map(String::from).into(),
        env: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
        stdio: MainStdio::Terminal,
        scratch,
        ..Spec::default()
    };
    let mut started = match home.start(&spec).await {
        Ok(started) => started,
        // Not on this machine.
        Err(why) => {
            return assert!(
                why.contains("cannot make namespaces") || why.contains("cannot map"),
                "{why}"
            );
        }
    };
    assert_eq!(started.line().await.trim_end(), "/dev/pts/0");
    assert_eq!(started.line().await.trim_end(), "console");
    let process = started.container.clone();
    let console = Console::new(process.clone(), MainStdio::Terminal, false);
    let container = Container {
        running: Running::new(process.clone(), console, None),
        process,
        started,
    };
    let (client, streams) = connect(1024);
    let (width, height) = (81, 23);
    client
        .resize
        .send(TerminalSize { width, height })
        .await
        .expect("sent");
    let exec = container.exec(&["sh", "-c", "tty; stty size; exit 4"], true, streams);
    assert_eq!(all(client.stdout).await, "/dev/pts/1\r\n23 81\r\n");
    assert_eq!(exec.await.expect("no panic"), Ok(exited(4)));
    let (_client, streams) = connect(1024);
    let refused = container
        .exec(&["no-such-program"], true, streams)
        .await
        .expect("no panic");
    let why = refused.expect_err("there is no such program");
    assert!(why.contains("executable file not found in $PATH"), "{why}");
    container.end().await;
}

async fn control_c() {
    let container = Container::idle().await;
    let (mut client, streams) = connect(1024);
    let exec = container.exec(&["sh", "-c", "echo up; exec sleep 1000"], true, streams);
    until(&mut client.stdout, "up").await;
    client.stdin.write_all(b"\x03").await.expect("typed");
    let exit = exec.await.expect("no panic").expect("started");
    assert_eq!(exit.signal, Some(2));
    container.end().await;
}

async fn terminal_client_goes() {
    let container = Container::idle().await;
    let (mut client, streams) = connect(1024);
    let exec = container.exec(&["sh", "-c", "echo $$ end; exec sleep 1000"], true, streams);
    let said = until(&mut client.stdout, "end").await;
    let pid = said.split_whitespace().next().expect("a pid").to_owned();
    exec.abort();
    until_dead(&pid).await;
    container.end().await;
}

async fn attach_hears() {
    let container = Container::start("read _; echo out; echo err >&2; exit 5", MainStdio::Input, true).await;
    let (mut client, streams) = connect(1024);
    let attach = container.attach(streams);
    client.stdin.write_all(b"go\n").await.expect("typed");
    assert_eq!(all(client.stdout).await, "out\n");
    assert_eq!(all(client.stderr).await, "err\n");
    assert_eq!(attach.await.expect("no panic"), Ok(exited(5)));
    // Whoever comes too late is told how it ended.
    let late = container.attach(Streams::default());
    assert_eq!(late.await.expect("no panic"), Ok(exited(5)));
}

async fn two_clients() {
    let mut container =
        Container::start("while read line; do echo $line; done", MainStdio::Input, false).await;
    let ((mut one, for_one), (mut two, for_two)) = (connect(1024), connect(1024));
    let attached = [container.attach(for_one), container.attach(for_two)];
    one.stdin.write_all(b"first\n").await.expect("typed");
    until(&mut one.stdout, "first\n").await;
    two.stdin.write_all(b"second\n").await.expect("typed");
    until(&mut one.stdout, "second\n").await;
    until(&mut two.stdout, "second\n").await;
    assert_eq!(container.started.line().await, "first");
    assert_eq!(container.started.line().await, "second");
    container.process.kill().await;
    for attach in attached {
        assert_eq!(attach.await.expect("no panic").expect("it ended").signal, Some(9));
    }
}

async fn stdin_once() {
    let container = Container::start("cat; echo the end", MainStdio::Input, true).await;
    let (mut client, streams) = connect(1024);
    let attach = container.attach(streams);
    client.stdin.write_all(b"typed\n").await.expect("typed");
    drop(client.stdin);
    assert_eq!(all(client.stdout).await, "typed\nthe end\n");
    assert_eq!(attach.await.expect("no panic"), Ok(exited(0)));
}

async fn stdin_again() {
    let container = Container::start("cat", MainStdio::Input, false).await;
    for text in ["one\n", "two\n"] {
        let (mut client, streams) = connect(1024);
        let attach = container.attach(streams);
        client.stdin.write_all(text.as_bytes()).await.expect("typed");
        until(&mut client.stdout, text).await;
        drop(client.stdin);
        assert_eq!(attach.await.expect("no panic"), Ok(exited(0)));
    }
    assert!(container.process.state().ending.is_none());
    container.end().await;
}

async fn main_terminal() {
    let mut container =
        Container::start("tty; read line; stty size; exit 6", MainStdio::Terminal, true).await;
    assert!(container.running.tty());
    let (mut client, streams) = connect(1024);
    let attach = container.attach(streams);
    let size = TerminalSize {
        width: 100,
        height: 40,
    };
    client.resize.send(size).await.expect("sent");
    client.stdin.write_all(b"hello\n").await.expect("typed");
    let said = until(&mut client.stdout, "40 100\r\n").await;
    assert!(said.contains("hello\r\n"), "no echo: {said:?}");
    assert_eq!(attach.await.expect("no panic"), Ok(exited(6)));
    let said = container.started.output().await;
    assert!(said.contains("/dev/pts/"), "{said}");
}

async fn deaf_client() {
    let script = "read _; head -c 20000000 /dev/zero; read _; exit 7";
    let container = Container::start(script, MainStdio::Input, false).await;
    let (mut deaf, streams) = connect(64);
    let attach = container.attach(streams);
    deaf.stdin.write_all(b"go\n").await.expect("typed");
    // It is through with saying it all, and reads on.
    let log = kubelet::log::path(&container.started.home.sandbox(None).directory, 0);
    let size = |path: std::path::PathBuf| std::fs::metadata(path).map_or(0, |m| m.len());
    while size(log.clone()) + size(log.with_extension("log.1")) < 20_000_000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::io::copy(&mut deaf.stdout, &mut tokio::io::sink())
        .await
        .expect("readable");
    let message = attach.await.expect("no panic").expect_err("it has lost output");
    assert!(message.contains("more slowly"), "{message}");
    container.end().await;
}

async fn no_stdin() {
    let container = Container::start("cat; echo done", MainStdio::NoInput, false).await;
    assert_eq!(container.process.exited().await, exited(0));
    container.process.gone().await;
}
