//! What a code of the service means to whoever reads a report: in words, whose fault it is, and what to do.
//!
//! What follows from a code is decided in `verdict`; this module puts it into words, and adds what single codes are about.

use super::halt_reason::{HaltClass, HaltReason};
use super::verdict::{CallOutcome, CallSize, NO_ACCOUNT, NO_PROFILE, NO_TAG, SuccessSeen, TAG_NOT_WRITABLE, Verdict, judge};

/// A code in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeMeaning {
    pub meaning: String,
    pub fault: AtFault,
    /// What to do about it.
    pub remedy: &'static str,
}

/// Who has to do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtFault {
    Nobody,
    /// The service, for a while.
    Service,
    /// More requests than the service takes.
    Rate,
    /// The data of the row.
    Row,
    /// Credentials, settings or the app.
    Setup,
    /// A limit of the plan or of the day.
    Plan,
    Chatlift,
    Unknown,
}

impl AtFault {
    /// The words for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            AtFault::Nobody => "–",
            AtFault::Service => "the service's",
            AtFault::Rate => "too many requests",
            AtFault::Row => "the row's",
            AtFault::Setup => "the setup's",
            AtFault::Plan => "the app's plan",
            AtFault::Chatlift => "chatlift's, or a proxy's",
            AtFault::Unknown => "not known",
        }
    }
}

/// Puts a code into words.
#[must_use]
pub fn meaning(code: i64) -> CodeMeaning {
    if code == 0 {
        return CodeMeaning { meaning: "accepted".to_owned(), fault: AtFault::Nobody, remedy: "nothing" };
    }
    let end = CallOutcome::Refused { code, info: String::new() };
    let (general, fault, remedy) = match judge(&end, SuccessSeen::Yes, CallSize::One) {
        Verdict::Retry | Verdict::ConnectFailed => {
            ("a temporary error of the service", AtFault::Service, "nothing: chatlift tries again by itself")
        }
        Verdict::Throttle(_) => (
            "the service refuses the request as too fast",
            AtFault::Rate,
            "nothing: chatlift slows down by itself; see who else uses the app's limit",
        ),
        Verdict::Reauthenticate => (
            "the service refuses the signature",
            AtFault::Setup,
            "nothing if the run went on: chatlift made a new signature; else check the key and this machine's clock (timedatectl)",
        ),
        Verdict::Reject => ("the service refuses this row", AtFault::Row, "correct the row in the rejects file and import that file"),
        Verdict::Accepted | Verdict::Unknown => ("not documented", AtFault::Unknown, HaltReason::UnknownCodes.hint()),
        Verdict::Abort(reason) => {
            let fault = match reason.class() {
                HaltClass::Credentials | HaltClass::Settings => AtFault::Setup,
                HaltClass::Limit => AtFault::Plan,
                HaltClass::Internal => AtFault::Chatlift,
            };
            return CodeMeaning { meaning: reason.to_string(), fault, remedy: reason.hint() };
        }
    };
    CodeMeaning { meaning: single(code).unwrap_or(general).to_owned(), fault, remedy }
}

/// What codes are about that are documented one by one. Source: the documentation of the error codes.
const fn single(code: i64) -> Option<&'static str> {
    Some(match code {
        40006 => "an internal error of the profile service",
        60003 => "the service finds the request malformed for this row",
        60007 => "more requests to this API than its limit allows",
        70001 => "the signature has expired",
        70169 | 70500 => "an internal error or time-out of the account service",
        40001 | 70402 => "a parameter is invalid",
        NO_PROFILE | NO_ACCOUNT => "there is no such account",
        TAG_NOT_WRITABLE => "the administrator may not write this profile field",
        NO_TAG => "the app has no such profile field",
        40601 => "a value is longer than 500 bytes",
        40605 => "a standard profile field holds a value that is none of its own",
        40610 => "a profile field holds a value of another type",
        70399 => "this UserID was deleted in the last three months, so it cannot be imported yet",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_the_words_of_its_class_unless_it_has_its_own() {
        let check = |code: i64, words: &str, fault: AtFault| {
            let found = meaning(code);
            assert_eq!((found.meaning.as_str(), found.fault), (words, fault), "{code}");
            assert!(!found.remedy.is_empty());
        };
        check(0, "accepted", AtFault::Nobody);
        assert_eq!(AtFault::Nobody.name(), "–", "there is none");
        check(60008, "a temporary error of the service", AtFault::Service);
        check(70169, "an internal error or time-out of the account service", AtFault::Service);
        check(60011, "the service refuses the request as too fast", AtFault::Rate);
        check(70402, "a parameter is invalid", AtFault::Row);
        check(80001, "the service refuses this row", AtFault::Row);
        check(70403, "the identifier is not an administrator of the app", AtFault::Setup);
        check(70398, "the app's limit of accounts is reached", AtFault::Plan);
        check(60002, "the service says that the request is malformed", AtFault::Chatlift);
        check(12345, "not documented", AtFault::Unknown);
    }
}
