//! What a probe has found, in lines for people and as JSON for machines.

use std::fmt;

use serde::Serialize;

use crate::shell::exit::Exit;
use crate::shell::terminal::printable;

/// Column in which the words of a line begin: the longest name and two spaces.
const NAME_WIDTH: usize = 15;

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

/// All that a probe has found.
#[derive(Debug, Clone, Default)]
pub struct Probed {
    pub settings: Vec<SettingSource>,
    pub checks: Vec<Check>,
}

#[derive(Serialize)]
struct ProbedJson<'a> {
    exit_code: u8,
    outcome: &'static str,
    checks: &'a [Check],
    settings: &'a [SettingSource],
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
        let json = ProbedJson { exit_code: exit.code(), outcome: exit.outcome(), checks: &self.checks, settings: &self.settings };
        let mut text = serde_json::to_string_pretty(&json).expect("its keys are text, and no writer can fail");
        text.push('\n');
        text
    }
}

impl fmt::Display for Probed {
    /// A line for each check, the settings below the first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, check) in self.checks.iter().enumerate() {
            writeln!(f, "{check}")?;
            if number == 0 {
                self.settings.iter().try_for_each(|setting| writeln!(f, "{setting}"))?;
            }
        }
        Ok(())
    }
}
