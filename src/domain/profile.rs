//! The profile fields of an account, in one table: their names in requests and files, and their place in a state.

/// Longest text of a profile field, in bytes of UTF-8. Source: Tencent's documentation of the profile fields.
pub const FIELD_MAX_BYTES: usize = 500;

/// A profile field that accounts are imported with, and that is compared and kept by its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProfileField {
    Nick,
    FaceUrl,
}

/// The properties of a profile field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProfileFieldSpec {
    /// The name of its column in a file, and its key in a request of `account_import`.
    pub name: &'static str,
    /// Its name in profiles, as `portrait_get` shows them. Source: the documentation of profile fields.
    pub tag: &'static str,
    /// The column of a state that keeps its hash. A run's `with_…` counts the records that have the field. It must never change.
    pub column: &'static str,
    /// Its bit in a state's set of doubts. It must never change.
    pub doubt_bit: u8,
}

impl ProfileField {
    /// All fields; the position of each is its discriminant.
    pub const ALL: [ProfileField; 2] = [ProfileField::Nick, ProfileField::FaceUrl];

    /// The properties of the field, from the only table of profile fields.
    #[must_use]
    pub const fn spec(self) -> ProfileFieldSpec {
        match self {
            ProfileField::Nick => ProfileFieldSpec { name: "Nick", tag: "Tag_Profile_IM_Nick", column: "nick", doubt_bit: 1 },
            ProfileField::FaceUrl => ProfileFieldSpec { name: "FaceUrl", tag: "Tag_Profile_IM_Image", column: "face_url", doubt_bit: 2 },
        }
    }
}

/// One value for each profile field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct PerField<T>([T; ProfileField::ALL.len()]);

impl<T> PerField<T> {
    #[inline]
    #[must_use]
    pub fn new(make: impl FnMut(ProfileField) -> T) -> Self {
        Self(ProfileField::ALL.map(make))
    }

    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = (ProfileField, &T)> {
        ProfileField::ALL.into_iter().zip(&self.0)
    }
}

impl<T> From<[T; ProfileField::ALL.len()]> for PerField<T> {
    /// In the order of [`ProfileField::ALL`].
    #[inline]
    fn from(fields: [T; ProfileField::ALL.len()]) -> Self {
        Self(fields)
    }
}

impl<T> std::ops::Index<ProfileField> for PerField<T> {
    type Output = T;

    #[inline]
    fn index(&self, field: ProfileField) -> &T {
        &self.0[field as usize]
    }
}

impl<T> std::ops::IndexMut<ProfileField> for PerField<T> {
    #[inline]
    fn index_mut(&mut self, field: ProfileField) -> &mut T {
        &mut self.0[field as usize]
    }
}

/// Some of the profile fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct FieldSet(u8);

impl FieldSet {
    pub const NONE: Self = Self(0);

    #[inline]
    #[must_use]
    pub fn of(is_in: impl Fn(ProfileField) -> bool) -> Self {
        Self(ProfileField::ALL.into_iter().filter(|field| is_in(*field)).fold(0, |bits, field| bits | 1 << field as u8))
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[inline]
    #[must_use]
    pub const fn has(self, field: ProfileField) -> bool {
        self.0 & (1 << field as u8) != 0
    }

    pub fn iter(self) -> impl Iterator<Item = ProfileField> {
        ProfileField::ALL.into_iter().filter(move |field| self.has(*field))
    }

    /// A bit for each field, in their order.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_is_at_home_in_the_list_and_has_a_bit_of_its_own() {
        let mut bits = 0;
        for (position, field) in ProfileField::ALL.into_iter().enumerate() {
            assert_eq!(field as usize, position);
            let bit = field.spec().doubt_bit;
            assert!(bit.is_power_of_two() && bits & bit == 0);
            bits |= bit;
        }
    }

    #[test]
    fn a_set_of_fields_holds_what_it_was_made_of() {
        let set = FieldSet::of(|field| field == ProfileField::FaceUrl);
        assert_eq!(set.iter().collect::<Vec<_>>(), [ProfileField::FaceUrl]);
        assert!(FieldSet::from_bits(set.bits()) == set && FieldSet::NONE.is_empty() && !set.is_empty());
    }
}
