//! How far an image is: a bar for each layer on a terminal, a line for each elsewhere.

use controller::volume::usage::binary;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use kubelet::image::digest::Digest;
use kubelet::image::store::Progress;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

/// The bars, on standard error.
pub struct Bars {
    bars: Option<MultiProgress>,
    /// Of the layer that is being unpacked.
    unpacking: Mutex<Option<ProgressBar>>,
}

impl Bars {
    /// Bars only where somebody can see them move.
    pub fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self {
            bars: terminal.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr())),
            unpacking: Mutex::new(None),
        }
    }

    /// A bar of its own for something of so many bytes.
    pub fn bar(&self, what: &str, layer: &Digest, bytes: u64) -> ProgressBar {
        let Some(bars) = &self.bars else {
            return ProgressBar::hidden();
        };
        let template = "  {prefix:12} {msg:11} {bar:30} {bytes:>10} of {total_bytes} {bytes_per_sec}";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = bars.add(ProgressBar::new(bytes).with_style(style));
        bar.set_prefix(layer.hex()[..12].to_owned());
        bar.set_message(what.to_owned());
        bar
    }

    /// Take the bars away.
    pub fn finish(&self) {
        if let Some(bars) = &self.bars {
            // A terminal that is gone shows nothing either way.
            let _ = bars.clear();
        }
    }

    fn unpacking(&self) -> std::sync::MutexGuard<'_, Option<ProgressBar>> {
        self.unpacking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Bars {
    fn begin(&self, layer: &Digest, bytes: u64) {
        *self.unpacking() = Some(self.bar("unpacking", layer, bytes));
        if self.bars.is_none() {
            let _ = writeln!(std::io::stderr(), "layer {layer}: unpacking {}", binary(bytes));
        }
    }

    fn advance(&self, bytes: u64) {
        if let Some(bar) = &*self.unpacking() {
            bar.inc(bytes);
        }
    }

    fn done(&self, layer: &Digest, was_there: bool) {
        if let Some(bar) = self.unpacking().take() {
            bar.finish_with_message("unpacked");
        }
        if was_there && self.bars.is_none() {
            let _ = writeln!(std::io::stderr(), "layer {layer}: is there");
        }
    }
}
