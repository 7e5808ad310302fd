//! The settings of a sandbox.

use std::fmt::Write;
use std::io;
use std::num::NonZeroU32;
use std::time::Duration;

use secrecy::SecretString;

use super::fault::Fault;
use super::limiter::Counting;
use crate::io::api::wire;

/// The app that the sandbox plays unless told otherwise; Tencent's own examples use this number.
pub const SDKAPPID: u64 = 1_400_000_000;
/// Its administrator unless told otherwise; the default of a new app.
pub const IDENTIFIER: &str = "administrator";

/// How the sandbox behaves.
#[derive(Debug, Clone)]
pub struct SandboxSettings {
    /// Port on 127.0.0.1; 0 = any free one.
    pub port: u16,
    pub sdkappid: u64,
    /// The app's administrator.
    pub identifier: String,
    /// The app's SecretKey.
    pub key: SecretString,
    /// Calls of `account_import` in any sliding second before it answers 60007; `None` lifts the limits of all commands.
    pub limit_per_s: Option<NonZeroU32>,
    /// How calls are counted against the limits.
    pub counting: Counting,
    /// Calls a second that others of the app make to each API.
    pub others_per_s: u32,
    /// Time that every answer takes.
    pub latency: Duration,
    /// The latency varies by up to this much in both directions, uniformly.
    pub jitter: Duration,
    /// Accounts that the app may hold; needs [`Keep::Accounts`].
    pub account_limit: Option<usize>,
    /// The first one that applies to a call is applied.
    pub faults: Vec<Fault>,
    pub keep: Keep,
    pub deleting: Deleting,
    pub deleted_ids: DeletedIds,
    pub batch_profiles: BatchProfiles,
    pub unknown_profiles: UnknownProfiles,
    /// Who is online at the start, by UserID; everybody else is offline.
    pub online: Vec<(String, PresenceField)>,
    /// Seeds the jitter and the choice of ids for faults.
    pub seed: u64,
    /// Arrival times that the audit keeps for each command.
    pub arrivals_kept: usize,
    /// Touches of users that are kept, from the first one on.
    pub touches_kept: usize,
}

/// What is kept of imported accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    Accounts,
    /// Only their number: memory stays flat whatever is imported.
    Nothing,
}

/// Whether accounts can be deleted, which a real app's console must switch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleting {
    SwitchedOn,
    SwitchedOff,
}

/// Whether an account that was deleted can be imported again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeletedIds {
    MayReturn,
    /// 70399, as on paid plans for three months; here for good.
    Barred,
}

/// How `portrait_get` answers for an unknown user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownProfiles {
    /// An item of `@TLS#NOT_FOUND` with 40003.
    NotFound,
    /// No item.
    Absent,
}

/// How a user is online.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PresenceField {
    Online,
    /// In the background, within reach of a push.
    PushOnline,
}

impl PresenceField {
    /// The word of `query_online_status`.
    #[must_use]
    pub const fn status(self) -> &'static str {
        match self {
            PresenceField::Online => "Online",
            PresenceField::PushOnline => "PushOnline",
        }
    }
}

/// What becomes of the nicknames and faces that a batch carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchProfiles {
    Kept,
    Dropped,
}

impl SandboxSettings {
    /// A sandbox on a free port with a fresh random key and the documented limits.
    ///
    /// # Errors
    /// When the machine has no source of random numbers.
    pub fn ephemeral() -> io::Result<Self> {
        Ok(Self::with_key(fresh_key()?))
    }

    /// As [`Self::ephemeral`], with a given key.
    #[must_use]
    pub fn with_key(key: SecretString) -> Self {
        Self {
            port: 0,
            sdkappid: SDKAPPID,
            identifier: IDENTIFIER.to_owned(),
            key,
            limit_per_s: Some(wire::ACCOUNT_IMPORT_CALLS_PER_S),
            counting: Counting::Sliding,
            others_per_s: 0,
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            account_limit: None,
            faults: Vec::new(),
            keep: Keep::Accounts,
            deleting: Deleting::SwitchedOn,
            deleted_ids: DeletedIds::MayReturn,
            batch_profiles: BatchProfiles::Kept,
            unknown_profiles: UnknownProfiles::NotFound,
            online: Vec::new(),
            seed: 0,
            arrivals_kept: 0,
            touches_kept: 0,
        }
    }
}

/// 64 hexadecimal digits, as a real SecretKey.
fn fresh_key() -> io::Result<SecretString> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|_| io::Error::other("no source of random numbers"))?;
    let mut key = String::with_capacity(64);
    for byte in bytes {
        write!(key, "{byte:02x}").map_err(io::Error::other)?;
    }
    Ok(key.into())
}
