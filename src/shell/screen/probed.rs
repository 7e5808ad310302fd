//! What a probe has found, in lines for people and as JSON for machines.

use std::fmt;

use serde::Serialize;

use crate::domain::figures::counted;
use crate::shell::exit::Exit;
use crate::shell::terminal::{printable, quoted};

/// Column in which the words of a line begin: the longest name and two spaces.
const NAME_WIDTH: usize = 15;
/// Column in which the answer to a question begins: the longest question of those without a tag, and two spaces.
const WORDS_WIDTH: usize = 54;

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub ok: bool,
    /// What was found.
    pub found: String,
    /// What helps, if it is not as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The exit code that it leads to.
    #[serde(skip)]
    pub exit: Exit,
}

impl Check {
    #[must_use]
    pub fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, ok: true, found: found.into(), remedy: None, exit: Exit::Done }
    }

    #[must_use]
    pub fn bad(name: &'static str, exit: Exit, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, ok: false, found: found.into(), remedy: Some(remedy.into()), exit }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.ok { '✓' } else { '✗' };
        write!(f, "{mark} {:<NAME_WIDTH$}{}", self.name, printable(&self.found))?;
        self.remedy.as_ref().map_or(Ok(()), |remedy| write!(f, "; {}", printable(remedy)))
    }
}

/// A setting and where it came from. No secret is one.
#[derive(Debug, Clone, Serialize)]
pub struct SettingSource {
    pub name: &'static str,
    /// `null` for a secret, and where there is none.
    pub value: Option<String>,
    pub from: String,
}

impl fmt::Display for SettingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.as_deref().unwrap_or("(not shown)");
        write!(f, "  {:<NAME_WIDTH$}{} ({})", self.name, printable(value), printable(&self.from))
    }
}

/// A question that the documentation leaves open, and what this app does.
#[derive(Debug, Clone, Serialize)]
pub struct OpenQuestion {
    /// For machines.
    pub question: &'static str,
    /// The profile field that it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// For people.
    #[serde(skip)]
    pub words: String,
    /// `yes`, `no`, `unknown` or `not_asked`.
    pub answer: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl fmt::Display for OpenQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answer = self.answer.replace('_', " ");
        write!(f, "  {:<WORDS_WIDTH$}{answer}", printable(&self.words))?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", printable(&self.detail)) }
    }
}

/// What a probe that writes has found, and what is left of it.
#[derive(Debug, Clone, Serialize)]
pub struct Written {
    pub id: String,
    pub requests: u32,
    pub questions: Vec<OpenQuestion>,
    /// UserIDs of accounts that it has made, or may have made.
    pub left_behind: Vec<String>,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "what this app does where the documentation leaves it open ({}):", counted(self.requests.into(), "request"))?;
        self.questions.iter().try_for_each(|question| writeln!(f, "{question}"))?;
        match self.left_behind.as_slice() {
            [] => writeln!(f, "nothing is left behind"),
            ids => {
                let ids: Vec<String> = ids.iter().map(|id| quoted(id.as_bytes())).collect();
                writeln!(f, "left behind, as accounts of the app: {}", ids.join(", "))
            }
        }
    }
}

/// All that a probe has found.
#[derive(Debug, Clone, Default)]
pub struct Probed {
    pub settings: Vec<SettingSource>,
    pub checks: Vec<Check>,
    /// `None` if it has not written.
    pub written: Option<Written>,
}

#[derive(Serialize)]
struct ProbedJson<'a> {
    exit_code: u8,
    outcome: &'static str,
    checks: &'a [Check],
    settings: &'a [SettingSource],
    #[serde(skip_serializing_if = "Option::is_none")]
    write: Option<&'a Written>,
}

impl Probed {
    /// The first thing that is not as it should be.
    #[must_use]
    pub fn first_bad(&self) -> Option<&Check> {
        self.checks.iter().find(|check| !check.ok)
    }

    /// One JSON object with a final newline.
    ///
    /// # Panics
    /// Never: all of its content can be written as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let exit = self.first_bad().map_or(Exit::Done, |check| check.exit);
        let json = ProbedJson {
            exit_code: exit.code(),
            outcome: exit.outcome(),
            checks: &self.checks,
            settings: &self.settings,
            write: self.written.as_ref(),
        };
        let mut text = serde_json::to_string_pretty(&json).expect("its keys are text, and no writer can fail");
        text.push('\n');
        text
    }
}

impl fmt::Display for Probed {
    /// A line for each check, the settings below the first; then the table of a probe that writes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, check) in self.checks.iter().enumerate() {
            writeln!(f, "{check}")?;
            if number == 0 {
                self.settings.iter().try_for_each(|setting| writeln!(f, "{setting}"))?;
            }
        }
        self.written.as_ref().map_or(Ok(()), |written| write!(f, "{written}"))
    }
}
