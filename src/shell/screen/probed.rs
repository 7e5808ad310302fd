//! What a probe has found, in lines for people and as JSON for machines.

use std::fmt;

use serde::Serialize;

use crate::domain::figures::counted;
use crate::shell::exit::Exit;
use crate::shell::terminal::{printable, quoted};

/// Column in which the words of a line begin, unless a name needs more: the longest name of those that are always there, and two spaces.
const NAME_WIDTH: usize = 15;
/// Spaces between two columns.
const GAP: usize = 2;

/// The width of a column with these words.
fn width<'a>(words: impl Iterator<Item = &'a str>) -> usize {
    words.map(|words| words.chars().count() + GAP).max().unwrap_or(0)
}

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

impl Check {
    fn line(&self, f: &mut fmt::Formatter<'_>, width: usize) -> fmt::Result {
        let mark = if self.ok { '✓' } else { '✗' };
        write!(f, "{mark} {:<width$}{}", self.name, printable(&self.found))?;
        self.remedy.as_ref().map_or(Ok(()), |remedy| write!(f, "; {}", printable(remedy)))?;
        writeln!(f)
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

impl SettingSource {
    fn line(&self, f: &mut fmt::Formatter<'_>, width: usize) -> fmt::Result {
        let value = self.value.as_deref().unwrap_or("(not shown)");
        writeln!(f, "  {:<width$}{} ({})", self.name, printable(value), printable(&self.from))
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

impl OpenQuestion {
    fn line(&self, f: &mut fmt::Formatter<'_>, width: usize) -> fmt::Result {
        let answer = self.answer.replace('_', " ");
        write!(f, "  {:<width$}{answer}", printable(&self.words))?;
        if self.detail.is_empty() { writeln!(f) } else { writeln!(f, ": {}", printable(&self.detail)) }
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
    /// Those of them of which nobody knows whether they exist.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub perhaps_left_behind: Vec<String>,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "what this app does where the documentation leaves it open ({}):", counted(self.requests.into(), "request"))?;
        let width = width(self.questions.iter().map(|question| question.words.as_str()));
        self.questions.iter().try_for_each(|question| question.line(f, width))?;
        if self.left_behind.is_empty() {
            return writeln!(f, "nothing is left behind");
        }
        let (perhaps, surely): (Vec<&String>, Vec<&String>) = self.left_behind.iter().partition(|id| self.perhaps_left_behind.contains(id));
        for (words, ids) in [("left behind, as accounts of the app", surely), ("perhaps left behind, for an answer got lost", perhaps)] {
            if !ids.is_empty() {
                let ids: Vec<String> = ids.iter().map(|id| quoted(id.as_bytes())).collect();
                writeln!(f, "{words}: {}", ids.join(", "))?;
            }
        }
        Ok(())
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
        let names = self.checks.iter().map(|check| check.name).chain(self.settings.iter().map(|setting| setting.name));
        let width = width(names).max(NAME_WIDTH);
        for (number, check) in self.checks.iter().enumerate() {
            check.line(f, width)?;
            if number == 0 {
                self.settings.iter().try_for_each(|setting| setting.line(f, width))?;
            }
        }
        self.written.as_ref().map_or(Ok(()), |written| write!(f, "{written}"))
    }
}
