//! Stage one, the kernel: from a spanned TOML tree to [`Said`] values, with every finding on the way.
//!
//! A [`Kind`] reads one value and describes itself for the reference and the schema. Sections are kinds made by the
//! `section!` macro; words, numbers, lists and choices stand in `kinds`. A value that cannot be read leaves its default
//! in its place, so that the second stage goes on without inventing follow-up mistakes.

use std::ops::{Deref, Range};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diag::{Code, Finding, Notes, Span};
use super::guess::nearest;
use super::schema::Shape;

/// A value with the place where it was said; for a default, the place where it could have been said.
#[derive(Clone, Debug)]
pub(super) struct Said<T> {
    /// The value.
    pub(super) value: T,
    /// Its place.
    pub(super) span: Span,
    /// Whether it stands in the file.
    pub(super) written: bool,
    /// Whether it was read without a finding: else what seems to be missing in it was perhaps said, and not understood.
    pub(super) clean: bool,
}

impl<T> Deref for Said<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// What can be read from a TOML value.
pub(super) trait Kind: Sized {
    /// What it looks like, for the reference, the schema and the words "expected ...".
    fn shape() -> Shape;

    /// Whether a value is of the right TOML type, whatever it says.
    fn takes(value: &DeValue<'_>) -> bool;

    /// Reads it; where that fails, a finding has been noted.
    fn read(item: Item<'_>, reader: &mut Reader<'_>) -> Option<Self>;
}

/// A TOML value with its place.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) span: Span,
    /// The key that it stands at, or whose list it stands in.
    pub(super) name: &'a str,
    pub(super) value: &'a DeValue<'a>,
}

/// What a section knows about its keys.
pub(super) struct Keys {
    /// Those that mean something.
    pub(super) known: &'static [&'static str],
    /// Those that a later version will understand, each with what to do until then.
    pub(super) later: &'static [(&'static str, &'static str)],
    /// What others call them, and what they are called here.
    pub(super) synonyms: &'static [(&'static str, &'static str)],
}

/// A table whose keys have been looked at.
pub(super) struct Open<'a> {
    table: &'a DeTable<'a>,
    span: Span,
    /// Keys that somebody probably tried to write: that they are missing is no second finding.
    excused: Vec<&'static str>,
    all_excused: bool,
}

/// Reads values and notes what is wrong with them.
pub(super) struct Reader<'n> {
    pub(super) notes: &'n mut Notes,
    /// Whether the tree holds all that the file says. After a syntax error it may not, and nothing counts as missing.
    pub(super) whole: bool,
    /// Where defaults are said to stand, while one is read.
    instead: Option<Span>,
}

impl<'n> Reader<'n> {
    pub(super) fn new(notes: &'n mut Notes, whole: bool) -> Self {
        Self { notes, whole, instead: None }
    }

    /// Where the default that is being read is said to stand; `None` while the file itself is read.
    pub(super) fn instead(&self) -> Option<Span> {
        self.instead
    }

    /// The place of a value: its own, or that of the section which took a default.
    pub(super) fn span(&self, range: Range<usize>) -> Span {
        self.instead.unwrap_or_else(|| range.into())
    }

    /// Notes that a value has the wrong TOML type.
    pub(super) fn mismatch(&mut self, item: Item<'_>, wanted: &Shape, hint: Option<String>) {
        let message = format!("`{}` cannot be {}", item.name, describe(item.value));
        let finding = Finding::error(Code::WrongType, item.span, message).expected(wanted.brief());
        self.notes.push(finding.maybe_hint(hint));
    }

    /// Opens a table: notes keys that mean nothing here.
    pub(super) fn open<'a>(&mut self, item: Item<'a>, keys: &Keys) -> Option<Open<'a>> {
        let DeValue::Table(table) = item.value else {
            let repeated = item.value.as_array().is_some_and(|a| a.first().is_some_and(|v| v.get_ref().is_table()));
            let hint = repeated
                .then(|| format!("this section stands once: write its header in single brackets, `[{}]`", item.name));
            self.mismatch(item, &Shape::Table(keys.known), hint);
            return None;
        };
        let mut open = Open { table, span: item.span, excused: Vec::new(), all_excused: false };
        for (key, _) in in_order(table) {
            let (name, span) = (key.get_ref().as_ref(), self.span(key.span()));
            if keys.known.contains(&name) {
                continue;
            }
            if let Some((later, remedy)) = keys.later.iter().find(|(later, _)| *later == name) {
                open.all_excused = true;
                let message = format!("`{later}` is not available in this version");
                self.notes.push(Finding::error(Code::NotAvailable, span, message).hint(*remedy));
                continue;
            }
            let synonym = keys.synonyms.iter().find(|(other, _)| *other == name).map(|(_, ours)| *ours);
            let meant = synonym.or_else(|| nearest(name, keys.known.iter().copied()));
            let meant_key = meant.and_then(|m| keys.known.iter().find(|k| **k == m));
            open.excused.extend(meant_key);
            let finding = Finding::error(Code::UnknownKey, span, format!("unknown key `{name}`"));
            self.notes.push(match meant {
                Some(meant) => finding.hint(format!("did you mean `{meant}`?")),
                None => finding.hint(format!("keys that are known here: {}", list(keys.known))),
            });
        }
        Some(open)
    }

    /// A value that has to be there.
    pub(super) fn required<T: Kind>(&mut self, open: &Open<'_>, key: &'static str, about: &str) -> Option<Said<T>> {
        let said = self.written(open, key);
        if said.is_none()
            && !open.table.contains_key(key)
            && self.whole
            && !open.all_excused
            && !open.excused.contains(&key)
        {
            let finding = Finding::error(Code::MissingKey, open.span, format!("`{key}` is missing"));
            let about = about.trim().split(". ").next().unwrap_or_default().trim_end_matches('.');
            let finding = finding.expected(format!("`{key}`, {}", T::shape().brief()));
            self.notes.push(finding.hint(format!("`{key}`: {about}")));
        }
        said
    }

    /// A value that may be absent.
    pub(super) fn optional<T: Kind>(&mut self, open: &Open<'_>, key: &'static str) -> Option<Said<T>> {
        self.written(open, key)
    }

    /// A value with a default, given as TOML. `None` only if the default itself cannot be read, which a test excludes.
    pub(super) fn or_default<T: Kind>(&mut self, open: &Open<'_>, key: &'static str, default: &str) -> Option<Said<T>> {
        if let Some(said) = self.written(open, key) {
            return Some(said);
        }
        let place = open.table.get(key).map_or(open.span, |v| self.span(v.span()));
        let parsed = DeValue::parse(default).ok()?;
        let before = self.instead.replace(self.instead.unwrap_or(place));
        let value = T::read(Item { span: place, name: key, value: parsed.get_ref() }, self);
        self.instead = before;
        value.map(|value| Said { value, span: place, written: false, clean: !open.table.contains_key(key) })
    }

    fn written<T: Kind>(&mut self, open: &Open<'_>, key: &str) -> Option<Said<T>> {
        let (name, value) = open.table.get_key_value(key)?;
        self.value(key, name.span(), value)
    }

    /// Reads the value of one key.
    pub(super) fn value<T: Kind>(
        &mut self,
        name: &str,
        key: Range<usize>,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<Said<T>> {
        let range = if value.span().is_empty() { key } else { value.span() };
        let span = self.span(range);
        let before = self.notes.count();
        let value = T::read(Item { span, name, value: value.get_ref() }, self)?;
        Some(Said { value, span, written: self.instead.is_none(), clean: self.notes.count() == before })
    }
}

/// The entries of a table as they stand in the file.
pub(super) fn in_order<'a>(
    table: &'a DeTable<'a>,
) -> Vec<(&'a Spanned<toml::de::DeString<'a>>, &'a Spanned<DeValue<'a>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// What a value is, with its article.
pub(super) fn describe(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// `` `a`, `b`, `c` ``.
pub(super) fn list(names: &[&str]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

/// Declares a section: its struct with places, its decoder and its metadata, all from one text.
///
/// A field is `required`, `optional`, or has its default as TOML. `later` lists keys that a later version will
/// understand, with what to do until then; `synonyms` what others call a key.
macro_rules! section {
    (
        $(#[doc = $about:literal])*
        $name:ident {
            $(
                $(#[doc = $doc:literal])*
                $field:ident $(as $key:literal)? : $ty:ty = $presence:tt
            ),* $(,)?
        }
        $(later { $($later:ident : $remedy:literal),* $(,)? })?
        $(synonyms { $($other:ident : $ours:literal),* $(,)? })?
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug)]
        pub(in crate::config) struct $name {
            $($(#[doc = $doc])* pub(in crate::config) $field: section!(@slot $presence $ty),)*
        }

        impl $name {
            fn describe() -> $crate::config::schema::Section {
                $crate::config::schema::Section {
                    name: stringify!($name),
                    about: concat!($($about, "\n"),*),
                    fields: vec![$($crate::config::schema::Field {
                        key: section!(@key $field $($key)?),
                        about: concat!($($doc, "\n"),*),
                        shape: <$ty as $crate::config::reader::Kind>::shape(),
                        presence: section!(@presence $presence),
                    }),*],
                }
            }
        }

        impl $crate::config::reader::Kind for $name {
            fn shape() -> $crate::config::schema::Shape {
                $crate::config::schema::Shape::Section(Self::describe)
            }

            fn takes(value: &toml::de::DeValue<'_>) -> bool {
                value.is_table()
            }

            fn read(
                item: $crate::config::reader::Item<'_>,
                reader: &mut $crate::config::reader::Reader<'_>,
            ) -> Option<Self> {
                let open = reader.open(item, &$crate::config::reader::Keys {
                    known: &[$(section!(@key $field $($key)?)),*],
                    later: &[$($((stringify!($later), $remedy)),*)?],
                    synonyms: &[$($((stringify!($other), $ours)),*)?],
                })?;
                $(let $field = section!(@read reader open $presence $ty, section!(@key $field $($key)?), concat!($($doc),*));)*
                Some(Self { $($field),* })
            }
        }
    };

    (@slot required $ty:ty) => { Option<$crate::config::reader::Said<$ty>> };
    (@slot optional $ty:ty) => { Option<$crate::config::reader::Said<$ty>> };
    (@slot $default:tt $ty:ty) => { $crate::config::reader::Said<$ty> };

    (@presence required) => { $crate::config::schema::Presence::Required };
    (@presence optional) => { $crate::config::schema::Presence::Optional };
    (@presence $default:tt) => { $crate::config::schema::Presence::Default(stringify!($default)) };

    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };

    (@read $reader:ident $open:ident required $ty:ty, $key:expr, $about:expr) => {
        $reader.required::<$ty>(&$open, $key, $about)
    };
    (@read $reader:ident $open:ident optional $ty:ty, $key:expr, $about:expr) => {
        $reader.optional::<$ty>(&$open, $key)
    };
    (@read $reader:ident $open:ident $default:tt $ty:ty, $key:expr, $about:expr) => {
        $reader.or_default::<$ty>(&$open, $key, stringify!($default))?
    };
}
pub(super) use section;
