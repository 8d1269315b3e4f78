//! Base64 with the errors of Go's decoder.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// `text` as Go writes the bytes again: without line breaks. The error is Go's.
pub(super) fn canonical(text: &str) -> Result<String, String> {
    let illegal = |at: usize| Err(format!("illegal base64 data at input byte {at}"));
    let bytes = text.as_bytes();
    let is_break = |byte: u8| matches!(byte, b'\r' | b'\n');
    let skip_breaks = |mut at: usize| {
        while at < bytes.len() && is_break(bytes[at]) {
            at += 1;
        }
        at
    };
    // How many characters of a group of four have been read.
    let mut read = 0;
    let mut at = skip_breaks(0);
    let mut kept = String::with_capacity(text.len());
    while at < bytes.len() {
        match bytes[at] {
            byte if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/') => {
                kept.push(char::from(byte));
                read = (read + 1) % 4;
            }
            b'=' if read >= 2 => {
                let mut end = skip_breaks(at + 1);
                if read == 2 {
                    match bytes.get(end) {
                        None => return illegal(bytes.len()),
                        Some(b'=') => end = skip_breaks(end + 1),
                        Some(_) => return illegal(end - 1),
                    }
                }
                if end < bytes.len() {
                    return illegal(end);
                }
                read = 0;
                break;
            }
            _ => return illegal(at),
        }
        at = skip_breaks(at + 1);
    }
    if read != 0 {
        return illegal(at - read);
    }
    // Bits beyond the last byte do not count.
    let lenient = base64::engine::GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        base64::engine::general_purpose::NO_PAD.with_decode_allow_trailing_bits(true),
    );
    match lenient.decode(&kept) {
        Ok(decoded) => Ok(STANDARD.encode(decoded)),
        Err(_) => illegal(kept.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_point_at_the_byte_that_go_points_at() {
        let error = |at: usize| Err(format!("illegal base64 data at input byte {at}"));
        assert_eq!(canonical("!!"), error(0));
        assert_eq!(canonical("b2xk!"), error(4));
        assert_eq!(canonical("b2x"), error(0));
        assert_eq!(canonical("b2xkb2"), error(4));
        assert_eq!(canonical("b="), error(1));
        assert_eq!(canonical("bA="), error(3));
        assert_eq!(canonical("bA==x"), error(4));
    }

    #[test]
    fn bytes_are_written_without_line_breaks() {
        assert_eq!(canonical("b2\nxk\r\n").as_deref(), Ok("b2xk"));
        assert_eq!(canonical("eA==").as_deref(), Ok("eA=="));
        assert_eq!(canonical("eB==").as_deref(), Ok("eA=="));
        assert_eq!(canonical("").as_deref(), Ok(""));
    }
}
