//! What `/proc/PID/mountinfo` says.

use std::path::{Path, PathBuf};

/// Mount points, and the kinds of the file systems there.
pub fn points(table: &str) -> Vec<(PathBuf, String)> {
    let line = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let point = before.split(' ').nth(4)?;
        Some((
            PathBuf::from(unescape(point)),
            after.split(' ').next()?.to_owned(),
        ))
    };
    table.lines().filter_map(line).collect()
}

/// Whether something in or below a directory (its real path) is mounted. The table names what is mounted from the root of its
/// file system on: a part of the path that we know.
pub fn shows(table: &str, directory: &Path) -> bool {
    let is_in_it = |root: &str| {
        let root = PathBuf::from(unescape(root));
        let is_it = |above: &Path| {
            let above = above.strip_prefix("/").unwrap_or(above);
            above.components().count() > 1 && directory.ends_with(above)
        };
        root.ancestors().any(is_it)
    };
    let mut roots = table.lines().filter_map(|line| line.split(' ').nth(3));
    roots.any(is_in_it)
}

/// Blanks and the like are written as three octal digits.
fn unescape(text: &str) -> String {
    let mut plain = text.to_owned();
    for (escaped, character) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        plain = plain.replace(escaped, character);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
                         30 22 0:25 / /mnt/my\\040disk rw shared:5 master:1 - xfs /dev/vdb rw\n\
                         31 22 0:25 /my\\040data/pods/8c1/containers/main/log /dev/log rw - xfs /dev/vdb rw\n\
                         nonsense\n";

    #[test]
    fn a_table_is_read_with_its_blanks() {
        let expected = [("/", "ext4"), ("/mnt/my disk", "xfs"), ("/dev/log", "xfs")];
        assert_eq!(
            points(TABLE),
            expected.map(|(path, kind)| (PathBuf::from(path), kind.to_owned()))
        );
    }

    #[test]
    fn a_directory_is_recognised_by_what_is_mounted_out_of_it() {
        for shown in [
            "/mnt/my data/pods/8c1",
            "/mnt/my data/pods/8c1/containers/main",
            "/my data/pods/8c1",
        ] {
            assert!(shows(TABLE, Path::new(shown)), "{shown}");
        }
        for other in [
            "/mnt/my data/pods/8c2",
            "/mnt/my data/pods/8c1/containers/other",
            "/mnt/your data/pods/8c1",
            "/",
        ] {
            assert!(!shows(TABLE, Path::new(other)), "{other}");
        }
    }
}
