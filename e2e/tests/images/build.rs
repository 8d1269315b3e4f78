//! A small image, made by the test: one static program of two layers.

use e2e::binary::run;
use kubelet::image::config::architecture_here;
use kubelet::image::digest::Digest;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// Says what it finds around it, then waits for a signal and says which.
const PROGRAM: &str = r#"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void file(const char *path) {
  char line[100];
  FILE *from = fopen(path, "r");
  printf("%s: %s", path, from && fgets(line, sizeof line, from) ? line : "none\n");
}

int main(int argc, char **argv) {
  sigset_t signals;
  int got;
  char directory[1000];
  sigfillset(&signals);
  sigprocmask(SIG_BLOCK, &signals, NULL);
  printf("arguments:");
  for (int i = 1; i < argc; i++) printf(" %s", argv[i]);
  printf("\nuser: %d:%d\n", getuid(), getgid());
  printf("directory: %s\n", getcwd(directory, sizeof directory));
  printf("GREETING: %s\n", getenv("GREETING"));
  printf("HOME: %s\n", getenv("HOME"));
  file("/etc/motd");
  file("/etc/gone");
  file("/old/file");
  file("/etc/debian_version");
  FILE *note = fopen("/tmp/note", "w");
  printf("/tmp/note: %s\n", note ? "written" : "not written");
  fflush(stdout);
  sigwait(&signals, &got);
  printf("signal: %d\n", got);
  return 0;
}
"#;

/// The parts of an image.
pub struct Built {
    pub config: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
}

/// Compile the program in `directory`, and put it into an image that is started by `config` (its `config` object).
pub fn build(directory: &Path, config: &Value) -> Built {
    let (source, program) = (directory.join("program.c"), directory.join("program"));
    std::fs::write(&source, PROGRAM).expect("written");
    run(Command::new("cc")
        .args(["-static", "-Os", "-s", "-o"])
        .arg(&program)
        .arg(&source))
    .ok();
    let program = std::fs::read(program).expect("compiled");
    let passwd = b"root:x:0:0:root:/root:/bin/sh\napp:x:1234:1235::/home/app:/bin/app\n";
    let lower = archive(&[
        ("bin/", 0o755, b""),
        ("bin/app", 0o755, &program),
        ("etc/", 0o755, b""),
        ("etc/passwd", 0o644, passwd),
        ("etc/motd", 0o644, b"from below\n"),
        ("etc/gone", 0o644, b"should be hidden\n"),
        ("old/", 0o755, b""),
        ("old/file", 0o644, b"should be hidden\n"),
        ("tmp/", 0o1777, b""),
        ("work/", 0o755, b""),
    ]);
    let upper = archive(&[
        ("etc/", 0o755, b""),
        ("etc/motd", 0o644, b"from above\n"),
        ("etc/.wh.gone", 0o644, b""),
        ("old/", 0o755, b""),
        ("old/.wh..wh..opq", 0o644, b""),
    ]);
    let layers = vec![lower, upper];
    let digests: Vec<_> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let document = json!({
        "architecture": architecture_here(), "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": digests},
    });
    Built {
        config: document.to_string().into_bytes(),
        layers,
    }
}

impl Built {
    /// The image as `docker save` writes it.
    pub fn saved(&self, name: &str) -> Vec<u8> {
        let config = format!("{}.json", Digest::of(&self.config).hex());
        let manifest =
            json!([{"Config": config, "RepoTags": [name], "Layers": ["0/layer.tar", "1/layer.tar"]}]);
        archive(&[
            (&config, 0o644, &self.config),
            ("0/layer.tar", 0o644, &self.layers[0]),
            ("1/layer.tar", 0o644, &self.layers[1]),
            ("manifest.json", 0o644, manifest.to_string().as_bytes()),
        ])
    }
}

/// A tar archive; what ends with a slash is a directory.
fn archive(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, mode, content) in files {
        let mut header = tar::Header::new_ustar();
        if path.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        header.set_mtime(1_000_000_000);
        builder.append_data(&mut header, path, *content).expect("added");
    }
    builder.into_inner().expect("archive")
}
