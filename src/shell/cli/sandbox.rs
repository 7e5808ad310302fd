//! `chatlift sandbox`: serves the mock service until it gets a signal.

use std::collections::HashSet;
use std::io::{self, IsTerminal};
use std::num::NonZeroU32;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;
use std::{fmt, fs};

use futures_util::StreamExt;
use rustix::process::{Pid, Signal, kill_process};
use secrecy::ExposeSecret;

use super::access::{Remedies, cannot_use, why_denied};
use super::atomic::{self, Readers};
use super::command_line::{file_word, shell_word};
use super::flags::{SandboxFlags, VariantFlag};
use super::output_paths::{ensure_file, ensure_own};
use super::outputs::{NamedOutputs, OutputKind};
use super::secret::read_secret;
use super::signals::Received;
use super::stdout::print;
use super::{fd_limit, signals};
use crate::domain::figures::counted;
use crate::sandbox::{
    Audit, BatchProfiles, CustomFields, DeletedIds, Deleting, Fault, Files, FilesError, KnownAccounts, OmittedFields, PresenceField,
    Sandbox, SandboxSettings, UnknownProfiles, UserIdCase, UserIdSpaces,
};
use crate::shell::exit::{Exit, ExitMessage};
use crate::shell::terminal::{causes, printable};

/// What runs the command beside the sandbox.
const SHELL: &str = "/bin/sh";
/// The settings with which chatlift talks to the sandbox, as the environment file has them.
const VARIABLES: [&str; 4] = ["CHATLIFT_ENDPOINT", "CHATLIFT_SDKAPPID", "CHATLIFT_IDENTIFIER", "CHATLIFT_SECRET_KEY"];
/// How often to look whether the command beside the sandbox has ended. Chosen: nobody notices it.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Serves, and prints on stdout the settings with which it can be used.
pub(super) fn run(flags: &SandboxFlags) -> ExitMessage {
    serve(flags).unwrap_or_else(|word| word)
}

fn serve(flags: &SandboxFlags) -> Result<ExitMessage, ExitMessage> {
    fd_limit::make_room_to_serve();
    judge_files(flags)?;
    let settings = settings(flags)?;
    let usage = Usage { flags, settings: settings.clone() };
    let files =
        Files::open_for(settings.user_ids, flags.accounts.as_deref(), flags.call_log.as_deref()).map_err(|error| unusable(&error))?;
    let mut sandbox = Sandbox::start_with(settings, files).map_err(|error| cannot_listen(flags.port, &error))?;
    let variables = usage.variables(&sandbox.endpoint());
    if let Some(path) = &flags.env_file {
        write_env_file(path, &variables)?;
    }
    let exit = if let Some(command) = &flags.run {
        eprintln!("serving at {} while this runs: {}", sandbox.endpoint(), printable(command));
        run_beside(command, &variables)?
    } else {
        print(&usage.at(&sandbox.endpoint()))?;
        eprintln!("serving at {}; Ctrl-C stops it", sandbox.endpoint());
        wait_for_stop().map_err(|error| cannot("wait for signals", &error))?;
        Exit::Done
    };
    sandbox.stop().map_err(|error| unwritten(&error))?;
    Ok(ExitMessage { exit, ..ExitMessage::done(told(&sandbox.audit())) })
}

/// Refuses files that are read or written again and again and are none, such as a pipe, and an environment file that is somebody's or that
/// can't be written.
fn judge_files(flags: &SandboxFlags) -> Result<(), ExitMessage> {
    for (flag, path) in [("accounts", &flags.accounts), ("call-log", &flags.call_log)] {
        // A folder is told of by whoever opens it.
        let path = path.as_deref().filter(|path| !path.is_dir());
        path.map_or(Ok(()), |path| ensure_file(path, &format!("name a file with --{flag}")))?;
    }
    let Some(path) = flags.env_file.as_deref() else { return Ok(()) };
    let others = [&flags.secret_key_file, &flags.accounts, &flags.call_log].into_iter().flatten().cloned().collect();
    NamedOutputs::beside(others).and(OutputKind::ENVIRONMENT, Some(path)).judged().all_usable()?;
    ensure_own(path, "an environment file of a sandbox", is_env_file, "name another file with --env-file")
}

/// Whether a sandbox has written these settings: one of a real app has another endpoint.
fn is_env_file(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let lines: Vec<&str> = text.lines().collect();
    let is_of = |(line, name): (&&str, &&str)| {
        line.strip_prefix("export ").and_then(|line| line.strip_prefix(name)).is_some_and(|rest| rest.starts_with('='))
    };
    let is_here = lines.first().is_some_and(|line| line.contains("http://127.0.0.1:"));
    lines.len() == VARIABLES.len() && is_here && lines.iter().zip(&VARIABLES).all(is_of)
}

/// Writes the settings for a shell, as a whole, so that whoever finds the file can use it.
fn write_env_file(path: &Path, variables: &[(&str, String)]) -> Result<(), ExitMessage> {
    let lines: Vec<String> = variables.iter().map(|(name, value)| format!("export {name}={}\n", shell_word(value))).collect();
    atomic::write(path, Readers::Owner, |out| out.write_all(lines.concat().as_bytes())).map_err(|error| {
        let why = format!("cannot write the environment file {}: {error}{}", path.display(), why_denied(path, &error));
        cannot_use(why, &error, Remedies { place: "name another with --env-file", disk: "make room there" })
    })
}

/// Runs a command in a shell with these settings in its environment, and waits for its end.
fn run_beside(command: &str, variables: &[(&str, String)]) -> Result<Exit, ExitMessage> {
    // Signals are passed on, and the sandbox serves until the command has ended.
    let _stops = signals::stops();
    let mut shell = Command::new(SHELL);
    shell.args(["-c", command]);
    // They would lead past the sandbox.
    for name in ["CHATLIFT_REGION", "CHATLIFT_USERSIG", "CHATLIFT_PROXY"] {
        shell.env_remove(name);
    }
    let failed = |error: std::io::Error| ExitMessage::new(Exit::Fatal, format!("cannot run {command:?}: {error}"), "check the command");
    let mut child = shell.envs(variables.iter().map(|(name, value)| (name, value))).spawn().map_err(failed)?;
    let mut told = HashSet::new();
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Ok(code.map_or(Exit::Stopped, Exit::of_program));
        }
        if signals::first().is_some_and(|received| !reaches_all(received)) {
            for process in at_work(&child) {
                if told.insert(process) {
                    // If it has just ended, the next look finds out.
                    let _ = kill_process(process, Signal::TERM);
                }
            }
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
}

/// Whether the command has got the signal, too.
fn reaches_all(received: Received) -> bool {
    received == Received::Interrupt && io::stdin().is_terminal()
}

/// What the shell waits for, or the program that has taken its place. The shell itself would end at once and leave the command alone.
fn at_work(shell: &Child) -> Vec<Pid> {
    let number = shell.id();
    let proc = Path::new("/proc").join(number.to_string());
    let is_shell = fs::read_link(proc.join("exe")).is_ok_and(|exe| fs::canonicalize(SHELL).is_ok_and(|shell| shell == exe));
    let children = fs::read_to_string(proc.join(format!("task/{number}/children"))).unwrap_or_default();
    let children: Vec<Pid> = children.split_whitespace().filter_map(|number| Pid::from_raw(number.parse().ok()?)).collect();
    if is_shell && !children.is_empty() { children } else { vec![Pid::from_child(shell)] }
}

fn unusable(error: &FilesError) -> ExitMessage {
    let why = causes(error);
    match error {
        FilesError::Io { path, source, .. } => {
            let place = "--accounts and --call-log need files that you may read and write, in a folder that is there";
            let disk = "make room on the disk or repair it, then give the same command again; no account is lost";
            cannot_use(format!("{why}{}", why_denied(path, source)), source, Remedies { place, disk })
        }
        FilesError::InUse(_) => ExitMessage::yours(why, "stop the other one, or give --accounts another file"),
        FilesError::Wrong { .. } => ExitMessage::yours(
            why,
            "--accounts takes a CSV with the columns UserID, Nick and FaceUrl, and those of profile fields (Tag_Profile_…); its .log is the sandbox's own",
        ),
        FilesError::NoCallLog(_) => ExitMessage::yours(why, "--call-log appends to a log of its own; give it another file"),
    }
}

fn unwritten(error: &FilesError) -> ExitMessage {
    let hint = "from then on requests were answered with HTTP 500; what was answered before is kept and read by the next start";
    ExitMessage::new(Exit::Fatal, causes(error), hint)
}

fn cannot(what: &str, error: &std::io::Error) -> ExitMessage {
    ExitMessage::new(Exit::Fatal, format!("cannot {what}: {error}"), "check that the port is free, or leave --port out")
}

/// A port that is taken, or that this user may not have, is the caller's to change.
fn cannot_listen(port: u16, error: &io::Error) -> ExitMessage {
    match error.kind() {
        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => {
            let why = format!("cannot listen on 127.0.0.1:{port}: {error}");
            ExitMessage::yours(why, "name another port with --port, or leave it out for a free one")
        }
        _ => cannot("serve", error),
    }
}

fn settings(flags: &SandboxFlags) -> Result<SandboxSettings, ExitMessage> {
    let mut settings = match &flags.secret_key_file {
        Some(path) => SandboxSettings::with_key(read_secret(path)?),
        None => SandboxSettings::ephemeral().map_err(|error| cannot("make a key", &error))?,
    };
    settings.port = flags.port;
    settings.sdkappid = flags.sdkappid;
    settings.identifier.clone_from(&flags.identifier);
    settings.limit_per_s = NonZeroU32::new(flags.rate_limit);
    settings.counting = flags.limiter;
    settings.others_per_s = flags.others;
    settings.latency = flags.latency;
    settings.jitter = flags.jitter;
    settings.account_limit = flags.account_limit;
    settings.deleting = if flags.deletion_off { Deleting::SwitchedOff } else { Deleting::SwitchedOn };
    settings.deleted_ids = if flags.deleted_ids_barred { DeletedIds::Barred } else { DeletedIds::MayReturn };
    settings.unknown_profiles = if flags.portrait_get_omits_unknown { UnknownProfiles::Absent } else { UnknownProfiles::NotFound };
    settings.custom_fields = CustomFields::These(flags.custom_field.clone());
    settings.portrait_set_per_s = NonZeroU32::new(flags.profile_limit);
    settings.online = presences(flags)?;
    settings.batch_profiles = if flags.batch_drops_profiles { BatchProfiles::Dropped } else { BatchProfiles::Kept };
    flags.variant.iter().for_each(|variant| vary(&mut settings, *variant));
    settings.faults = flags.fault.iter().map(|text| fault(text)).collect::<Result<_, _>>()?;
    Ok(settings)
}

/// Lets the sandbox do otherwise what the documentation leaves open.
const fn vary(settings: &mut SandboxSettings, variant: VariantFlag) {
    match variant {
        VariantFlag::KeepsAccounts => settings.known_accounts = KnownAccounts::Unchanged,
        VariantFlag::ClearsOmitted => settings.omitted_fields = OmittedFields::Cleared,
        VariantFlag::IgnoresCase => settings.user_ids.case = UserIdCase::Ignored,
        VariantFlag::TakesSpaces => settings.user_ids.spaces = UserIdSpaces::Taken,
        VariantFlag::CutsSpaces => settings.user_ids.spaces = UserIdSpaces::CutOff,
    }
}

fn presences(flags: &SandboxFlags) -> Result<Vec<(String, PresenceField)>, ExitMessage> {
    if let Some(both) = flags.online.iter().find(|id| flags.push_online.contains(id)) {
        return Err(ExitMessage::yours(format!("{both} is given with --online and --push-online"), "leave one of them out"));
    }
    let online = flags.online.iter().map(|id| (id.clone(), PresenceField::Online));
    Ok(online.chain(flags.push_online.iter().map(|id| (id.clone(), PresenceField::PushOnline))).collect())
}

fn fault(text: &str) -> Result<Fault, ExitMessage> {
    text.parse().map_err(|error| ExitMessage::yours(format!("--fault {text}: {error}"), "chatlift sandbox --help has examples"))
}

fn wait_for_stop() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        signals::stops().next().await;
        Ok(())
    })
}

/// The environment in which chatlift talks to the sandbox, ready for a shell.
struct Usage<'a> {
    flags: &'a SandboxFlags,
    settings: SandboxSettings,
}

impl Usage<'_> {
    /// The environment in which chatlift talks to the sandbox at this address.
    fn variables(&self, endpoint: &str) -> [(&'static str, String); 4] {
        let SandboxSettings { sdkappid, identifier, key, .. } = &self.settings;
        let [of_endpoint, of_app, of_identifier, of_key] = VARIABLES;
        [
            (of_endpoint, endpoint.to_owned()),
            (of_app, sdkappid.to_string()),
            (of_identifier, identifier.clone()),
            (of_key, key.expose_secret().to_owned()),
        ]
    }

    fn at(&self, endpoint: &str) -> impl fmt::Display {
        let SandboxSettings { sdkappid, identifier, key, .. } = &self.settings;
        let credential = match &self.flags.secret_key_file {
            Some(path) => format!("# chatlift import FILE --secret-key-file {}", file_word(path)),
            None => format!("export CHATLIFT_SECRET_KEY={}", shell_word(key.expose_secret())),
        };
        format!(
            "export CHATLIFT_ENDPOINT={endpoint}\nexport CHATLIFT_SDKAPPID={sdkappid}\nexport CHATLIFT_IDENTIFIER={}\n{credential}\n",
            shell_word(identifier)
        )
    }
}

fn told(audit: &Audit) -> String {
    let pace =
        audit.apis.iter().map(|(api, seen)| format!("{api} at most {} in any second", counted(seen.max_calls_in_1s as u64, "request")));
    let parts = [counted(audit.calls, "request"), counted(audit.accounts as u64, "account"), counted(audit.violations, "violation")];
    parts.into_iter().chain(pace).collect::<Vec<_>>().join(", ")
}
