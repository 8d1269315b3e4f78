//! Tables as kubectl prints them.

/// A printed table: titles, then cells. Columns begin where their titles do. Ages are shown as `AGE`.
pub fn table(text: &str) -> Vec<Vec<String>> {
    let header = text.lines().next().expect("a header");
    let mut starts = vec![0];
    let bytes = header.as_bytes();
    starts.extend((3..bytes.len()).filter(|i| bytes[*i] != b' ' && bytes[i - 3..*i] == *b"   "));
    let cells = |line: &str| -> Vec<String> {
        let ends = starts.iter().skip(1).copied().chain([usize::MAX]);
        let cell = |(start, end): (&usize, usize)| {
            let end = end.min(line.len());
            line.get(*start..end).unwrap_or_default().trim().to_owned()
        };
        starts.iter().zip(ends).map(cell).collect()
    };
    let titles = cells(header);
    let rows = text.lines().skip(1).map(|line| {
        let mut row = cells(line);
        for (cell, title) in row.iter_mut().zip(&titles) {
            let is_age = cell.ends_with('s') && cell.starts_with(|c: char| c.is_ascii_digit());
            if ["AGE", "LAST SEEN", "FIRST SEEN"].contains(&title.as_str()) && is_age {
                *cell = "AGE".to_owned();
            }
        }
        row
    });
    let rows: Vec<Vec<String>> = rows.collect();
    [vec![titles], rows].concat()
}
