//! The columns of the profile's tags: which ones there are, and the cells of a record in them.

use csv::ByteRecord;

use super::header::{Format, HeaderError, column_named, loose};
use super::split::SplitFields;
use crate::domain::account::InvalidAccount;
use crate::domain::cells::CellRules;
use crate::domain::known_tags::TAGS_MAX;
use crate::domain::known_text::KnownText;
use crate::domain::tag::{CheckedCell, Tag, TagValueRef};
use crate::domain::tag_words::{TagWord, TagWords};

/// A column that a tag is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TagColumn {
    pub(super) tag: Tag,
    pub(super) column: usize,
    /// The file's words for it.
    words: TagWords,
}

/// Finds the columns of tags: those that are asked for by name, then those whose headers are tags themselves. `fields` are the columns of
/// UserID, Nick and FaceUrl.
pub(super) fn tag_columns(names: &ByteRecord, format: &Format, fields: &[Option<usize>]) -> Result<Vec<TagColumn>, HeaderError> {
    let mut found: Vec<TagColumn> = Vec::new();
    for (at, (tag, name)) in format.tags.iter().enumerate() {
        if format.tags[..at].iter().any(|(earlier, _)| earlier == tag) {
            return Err(HeaderError::TagAskedTwice { tag: tag.clone() });
        }
        if !name.is_empty() {
            add(&mut found, tag.clone(), column_named(names, tag, name)?, (names, format))?;
        }
    }
    for (column, name) in names.iter().enumerate() {
        let is_left_out = |tag: &Tag| format.tags.iter().any(|(asked, name)| asked == tag && name.is_empty());
        let is_found = |tag: &Tag| found.iter().any(|of| of.column == column && of.tag == *tag);
        let tag = std::str::from_utf8(name).ok().and_then(Tag::of_wire_name);
        if let Some(tag) = tag.filter(|tag| !is_left_out(tag) && !is_found(tag)) {
            add(&mut found, tag, column, (names, format))?;
        }
    }
    if let Some(of_field) = found.iter().find(|of| fields.contains(&Some(of.column))) {
        return Err(HeaderError::ColumnTwice { column: lossy(names, of_field.column), tag: of_field.tag.clone() });
    }
    if found.len() > TAGS_MAX {
        return Err(HeaderError::TooManyTags { found: found.len() });
    }
    check_words(&format.words, &found)?;
    Ok(found)
}

fn add(found: &mut Vec<TagColumn>, tag: Tag, column: usize, (names, format): (&ByteRecord, &Format)) -> Result<(), HeaderError> {
    if found.iter().any(|of| of.column == column) {
        return Err(HeaderError::ColumnTwice { column: lossy(names, column), tag });
    }
    if let Some(earlier) = found.iter().find(|of| of.tag == tag) {
        return Err(HeaderError::TwoColumns { first: lossy(names, earlier.column), second: lossy(names, column), tag });
    }
    let words = TagWords::of(&tag, &format.words);
    found.push(TagColumn { tag, column, words });
    Ok(())
}

fn check_words(words: &[TagWord], found: &[TagColumn]) -> Result<(), HeaderError> {
    if let Some(word) = TagWord::twice(words) {
        return Err(HeaderError::WordTwice { word: Box::new(word.clone()) });
    }
    match words.iter().find(|word| found.iter().all(|of| of.tag != word.tag)) {
        Some(word) => Err(HeaderError::NoColumnOfWord { tag: word.tag.clone() }),
        None => Ok(()),
    }
}

fn lossy(names: &ByteRecord, column: usize) -> String {
    String::from_utf8_lossy(&names[column]).into_owned()
}

/// Names, loosely written, that exports give to tags besides the tags' own. Chosen: what the exports of common systems have; a tag is never
/// read from such a column without being told to.
const NEAR: [(Tag, &[&str]); 6] = [
    (Tag::Gender, &["sex", "性别", "性別", "성별"]),
    (Tag::BirthDay, &["birth", "birthdate", "dateofbirth", "dob", "生日", "出生日期", "出生年月日", "生年月日", "생년월일"]),
    (Tag::Location, &["所在地"]),
    (Tag::SelfSignature, &["signature", "bio", "签名", "簽名", "个性签名", "個性簽名"]),
    (Tag::Language, &["语言", "語言"]),
    (Tag::Level, &["等级", "等級"]),
];

/// The tag that a column's name is near to.
pub(super) fn near_tag(name: &[u8]) -> Option<Tag> {
    let name = loose(name)?;
    let is_own = |tag: &Tag| [tag.to_string(), tag.wire_name()].iter().any(|own| loose(own.as_bytes()).as_deref() == Some(&name));
    let is_others = |(_, names): &(Tag, &[&str])| names.contains(&name.as_str());
    Tag::STANDARD.into_iter().find(is_own).or_else(|| NEAR.into_iter().find(is_others).map(|(tag, _)| tag))
}

/// The cells of a record in the columns of tags.
#[derive(Debug, Clone, Copy)]
pub(super) struct TagCells<'a> {
    pub(super) columns: &'a [TagColumn],
    pub(super) rules: &'a CellRules,
    pub(super) fields: SplitFields<'a>,
    /// What the fields are parts of, as far as it is known to be text.
    pub(super) known: KnownText<'a>,
    /// What each of them was found to be.
    pub(super) checked: &'a [CheckedCell],
}

impl<'a> TagCells<'a> {
    /// Finds out what each of them is; nothing more after the first that is no value of its tag.
    #[inline]
    pub(super) fn check(&self, checked: &mut Vec<CheckedCell>) -> Result<(), InvalidAccount> {
        checked.clear();
        if self.columns.is_empty() { Ok(()) } else { self.check_each(checked) }
    }

    fn check_each(&self, checked: &mut Vec<CheckedCell>) -> Result<(), InvalidAccount> {
        for of in self.columns {
            let cell = of.tag.check(self.known, self.cell(of)).map_err(|why| InvalidAccount::Tag(Box::new(why)))?;
            checked.push(cell);
        }
        Ok(())
    }

    /// The value in each column of a record that was checked, if there is one.
    #[inline]
    pub(super) fn each(self) -> impl Iterator<Item = (&'a Tag, Option<TagValueRef<'a>>)> {
        self.columns.iter().zip(self.checked).map(move |(of, checked)| {
            let value = match checked {
                CheckedCell::Text => checked.value(self.known, self.cell(of)),
                CheckedCell::Empty | CheckedCell::Number(_) | CheckedCell::Word(_) => checked.value(self.known, &[]),
            };
            (&of.tag, value)
        })
    }

    /// The tags that have a value.
    #[inline]
    pub(super) fn values(self) -> impl Iterator<Item = (&'a Tag, TagValueRef<'a>)> {
        self.each().filter_map(|(tag, value)| Some((tag, value?)))
    }

    #[inline]
    fn cell(&self, of: &'a TagColumn) -> &'a [u8] {
        self.rules.tag_cell(&of.words, self.fields.get(of.column).unwrap_or_default())
    }
}

impl PartialEq for TagCells<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.each().eq(other.each())
    }
}

impl Eq for TagCells<'_> {}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::domain::account::Field;
    use crate::domain::cells::CellEnds;
    use crate::domain::tag::TagItem;
    use crate::io::roster::Roster;

    /// What is read from which column, or what is wrong with the header.
    fn read_as(header: &str, flags: (&[&str], &[&str], &[&str])) -> Result<String, String> {
        let pairs = |given: &[&str]| {
            given
                .iter()
                .map(|pair| pair.split_once('=').unwrap())
                .map(|(name, column)| (name.to_owned(), column.to_owned()))
                .collect::<Vec<_>>()
        };
        let (map, profile, value) = flags;
        let field = |name: &str| Field::ALL.into_iter().find(|field| field.name() == name).unwrap();
        let map = pairs(map).into_iter().map(|(name, column)| (field(&name), column)).collect();
        let tags = pairs(profile).into_iter().map(|(name, column)| (Tag::parse(&name).unwrap(), column)).collect();
        let words = value.iter().map(|word| TagWord::parse(word).unwrap()).collect();
        let format = Format { map, tags, words, ..Format::default() };
        let roster = Roster::new(Cursor::new(format!("{header}\n")), &format).map_err(|error| error.to_string())?;
        let reading = roster.reading();
        let fields = Field::ALL.iter().zip(reading.columns).filter_map(|(field, column)| Some(format!("{field}={}", column?)));
        let found: Vec<String> = fields.chain(reading.tags().map(|(tag, column)| format!("{tag}={column}"))).collect();
        Ok(found.join(" "))
    }

    #[test]
    fn more_tags_than_a_state_can_tell_apart_are_refused() {
        let header = |tags: usize| (0..tags).fold("UserID".to_owned(), |header, tag| format!("{header},Tag_Profile_Custom_k{tag}"));
        assert!(read_as(&header(TAGS_MAX), (&[], &[], &[])).is_ok());
        let refused = "65 columns are to be read as profile tags, at most 64 are possible";
        assert_eq!(read_as(&header(TAGS_MAX + 1), (&[], &[], &[])), Err(refused.to_owned()));
        assert!(read_as(&header(TAGS_MAX + 1), (&[], &["Custom.k0="], &[])).is_ok());
    }

    #[test]
    fn a_column_of_a_tag_is_asked_for_or_has_its_full_name() {
        let check = |header: &str, profile: &[&str], expected: &str| {
            assert_eq!(read_as(header, (&[], profile, &[])), Ok(expected.to_owned()), "{header:?} {profile:?}");
        };
        check("UserID,Gender,Nick", &[], "UserID=0 Nick=2");
        check("UserID,Tag_Profile_IM_Gender,Tag_Profile_Custom_Vip", &[], "UserID=0 Custom.Vip=2 Gender=1");
        check("UserID,tag_profile_im_gender,Tag_Profile_IM_gender,Tag_Profile_IM_Age,Tag_Profile_Custom_", &[], "UserID=0");
        check("UserID,Tag_Profile_IM_Image,Tag_Profile_IM_Nick", &[], "UserID=0 Nick=2 FaceUrl=1");
        check("UserID,tag_profile_im_nick", &[], "UserID=0");
        check("UserID,sex,User Birthday", &["Gender=sex", "BirthDay=user_birthday"], "UserID=0 BirthDay=2 Gender=1");
        check("UserID,a,A", &["Gender=A"], "UserID=0 Gender=2");
        check("UserID,x", &["Tag_Profile_Custom_等级=x"], "UserID=0 Custom.等级=1");
        check("UserID,Tag_Profile_IM_Gender", &["Gender=Tag_Profile_IM_Gender"], "UserID=0 Gender=1");
        check("UserID,Tag_Profile_IM_Gender", &["Gender="], "UserID=0");
        check("UserID,Tag_Profile_IM_Gender,Tag_Profile_IM_Gender", &["Gender="], "UserID=0");
        check("UserID,error_code,x,error_code,error_info", &["Custom.Err=error_code"], "UserID=0 Custom.Err=1");
    }

    #[test]
    fn no_column_and_no_tag_is_read_twice() {
        let check = |header: &str, flags: (&[&str], &[&str], &[&str]), expected: &str| {
            assert_eq!(read_as(header, flags), Err(expected.to_owned()), "{header:?} {flags:?}");
        };
        check("UserID,a,b", (&[], &["Gender=a", "Gender=b"], &[]), "Gender is to be read from two columns");
        check("UserID,a,b", (&[], &["Gender=a", "Tag_Profile_IM_Gender="], &[]), "Gender is to be read from two columns");
        check("UserID,a", (&[], &["Gender=a", "Level=a"], &[]), "the column \"a\" is to be read as Level and as something else");
        check("UserID,a", (&[], &["Custom.Id=UserID"], &[]), "the column \"UserID\" is to be read as Custom.Id and as something else");
        check("UserID,Nick", (&[], &["Custom.Name=nick"], &[]), "the column \"Nick\" is to be read as Custom.Name and as something else");
        check("UserID,a", (&["FaceUrl=a"], &["Custom.A=a"], &[]), "the column \"a\" is to be read as Custom.A and as something else");
        check(
            "UserID,Tag_Profile_IM_Level",
            (&["Nick=Tag_Profile_IM_Level"], &[], &[]),
            "the column \"Tag_Profile_IM_Level\" is to be read as Level and as something else",
        );
        check(
            "UserID,a,Tag_Profile_IM_Gender",
            (&[], &["Gender=a"], &[]),
            "the header has two columns for Gender: \"a\" and \"Tag_Profile_IM_Gender\"",
        );
        check(
            "UserID,Tag_Profile_IM_Gender,Tag_Profile_IM_Gender",
            (&[], &[], &[]),
            "the header has two columns for Gender: \"Tag_Profile_IM_Gender\" and \"Tag_Profile_IM_Gender\"",
        );
        check("UserID,sex,SEX", (&[], &["Gender=Sex"], &[]), "the header has two columns for Gender: \"sex\" and \"SEX\"");
        check(
            "UserID,Nick,Tag_Profile_IM_Nick",
            (&[], &[], &[]),
            "the header has two columns for Nick: \"Nick\" and \"Tag_Profile_IM_Nick\"",
        );
        check("UserID", (&[], &["Gender=sex"], &[]), "the header has no column \"sex\"");
        check("UserID,a", (&[], &["Level=a"], &["Gender:1=male"]), "there are words for Gender, and no column of it");
        check(
            "UserID,a",
            (&[], &["Gender=a"], &["Gender:1=male", "Tag_Profile_IM_Gender:1=female"]),
            "what \"1\" stands for in Gender is said twice",
        );
    }

    /// The tags of the records, as the views and the copies have them; or why a record is invalid.
    fn tags_of(text: &str, format: &Format) -> Vec<String> {
        let open = || Roster::new(Cursor::new(text.to_owned()), format).unwrap();
        let shown = |tags: &[TagItem]| tags.iter().map(|item| format!("{}={:?}", item.tag, item.value)).collect::<Vec<_>>().join(" ");
        let mut viewed = Vec::new();
        let mut views = open();
        while let Some(view) = views.next_view() {
            let view = view.unwrap();
            let tags: Vec<TagItem> = view.tags().map(TagItem::from).collect();
            viewed.push(view.account.map_or_else(|why| format!("{why}{}", shown(&tags)), |_| shown(&tags)));
        }
        let copied = open().map(|record| record.unwrap().account.map_or_else(|why| why.to_string(), |account| shown(&account.tags)));
        assert_eq!(copied.collect::<Vec<_>>(), viewed);
        viewed
    }

    #[test]
    fn cells_of_tags_are_trimmed_then_emptied_then_read_by_their_words_then_checked() {
        let tags = vec![(Tag::Gender, "sex".to_owned()), (Tag::BirthDay, "born".to_owned())];
        let words = ["Gender:1=male", "Gender:NULL=female", "BirthDay:0000-00-00="].map(|word| TagWord::parse(word).unwrap()).to_vec();
        let cells = CellRules { ends: CellEnds::Trimmed, nulls: vec!["NULL".to_owned()], ..CellRules::default() };
        let format = Format { tags, words, cells, ..Format::default() };
        let text = "sex,UserID,born,Tag_Profile_Custom_Vip\n 1 ,a,1999-12-31,\nNULL,b,0000-00-00,\n,c,,\" gold\n\"\n2,d,,\nx,,,\n1,e,tomorrow,\n1,f\n";
        assert_eq!(
            tags_of(text, &format),
            [
                "Gender=Text(\"Gender_Type_Male\") BirthDay=Number(19991231)",
                "",
                "Custom.Vip=Text(\"gold\")",
                "Gender is none of unknown, female, male",
                "UserID is empty",
                "BirthDay is not a day that exists, written YYYYMMDD or YYYY-MM-DD",
                "the row has 2 fields, the header has 4",
            ]
        );
    }

    #[test]
    fn a_column_that_is_ignored_though_its_name_is_near_to_a_tag_is_found() {
        let near = |header: &str, profile: &[(Tag, &str)]| {
            let tags = profile.iter().map(|(tag, column)| (tag.clone(), (*column).to_owned())).collect();
            let roster = Roster::new(Cursor::new(format!("{header}\n")), &Format { tags, ..Format::default() }).unwrap();
            let found: Vec<_> =
                roster.header().near_misses().map(|(meant, name)| format!("{meant}={}", String::from_utf8_lossy(name))).collect();
            (found.join(" "), roster.header().ignored())
        };
        let check = |header: &str, profile: &[(Tag, &str)], expected: &str, ignored: usize| {
            assert_eq!(near(header, profile), (expected.to_owned(), ignored), "{header:?} {profile:?}");
        };
        check("UserID,Tag_Profile_IM_Gender", &[], "", 0);
        check("UserID,gender,Birth-Day,x", &[], "Gender=gender BirthDay=Birth-Day", 3);
        check("UserID,sex,birthday,性别,生日,签名", &[], "Gender=sex BirthDay=birthday Gender=性别 BirthDay=生日 SelfSignature=签名", 5);
        check("UserID,sex", &[(Tag::Gender, "sex")], "", 0);
        check("UserID,sex,gender", &[(Tag::Gender, "sex")], "", 1);
        check("UserID,sex", &[(Tag::Gender, "")], "", 1);
        check(
            "UserID,tag_profile_im_gender,tag_profile_im_nick,custom.vip",
            &[],
            "Gender=tag_profile_im_gender Nick=tag_profile_im_nick",
            3,
        );
    }
}
