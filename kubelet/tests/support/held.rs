//! Containers of a test, held by a holder and shims of its own: the test binary is these, too. All goes with the directory.

// Each test binary uses a part of this.
#![allow(dead_code)]

use kubelet::holder::client::Holders;
use kubelet::log::{Logs, Open, Options, Reader};
use kubelet::process::{Container, Launcher, Pod};
use kubelet::shim::protocol::{Isolation, Log, Sandbox, Spec};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// A data directory and what starts containers in it.
#[derive(Clone)]
pub struct Home {
    pub directory: Arc<TempDir>,
    pub launcher: Arc<Launcher>,
    isolation: Isolation,
}

/// A container that has been started.
pub struct Started {
    pub container: Container,
    pub pod: Pod,
    pub home: Home,
    log: Reader,
    open: Option<Open>,
    said: String,
}

impl Home {
    pub fn new(isolation: Isolation) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("tempdir"));
        let launcher = Arc::new(next_launcher(directory.path(), isolation));
        Self {
            directory,
            launcher,
            isolation,
        }
    }

    /// As after a restart of the kubelet.
    pub fn next(&self) -> Self {
        Self {
            launcher: Arc::new(next_launcher(self.directory.path(), self.isolation)),
            ..self.clone()
        }
    }

    pub fn sandbox(&self, hostname: Option<&str>) -> Sandbox {
        let directory = self.directory.path().join("pod");
        std::fs::create_dir_all(&directory).expect("a directory");
        Sandbox {
            directory,
            isolation: self.isolation,
            hostname: hostname.map(str::to_owned),
            ..Sandbox::default()
        }
    }

    /// Start the first instance of container `c`.
    pub async fn start(&self, spec: &Spec) -> Result<Started, String> {
        self.start_in(&self.sandbox(None), 0, spec).await
    }

    pub async fn start_in(&self, sandbox: &Sandbox, instance: i32, spec: &Spec) -> Result<Started, String> {
        let directory = &sandbox.directory;
        let spec = Spec {
            log: Some(Log {
                path: kubelet::log::path(directory, instance),
                max_size: 10 << 20,
                max_files: 5,
            }),
            ..spec.clone()
        };
        let logs = Logs::default();
        let open = logs.begin(directory, instance);
        let pod = self.launcher.pod(sandbox).await?;
        let container = pod.start("c", instance, spec).await?;
        let follow = Options {
            follow: true,
            ..Options::default()
        };
        let log = logs.read(directory, instance, follow);
        Ok(Started {
            container,
            pod,
            home: self.clone(),
            log: log.expect("there is a log"),
            open: Some(open),
            said: String::new(),
        })
    }
}

fn next_launcher(directory: &Path, isolation: Isolation) -> Launcher {
    let own = std::env::current_exe().expect("the test knows its own path");
    Launcher::new(Arc::new(Holders::new(own, directory.to_owned(), isolation, None)))
}

impl Started {
    /// All that it ever said that has not been read yet.
    pub async fn output(&mut self) -> String {
        self.container.gone().await;
        self.open = None;
        while let Some(more) = self.log.next().await.expect("readable") {
            self.said += std::str::from_utf8(&more).expect("text");
        }
        std::mem::take(&mut self.said)
    }

    /// The next line.
    pub async fn line(&mut self) -> String {
        loop {
            if let Some((line, rest)) = self.said.split_once('\n') {
                let line = line.to_owned();
                self.said = rest.to_owned();
                return line;
            }
            let more = self.log.next().await.expect("readable").expect("a line");
            self.said += std::str::from_utf8(&more).expect("text");
        }
    }
}
