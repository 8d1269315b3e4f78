//! Programs that use a public client library against the real binary: their installation, and a conversation with
//! those that want petset restarted under them.
//!
//! A program says `petset: terminate`, `petset: kill` or `petset: start` on a line of its standard output and gets a
//! line back when it is done. It finds the cluster by `KUBECONFIG`, and has succeeded if it ends with 0.

use crate::binary::{Cluster, repository, run};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

/// A program of `e2e/clients/python`, with the packages of its `requirements.txt`, installed once.
pub fn python(program: &str) -> Command {
    let sources = repository("e2e/clients/python");
    let wanted = sources.join("requirements.txt");
    let installed = install("python", &[&wanted], |directory| {
        run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(directory))
        .ok();
        let pip = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--requirement",
        ];
        run(Command::new(directory.join("bin/python")).args(pip).arg(&wanted)).ok();
    });
    let mut command = Command::new(installed.join("bin/python"));
    command
        .arg(sources.join(program))
        // The sources stay as they are.
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// A program of `e2e/clients/node`, with the packages of its `package-lock.json`, installed once.
pub fn node(program: &str) -> Command {
    let sources = repository("e2e/clients/node");
    let wanted = ["package.json", "package-lock.json"].map(|file| sources.join(file));
    let installed = install("node", &[&wanted[0], &wanted[1]], |directory| {
        for file in &wanted {
            let name = file.file_name().expect("it is a file");
            fs::copy(file, directory.join(name)).expect("it can be copied");
        }
        let npm = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
        run(Command::new("npm").args(npm).current_dir(directory)).ok();
        symlink("../../../e2e/clients/node", directory.join("programs")).expect("target can be written to");
    });
    let mut command = Command::new("node");
    command
        // Packages are looked for beside and above a program, so it is run from where these are.
        .args(["--preserve-symlinks", "--preserve-symlinks-main"])
        .arg(installed.join("programs").join(program));
    command
}

/// `target/clients/NAME`, made by `make` if it was not made from the same files before.
fn install(name: &str, wanted: &[&Path], make: impl FnOnce(&Path)) -> PathBuf {
    let directory = repository("target/clients").join(name);
    fs::create_dir_all(&directory).expect("target can be written to");
    let lock = File::create(directory.with_extension("lock")).expect("a lock file");
    lock.lock().expect("a lock");
    let wanted: Vec<String> = wanted
        .iter()
        .map(|file| fs::read_to_string(file).expect("it is in the repository"))
        .collect();
    let wanted = wanted.concat();
    let stamp = directory.with_extension("installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return directory;
    }
    fs::remove_dir_all(&directory).expect("target can be written to");
    fs::create_dir_all(&directory).expect("target can be written to");
    make(&directory);
    fs::write(&stamp, wanted).expect("target can be written to");
    directory
}

/// Run a program to its end and do with petset what it asks for. It must succeed.
#[track_caller]
pub fn drive(cluster: &mut Cluster, command: &mut Command) {
    let address = cluster.address("api");
    let address = address.trim_start_matches("https://");
    let mut process = command
        .env("HOME", cluster.home())
        .env("KUBECONFIG", cluster.data("kubeconfig"))
        .current_dir(cluster.home())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut answers = process.stdin.take().expect("it is piped");
    let lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
    let mut errors = process.stderr.take().expect("it is piped");
    let errors = thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is still worth telling.
        let _ = errors.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let mut said = String::new();
    for line in lines.map_while(Result::ok) {
        match line.strip_prefix("petset: ") {
            Some("terminate") => assert!(cluster.terminate().success(), "{}", cluster.said()),
            Some("kill") => cluster.kill(),
            Some("start") => cluster.start(&["--api", address]),
            _ => {
                said.push_str(&line);
                said.push('\n');
                continue;
            }
        }
        // A program that does not wait for the answer has ended; its status says how.
        let _ = writeln!(answers, "done");
    }
    let status = process.wait().expect("it is our child");
    let errors = errors.join().expect("it only reads");
    assert!(status.success(), "{command:?}: {status}\n{said}{errors}");
}
