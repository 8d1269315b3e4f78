//! `petset image`: images that pods run from.

mod login;
mod progress;
mod pull;

use crate::args::{Image, ImageCommand, ImageLoad, Output};
use crate::data::DataDir;
use crate::table::{age, table};
use anyhow::Context;
use controller::volume::usage::binary;
use jiff::Timestamp;
use kubelet::image::archive;
use kubelet::image::store::{Image as Stored, Removed, Store};
use progress::Bars;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

/// `petset image …`
pub async fn run(arguments: Image) -> anyhow::Result<()> {
    let data = DataDir::open(arguments.data.data_dir.as_deref())?;
    let store = Store::new(data.path());
    match arguments.command {
        ImageCommand::Load(arguments) => load(&store, &arguments),
        ImageCommand::Pull(arguments) => pull::run(&store, &arguments).await,
        ImageCommand::Ls(arguments) => list(&store.list()?, arguments.output),
        ImageCommand::Rm(arguments) => remove(&store, &arguments.images),
    }
}

fn load(store: &Store, arguments: &ImageLoad) -> anyhow::Result<()> {
    let file = match arguments.file.to_str() {
        Some("-") => File::from(std::io::stdin().as_fd().try_clone_to_owned()?),
        _ => File::open(&arguments.file)
            .with_context(|| format!("cannot open {}", arguments.file.display()))?,
    };
    let bars = Bars::new();
    let mut writer = store.writer(arguments.bounds.limits())?;
    let name = arguments.name.as_ref();
    let loaded = archive::load(&mut writer, file, name, &bars, Timestamp::now());
    let images = loaded.with_context(|| arguments.file.display().to_string())?;
    bars.finish();
    images.iter().try_for_each(|image| say("loaded", image))
}

/// `loaded docker.io/library/nginx:1.27 (sha256:…)`
fn say(what: &str, image: &Stored) -> anyhow::Result<()> {
    let names: Vec<_> = image.names.iter().map(String::as_str).collect();
    let line = match names.is_empty() {
        true => format!("{what} {} (it has no name: give it one with --name)", image.id),
        false => format!("{what} {} ({})", names.join(", "), image.id),
    };
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

fn list(images: &[Stored], output: Output) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    if output == Output::Json {
        let text = serde_json::to_string_pretty(&serde_json::json!({"items": images}))?;
        writeln!(out, "{text}")?;
    } else if images.is_empty() {
        writeln!(out, "no images (petset image pull REF, petset image load FILE)")?;
    } else {
        out.write_all(rows(images, Timestamp::now()).as_bytes())?;
    }
    Ok(())
}

/// A line for each name.
fn rows(images: &[Stored], now: Timestamp) -> String {
    let header = ["IMAGE", "ID", "LAYERS", "SIZE", "AGE"];
    let mut rows = vec![header.map(String::from).to_vec()];
    for image in images {
        let none = ["<none>".to_owned()];
        let names: Vec<&String> = match image.names.is_empty() {
            true => none.iter().collect(),
            false => image.names.iter().collect(),
        };
        for name in names {
            rows.push(vec![
                name.clone(),
                image.id.to_string(),
                image.layers.len().to_string(),
                binary(image.size()),
                age(image.added, now),
            ]);
        }
    }
    table(&rows)
}

fn remove(store: &Store, names: &[String]) -> anyhow::Result<()> {
    let mut writer = store.writer(kubelet::image::unpack::Limits::default())?;
    let mut out = std::io::stdout();
    for name in names {
        match writer.remove(name)? {
            Removed::Name(name) => writeln!(out, "removed the name {name}")?,
            Removed::Image(image) => writeln!(out, "removed {} ({})", image.shown(), image.id)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_an_image_has_a_line() {
        let id = format!("sha256:{}", "a".repeat(64));
        let digest = format!("sha256:{}", "b".repeat(64));
        let image = |names: &[&str]| -> Stored {
            let image = serde_json::json!({
                "id": id, "names": names, "digests": [], "config": {}, "added": "1970-01-01T00:00:00Z",
                "layers": [{"digest": digest, "size": 2048}],
            });
            serde_json::from_value(image).expect("image")
        };
        let now = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(60);
        let text = rows(&[image(&["a:1", "b:1"]), image(&[])], now);
        let lines: Vec<Vec<_>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines[0], ["IMAGE", "ID", "LAYERS", "SIZE", "AGE"]);
        let names: Vec<_> = lines[1..].iter().map(|line| line[0]).collect();
        assert_eq!(names, ["a:1", "b:1", "<none>"]);
        assert_eq!(lines[1][1..], [&*id, "1", "2Ki", "60s"]);
    }
}
