//! Kinds of values that are not words: numbers, flags, lists, keyed tables, choices between two kinds.

use toml::de::DeValue;

use serde_json::json;

use super::diag::{Code, Finding};
use super::reader::{Item, Kind, Reader, Said, in_order};
use super::schema::Shape;

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count<const MIN: u32, const MAX: u32>(pub(super) u32);

impl<const MIN: u32, const MAX: u32> Kind for Count<MIN, MAX> {
    fn shape() -> Shape {
        Shape::scalar(
            format!("a whole number from {MIN} to {MAX}"),
            json!({ "type": "integer", "minimum": MIN, "maximum": MAX }),
        )
    }

    fn takes(value: &DeValue<'_>) -> bool {
        value.is_integer()
    }

    fn read(item: Item<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let wanted = Self::shape().words();
        let DeValue::Integer(integer) = item.value else {
            let digits = item.value.as_str().filter(|s| s.trim().parse::<i64>().is_ok());
            reader.mismatch(item, &Self::shape(), digits.map(|d| format!("write it without quotes: {}", d.trim())));
            return None;
        };
        match i64::from_str_radix(integer.as_str(), integer.radix()).ok().and_then(|n| u32::try_from(n).ok()) {
            Some(n) if (MIN..=MAX).contains(&n) => Some(Self(n)),
            _ => {
                let message = format!("{integer} is out of range");
                reader.notes.push(Finding::error(Code::OutOfRange, item.span, message).expected(wanted));
                None
            }
        }
    }
}

/// A number from `MIN` to `MAX` thousandths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number<const MIN: u32, const MAX: u32>(pub(super) f64);

impl<const MIN: u32, const MAX: u32> Kind for Number<MIN, MAX> {
    fn shape() -> Shape {
        let (min, max) = (f64::from(MIN) / 1e3, f64::from(MAX) / 1e3);
        Shape::scalar(
            format!("a number from {min} to {max}"),
            json!({ "type": "number", "minimum": min, "maximum": max }),
        )
    }

    fn takes(value: &DeValue<'_>) -> bool {
        value.is_float() || value.is_integer()
    }

    fn read(item: Item<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let wanted = Self::shape().words();
        let said = match item.value {
            DeValue::Float(f) => f.as_str().parse::<f64>().ok(),
            DeValue::Integer(i) => i64::from_str_radix(i.as_str(), i.radix()).ok().map(|n| n as f64),
            _ => {
                reader.mismatch(item, &Self::shape(), None);
                return None;
            }
        };
        let within = said.filter(|n| (f64::from(MIN) / 1e3..=f64::from(MAX) / 1e3).contains(n));
        if within.is_none() {
            let finding = Finding::error(Code::OutOfRange, item.span, "this number is out of range");
            reader.notes.push(finding.expected(wanted));
        }
        within.map(Self)
    }
}

/// `true` or `false`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flag(pub(super) bool);

impl Kind for Flag {
    fn shape() -> Shape {
        Shape::scalar("`true` or `false`", json!({ "type": "boolean" }))
    }

    fn takes(value: &DeValue<'_>) -> bool {
        value.is_bool()
    }

    fn read(item: Item<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if let DeValue::Boolean(flag) = item.value {
            return Some(Self(*flag));
        }
        let hint = match item.value.as_str().map(str::to_lowercase).as_deref() {
            Some("true" | "yes" | "on") => Some("write `true`, without quotes".into()),
            Some("false" | "no" | "off") => Some("write `false`, without quotes".into()),
            _ => None,
        };
        reader.mismatch(item, &Self::shape(), hint);
        None
    }
}

/// `true`, and nothing else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Yes;

impl Kind for Yes {
    fn shape() -> Shape {
        Shape::scalar("`true`", json!({ "const": true }))
    }

    fn takes(value: &DeValue<'_>) -> bool {
        value.is_bool()
    }

    fn read(item: Item<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if item.value.as_bool() == Some(true) {
            return Some(Self);
        }
        let finding = Finding::error(Code::BadValue, item.span, "only `true` has a meaning here");
        reader.notes.push(finding.expected("`true`").hint("leave the key out instead of saying `false`"));
        None
    }
}

/// A list of at most `MAX`, or one value in its stead.
#[derive(Clone, Debug)]
pub(super) struct List<T, const MAX: usize>(pub(super) Vec<Said<T>>);

impl<T: Kind, const MAX: usize> Kind for List<T, MAX> {
    fn shape() -> Shape {
        Shape::List { of: Box::new(T::shape()), single: true, max: MAX }
    }

    fn takes(value: &DeValue<'_>) -> bool {
        value.is_array() || T::takes(value)
    }

    fn read(item: Item<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let DeValue::Array(array) = item.value else {
            let written = reader.instead().is_none();
            return T::read(item, reader)
                .map(|value| Self(vec![Said { value, span: item.span, written, clean: true }]));
        };
        Some(Self(elements(item, array, MAX, reader)))
    }
}

/// Sections that repeat: `[[header]]`, at most `MAX`.
#[derive(Clone, Debug)]
pub(super) struct Many<T, const MAX: usize>(pub(super) Vec<Said<T>>);

impl<T: Kind, const MAX: usize> Kind for Many<T, MAX> {
    fn shape() -> Shape {
        Shape::List { of: Box::new(T::shape()), single: false, max: MAX }
    }

    fn takes(value: &DeValue<'_>) -> bool {
        value.is_array()
    }

    fn read(item: Item<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let DeValue::Array(array) = item.value else {
            let header = || format!("this section repeats: write its header in double brackets, `[[{}]]`", item.name);
            reader.mismatch(item, &Self::shape(), item.value.is_table().then(header));
            return None;
        };
        Some(Self(elements(item, array, MAX, reader)))
    }
}

fn elements<T: Kind>(
    item: Item<'_>,
    array: &toml::de::DeArray<'_>,
    max: usize,
    reader: &mut Reader<'_>,
) -> Vec<Said<T>> {
    if array.len() > max {
        let message = format!("{} entries are too many", array.len());
        reader.notes.push(Finding::error(Code::OutOfRange, item.span, message).expected(format!("at most {max}")));
    }
    let key = item.span.start..item.span.end;
    array.iter().take(max).filter_map(|value| reader.value(item.name, key.clone(), value)).collect()
}

/// A table from names to values, in the order of the file, at most `MAX`. `BY` says what the names are, for the docs.
#[derive(Clone, Debug)]
pub(super) struct Keyed<B, T, const MAX: usize> {
    pub(super) entries: Vec<(Said<String>, Said<T>)>,
    by: std::marker::PhantomData<B>,
}

/// What the names of a [`Keyed`] are.
pub(super) trait By: Clone {
    /// In a word.
    const NAME: &'static str;

    /// Whether this entry hardly belongs here, and what to do with it instead.
    fn misplaced(_name: &str, _value: &DeValue<'_>) -> Option<String> {
        None
    }
}

impl<B: By, T: Kind, const MAX: usize> Kind for Keyed<B, T, MAX> {
    fn shape() -> Shape {
        Shape::Keyed { by: B::NAME, of: Box::new(T::shape()) }
    }

    fn takes(value: &DeValue<'_>) -> bool {
        value.is_table()
    }

    fn read(item: Item<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let DeValue::Table(table) = item.value else {
            reader.mismatch(item, &Self::shape(), None);
            return None;
        };
        if table.len() > MAX {
            let message = format!("{} entries are too many", table.len());
            reader.notes.push(Finding::error(Code::OutOfRange, item.span, message).expected(format!("at most {MAX}")));
        }
        let mut entries = Vec::new();
        for (key, value) in in_order(table).into_iter().take(MAX) {
            let name =
                Said { value: key.get_ref().to_string(), span: reader.span(key.span()), written: true, clean: true };
            if let Some(hint) = B::misplaced(&name.value, value.get_ref()) {
                let message = format!("`{}` stands where a {} is wanted", name.value, B::NAME);
                reader.notes.push(Finding::error(Code::UnknownKey, name.span, message).hint(hint));
                continue;
            }
            if let Some(value) = reader.value(key.get_ref(), key.span(), value) {
                entries.push((name, value));
            }
        }
        Some(Self { entries, by: std::marker::PhantomData })
    }
}

/// One of two kinds, told apart by their TOML types.
#[derive(Clone, Debug)]
pub(super) enum Or<A, B> {
    /// The first.
    One(A),
    /// The second.
    Other(B),
}

impl<A: Kind, B: Kind> Kind for Or<A, B> {
    fn shape() -> Shape {
        Shape::Either(Box::new(A::shape()), Box::new(B::shape()))
    }

    fn takes(value: &DeValue<'_>) -> bool {
        A::takes(value) || B::takes(value)
    }

    fn read(item: Item<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if A::takes(item.value) {
            A::read(item, reader).map(Self::One)
        } else if B::takes(item.value) {
            B::read(item, reader).map(Self::Other)
        } else {
            reader.mismatch(item, &Self::shape(), None);
            None
        }
    }
}
