//! Protobuf's wire format: varints, lengths and what to skip. Errors are those of Go's generated code.

/// One field's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
    /// A group, which no type of Kubernetes has.
    Group,
}

impl<'a> Wire<'a> {
    /// The bytes of a text, a message or bytes; `field` names the field in the error.
    pub(super) fn bytes(self, field: &str) -> Result<&'a [u8], String> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            other => Err(other.wrong(field)),
        }
    }

    /// The error about a value of another wire type than the field has.
    pub(super) fn wrong(self, field: &str) -> String {
        let wire_type = match self {
            Self::Varint(_) => 0,
            Self::Fixed64(_) => 1,
            Self::Bytes(_) => 2,
            Self::Group => 3,
            Self::Fixed32 => 5,
        };
        let mut letters = field.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        let field: String = first.into_iter().chain(letters).collect();
        format!("proto: wrong wireType = {wire_type} for field {field}")
    }
}

/// Reads the fields of one message.
pub(super) struct Reader<'a, 'n> {
    rest: &'a [u8],
    /// The message's type, for errors.
    name: &'n str,
}

impl<'a, 'n> Reader<'a, 'n> {
    pub(super) fn new(message: &'a [u8], name: &'n str) -> Self {
        Self { rest: message, name }
    }

    /// The next field's number and value.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, String> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let wire_type = tag & 7;
        // Go takes the low 32 bits as a signed number.
        let number = (tag >> 3) as u32;
        if wire_type == 4 {
            return Err(format!("proto: {}: wiretype end group for non-group", self.name));
        }
        if number == 0 || number > i32::MAX as u32 {
            let signed = number as i32;
            return Err(format!(
                "proto: {}: illegal tag {signed} (wire type {wire_type})",
                self.name
            ));
        }
        Ok(Some((number, self.value(wire_type)?)))
    }

    fn value(&mut self, wire_type: u64) -> Result<Wire<'a>, String> {
        Ok(match wire_type {
            0 => Wire::Varint(self.varint()?),
            1 => {
                let bytes = self.take(8)?;
                Wire::Fixed64(u64::from_le_bytes(bytes.try_into().expect("eight were taken")))
            }
            2 => {
                let length = self.varint()?;
                if length > i64::MAX as u64 {
                    return Err("proto: negative length found during unmarshaling".to_owned());
                }
                Wire::Bytes(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            3 => {
                self.skip_group()?;
                Wire::Group
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            other => return Err(format!("proto: illegal wireType {other}")),
        })
    }

    /// Leave a group and all groups in it; a count instead of recursion, so depth costs nothing.
    fn skip_group(&mut self) -> Result<(), String> {
        let mut depth = 1_u64;
        while depth > 0 {
            match self.varint()? & 7 {
                3 => depth += 1,
                4 => depth -= 1,
                wire_type => {
                    self.value(wire_type)?;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(cut_off)?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, String> {
        let (value, rest) = varint(self.rest)?;
        self.rest = rest;
        Ok(value)
    }
}

/// A varint and what follows it.
pub(super) fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), String> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate() {
        if index >= 10 {
            return Err("proto: integer overflow".to_owned());
        }
        // The tenth byte has one bit left; Go lets the others fall.
        value |= u64::from(byte & 0x7f).wrapping_shl(7 * index as u32);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[index + 1..]));
        }
    }
    Err(cut_off())
}

fn cut_off() -> String {
    "unexpected EOF".to_owned()
}

/// A message under construction.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn varint(&mut self, field: u32, value: u64) {
        self.plain(u64::from(field) << 3);
        self.plain(value);
    }

    pub(super) fn fixed64(&mut self, field: u32, value: u64) {
        self.plain(u64::from(field) << 3 | 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.plain(u64::from(field) << 3 | 2);
        self.plain(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn plain(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(message: &[u8]) -> Result<Vec<(u32, Wire<'_>)>, String> {
        let mut reader = Reader::new(message, "M");
        let mut fields = Vec::new();
        while let Some(field) = reader.next()? {
            fields.push(field);
        }
        Ok(fields)
    }

    #[test]
    fn fields_of_every_wire_type_are_read() {
        let mut writer = Writer::default();
        writer.varint(1, u64::MAX);
        writer.fixed64(2, 7);
        writer.bytes(300, b"text");
        let mut message = writer.0;
        // A group in a group, and four bytes.
        message.extend_from_slice(&[0x23, 0x2b, 0x08, 0x01, 0x2c, 0x24, 0x35, 1, 2, 3, 4]);
        let expected = [
            (1, Wire::Varint(u64::MAX)),
            (2, Wire::Fixed64(7)),
            (300, Wire::Bytes(b"text")),
            (4, Wire::Group),
            (6, Wire::Fixed32),
        ];
        assert_eq!(read(&message).as_deref(), Ok(&expected[..]));
    }

    #[test]
    fn what_is_no_message_is_refused_in_the_words_of_go() {
        let table: [(&[u8], &str); 9] = [
            (&[0x80], "unexpected EOF"),
            (&[0x0a, 5, b'x'], "unexpected EOF"),
            (&[0x09, 1, 2], "unexpected EOF"),
            (&[0x23, 0x08], "unexpected EOF"),
            (
                &[
                    0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
                ],
                "proto: integer overflow",
            ),
            (
                &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
                "proto: negative length found during unmarshaling",
            ),
            (&[0x02, 0], "proto: M: illegal tag 0 (wire type 2)"),
            (&[0x0c], "proto: M: wiretype end group for non-group"),
            (&[0x0f], "proto: illegal wireType 7"),
        ];
        for (message, expected) in table {
            assert_eq!(read(message), Err(expected.to_owned()), "{message:?}");
        }
    }

    #[test]
    fn deep_groups_cost_no_stack() {
        let mut message = vec![0x0b; 1_000_000];
        assert_eq!(read(&message), Err("unexpected EOF".to_owned()));
        message.extend(vec![0x0c; 1_000_000]);
        assert_eq!(read(&message), Ok(vec![(1, Wire::Group)]));
    }
}
