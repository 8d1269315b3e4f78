//! How large a `Quantity` is: what comparing two of them needs.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Billionths per unit: the finest a quantity can say.
const NANO: i128 = 1_000_000_000;

/// The amount in billionths of a unit, rounded up; `None` when it is no quantity or beyond counting.
pub fn nanos(quantity: &Quantity) -> Option<i128> {
    let text = quantity.0.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (multiplier, divisor) = scale(suffix)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    // Digits as one integer; the fraction's length moves into the divisor.
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let divisor = divisor.checked_mul(10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?)?;
    let scaled = digits.checked_mul(multiplier)?;
    let rounded_up = scaled.checked_add(divisor - 1)? / divisor;
    Some(if negative { -rounded_up } else { rounded_up })
}

/// What a suffix multiplies billionths by, and divides them by.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| Some((NANO << (10 * power), 1));
    let decimal = |power: u32| Some((NANO * 10i128.pow(power), 1));
    match suffix {
        "n" => Some((1, 1)),
        "u" => Some((1_000, 1)),
        "m" => Some((1_000_000, 1)),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10i128.checked_pow(exponent.unsigned_abs())?;
            if exponent < 0 {
                Some((NANO, power))
            } else {
                Some((NANO.checked_mul(power)?, 1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_count_in_billionths() {
        let table = [
            ("1", Some(NANO)),
            ("0", Some(0)),
            ("1Gi", Some(NANO << 30)),
            ("1.5Gi", Some((NANO << 30) * 3 / 2)),
            ("1024Mi", Some(NANO << 30)),
            ("1G", Some(NANO * 1_000_000_000)),
            ("1e3", Some(NANO * 1000)),
            ("1E3", Some(NANO * 1000)),
            ("1E", Some(NANO * 1_000_000_000_000_000_000)),
            ("5e-1", Some(NANO / 2)),
            ("100m", Some(NANO / 10)),
            ("1n", Some(1)),
            ("0.5n", Some(1)),
            ("-1", Some(-NANO)),
            ("+.5", Some(NANO / 2)),
            ("", None),
            ("Gi", None),
            ("1Qi", None),
            ("1.1.1", None),
            ("99999999999999999999999999999999999999999", None),
            ("1e40", None),
        ];
        for (text, expected) in table {
            assert_eq!(nanos(&Quantity(text.into())), expected, "{text}");
        }
    }
}
