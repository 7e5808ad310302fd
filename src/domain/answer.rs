//! What the service answers to a request that it has carried out.
//!
//! Plain values: `io::api::answer` reads them out of JSON, and the flows draw their conclusions.

use super::profile::PerField;
use super::tag::Tag;

/// The content of a successful answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nothing else.
    Nothing,
    /// The refused UserIDs of a batch, without a reason; usually none.
    FailAccounts(Vec<Box<str>>),
    /// The profiles of the users that were found. An unknown user may be absent or have another name.
    Profiles(Vec<Profile>),
    /// Whether the users have accounts.
    Statuses(Vec<Item<AccountStatus>>),
    /// Whether it was done for each user.
    Results(Vec<Item<()>>),
    /// The presence of the users, including those in the answer's list of errors.
    Presences(Vec<Item<Presence>>),
}

/// A profile from the service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    pub user_id: Box<str>,
    pub fields: PerField<Option<Box<str>>>,
    /// The tags that it shows, with their values as text, whatever their JSON type.
    pub tags: Vec<(Tag, Box<str>)>,
    /// Why the service does not return it, if it does not.
    pub refused: Option<ItemRefusal>,
}

/// The result for one UserID in an answer. An answer may contain other UserIDs than the request, and lack some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item<T> {
    pub user_id: Box<str>,
    pub said: Result<T, ItemRefusal>,
}

/// The code for one UserID in an answer that is successful as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemRefusal {
    /// 0 if the service reports no error but an undocumented value.
    pub code: i64,
    pub info: Box<str>,
}

/// Whether an account exists. Source: `AccountStatus` of `account_check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountStatus {
    Imported,
    NotImported,
}

/// How a user can be reached. Source: `Status` of `query_online_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Online,
    /// The app is in the background and can receive pushed messages.
    PushOnline,
    Offline,
}
