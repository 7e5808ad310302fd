//! `chatlift probe`: is everything right for a run? A line for each thing, and what helps where it isn't.

mod file;
mod sources;
mod write;

use std::num::NonZeroU32;
use std::path::Path;
use std::time::{Duration, SystemTime};

use reqwest::Url;

use super::access::{Remedies, cannot_use, why_denied};
use super::atomic::{self, Readers};
use super::client::{SandboxLimits, ServiceClient, build_client};
use super::environment;
use super::flags::ProbeFlags;
use super::reach::Reach;
use super::run;
use super::settings::{Connection, ServiceAddress};
use super::stdout::print;
use crate::domain::call_stats::CallStats;
use crate::domain::command::{Command, PerCommand};
use crate::domain::figures;
use crate::domain::halt_reason::HaltReason;
use crate::domain::verdict::{self, CallOutcome, CallSize, CertificateFlaw, SuccessSeen, Verdict};
use crate::flow::probe::{self, Peer, WriteProbe};
use crate::io::api::usersig::Credential;
use crate::io::api::wire::{ACCOUNT_IMPORT_CALLS_PER_S, ACCOUNTS_PER_CALL, BATCH_CALLS_PER_S};
use crate::io::gate::{Headroom, Rate};
use crate::io::quota::{Quota, Ticket};
use crate::shell::exit::{Exit, ExitMessage};
use crate::shell::screen::probed::{Check, Probed};

/// How far this machine's clock may be off. Chosen: a signature is made for a day, and its start is not judged to the second.
const CLOCK_OFF_MAX: Duration = Duration::from_secs(120);
/// Longest wait for a slot of a shared quota. Chosen: one that is new is closed for a second and a half.
const QUOTA_MAX: Duration = Duration::from_secs(3);
/// Rows of the forecast. Chosen: a large migration.
const FORECAST_ROWS: u64 = 1_000_000;
/// What the last word says of everything that the probe itself can't mend.
const AGAIN: &str = "then probe again";

/// Looks at everything, and prints it.
pub(super) fn run(flags: &ProbeFlags) -> ExitMessage {
    let writes = match write::planned(flags) {
        Ok(writes) => writes,
        Err(word) => return word,
    };
    if let Err(word) = file::judge(flags) {
        return word;
    }
    let mut probed = Probed { settings: sources::list(&flags.connection, &environment), ..Probed::default() };
    let looked = look(flags, writes.as_ref(), &mut probed);
    match (looked, shown(flags.json.as_deref(), &probed)) {
        (Err(word), _) | (Ok(()), Err(word)) => word,
        (Ok(()), Ok(())) => last_word(&probed),
    }
}

/// Prints what was found, and writes it as JSON if that is wanted.
fn shown(json: Option<&Path>, probed: &Probed) -> Result<(), ExitMessage> {
    let Some(path) = json else { return print(probed) };
    if path == Path::new("-") {
        return print(&probed.to_json());
    }
    print(probed)?;
    atomic::write(path, Readers::Owner, |out| out.write_all(probed.to_json().as_bytes())).map_err(|error| {
        let why = format!("cannot write {}: {error}{}", path.display(), why_denied(path, &error));
        cannot_use(why, &error, Remedies { place: "name another file with --json; what was found stands above", disk: "make room there" })
    })
}

fn last_word(probed: &Probed) -> ExitMessage {
    match (probed.first_bad(), &probed.written) {
        (None, None) => {
            ExitMessage::new(Exit::Done, "everything is right for a run", "import with --limit 100 first, and look at the results")
        }
        (None, Some(written)) => write::last_word(written),
        (Some(Check { exit, name, found, remedy, .. }), _) => {
            ExitMessage::new(*exit, format!("{name}: {found}"), remedy.clone().unwrap_or_else(|| AGAIN.to_owned()))
        }
    }
}

/// Goes through everything until something is not as it should be. An error is the machine's, or says that nothing is wanted after all.
fn look(flags: &ProbeFlags, writes: Option<&WriteProbe>, probed: &mut Probed) -> Result<(), ExitMessage> {
    let made = Connection::resolve(&flags.connection, &environment).and_then(|connection| {
        let limit = connection.rate.unwrap_or(Rate::PerSecond(ACCOUNT_IMPORT_CALLS_PER_S));
        Ok((build_client(&connection, SandboxLimits { imports: limit, profiles: limit })?, connection))
    });
    let (client, connection) = match made {
        Ok(made) => made,
        Err(word) => {
            probed.checks.push(Check::bad("configuration", word.exit, word.why, word.hint.unwrap_or_default()));
            return Ok(());
        }
    };
    probed.checks.push(Check::good("configuration", format!("for {}", client.target)));
    let writes = writes.map(|probe| write::agreed(probe, flags, &connection)).transpose()?;
    let runtime = run::runtime("probe again")?;
    let steps = Steps { connection: &connection, client: &client };
    runtime.block_on(async {
        steps.take(&mut probed.checks).await;
        if probed.first_bad().is_none() {
            probed.checks.push(cost(connection.rate));
            if let Some(probe) = writes {
                steps.write(&probe, probed).await;
            }
        }
    });
    // A look-up of a name that is still under way holds up nobody.
    runtime.shutdown_background();
    Ok(())
}

/// What is done over the network.
struct Steps<'a> {
    connection: &'a Connection,
    client: &'a ServiceClient,
}

impl Steps<'_> {
    async fn take(&self, checks: &mut Vec<Check>) {
        let through = self.connection.proxy().map(|proxy| &proxy.address);
        let place = place(through.unwrap_or(&self.client.endpoint));
        let name = if through.is_some() { "proxy name" } else { "host name" };
        let addresses = match place.look_up().await {
            Ok(addresses) => addresses,
            Err(error) => return checks.push(self.unreached(name, format!("{} is not found: {error}", place.host))),
        };
        let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
        checks.push(Check::good(name, format!("{}: {}", place.host, shown.join(", "))));
        match place.connect(&addresses).await {
            Ok(address) => checks.push(Check::good("TCP", format!("{address} takes connections"))),
            Err(error) => return checks.push(self.unreached("TCP", format!("{} port {}: {error}", place.host, place.port))),
        }
        // The quota takes part until the request has its answer.
        let (_quota, slot) = match self.slot().await {
            Ok(slot) => slot.unzip(),
            Err(bad) => return checks.push(bad),
        };
        let mut signer = self.client.signer();
        let outcome = probe::ask(&*self.client.api, &mut signer, &self.client.admin(), slot).await;
        checks.push(self.tls(&outcome));
        if checks.iter().all(|check| check.ok) {
            let answered_at = self.client.api.last_date();
            checks.extend(answered_at.map(|date| clock(date, SystemTime::now())));
            checks.push(self.answer(Command::AccountCheck.name(), outcome));
        }
    }

    /// The slot of the request, if the limit is shared.
    async fn slot(&self) -> Result<Option<(Quota, Ticket)>, Check> {
        let Some(settings) = &self.client.quota else { return Ok(None) };
        let quota = Quota::start(settings, &PerCommand::new(|_| 1), Headroom::DEFAULT.in_percent());
        let slot = quota.ticket(Command::AccountCheck, QUOTA_MAX).await;
        let slot = slot.map_err(|why| {
            let found = format!("no request may leave: {why}");
            Check::bad("quota", Exit::Stopped, found, format!("look at the server {}; {AGAIN}", settings.store))
        })?;
        Ok(Some((quota, slot)))
    }

    /// A check that found nobody there.
    fn unreached(&self, name: &'static str, found: String) -> Check {
        let reach = Reach::new(self.connection, &environment, tokio::time::Instant::now());
        let advice = reach.advice_on(&CallStats::default()).unwrap_or_default().to_owned();
        Check::bad(name, Exit::Stopped, found, advice)
    }

    fn tls(&self, outcome: &CallOutcome) -> Check {
        match outcome {
            CallOutcome::Untrusted { why, flaw } => {
                let reason = match flaw {
                    CertificateFlaw::Name => HaltReason::WrongName,
                    CertificateFlaw::Other => HaltReason::Untrusted,
                };
                Check::bad("TLS", Exit::Refused, format!("the certificate is not trusted: {why}"), reason.hint())
            }
            CallOutcome::Unreached { why } => self.unreached("TLS", format!("no connection: {why}")),
            CallOutcome::ProxyRefused { status } => {
                let reason = if *status == 407 { HaltReason::ProxyPassword } else { HaltReason::ProxyForbids };
                Check::bad("proxy", reason.class().into(), format!("the proxy answers {status}"), reason.hint())
            }
            _ if self.client.endpoint.scheme() == "http" => Check::good("TLS", "not used: the service is on this machine"),
            CallOutcome::Done(_)
            | CallOutcome::Refused { .. }
            | CallOutcome::Lost { .. }
            | CallOutcome::TooMany
            | CallOutcome::Redirected { .. } => Check::good("TLS", trusted(self.client.api.certificate_ends())),
        }
    }

    /// What the service says of signature, app, region and permission.
    fn answer(&self, name: &'static str, outcome: CallOutcome) -> Check {
        let judged = verdict::judge(&outcome, SuccessSeen::NotYet, CallSize::One);
        if judged == Verdict::Accepted {
            let identifier = self.connection.identifier();
            return Check::good(name, format!("the service accepts signature, app and region, and {identifier} may call it"));
        }
        let (code, says) = verdict::words(outcome);
        let code = code.map_or_else(String::new, |code| format!("code {code}: "));
        let refused = |reason: HaltReason| {
            let details = if says.is_empty() { String::new() } else { format!(" ({code}{says})") };
            Check::bad(name, reason.class().into(), format!("{reason}{details}"), reason.hint())
        };
        let says_briefly = if says == "no answer in time" { "time-out" } else { says.as_str() };
        let later = |why: &str| Check::bad(name, Exit::Stopped, format!("{why} ({code}{says_briefly})"), "probe again in a minute");
        match judged {
            Verdict::Abort(reason) => refused(reason),
            Verdict::Reauthenticate => refused(self.signature_refused()),
            Verdict::Throttle(_) => later("the service is called too fast by others"),
            Verdict::Retry | Verdict::ConnectFailed => later("no valid answer"),
            Verdict::Accepted | Verdict::Reject | Verdict::Unknown => {
                let hint = "look the code up in Tencent's list of error codes, or ask its support";
                Check::bad(name, Exit::Stopped, format!("the service refuses the request ({code}{says})"), hint)
            }
        }
    }

    const fn signature_refused(&self) -> HaltReason {
        match &self.connection.service {
            ServiceAddress::Remote { identity, .. } if matches!(identity.credential, Credential::Ready(_)) => HaltReason::FixedSignature,
            ServiceAddress::Remote { .. } | ServiceAddress::Sandbox => HaltReason::Signature,
        }
    }
}

/// What is said of a certificate that is trusted, and valid until then.
fn trusted(ends: Option<SystemTime>) -> String {
    let left = ends.map(|ends| (ends, ends.duration_since(SystemTime::now()).unwrap_or_default()));
    left.map_or_else(
        || "the certificate is trusted".to_owned(),
        |(ends, left)| format!("the certificate is trusted, and valid until {} (for {})", day(ends), figures::duration(left)),
    )
}

/// The day of a time, in UTC.
fn day(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string().chars().take("2000-01-01".len()).collect()
}

fn place(url: &Url) -> Peer {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    Peer { host, port: url.port_or_known_default().unwrap_or_default() }
}

/// Compares the clocks; the service's says whole seconds.
fn clock(service: SystemTime, own: SystemTime) -> Check {
    let (off, word) = match own.duration_since(service) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    if off <= CLOCK_OFF_MAX {
        return Check::good("clock", "this machine's clock agrees with the service's");
    }
    let found = format!("this machine's clock is {} {word} the service's", figures::duration(off));
    Check::bad("clock", Exit::UserError, found, "set it (timedatectl set-ntp true): signatures are judged by it")
}

/// What a run costs at this rate.
fn cost(rate: Option<Rate>) -> Check {
    const NAME: &str = "cost";
    let single = match rate {
        Some(Rate::Unlimited) => return Check::good(NAME, "this probe: 1 request; a run has no rate limit here"),
        Some(Rate::PerSecond(rate)) => rate,
        None => ACCOUNT_IMPORT_CALLS_PER_S,
    };
    let batch = single.min(BATCH_CALLS_PER_S);
    let lasts = |calls: u64, rate: NonZeroU32| figures::duration(Duration::from_secs(calls.div_ceil(u64::from(rate.get()))));
    let rows = figures::count(FORECAST_ROWS);
    let (one_by_one, in_batches) = (lasts(FORECAST_ROWS, single), lasts(FORECAST_ROWS.div_ceil(ACCOUNTS_PER_CALL as u64), batch));
    Check::good(
        NAME,
        format!(
            "this probe: 1 request; {rows} rows take {one_by_one} at {single}/s, or {in_batches} with --batch at {batch}/s; \
             others of the app use the same limit"
        ),
    )
}
