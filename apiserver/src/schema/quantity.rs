//! Quantities (`500m`, `1Gi`, `2e3`) in the canonical form in which Go writes them.

/// Upstream's words for a text that is no quantity at all.
const FORMAT: &str = "quantities must match the regular expression \
                      '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

const NANO: i128 = 1_000_000_000;
/// Greater amounts are capped at what an int64 holds.
const MAX: i128 = i64::MAX as i128;

#[derive(Clone, Copy, PartialEq)]
enum Format {
    DecimalSi,
    DecimalExponent,
    BinarySi,
}

/// `text` in canonical form: no fraction, the largest suffix that loses nothing, of the kind that was given.
/// Amounts below a billionth are rounded up to it. The error is upstream's.
pub(crate) fn canonical(text: &str) -> Result<String, String> {
    let (nanos, format) = parse(text)?;
    let is_small = nanos > -1024 * NANO && nanos < 1024 * NANO;
    Ok(match format {
        Format::BinarySi if !is_small && nanos % NANO == 0 => binary(nanos / NANO),
        Format::BinarySi | Format::DecimalSi => decimal(nanos, Format::DecimalSi),
        Format::DecimalExponent => decimal(nanos, format),
    })
}

/// The amount of `text` in billionths.
fn parse(text: &str) -> Result<(i128, Format), String> {
    if text.is_empty() {
        return Err(FORMAT.to_owned());
    }
    let (negative, rest) = match text.as_bytes()[0] {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (whole, rest) = digits(rest);
    let (fraction, suffix) = rest.strip_prefix('.').map_or(("", rest), digits);
    let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let exponent = letters.strip_prefix(['+', '-']).unwrap_or(letters);
    if !exponent.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(FORMAT.to_owned());
    }
    let (scale, format) = scale(suffix).ok_or("unable to parse quantity's suffix")?;
    let nanos = match scale {
        Scale::Binary(power) => amount(whole, fraction, 0).map(|(nanos, inexact)| {
            let scaled = nanos.saturating_mul(1 << (10 * power));
            (scaled, inexact)
        }),
        Scale::Decimal(power) => amount(whole, fraction, power),
    };
    let capped = match nanos {
        Some((nanos, inexact)) => nanos.saturating_add(i128::from(inexact)).min(MAX * NANO),
        None => MAX * NANO,
    };
    Ok((if negative { -capped } else { capped }, format))
}

fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

enum Scale {
    Binary(u32),
    Decimal(i32),
}

fn scale(suffix: &str) -> Option<(Scale, Format)> {
    let si = |power| Some((Scale::Decimal(power), Format::DecimalSi));
    let binary = |power| Some((Scale::Binary(power), Format::BinarySi));
    match suffix {
        "n" => si(-9),
        "u" => si(-6),
        "m" => si(-3),
        "" => si(0),
        "k" => si(3),
        "M" => si(6),
        "G" => si(9),
        "T" => si(12),
        "P" => si(15),
        "E" => si(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let power = suffix.strip_prefix(['e', 'E'])?.parse::<i64>().ok()?;
            let power = power.clamp(-1000, 1000) as i32;
            Some((Scale::Decimal(power), Format::DecimalExponent))
        }
    }
}

/// `whole.fraction` times ten to the `power`, in billionths, and whether something smaller was cut off;
/// `None` where it is beyond every cap.
fn amount(whole: &str, fraction: &str, power: i32) -> Option<(i128, bool)> {
    let digits: String = [whole, fraction].concat();
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() {
        return Some((0, false));
    }
    // The value is `significant` times ten to the `shift`, in billionths.
    let shift = power + 9 - i32::try_from(fraction.len()).ok()?;
    let places = i32::try_from(significant.len()).ok()? + shift;
    if places > 30 {
        return None;
    }
    if places <= 0 {
        return Some((0, true));
    }
    let places = places as usize;
    let (kept, cut) = significant.split_at(places.min(significant.len()));
    let zeros = 10i128.pow((places - kept.len()) as u32);
    Some((
        kept.parse::<i128>().ok()? * zeros,
        cut.bytes().any(|digit| digit != b'0'),
    ))
}

fn binary(mut amount: i128) -> String {
    let mut power = 0;
    while amount % 1024 == 0 && power < 6 {
        amount /= 1024;
        power += 1;
    }
    format!("{amount}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power])
}

fn decimal(mut amount: i128, format: Format) -> String {
    if amount == 0 {
        return "0".to_owned();
    }
    let mut power = 0;
    while amount % 1000 == 0 && power < 9 {
        amount /= 1000;
        power += 1;
    }
    match (format, power) {
        (_, 3) => amount.to_string(),
        (Format::DecimalExponent, _) => format!("{amount}e{}", power as i32 * 3 - 9),
        _ => format!(
            "{amount}{}",
            ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][power]
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantities_are_written_in_canonical_form() {
        for (given, canonical_form) in [
            ("0.5", "500m"),
            ("1024Mi", "1Gi"),
            ("1000Ki", "1000Ki"),
            ("1.5Gi", "1536Mi"),
            ("0.5Gi", "512Mi"),
            ("0.5Ki", "512"),
            ("1000", "1k"),
            ("1500m", "1500m"),
            ("2000m", "2"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("1000e-3", "1"),
            ("0", "0"),
            ("0Gi", "0"),
            ("+1", "1"),
            ("-1.50", "-1500m"),
            (".5", "500m"),
            ("5.", "5"),
            // Without digits upstream reads a zero.
            ("Gi", "0"),
            ("0.0000000001", "1n"),
            ("1023Ki", "1023Ki"),
            ("100E", "9223372036854775807"),
            (
                "99999999999999999999999999999999999999999999",
                "9223372036854775807",
            ),
            ("12345", "12345"),
            ("100000000", "100M"),
        ] {
            assert_eq!(canonical(given).as_deref(), Ok(canonical_form), "{given}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused_in_upstreams_words() {
        for text in ["", "abc", "1Gb", "1 Gi", "1-", "--1", "1.2.3", "1e3x"] {
            let expected = match text {
                "1-" | "--1" => "unable to parse quantity's suffix",
                _ => FORMAT,
            };
            assert_eq!(canonical(text), Err(expected.to_owned()), "{text}");
        }
        assert_eq!(
            canonical("1GG"),
            Err("unable to parse quantity's suffix".to_owned())
        );
    }

    proptest! {
        #[test]
        fn a_canonical_quantity_is_its_own_canonical_form(text in "[+-]?[0-9]{1,25}(\\.[0-9]{1,15})?(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e[0-9]|e-[0-9])?") {
            let once = canonical(&text).expect("a quantity");
            prop_assert_eq!(canonical(&once).expect("still one"), once);
        }
    }
}
