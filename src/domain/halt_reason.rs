//! Why a run stops although rows are left: what is said of it, what helps, and which exit code it has.

use std::fmt;

/// Why the service will accept nothing more from this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HaltReason {
    NotAdmin,
    AccountLimit,
    DailyVolume,
    FreeQuota,
    WrongKey,
    WrongIdentifier,
    WrongApp,
    WrongRegion,
    AppRefused,
    AppDisabled,
    SourceAddress,
    TooManyBadSignatures,
    Restricted,
    OwnFault,
    DeletionOff,
    InvalidRequest,
    /// A new signature was refused as well.
    Signature,
    /// A ready-made signature was refused and cannot be renewed.
    FixedSignature,
    /// Many records in a row were answered with a code that is not in the table.
    UnknownCodes,
    /// Many records in a row were refused as if they were the cause.
    AllRecordsRefused,
    /// Many records in a row were refused by `portrait_set` as if they were the cause.
    AllProfilesRefused,
    /// The first batch lost its nicknames or avatars, and `--batch=strict` allows no other mode.
    BatchDropsProfiles,
    /// The service accepts single records but no batch, and `--batch=strict` allows no other mode.
    BatchesRefused,
    /// A field of the profile is none of the app's.
    NoSuchTag,
    /// A field of the profile may not be written.
    TagNotWritable,
    Untrusted,
    /// The certificate is for another name.
    WrongName,
    Redirected,
    ProxyPassword,
    ProxyForbids,
}

/// The class of a reason to stop; it decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HaltClass {
    /// Credentials, permission, region, or the server's identity.
    Credentials,
    /// A limit of the app or of the day. The same command continues once it is lifted.
    Limit,
    /// An error in chatlift itself.
    Internal,
    /// The command was given wrong settings.
    Settings,
}

/// What helps against a certificate that nobody vouches for.
const TRUST_HINT: &str = "something may be listening in: check --region or --endpoint; \
    if the certificate is your own proxy's or test service's, trust it or its CA with --ca-file CERTIFICATE";
/// What helps against a certificate for another name.
const NAME_HINT: &str = "something may be listening in: check that --region or --endpoint names the server by a name \
    that its certificate has; if it is your own proxy's or test service's, make it a certificate with that name";
/// What helps if a proxy asks who comes.
const PROXY_PASSWORD_HINT: &str = "give the proxy's user name and password in CHATLIFT_PROXY (http://NAME:PASSWORD@HOST:PORT), \
    or the name in --proxy and the password with --proxy-password-file";
/// What helps if a proxy lets nobody through.
const PROXY_HINT: &str = "ask whoever runs the proxy to let this machine through to the service's address, then run the same command again";

impl HaltReason {
    #[must_use]
    pub const fn class(self) -> HaltClass {
        match self {
            HaltReason::AccountLimit | HaltReason::DailyVolume | HaltReason::FreeQuota => HaltClass::Limit,
            HaltReason::OwnFault => HaltClass::Internal,
            HaltReason::ProxyPassword | HaltReason::ProxyForbids | HaltReason::NoSuchTag | HaltReason::TagNotWritable => {
                HaltClass::Settings
            }
            HaltReason::NotAdmin
            | HaltReason::WrongKey
            | HaltReason::WrongIdentifier
            | HaltReason::WrongApp
            | HaltReason::WrongRegion
            | HaltReason::AppRefused
            | HaltReason::AppDisabled
            | HaltReason::SourceAddress
            | HaltReason::TooManyBadSignatures
            | HaltReason::Restricted
            | HaltReason::DeletionOff
            | HaltReason::InvalidRequest
            | HaltReason::Signature
            | HaltReason::FixedSignature
            | HaltReason::UnknownCodes
            | HaltReason::AllRecordsRefused
            | HaltReason::AllProfilesRefused
            | HaltReason::BatchDropsProfiles
            | HaltReason::BatchesRefused
            | HaltReason::Untrusted
            | HaltReason::WrongName
            | HaltReason::Redirected => HaltClass::Credentials,
        }
    }

    /// The text of the `hint:` line.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        match self {
            Self::NotAdmin => "name an app administrator with --identifier; the console lists them under the app's basic configuration",
            Self::AccountLimit => "upgrade the app: its plan allows no more accounts (a trial allows 100); then run the same command again",
            Self::DailyVolume => {
                "run the same command again tomorrow, or upgrade the app: a trial app may send only so many requests a day"
            }
            Self::FreeQuota => "wait until the app's free quota is renewed or upgrade the app, then run the same command again",
            Self::WrongKey => "copy the SecretKey of the app that --sdkappid names from the console: this key belongs to another app",
            Self::WrongIdentifier => "--identifier must be the one that the UserSig names: the signature was made for another identifier",
            Self::WrongApp => "--sdkappid and the key (or UserSig) must belong together: the signature was made for another app",
            Self::WrongRegion => "check --sdkappid, and take --region from the console's data center of the app: it isn't known here",
            Self::AppRefused => "check --sdkappid and that the app is enabled in the console: the service refuses requests for it",
            Self::AppDisabled => "check the app's state and the bill in the console",
            Self::SourceAddress => {
                "add this machine's public address in the console: the app takes REST requests from listed addresses only"
            }
            Self::TooManyBadSignatures => "correct the key, wait a minute, then run the same command again",
            Self::Restricted => "lift the restriction of the administrator's account in the console, or name another with --identifier",
            Self::OwnFault => "this is a bug in chatlift, or a proxy changed the request; the same command resumes",
            Self::DeletionOff => "switch on account deletion for the app in the console",
            Self::InvalidRequest => "check --sdkappid, --identifier and --region: the service refuses the very first request as invalid",
            Self::Signature => "check that the SecretKey belongs to --sdkappid, and this machine's clock (timedatectl)",
            Self::FixedSignature => {
                "make a new CHATLIFT_USERSIG, or give --secret-key-file instead: it is expired or wrong, and can't be renewed"
            }
            Self::UnknownCodes => "look the code up, or ask Tencent's support: it isn't documented; the same command resumes",
            Self::AllRecordsRefused => {
                "look up the code, then look at the rows that were refused: are their columns read as they should be (--map)? If the rows are \
                 right, the app refuses them all; the same command goes on after them"
            }
            Self::AllProfilesRefused => {
                "look up the code, then look at the rows that were refused: are their columns read as the right fields (--profile), and their \
                 words as the right values (--value)? If the rows are right, the app refuses them all; the same command goes on after them"
            }
            Self::BatchDropsProfiles | Self::BatchesRefused => {
                "write --batch instead of --batch=strict: the run continues with one account per request"
            }
            Self::NoSuchTag => {
                "create the custom user field in the app's console (a new one takes effect within ten minutes) or read the column no more, then \
                 run the same command again"
            }
            Self::TagNotWritable => {
                "let the app's administrator write the user field in the app's console (a change takes effect within ten minutes) or read the \
                 column no more, then run the same command again"
            }
            Self::Untrusted => TRUST_HINT,
            Self::WrongName => NAME_HINT,
            Self::ProxyPassword => PROXY_PASSWORD_HINT,
            Self::ProxyForbids => PROXY_HINT,
            Self::Redirected => "check --endpoint, and that no captive portal or proxy is in the way: the real service never redirects",
        }
    }
}

impl fmt::Display for HaltReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HaltReason::NotAdmin => "the identifier is not an administrator of the app",
            HaltReason::AccountLimit => "the app's limit of accounts is reached",
            HaltReason::DailyVolume => "the app's daily volume of requests is used up",
            HaltReason::FreeQuota => "the app's free quota is used up",
            HaltReason::WrongKey => "the signature was not made with this app's key",
            HaltReason::WrongIdentifier => "the signature and the identifier don't belong together",
            HaltReason::WrongApp => "the signature and the SDKAppID don't belong together",
            HaltReason::WrongRegion => "the app is not known at this address",
            HaltReason::AppRefused => "the service refuses this app",
            HaltReason::AppDisabled => "the app is disabled or in arrears",
            HaltReason::SourceAddress => "this machine's address is not allowed to call",
            HaltReason::TooManyBadSignatures => "the service has seen too many bad signatures",
            HaltReason::Restricted => "the administrator's account is restricted",
            HaltReason::OwnFault => "the service says that the request is malformed",
            HaltReason::DeletionOff => "deleting accounts is switched off for this app",
            HaltReason::InvalidRequest => "the service refuses the first request as invalid",
            HaltReason::Signature => "the service refuses the signature, a fresh one too",
            HaltReason::FixedSignature => "the service refuses the given UserSig",
            HaltReason::UnknownCodes => "row after row is refused with an unknown code",
            HaltReason::AllRecordsRefused => "the service refuses row after row",
            HaltReason::AllProfilesRefused => "portrait_set refuses row after row",
            HaltReason::BatchDropsProfiles => "a batch does not keep the profiles that it is sent with",
            HaltReason::BatchesRefused => "the service takes no batches",
            HaltReason::NoSuchTag => "the app has no such profile field",
            HaltReason::TagNotWritable => "the app's administrator may not write a profile field",
            HaltReason::Untrusted | HaltReason::WrongName => "the server's certificate is not trusted",
            HaltReason::ProxyPassword => "the proxy wants another user name or password",
            HaltReason::ProxyForbids => "the proxy does not let through to the service",
            HaltReason::Redirected => "the server redirects to another address",
        })
    }
}
