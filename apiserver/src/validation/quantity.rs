//! Resource quantities (`100m`, `1.5Gi`, `2e3`): parsing, comparison and the canonical form in which upstream
//! stores them, as `resource.Quantity` does.

use std::cmp::Ordering;
use std::fmt;

/// In what notation a quantity was written, and is written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    DecimalSi,
    BinarySi,
    DecimalExponent,
}

/// A quantity, exact to a billionth, as upstream keeps it.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    /// Billionths.
    nanos: i128,
    format: Format,
}

const NANOS: i128 = 1_000_000_000;
/// Upstream caps every quantity at the largest 64-bit integer.
const MAX: i128 = i64::MAX as i128 * NANOS;

const WRONG_FORMAT: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const WRONG_SUFFIX: &str = "unable to parse quantity's suffix";
const WRONG_NUMBER: &str = "unable to parse numeric part of quantity";

/// The suffixes of decimal SI quantities and the powers of ten that they stand for.
const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
/// The suffixes of binary quantities and the powers of 1024 that they stand for.
const BINARY: [(&str, u32); 6] = [("Ki", 1), ("Mi", 2), ("Gi", 3), ("Ti", 4), ("Pi", 5), ("Ei", 6)];

impl Quantity {
    /// Parse a quantity; the error is upstream's text.
    pub fn parse(text: &str) -> Result<Quantity, &'static str> {
        let (negative, rest) = match text.as_bytes().first() {
            None => return Err(WRONG_FORMAT),
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
        };
        let (whole, rest) = rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count());
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count()),
            None => ("", rest),
        };
        if !is_suffix(suffix) {
            return Err(WRONG_FORMAT);
        }
        let (format, ten, binary) = interpret(suffix).ok_or(WRONG_SUFFIX)?;
        if whole.is_empty() && fraction.is_empty() {
            return Err(WRONG_NUMBER);
        }
        let digits = format!("{whole}{fraction}");
        let digits = digits.trim_start_matches('0');
        let exponent = ten - i32::try_from(fraction.len()).map_err(|_| WRONG_NUMBER)? + 9;
        let size = scale(digits, exponent, binary);
        Ok(Quantity {
            nanos: if negative { -size } else { size },
            format,
        })
    }

    /// A quantity as JSON may hold it: a string, or a bare number.
    pub fn from_json(value: &serde_json::Value) -> Result<Quantity, &'static str> {
        match value {
            serde_json::Value::String(text) => Quantity::parse(text),
            other => Quantity::parse(&other.to_string()),
        }
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.nanos.signum() as i32
    }

    /// The quantity in billionths.
    pub fn nanos(&self) -> i128 {
        self.nanos
    }

    /// Whether it is a whole number.
    pub fn is_whole(&self) -> bool {
        self.nanos % NANOS == 0
    }

    /// Rounded up to a whole number, as `Quantity.Value()`.
    pub fn value(&self) -> i64 {
        let whole = self.nanos.div_euclid(NANOS) + i128::from(self.nanos.rem_euclid(NANOS) != 0);
        i64::try_from(whole).unwrap_or(if whole < 0 { i64::MIN } else { i64::MAX })
    }

    /// In thousandths, rounded up, as `Quantity.MilliValue()`.
    pub fn milli_value(&self) -> i64 {
        let milli = NANOS / 1000;
        let whole = self.nanos.div_euclid(milli) + i128::from(self.nanos.rem_euclid(milli) != 0);
        i64::try_from(whole).unwrap_or(if whole < 0 { i64::MIN } else { i64::MAX })
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.nanos.cmp(&other.nanos))
    }
}

/// The canonical form: no fraction, the largest suffix that loses nothing, the notation of the original.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANOS;
        if self.format == Format::BinarySi && !small && self.is_whole() {
            let mut number = self.nanos / NANOS;
            let mut power = 0;
            while number % 1024 == 0 && power < BINARY.len() {
                number /= 1024;
                power += 1;
            }
            let suffix = power.checked_sub(1).map_or("", |i| BINARY[i].0);
            return write!(f, "{number}{suffix}");
        }
        let mut number = self.nanos;
        let mut exponent = -9;
        while number % 1000 == 0 && exponent < 18 {
            number /= 1000;
            exponent += 3;
        }
        if self.format == Format::DecimalExponent {
            return match exponent {
                0 => write!(f, "{number}"),
                _ => write!(f, "{number}e{exponent}"),
            };
        }
        let suffix = DECIMAL.iter().find(|(_, ten)| *ten == exponent);
        write!(f, "{number}{}", suffix.map_or("", |(suffix, _)| suffix))
    }
}

/// `[eEinumkKMGTP]*[-+]?[0-9]*`
fn is_suffix(text: &str) -> bool {
    let rest = text.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    rest.bytes().all(|c| c.is_ascii_digit())
}

/// A suffix as its notation, a power of ten and a power of 1024.
fn interpret(suffix: &str) -> Option<(Format, i32, u32)> {
    if let Some((_, ten)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Some((Format::DecimalSi, *ten, 0));
    }
    if let Some((_, power)) = BINARY.iter().find(|(s, _)| *s == suffix) {
        return Some((Format::BinarySi, 0, *power));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    Some((Format::DecimalExponent, exponent.parse().ok()?, 0))
}

/// `digits · 10^exponent · 1024^binary`, rounded up and capped at [`MAX`].
fn scale(digits: &str, exponent: i32, binary: u32) -> i128 {
    if digits.is_empty() {
        return 0;
    }
    // More than 40 significant digits before the point are beyond the cap, after it below a billionth.
    let magnitude = digits.len() as i64 + i64::from(exponent);
    if magnitude > 38 {
        return MAX;
    }
    if magnitude < -30 {
        return 1;
    }
    let kept = digits.len().min(28);
    let dropped = digits[kept..].bytes().any(|c| c != b'0');
    let number: i128 = digits[..kept].parse().unwrap_or(MAX);
    let Some(mut number) = number.checked_mul(1024_i128.pow(binary.min(3))) else {
        return MAX;
    };
    let mut exponent = i64::from(exponent) + (digits.len() - kept) as i64;
    let mut inexact = dropped;
    // Divide before the second half of the binary factor only as far as needed to stay in range.
    let mut rest = binary.saturating_sub(3);
    loop {
        if rest > 0 {
            match number.checked_mul(1024) {
                Some(n) => {
                    number = n;
                    rest -= 1;
                    continue;
                }
                None if exponent < 0 => {}
                None => return MAX,
            }
        }
        match exponent.cmp(&0) {
            Ordering::Equal => break,
            Ordering::Greater => match number.checked_mul(10) {
                Some(n) => number = n,
                None => return MAX,
            },
            Ordering::Less => {
                inexact |= number % 10 != 0;
                number /= 10;
            }
        }
        exponent -= exponent.signum();
    }
    (number + i128::from(inexact)).min(MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        Quantity::parse(text).map_or_else(str::to_owned, |q| q.to_string())
    }

    #[test]
    fn quantities_are_stored_in_their_canonical_form() {
        let cases = [
            ("0", "0"),
            ("0Gi", "0"),
            ("1", "1"),
            ("+1", "1"),
            ("-1", "-1"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            ("0.1", "100m"),
            (".5", "500m"),
            ("5.", "5"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("1Gi", "1Gi"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("0.1Gi", "107374182400m"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("12e1", "120"),
            ("1e-3", "1e-3"),
            ("1.0001n", "2n"),
            ("1E", "1E"),
            ("10Ei", "9223372036854775807"),
            ("1e100", "9223372036854775807"),
            ("8Ei", "9223372036854775807"),
            ("7Ei", "7Ei"),
            ("007", "7"),
        ];
        for (text, expected) in cases {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_quantity_is_refused_in_upstreams_words() {
        for text in ["", "1 Gi", "1..2", "1Gi2x", "abc", "x"] {
            assert_eq!(Quantity::parse(text).unwrap_err(), WRONG_FORMAT, "{text}");
        }
        for text in ["1GG", "1ki", "1e", "1K", "1Gi3"] {
            assert_eq!(Quantity::parse(text).unwrap_err(), WRONG_SUFFIX, "{text}");
        }
        for text in ["Gi", "-", "+m", "."] {
            assert_eq!(Quantity::parse(text).unwrap_err(), WRONG_NUMBER, "{text}");
        }
    }

    #[test]
    fn quantities_compare_by_what_they_mean() {
        let q = |text| Quantity::parse(text).unwrap();
        assert_eq!(q("1Gi"), q("1024Mi"));
        assert!(q("1G") < q("1Gi"));
        assert!(q("-1") < q("0"));
        assert_eq!(q("1500m").value(), 2);
        assert_eq!(q("-1500m").value(), -1);
        assert_eq!(q("1500u").milli_value(), 2);
    }

    proptest::proptest! {
        #[test]
        fn the_canonical_form_is_a_fixed_point(text in "[+-]?[0-9]{0,12}(\\.[0-9]{0,11})?(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e[0-9]|e-[0-9])?") {
            if let Ok(quantity) = Quantity::parse(&text) {
                let again = Quantity::parse(&quantity.to_string()).unwrap();
                proptest::prop_assert_eq!(again, quantity);
                proptest::prop_assert_eq!(again.to_string(), quantity.to_string());
            }
        }
    }
}
