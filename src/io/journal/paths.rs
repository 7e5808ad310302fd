//! The names of a run's files, and the dated names of their backups.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use xxhash_rust::xxh3::xxh3_64;

/// The paths of a run's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPaths {
    pub results: PathBuf,
    pub rejects: PathBuf,
    /// The missing accounts of a sync.
    pub missing: PathBuf,
    pub checkpoint: PathBuf,
}

/// The default name of a file that belongs to an input: the input's name without its usual ending, plus another ending.
#[must_use]
pub fn beside(input: &Path, ending: &str) -> PathBuf {
    with(&stem(input), ending)
}

/// The name of a repair file, unless the caller names it or it is named after the input: the results' without their usual endings, plus
/// its own.
#[must_use]
pub fn repair_of(results: &Path) -> PathBuf {
    with(&without(&without(results, &[".csv", ".tsv", ".txt"]), &[".verify", ".results"]), ".repair.csv")
}

/// The paths that the caller has given.
#[derive(Debug, Clone, Default)]
pub struct GivenPaths {
    pub results: Option<PathBuf>,
    pub rejects: Option<PathBuf>,
    pub checkpoint: Option<PathBuf>,
}

impl RunPaths {
    /// Derives the paths that are not given from the path of the results, or else of the input.
    #[must_use]
    pub fn new(input: &Path, given: GivenPaths) -> Self {
        let stem = match &given.results {
            Some(results) => without(&without(results, &[".csv", ".tsv", ".txt"]), &[".results"]),
            None => stem(input),
        };
        let named = |ending: &str| with(&stem, ending);
        Self {
            results: given.results.unwrap_or_else(|| named(".results.csv")),
            rejects: given.rejects.unwrap_or_else(|| named(".rejects.csv")),
            missing: named(".missing.csv"),
            checkpoint: given.checkpoint.unwrap_or_else(|| named(".checkpoint.json")),
        }
    }

    /// The file that is locked during the run; it is never renamed.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        with(&self.checkpoint, ".lock")
    }

    /// The temporary name of a checkpoint that is being written.
    #[must_use]
    pub fn new_checkpoint(&self) -> PathBuf {
        with(&self.checkpoint, ".new")
    }

    /// The copy of the input, beside the results.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        with(&without(&without(&self.results, &[".csv"]), &[".results"]), ".input.csv")
    }

    /// The same files with `stamp` in their names.
    #[must_use]
    pub fn dated(&self, stamp: &str) -> Self {
        Self {
            results: dated(&self.results, stamp),
            rejects: dated(&self.rejects, stamp),
            missing: dated(&self.missing, stamp),
            checkpoint: dated(&self.checkpoint, stamp),
        }
    }

    /// A hash of the file names (without folders) of results and rejects.
    #[must_use]
    pub fn names(&self) -> u64 {
        use std::os::unix::ffi::OsStrExt;
        let name = |path: &Path| path.file_name().unwrap_or_default().as_bytes().to_vec();
        xxh3_64(&[name(&self.results), name(&self.rejects)].join(&0))
    }

    /// All paths that the run may use.
    #[must_use]
    pub fn everything(&self) -> [PathBuf; 7] {
        let [results, rejects, missing, checkpoint] = self.all().map(Path::to_owned);
        [results, rejects, missing, checkpoint, self.lock(), self.new_checkpoint(), self.spool()]
    }

    /// The paths of the four files.
    #[must_use]
    pub fn all(&self) -> [&Path; 4] {
        [&self.results, &self.rejects, &self.missing, &self.checkpoint]
    }
}

/// An input's name less how it is compressed and one usual ending.
fn stem(input: &Path) -> PathBuf {
    without(&without(input, &[".gz", ".zst"]), &[".csv", ".tsv", ".txt"])
}

/// The time to the second, as used in file names; a `number` makes it unique.
#[must_use]
pub fn stamp(now: SystemTime, number: u32) -> String {
    let time: String = humantime::format_rfc3339_seconds(now).to_string().replace(['-', ':'], "");
    if number == 0 { time } else { format!("{time}-{number}") }
}

fn with(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

/// The path without the first matching ending.
fn without(path: &Path, endings: &[&str]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let bytes = path.as_os_str().as_bytes();
    let name = path.file_name().unwrap_or_default().as_bytes();
    let ending = endings.iter().find(|ending| name.ends_with(ending.as_bytes()) && name.len() > ending.len());
    OsStr::from_bytes(&bytes[..bytes.len() - ending.map_or(0, |ending| ending.len())]).into()
}

/// The name of one file with `stamp` in it.
pub(super) fn dated(path: &Path, stamp: &str) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(".");
    name.push(stamp);
    if let Some(ending) = path.extension() {
        name.push(".");
        name.push(ending);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_after_the_input_or_the_results() {
        let check = |input: &str, results: Option<&str>, expected: [&str; 4]| {
            let given = GivenPaths { results: results.map(PathBuf::from), ..GivenPaths::default() };
            assert_eq!(RunPaths::new(Path::new(input), given).all(), expected.map(Path::new), "{input} {results:?}");
        };
        check("d/users.csv", None, ["d/users.results.csv", "d/users.rejects.csv", "d/users.missing.csv", "d/users.checkpoint.json"]);
        check(
            "users.csv.csv",
            None,
            ["users.csv.results.csv", "users.csv.rejects.csv", "users.csv.missing.csv", "users.csv.checkpoint.json"],
        );
        check("users.tsv", None, ["users.results.csv", "users.rejects.csv", "users.missing.csv", "users.checkpoint.json"]);
        check("users.txt", None, ["users.results.csv", "users.rejects.csv", "users.missing.csv", "users.checkpoint.json"]);
        check("users.csv.gz", None, ["users.results.csv", "users.rejects.csv", "users.missing.csv", "users.checkpoint.json"]);
        check("users.tsv.zst", None, ["users.results.csv", "users.rejects.csv", "users.missing.csv", "users.checkpoint.json"]);
        check("users.gz", None, ["users.results.csv", "users.rejects.csv", "users.missing.csv", "users.checkpoint.json"]);
        check("users", None, ["users.results.csv", "users.rejects.csv", "users.missing.csv", "users.checkpoint.json"]);
        check(".csv", None, [".csv.results.csv", ".csv.rejects.csv", ".csv.missing.csv", ".csv.checkpoint.json"]);
        check("users.csv", Some("o/r.results.csv"), ["o/r.results.csv", "o/r.rejects.csv", "o/r.missing.csv", "o/r.checkpoint.json"]);
        check("users.csv", Some("o/out.csv"), ["o/out.csv", "o/out.rejects.csv", "o/out.missing.csv", "o/out.checkpoint.json"]);
        check("-", Some("out"), ["out", "out.rejects.csv", "out.missing.csv", "out.checkpoint.json"]);
    }

    #[test]
    fn a_dated_name_keeps_its_ending() {
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_700_000_000_999);
        assert_eq!(stamp(at, 0), "20231114T221320Z");
        assert_eq!(dated(Path::new("d/users.results.csv"), &stamp(at, 2)), Path::new("d/users.results.20231114T221320Z-2.csv"));
        assert_eq!(dated(Path::new("out"), "s"), Path::new("out.s"));
    }
}
