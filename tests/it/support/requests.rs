//! Looks at a request as a service does.

use chatlift::domain::account::Account;
use chatlift::io::api::Request;

/// Whom the request carries.
pub(crate) fn accounts(request: &Request<'_>) -> Vec<Account> {
    match request {
        Request::AccountImport(account) | Request::PortraitSet(account) => vec![(*account).clone()],
        Request::MultiaccountImport(accounts) | Request::PortraitGet(accounts) => accounts.iter().copied().cloned().collect(),
        Request::AccountCheck(ids) | Request::AccountDelete(ids) | Request::QueryOnlineStatus(ids) => {
            ids.iter().map(|id| Account::bare((*id).clone())).collect()
        }
        Request::Kick(id) => vec![Account::bare((*id).clone())],
    }
}
