//! Tables as kubectl prints them: columns padded to their widest cell, three spaces between them.

/// The rows, the first of which is the header; a line each. Rows have as many cells as the header.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widest = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(widest).collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("   ");
        line.trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// How long ago, as kubectl says it: `45s`, `12m`, `5h`, `3d`.
pub fn age(since: jiff::Timestamp, now: jiff::Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["NAME", "AGE"], ["a-long-name", "1s"]].map(|row| row.map(String::from).to_vec());
        assert_eq!(table(&rows), "NAME          AGE\na-long-name   1s\n");
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn ages_are_told_in_the_unit_that_matters() {
        let start = jiff::Timestamp::UNIX_EPOCH;
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (7_200, "2h"),
            (172_800, "2d"),
            (-5, "0s"),
        ] {
            let now = start + jiff::SignedDuration::from_secs(seconds);
            assert_eq!(age(start, now), text);
        }
    }
}
