//! What a request asks: a variant for each command, with what its body carries, and the body as JSON.

use std::collections::BTreeSet;

use serde::Serialize;

use super::wire::{
    self, CheckBody, DeleteBody, ImportBody, MultiImportBody, OnlineStatusBody, PortraitGetBody, PortraitSetBody, ProfileItem,
    ProfileValue, User,
};
use crate::domain::account::{Account, UserId};
use crate::domain::command::Command;
use crate::domain::profile::ProfileField;
use crate::domain::tag::{Tag, TagItem, TagValueRef};

/// Bytes of JSON per record in a batch besides its values: keys, quotes and commas.
const KEYS_BYTES: usize = 40;

/// The content of a request. A list has from 1 up to the number of [`Command::spec`], with different UserIDs.
#[derive(Debug, Clone)]
pub enum Request<'a> {
    AccountImport(&'a Account),
    MultiaccountImport(Vec<&'a Account>),
    /// It asks for the fields, and for every tag that one of the accounts has.
    PortraitGet(Vec<&'a Account>),
    /// It sets the account's tags.
    PortraitSet(&'a Account),
    AccountCheck(Vec<&'a UserId>),
    AccountDelete(Vec<&'a UserId>),
    Kick(&'a UserId),
    QueryOnlineStatus(Vec<&'a UserId>),
}

impl Request<'_> {
    #[must_use]
    pub const fn command(&self) -> Command {
        match self {
            Request::AccountImport(_) => Command::AccountImport,
            Request::MultiaccountImport(_) => Command::MultiaccountImport,
            Request::PortraitGet(_) => Command::PortraitGet,
            Request::PortraitSet(_) => Command::PortraitSet,
            Request::AccountCheck(_) => Command::AccountCheck,
            Request::AccountDelete(_) => Command::AccountDelete,
            Request::Kick(_) => Command::Kick,
            Request::QueryOnlineStatus(_) => Command::QueryOnlineStatus,
        }
    }

    /// The JSON body.
    pub(super) fn body(&self) -> Vec<u8> {
        match self {
            Request::AccountImport(account) => json(&import_body(account)),
            Request::MultiaccountImport(accounts) => batch(accounts),
            Request::PortraitGet(accounts) => {
                let users = accounts.iter().map(|account| account.user_id.as_str().to_owned()).collect();
                json(&PortraitGetBody { users, tags: shown_tags(accounts) })
            }
            Request::PortraitSet(account) => json(&portrait_body(account)),
            Request::AccountCheck(ids) => json(&CheckBody { users: users(ids) }),
            Request::AccountDelete(ids) => json(&DeleteBody { users: users(ids) }),
            Request::Kick(id) => json(&user(id)),
            Request::QueryOnlineStatus(ids) => {
                let users = ids.iter().map(|id| id.as_str().to_owned()).collect();
                json(&OnlineStatusBody { users, is_need_detail: None })
            }
        }
    }
}

fn json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("strings can always be written as JSON")
}

fn batch(accounts: &[&Account]) -> Vec<u8> {
    let list = accounts.iter().map(|account| import_body(account)).collect();
    let mut json = Vec::with_capacity(accounts.iter().map(|account| KEYS_BYTES + account.bytes()).sum());
    let written = serde_json::to_writer(&mut json, &MultiImportBody { account_list: Some(list), accounts: None });
    written.expect("strings can always be written as JSON");
    json
}

fn import_body(account: &Account) -> ImportBody<'_> {
    ImportBody {
        user_id: account.user_id.as_str().into(),
        nick: account.nick.as_deref().map(Into::into),
        face_url: account.face_url.as_deref().map(Into::into),
    }
}

fn portrait_body(account: &Account) -> PortraitSetBody<'_, ProfileValue<'_>> {
    PortraitSetBody { user: account.user_id.as_str().into(), items: account.tags.iter().map(profile_item).collect() }
}

fn profile_item(item: &TagItem) -> ProfileItem<ProfileValue<'_>> {
    ProfileItem { tag: item.tag.wire_name(), value: profile_value(item.value.as_ref()) }
}

const fn profile_value(value: TagValueRef<'_>) -> ProfileValue<'_> {
    match value {
        TagValueRef::Text(text) => ProfileValue::Text(text),
        TagValueRef::Number(number) => ProfileValue::Number(number),
    }
}

/// What profiles are to show: the fields, and every tag that one of the accounts has.
fn shown_tags(accounts: &[&Account]) -> Vec<String> {
    let tags: BTreeSet<&Tag> = accounts.iter().flat_map(|account| &account.tags).map(|item| &item.tag).collect();
    let fields = ProfileField::ALL.into_iter().map(|field| field.spec().tag.to_owned());
    fields.chain(tags.into_iter().map(Tag::wire_name)).collect()
}

fn user(id: &UserId) -> User {
    wire::User { user_id: id.as_str().to_owned() }
}

fn users(ids: &[&UserId]) -> Vec<User> {
    ids.iter().map(|id| user(id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(request: &Request<'_>, expected: (Command, &str)) {
        let body = String::from_utf8(request.body()).unwrap();
        assert_eq!((request.command(), body.as_str()), expected);
    }

    #[test]
    fn every_command_has_its_documented_body() {
        let [a, b] = [Account::parse(b"a", b"n", b"f"), Account::parse(b"b", b"", b"")].map(Result::unwrap);
        let (both, ids) = (|| vec![&a, &b], || vec![&a.user_id, &b.user_id]);
        check(&Request::AccountImport(&a), (Command::AccountImport, r#"{"UserID":"a","Nick":"n","FaceUrl":"f"}"#));
        check(
            &Request::MultiaccountImport(both()),
            (Command::MultiaccountImport, r#"{"AccountList":[{"UserID":"a","Nick":"n","FaceUrl":"f"},{"UserID":"b"}]}"#),
        );
        check(
            &Request::PortraitGet(both()),
            (Command::PortraitGet, r#"{"To_Account":["a","b"],"TagList":["Tag_Profile_IM_Nick","Tag_Profile_IM_Image"]}"#),
        );
        check(&Request::PortraitSet(&a), (Command::PortraitSet, r#"{"From_Account":"a","ProfileItem":[]}"#));
        check(&Request::AccountCheck(ids()), (Command::AccountCheck, r#"{"CheckItem":[{"UserID":"a"},{"UserID":"b"}]}"#));
        check(&Request::AccountDelete(vec![&a.user_id]), (Command::AccountDelete, r#"{"DeleteItem":[{"UserID":"a"}]}"#));
        check(&Request::Kick(&a.user_id), (Command::Kick, r#"{"UserID":"a"}"#));
        check(&Request::QueryOnlineStatus(ids()), (Command::QueryOnlineStatus, r#"{"To_Account":["a","b"]}"#));
    }

    #[test]
    fn each_tag_has_its_json_type() {
        let item = |tag: &str, cell: &str| {
            let tag = Tag::parse(tag).unwrap();
            let value = tag.value(cell.as_bytes()).unwrap().unwrap().into();
            TagItem { tag, value }
        };
        let tags = [item("Gender", "male"), item("BirthDay", "2019-04-19"), item("Level", "7"), item("Custom.Vip", "7")];
        let account = Account { tags: tags.into(), ..Account::parse(b"a", b"n", b"").unwrap() };
        let expected = concat!(
            r#"{"From_Account":"a","ProfileItem":[{"Tag":"Tag_Profile_IM_Gender","Value":"Gender_Type_Male"},"#,
            r#"{"Tag":"Tag_Profile_IM_BirthDay","Value":20190419},{"Tag":"Tag_Profile_IM_Level","Value":7},"#,
            r#"{"Tag":"Tag_Profile_Custom_Vip","Value":"7"}]}"#
        );
        check(&Request::PortraitSet(&account), (Command::PortraitSet, expected));
        check(&Request::AccountImport(&account), (Command::AccountImport, r#"{"UserID":"a","Nick":"n"}"#));
    }
}
