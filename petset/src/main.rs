//! The `petset` command.

use clap::Parser;
use petset::args::{Arguments, Command, Dns, DnsCommand, Log, LogFormat};
use petset::{component, data::DataDir, dns_records, explain, image, shell, status, up, volumes};
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // The processes that the kubelet starts from this binary must come before anything that makes a thread.
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(code) = kubelet::internal_command(&arguments) {
        return code;
    }
    let result = match Arguments::parse().command {
        Command::Up(arguments) => {
            let questions = arguments.names.looks.dns_log;
            run(Some((arguments.log, questions)), up::run(arguments))
        }
        Command::Apiserver(arguments) => run(Some((arguments.log, false)), component::apiserver(arguments)),
        Command::Controller(arguments) => run(Some((arguments.log, false)), component::controller(arguments)),
        Command::Kubelet(arguments) => run(Some((arguments.log, false)), component::kubelet(arguments)),
        Command::Dns(Dns {
            command: Some(DnsCommand::Records(arguments)),
            ..
        }) => run(None, dns_records::run(arguments)),
        Command::Dns(arguments) => {
            let questions = arguments.names.looks.dns_log;
            run(Some((arguments.log, questions)), component::dns(arguments))
        }
        Command::Shell(arguments) => shell::run(&arguments),
        Command::Explain(arguments) => run(None, explain::run(arguments)),
        Command::Status(arguments) => run(None, status::print(arguments)),
        Command::Volumes(arguments) => run(None, volumes::run(arguments)),
        Command::Image(arguments) => run(None, image::run(arguments)),
        Command::Kubeconfig(data) => DataDir::existing(data.data_dir.as_deref())
            .and_then(|data| Ok(writeln!(std::io::stdout(), "{}", data.kubeconfig().display())?)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "petset: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Run to the end on a runtime with a thread per core; with a log, if there is to be one, and DNS questions in it or not.
fn run(log: Option<(Log, bool)>, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    if let Some((log, questions)) = log {
        start_log(log.log_format, questions)?;
    }
    tokio::runtime::Runtime::new()?.block_on(work)
}

/// Log lines go to standard error; `RUST_LOG` says which, by default warnings. DNS questions come on top of that.
fn start_log(format: LogFormat, questions: bool) -> anyhow::Result<()> {
    // hickory tells every query twice at INFO.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    // sled tells at TRACE every byte that it writes, Secrets among them.
    let mut filter = filter.add_directive("sled=warn".parse()?);
    if questions {
        filter = filter.add_directive(format!("{}=info", dns::log::TARGET).parse()?);
    }
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => subscriber.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => subscriber.json().init(),
    }
    Ok(())
}
