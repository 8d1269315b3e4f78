//! Times as Go reads and writes them: RFC 3339 with whole seconds, or with six digits of microseconds.

use std::fmt::Write as _;

/// The two layouts of Kubernetes' `Time` and `MicroTime`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    Seconds,
    Micros,
}

impl Precision {
    fn layout(self) -> &'static str {
        match self {
            Self::Seconds => "2006-01-02T15:04:05Z07:00",
            Self::Micros => "2006-01-02T15:04:05.000000Z07:00",
        }
    }
}

/// `text` in UTC as Go writes it again; the error is that of Go's `time.Parse`.
pub(crate) fn canonical(text: &str, precision: Precision) -> Result<String, String> {
    let mut reader = Reader {
        text,
        rest: text,
        precision,
    };
    let year = reader.digits(4, "2006")?;
    reader.literal("-")?;
    let month = reader.digits(2, "01")?;
    if !(1..=12).contains(&month) {
        return Err(reader.out_of_range("month"));
    }
    reader.literal("-")?;
    let day = reader.digits(2, "02")?;
    reader.literal("T")?;
    let hour = reader.digits(2, "15")?;
    if hour > 23 {
        return Err(reader.out_of_range("hour"));
    }
    reader.literal(":")?;
    let minute = reader.digits(2, "04")?;
    if minute > 59 {
        return Err(reader.out_of_range("minute"));
    }
    reader.literal(":")?;
    let second = reader.digits(2, "05")?;
    if second > 59 {
        return Err(reader.out_of_range("second"));
    }
    let nanos = reader.fraction()?;
    let offset = reader.zone()?;
    if !reader.rest.is_empty() {
        return Err(format!(
            "parsing time {}: extra text: {}",
            quote(text),
            quote(reader.rest)
        ));
    }
    let out_of_range = |what| reader.out_of_range(what);
    let narrow = |number: i32| i8::try_from(number).map_err(|_| out_of_range("day"));
    let date = jiff::civil::Date::new(
        i16::try_from(year).map_err(|_| out_of_range("year"))?,
        narrow(month)?,
        narrow(day)?,
    )
    .map_err(|_| out_of_range("day"))?;
    let local = date.at(narrow(hour)?, narrow(minute)?, narrow(second)?, nanos);
    let zone = jiff::tz::Offset::from_seconds(offset).map_err(|_| out_of_range("time zone offset hour"))?;
    let time = zone.to_timestamp(local).map_err(|_| out_of_range("year"))?;
    Ok(write(time, precision))
}

/// As Go writes `time`.
pub(crate) fn write(time: jiff::Timestamp, precision: Precision) -> String {
    let utc = jiff::tz::Offset::UTC.to_datetime(time);
    let mut text = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        utc.year(),
        utc.month(),
        utc.day(),
        utc.hour(),
        utc.minute(),
        utc.second()
    );
    if precision == Precision::Micros {
        let micros = utc.subsec_nanosecond() / 1000;
        write!(text, ".{micros:06}").expect("a string takes all that is written");
    }
    text + "Z"
}

struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
    precision: Precision,
}

impl Reader<'_> {
    fn cannot_parse(&self, at: &str, element: &str) -> String {
        format!(
            "parsing time {} as {}: cannot parse {} as {}",
            quote(self.text),
            quote(self.precision.layout()),
            quote(at),
            quote(element)
        )
    }

    fn out_of_range(&self, what: &str) -> String {
        format!("parsing time {}: {what} out of range", quote(self.text))
    }

    fn digits(&mut self, count: usize, element: &str) -> Result<i32, String> {
        let number = self
            .rest
            .get(..count)
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let number = number.and_then(|text| text.parse().ok());
        let number = number.ok_or_else(|| self.cannot_parse(self.rest, element))?;
        self.rest = &self.rest[count..];
        Ok(number)
    }

    fn literal(&mut self, literal: &str) -> Result<(), String> {
        self.rest = self
            .rest
            .strip_prefix(literal)
            .ok_or_else(|| self.cannot_parse(self.rest, literal))?;
        Ok(())
    }

    /// Nanoseconds. Go reads a fraction of seconds of any length even where the layout has none.
    fn fraction(&mut self) -> Result<i32, String> {
        let digits = self.rest.strip_prefix(['.', ',']).unwrap_or_default();
        let count = digits.bytes().take_while(u8::is_ascii_digit).count();
        match self.precision {
            Precision::Seconds if count == 0 => return Ok(0),
            Precision::Micros if count < 6 => return Err(self.cannot_parse(self.rest, ".000000")),
            _ => {}
        }
        let read = match self.precision {
            Precision::Seconds => count,
            Precision::Micros => 6,
        };
        self.rest = &digits[read..];
        let nanos = digits.bytes().take(read).chain(std::iter::repeat(b'0')).take(9);
        Ok(nanos.fold(0, |nanos, digit| nanos * 10 + i32::from(digit - b'0')))
    }

    /// Seconds east of UTC.
    fn zone(&mut self) -> Result<i32, String> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let failure = self.cannot_parse(self.rest, "Z07:00");
        let sign = match self.rest.as_bytes().first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(failure),
        };
        let two = |at: usize| {
            let text = self.rest.get(at..at + 2)?;
            text.bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| text.parse::<i32>().ok())?
        };
        let (Some(hours), Some(":"), Some(minutes)) = (two(1), self.rest.get(3..4), two(4)) else {
            return Err(failure);
        };
        self.rest = &self.rest[6..];
        match (hours, minutes) {
            (25.., _) => Err(self.out_of_range("time zone offset hour")),
            (_, 60..) => Err(self.out_of_range("time zone offset minute")),
            _ => Ok(sign * (hours * 3600 + minutes * 60)),
        }
    }
}

fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc_with_whole_seconds() {
        for (given, written) in [
            ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
            ("2024-01-01T01:30:00.75+01:30", "2024-01-01T00:00:00Z"),
            ("2024-02-29T23:59:59-00:30", "2024-03-01T00:29:59Z"),
        ] {
            assert_eq!(canonical(given, Precision::Seconds).as_deref(), Ok(written));
        }
        let micro = canonical("2024-01-01T00:00:00.120000+02:00", Precision::Micros);
        assert_eq!(micro.as_deref(), Ok("2023-12-31T22:00:00.120000Z"));
    }

    #[test]
    fn what_is_no_time_is_refused_in_the_words_of_go() {
        let error = |text| canonical(text, Precision::Seconds).expect_err(text);
        let layout = "2006-01-02T15:04:05Z07:00";
        assert_eq!(
            error("yesterday"),
            format!("parsing time \"yesterday\" as \"{layout}\": cannot parse \"yesterday\" as \"2006\"")
        );
        assert_eq!(
            error(""),
            format!("parsing time \"\" as \"{layout}\": cannot parse \"\" as \"2006\"")
        );
        assert_eq!(
            error("2024-13-01T00:00:00Z"),
            "parsing time \"2024-13-01T00:00:00Z\": month out of range"
        );
        assert_eq!(
            error("2024-02-30T00:00:00Z"),
            "parsing time \"2024-02-30T00:00:00Z\": day out of range"
        );
        assert_eq!(
            error("2024-02-03T00:00:00Zx"),
            "parsing time \"2024-02-03T00:00:00Zx\": extra text: \"x\""
        );
        assert_eq!(
            canonical("2024-01-01T00:00:00Z", Precision::Micros).expect_err("no fraction"),
            "parsing time \"2024-01-01T00:00:00Z\" as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \"Z\" as \".000000\""
        );
    }
}
