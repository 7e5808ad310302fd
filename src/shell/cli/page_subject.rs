//! What the page of a command is about: its files, and the commands to go on with.

use std::path::{Path, PathBuf};

use super::command_line::CommandLine;
use super::flags::{ImportFlags, RunFlags, SyncFlags, VerifyFlags};
use super::input;
use super::page::ResultsOfRun;
use crate::io::journal::paths::{RunPaths, beside};
use crate::shell::page::{Needs, NextCommand, PageFile, Subject, WhenWritten};

pub(super) fn of_import(flags: &ImportFlags, job: &str) -> (Subject, ResultsOfRun) {
    of_run(("import", job), &flags.run, flags.state.as_deref(), None)
}

pub(super) fn of_sync(flags: &SyncFlags, job: &str) -> (Subject, ResultsOfRun) {
    of_run(("sync", job), &flags.run, Some(&flags.state), flags.plan.as_deref())
}

fn of_run((command, job): (&'static str, &str), flags: &RunFlags, state: Option<&Path>, plan: Option<&Path>) -> (Subject, ResultsOfRun) {
    let paths = flags.files.paths(&flags.input.file);
    let own =
        [("results", &paths.results), ("rejects", &paths.rejects), ("missing accounts", &paths.missing), ("checkpoint", &paths.checkpoint)];
    let own = own.map(|(what, path)| (what, WhenWritten::OnceBegun, Some(path.as_path())));
    let further =
        [("state", state), ("plan", plan), ("summary", flags.summary.as_deref()), ("metrics", flags.ending.metrics_file.as_deref())];
    let further = further.map(|(what, path)| (what, WhenWritten::Always, path));
    let files = files(&flags.input.file, own.into_iter().chain(further));
    let subject =
        Subject { command, job: job.to_owned(), input: input::shown(&flags.input.file), files, commands: commands(command, flags, &paths) };
    (subject, ResultsOfRun { results: paths.results.clone(), run: Some(paths) })
}

fn commands(command: &str, flags: &RunFlags, paths: &RunPaths) -> Vec<NextCommand> {
    let file = &flags.input.file;
    if input::is_stream(file) {
        return Vec::new();
    }
    let files = &flags.files;
    let named = [("results", &files.results), ("rejects", &files.rejects), ("checkpoint", &files.checkpoint)];
    let status = named.into_iter().fold(CommandLine::new("status").file(file), |line, (name, path)| match path {
        Some(path) => line.with(name, path),
        None => line,
    });
    let next = |what, line: CommandLine, needs| NextCommand { what, command: line.to_string(), needs };
    let mut commands = vec![next("Show where the run stands", status, Needs::Checkpoint(paths.clone()))];
    if command == "import" {
        let audit = CommandLine::new("audit").file(file).with("results", &paths.results).reading(&flags.input);
        commands.push(next("Prove that every row has one result", audit, Needs::Results(paths.results.clone())));
    }
    let verify = CommandLine::new("verify").file(file).plain("--profiles").reading(&flags.input).connection(&flags.connection);
    commands.push(next("Ask the service whether it has what the file says", verify, Needs::AcceptedRows));
    commands
}

pub(super) fn of_verify(flags: &VerifyFlags, job: &str) -> (Subject, ResultsOfRun) {
    let file = &flags.input.file;
    let named = |given: &Option<PathBuf>, ending: &str| given.clone().unwrap_or_else(|| beside(file, ending));
    let (results, repair) = (named(&flags.results, ".verify.csv"), named(&flags.repair, ".repair.csv"));
    let own = [
        ("results", WhenWritten::OnceBegun, Some(results.as_path())),
        ("rows to repair", WhenWritten::OnceBegun, Some(repair.as_path())),
        ("state", WhenWritten::Always, flags.state.as_deref()),
        ("summary", WhenWritten::Always, flags.summary.as_deref()),
        ("metrics", WhenWritten::Always, flags.ending.metrics_file.as_deref()),
    ];
    let files = files(file, own);
    let subject = Subject { command: "verify", job: job.to_owned(), input: input::shown(file), files, commands: Vec::new() };
    (subject, ResultsOfRun { results, run: None })
}

fn files<'a>(input: &Path, others: impl IntoIterator<Item = (&'static str, WhenWritten, Option<&'a Path>)>) -> Vec<PageFile> {
    let input = (!input::is_stdin(input)).then(|| PageFile { what: "input", path: input.to_owned(), written: WhenWritten::Always });
    let others = others.into_iter().filter_map(|(what, written, path)| Some(PageFile { what, path: path?.to_owned(), written }));
    input.into_iter().chain(others).collect()
}
