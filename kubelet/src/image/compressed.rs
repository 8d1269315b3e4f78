//! Layers come plain, with gzip or with zstd; which one their first bytes say, whatever a media type claims.

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::io::{self, BufRead, BufReader, Read};

/// Whether content that begins so is compressed.
pub fn is_compressed(start: &[u8]) -> bool {
    is_gzip(start) || is_zstd(start)
}

fn is_gzip(start: &[u8]) -> bool {
    start.starts_with(&[0x1f, 0x8b])
}

/// A frame, or one that is to be skipped.
fn is_zstd(start: &[u8]) -> bool {
    matches!(
        start,
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]
    )
}

/// What `from` holds, decompressed if need be. How much that is, whoever reads must bound.
pub fn open<'a>(from: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut from = BufReader::with_capacity(1 << 16, from);
    let start = from.fill_buf()?;
    Ok(if is_gzip(start) {
        Box::new(flate2::bufread::MultiGzDecoder::new(from))
    } else if is_zstd(start) {
        Box::new(Zstd { from, frame: None })
    } else {
        Box::new(from)
    })
}

/// All frames of a zstd stream, skippable ones left out. The decoder refuses windows above 128 MiB.
struct Zstd<R> {
    from: R,
    frame: Option<Box<FrameDecoder>>,
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                while frame.can_collect() == 0 && !frame.is_finished() {
                    frame
                        .decode_blocks(&mut self.from, BlockDecodingStrategy::UptoBlocks(1))
                        .map_err(invalid)?;
                }
                let read = frame.read(buffer)?;
                if read > 0 || buffer.is_empty() {
                    return Ok(read);
                }
                self.frame = None;
            }
            if self.from.fill_buf()?.is_empty() {
                return Ok(0);
            }
            let mut frame = FrameDecoder::new();
            match frame.init(&mut self.from) {
                Ok(()) => self.frame = Some(Box::new(frame)),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    io::copy(&mut (&mut self.from).take(length.into()), &mut io::sink())?;
                }
                Err(error) => return Err(invalid(error)),
            }
        }
    }
}

fn invalid(error: FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    use std::io::Write;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).expect("compressed");
        encoder.finish().expect("compressed")
    }

    #[test]
    fn every_form_is_found_out_by_its_first_bytes() {
        let content = b"some content, some content, some content".repeat(1000);
        let zstd = |content: &[u8]| compress_to_vec(content, CompressionLevel::Fastest);
        let (one, two) = content.split_at(15_000);
        let skippable = [
            &[0x5f, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..],
            &zstd(&content),
        ]
        .concat();
        for (form, bytes) in [
            ("plain", content.clone()),
            ("gzip", gzip(&content)),
            ("two gzip members", [gzip(one), gzip(two)].concat()),
            ("zstd", zstd(&content)),
            ("two zstd frames", [zstd(one), zstd(two)].concat()),
            ("a skippable frame", skippable),
        ] {
            let mut read = Vec::new();
            open(&bytes[..]).expect(form).read_to_end(&mut read).expect(form);
            assert!(read == content, "{form}");
        }
    }

    #[test]
    fn what_is_cut_short_is_an_error() {
        let content = b"some content".repeat(1000);
        for bytes in [
            gzip(&content),
            compress_to_vec(&content[..], CompressionLevel::Fastest),
        ] {
            let cut = &bytes[..bytes.len() - 9];
            let mut reader = open(cut).expect("opened");
            io::copy(&mut reader, &mut io::sink()).expect_err("cut");
        }
        assert_eq!(
            io::copy(&mut open(&b""[..]).expect("empty"), &mut io::sink()).expect("empty"),
            0
        );
    }
}
