//! Parameters of a request's query, by name, decoded while they are compared: nothing is allocated.
//!
//! As the URL standard has it (application/x-www-form-urlencoded): `&` between parameters, `+` for a space, `%XX` for a
//! byte. A parameter without `=` has an empty value. An escape that is broken stands for itself.

/// The values of parameter `name`, in order.
pub fn values<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = Value<'a>> {
    query.split('&').filter(|pair| !pair.is_empty()).filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Value(key).is(name).then_some(Value(value))
    })
}

/// A value as it stands in a query, escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a>(&'a str);

impl<'a> Value<'a> {
    /// As it stands there.
    pub const fn said(self) -> &'a str {
        self.0
    }

    /// Whether it is `text` once it is decoded.
    pub fn is(self, text: &str) -> bool {
        self.bytes().eq(text.bytes())
    }

    /// Whether it begins with `text` once it is decoded.
    pub fn begins_with(self, text: &str) -> bool {
        let mut bytes = self.bytes();
        text.bytes().all(|wanted| bytes.next() == Some(wanted))
    }

    /// Decoded.
    pub fn bytes(self) -> impl Iterator<Item = u8> {
        let mut rest = self.0.as_bytes();
        std::iter::from_fn(move || {
            let (&first, after) = rest.split_first()?;
            rest = after;
            Some(match (first, after) {
                (b'+', _) => b' ',
                (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                    (Some(high), Some(low)) => {
                        rest = after;
                        high << 4 | low
                    }
                    _ => b'%',
                },
                _ => first,
            })
        })
    }
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parameters_are_found_by_their_whole_decoded_name() {
        let query = "ab=0&a=1&a=2&&%61=3&b&c=&d=a%20b+c%2&e=%zz%4";
        let all = |name| values(query, name).map(Value::said).collect::<Vec<_>>();
        assert_eq!(all("a"), ["1", "2", "3"]);
        assert_eq!(all("b"), [""]);
        assert_eq!(all("c"), [""]);
        assert_eq!((all("x").len(), all("").len()), (0, 0));
        assert!(values(query, "d").all(|v| v.is("a b c%2") && v.begins_with("a b") && !v.begins_with("a b c%2x")));
        assert!(values(query, "e").all(|v| v.is("%zz%4")));
        assert_eq!(values("=x", "").count(), 1, "a nameless one has no name");
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_read_again(value in "\\PC{0,20}", name in "[a-z]{1,4}") {
            let encoded = value.bytes().fold(String::new(), |text, b| format!("{text}%{b:02x}"));
            let query = format!("x=1&{name}={encoded}&y");
            prop_assert!(values(&query, &name).any(|v| v.is(&value) && v.begins_with(&value)));
        }
    }
}
