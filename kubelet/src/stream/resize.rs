//! Terminal sizes, which arrive as JSON objects one after the other, cut anywhere.

use crate::exec::TerminalSize;
use serde_json::Value;

/// More than any size is long: what is not an object by then never becomes one.
const LIMIT: usize = 1024;

/// What has arrived of the next object.
#[derive(Debug, Default)]
pub struct Sizes(Vec<u8>);

impl Sizes {
    /// The sizes that these bytes complete. What is no size is left out.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<TerminalSize> {
        self.0.extend_from_slice(bytes);
        let mut objects = serde_json::Deserializer::from_slice(&self.0).into_iter::<Value>();
        let mut sizes = Vec::new();
        let mut broken = false;
        let mut read = 0;
        while let Some(object) = objects.next() {
            match object {
                Ok(object) => sizes.extend(size(&object)),
                Err(error) => {
                    broken = !error.is_eof();
                    break;
                }
            }
            read = objects.byte_offset();
        }
        self.0.drain(..read);
        if broken || self.0.len() > LIMIT {
            self.0.clear();
        }
        sizes
    }
}

fn size(object: &Value) -> Option<TerminalSize> {
    let number = |name: &str| object[name].as_u64().and_then(|n| u16::try_from(n).ok());
    Some(TerminalSize {
        width: number("Width")?,
        height: number("Height")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(parts: &[&str]) -> Vec<(u16, u16)> {
        let mut reader = Sizes::default();
        let all = parts.iter().flat_map(|part| reader.push(part.as_bytes()));
        all.map(|size| (size.width, size.height)).collect()
    }

    #[test]
    fn sizes_are_found_however_they_are_cut() {
        let text = "{\"Width\":80,\"Height\":24}\n{\"Width\":100,\"Height\":30}";
        assert_eq!(sizes(&[text]), [(80, 24), (100, 30)]);
        for cut in 0..text.len() {
            let (head, tail) = text.split_at(cut);
            assert_eq!(sizes(&[head, tail]), [(80, 24), (100, 30)], "{head}|{tail}");
        }
    }

    #[test]
    fn nonsense_is_forgotten_and_bounded() {
        assert_eq!(
            sizes(&[
                "{\"Width\":70000,\"Height\":1}",
                "nonsense",
                "{\"Width\":1,\"Height\":2}"
            ]),
            [(1, 2)]
        );
        let mut reader = Sizes::default();
        for _ in 0..100 {
            reader.push(&[b'['; 100]);
            assert!(reader.0.len() <= LIMIT + 100);
        }
    }
}
