//! stub
use super::exit::LastWord;
pub(super) fn roster_error(name: &std::path::Path, error: &crate::roster::RosterError) -> LastWord {
    LastWord::yours(format!("{}: {error}", name.display()), "fix")
}
