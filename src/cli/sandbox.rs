//! `chatlift sandbox`: serves the stand-in until a signal comes.

use std::fmt;
use std::num::NonZeroU32;

use futures_util::StreamExt;
use secrecy::ExposeSecret;

use super::exit::{Exit, LastWord};
use super::flags::SandboxFlags;
use super::settings::read_secret;
use super::signals;
use super::stdout::print;
use crate::figures::{count, counted};
use crate::sandbox::{Audit, BatchProfiles, Fault, Sandbox, Settings};

/// Serves, and says on stdout with which settings it can be used.
pub(super) fn run(flags: &SandboxFlags) -> LastWord {
    serve(flags).unwrap_or_else(|word| word)
}

fn serve(flags: &SandboxFlags) -> Result<LastWord, LastWord> {
    let settings = settings(flags)?;
    let usage = Usage { flags, settings: settings.clone() };
    let sandbox = Sandbox::start(settings).map_err(|error| cannot("serve", &error))?;
    print(&usage.at(&sandbox.endpoint()))?;
    eprintln!("serving at {}; Ctrl-C stops it", sandbox.endpoint());
    wait_for_stop().map_err(|error| cannot("wait for signals", &error))?;
    Ok(LastWord::done(told(&sandbox.audit())))
}

fn cannot(what: &str, error: &std::io::Error) -> LastWord {
    LastWord::new(Exit::CannotGoOn, format!("cannot {what}: {error}"), "check that the port is free, or leave --port out")
}

fn settings(flags: &SandboxFlags) -> Result<Settings, LastWord> {
    let mut settings = match &flags.secret_key_file {
        Some(path) => Settings::with_key(read_secret(path)?),
        None => Settings::ephemeral().map_err(|error| cannot("make a key", &error))?,
    };
    settings.port = flags.port;
    settings.sdkappid = flags.sdkappid;
    settings.identifier.clone_from(&flags.identifier);
    settings.limit_per_s = NonZeroU32::new(flags.limit);
    settings.latency = flags.latency;
    settings.jitter = flags.jitter;
    settings.account_limit = flags.account_limit;
    settings.batch_profiles = if flags.batch_drops_profiles { BatchProfiles::Dropped } else { BatchProfiles::Kept };
    settings.faults = flags.fault.iter().map(|text| fault(text)).collect::<Result<_, _>>()?;
    Ok(settings)
}

fn fault(text: &str) -> Result<Fault, LastWord> {
    text.parse().map_err(|error| LastWord::yours(format!("--fault {text}: {error}"), "chatlift sandbox --help has examples"))
}

fn wait_for_stop() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        signals::stops()?.next().await;
        Ok(())
    })
}

/// The environment in which chatlift talks to the sandbox, ready for a shell.
struct Usage<'a> {
    flags: &'a SandboxFlags,
    settings: Settings,
}

impl Usage<'_> {
    fn at(&self, endpoint: &str) -> impl fmt::Display {
        let Settings { sdkappid, identifier, key, .. } = &self.settings;
        let credential = match &self.flags.secret_key_file {
            Some(path) => format!("# chatlift import FILE --secret-key-file {}", path.display()),
            None => format!("export CHATLIFT_SECRET_KEY={}", key.expose_secret()),
        };
        format!(
            "export CHATLIFT_ENDPOINT={endpoint}\nexport CHATLIFT_SDKAPPID={sdkappid}\nexport CHATLIFT_IDENTIFIER={identifier}\n{credential}\n"
        )
    }
}

fn told(audit: &Audit) -> String {
    let pace = audit.apis.iter().map(|(api, seen)| format!("{api} at most {} calls in any second", count(seen.max_calls_in_1s as u64)));
    let parts = [counted(audit.calls, "call"), counted(audit.accounts as u64, "account"), counted(audit.violations, "violation")];
    parts.into_iter().chain(pace).collect::<Vec<_>>().join(", ")
}
