//! The settings of a sandbox.

use std::fmt::Write;
use std::io;
use std::num::NonZeroU32;
use std::time::Duration;

use secrecy::SecretString;

use super::fault::Fault;
use super::limiter::Counting;
use super::user_ids::UserIdRules;
use crate::io::api::wire;

/// The default SDKAppID; Tencent's own examples use this number.
pub const SDKAPPID: u64 = 1_400_000_000;
/// How long a request may take to arrive. Chosen: clients keep connections for less.
const REQUEST_MAX: Duration = Duration::from_secs(75);
/// The default administrator, as in a new app.
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
    /// Requests of `account_import` in any sliding second before it answers 60007; `None` lifts the limits of all commands.
    pub limit_per_s: Option<NonZeroU32>,
    /// How requests are counted against the limits.
    pub counting: Counting,
    /// Requests per second that other programs of the app send to each API.
    pub others_per_s: u32,
    /// Time that every answer takes.
    pub latency: Duration,
    /// The latency varies by up to this much in both directions, uniformly.
    pub jitter: Duration,
    /// Accounts that the app may have; needs [`Keep::Accounts`].
    pub account_limit: Option<usize>,
    /// If several faults apply to a request, the first one is injected.
    pub faults: Vec<Fault>,
    pub keep: Keep,
    pub deleting: Deleting,
    pub deleted_ids: DeletedIds,
    pub batch_profiles: BatchProfiles,
    pub unknown_profiles: UnknownProfiles,
    pub known_accounts: KnownAccounts,
    pub omitted_fields: OmittedFields,
    pub user_ids: UserIdRules,
    /// A profile has these besides the standard fields; another one is refused with 40009.
    pub custom_fields: CustomFields,
    /// Requests of `portrait_set` in any sliding second before it answers 60007; `None` for no limit. Source of the default: the
    /// documentation; more can be bought.
    pub portrait_set_per_s: Option<NonZeroU32>,
    /// The users who are online at the start, by UserID; all others are offline.
    pub online: Vec<(String, PresenceField)>,
    /// Seeds the jitter and the choice of ids for faults.
    pub seed: u64,
    /// Arrival times that the audit keeps for each command.
    pub arrivals_kept: usize,
    /// Entries of the call log that are kept in memory, from the first one on.
    pub call_log_kept: usize,
    /// How long a request may take to arrive, from its first byte, or from the answer before it.
    pub request_max: Duration,
}

/// The part of imported accounts that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    Accounts,
    /// Only counters, so memory stays constant.
    Nothing,
}

/// Whether accounts can be deleted, which a real app's console must switch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleting {
    SwitchedOn,
    SwitchedOff,
}

/// Whether a deleted account can be imported again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeletedIds {
    MayReturn,
    /// The import answers 70399. Paid plans do so for three months; here it is permanent.
    Barred,
}

/// How `portrait_get` answers for an unknown user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownProfiles {
    /// It returns an item of `@TLS#NOT_FOUND` with 40003.
    NotFound,
    /// It returns no item.
    Absent,
}

/// The presence of a user who is online.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PresenceField {
    Online,
    /// In the background, reachable by push.
    PushOnline,
}

impl PresenceField {
    /// The word that `query_online_status` uses.
    #[must_use]
    pub const fn status(self) -> &'static str {
        match self {
            PresenceField::Online => "Online",
            PresenceField::PushOnline => "PushOnline",
        }
    }

    /// Where such a user has signed in. Source: the documentation's example.
    #[must_use]
    pub const fn platform(self) -> &'static str {
        match self {
            PresenceField::Online => "Web",
            PresenceField::PushOnline => "iPhone",
        }
    }
}

/// The fields that the app has created for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CustomFields {
    /// Whatever is asked for.
    Any,
    /// Those with these keys.
    These(Vec<String>),
}

/// What `account_import` does to an account that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownAccounts {
    Updated,
    Unchanged,
}

/// What becomes of a field that an import of an existing account leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OmittedFields {
    Kept,
    Cleared,
}

/// Whether a batch stores the Nick and FaceUrl of its accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchProfiles {
    Kept,
    Dropped,
}

impl SandboxSettings {
    /// A sandbox on a free port with a new random key and the documented limits.
    ///
    /// # Errors
    /// [`io::Error`] if the machine has no source of random numbers.
    pub fn ephemeral() -> io::Result<Self> {
        Ok(Self::with_key(fresh_key()?))
    }

    /// The same as [`Self::ephemeral`] with a given key.
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
            known_accounts: KnownAccounts::Updated,
            omitted_fields: OmittedFields::Kept,
            user_ids: UserIdRules::default(),
            custom_fields: CustomFields::These(Vec::new()),
            portrait_set_per_s: Some(wire::PROFILE_CALLS_PER_S),
            online: Vec::new(),
            seed: 0,
            arrivals_kept: 0,
            call_log_kept: 0,
            request_max: REQUEST_MAX,
        }
    }
}

/// 64 hexadecimal digits, like a real SecretKey.
fn fresh_key() -> io::Result<SecretString> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|_| io::Error::other("no source of random numbers"))?;
    let mut key = String::with_capacity(64);
    for byte in bytes {
        write!(key, "{byte:02x}").map_err(io::Error::other)?;
    }
    Ok(key.into())
}
