//! The call log: one line for each user and command, with the result.

use crate::io::api::wire::Command;

/// The header line of a call log.
pub(super) const HEADER: &str = "command,UserID,code\n";

/// One user of a well-formed, signed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallLogEntry {
    pub command: Command,
    pub user_id: String,
    /// The service's code for this user, 0 for success. `None` if a fault kept the request from having an effect and a code.
    pub code: Option<i64>,
}

/// The codes of a request's users, in the users' order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Codes {
    /// A fault left the request without an effect and without a code.
    None,
    All(i64),
    Each(Vec<i64>),
}

impl Codes {
    fn of(&self, position: usize) -> Option<i64> {
        match self {
            Codes::None => None,
            Codes::All(code) => Some(*code),
            Codes::Each(codes) => codes.get(position).copied(),
        }
    }

    /// How many of the `users` succeeded.
    pub(super) fn done(&self, users: usize) -> u64 {
        (0..users).filter(|&position| self.of(position) == Some(0)).count() as u64
    }
}

/// The users of the requests: the first entries are kept, and each is written as a line if lines are asked for.
#[derive(Debug, Default)]
pub(super) struct CallLogEntries {
    kept: Vec<CallLogEntry>,
    kept_max: usize,
    lines: Option<Vec<u8>>,
}

impl CallLogEntries {
    /// Keeps the first `kept_max` entries.
    pub(super) fn new(kept_max: usize) -> Self {
        Self { kept_max, ..Self::default() }
    }

    /// Writes lines from now on, for [`Self::take_lines`].
    pub(super) fn note_lines(&mut self) {
        self.lines = Some(Vec::new());
    }

    /// The lines since the last call of this function.
    pub(super) fn take_lines(&mut self) -> Vec<u8> {
        self.lines.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub(super) fn kept(&self) -> &[CallLogEntry] {
        &self.kept
    }

    pub(super) fn add<'a>(&mut self, command: Command, users: impl Iterator<Item = &'a str>, codes: &Codes) {
        if self.lines.is_none() && self.kept.len() >= self.kept_max {
            return;
        }
        for (position, id) in users.enumerate() {
            let code = codes.of(position);
            if let Some(lines) = &mut self.lines {
                lines.extend_from_slice(line(command, id, code).as_bytes());
            }
            if self.kept.len() < self.kept_max {
                self.kept.push(CallLogEntry { command, user_id: id.to_owned(), code });
            }
        }
    }
}

/// One record of CSV with the UserID as it is.
fn line(command: Command, id: &str, code: Option<i64>) -> String {
    let name = command.name();
    let code = code.map(|code| code.to_string()).unwrap_or_default();
    if id.contains([',', '"', '\n', '\r']) {
        return format!("{name},\"{}\",{code}\n", id.replace('"', "\"\""));
    }
    format!("{name},{id},{code}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_the_id_as_it_is_and_csv_reads_it_back() {
        let check = |id: &str, code: Option<i64>, expected: [&str; 3]| {
            let line = line(Command::Kick, id, code);
            let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
            assert_eq!(reader.records().next().unwrap().unwrap(), expected.to_vec());
        };
        check("u", Some(0), ["kick", "u", "0"]);
        check("a,\"b", Some(-1), ["kick", "a,\"b", "-1"]);
        check("a\nb", None, ["kick", "a\nb", ""]);
        check("李雷 é\\n", Some(0), ["kick", "李雷 é\\n", "0"]);
        assert_eq!(line(Command::Kick, "李 雷", Some(0)), "kick,李 雷,0\n");
        check("", None, ["kick", "", ""]);
    }

    #[test]
    fn the_first_entries_are_kept_and_lines_are_taken_once() {
        let mut call_log = CallLogEntries::new(3);
        call_log.add(Command::AccountCheck, ["a", "b"].into_iter(), &Codes::Each(vec![0, 70107]));
        assert_eq!(call_log.take_lines(), b"", "lines were not asked for");
        call_log.note_lines();
        call_log.add(Command::AccountDelete, ["c", "d"].into_iter(), &Codes::All(0));
        let kept: Vec<_> = call_log.kept().iter().map(|entry| (entry.user_id.as_str(), entry.code)).collect();
        assert_eq!(kept, [("a", Some(0)), ("b", Some(70107)), ("c", Some(0))]);
        assert_eq!(call_log.take_lines(), b"account_delete,c,0\naccount_delete,d,0\n");
        assert_eq!(call_log.take_lines(), b"");
    }
}
