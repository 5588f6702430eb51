//! Where clients are, as `near` says it: a prefix, or `kind:value`.

use super::address::Prefix;
use super::{Name, Word, Wrong, short};
use crate::config::guess::did_you_mean;
use crate::config::model::Locality;

const KINDS: [&str; 6] = ["class", "asn", "city", "subdivision", "country", "continent"];
/// Codes of continents in databases (GeoNames).
const CONTINENTS: [&str; 7] = ["AF", "AN", "AS", "EU", "NA", "OC", "SA"];

impl Word for Locality {
    fn words() -> String {
        "a prefix such as \"10.1.0.0/16\", or a place such as \"country:CN\" or \"asn:4134\"".into()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        // A prefix of IPv6 has colons too, but begins with none of the kinds.
        let Some((kind, value)) = text.split_once(':').filter(|(kind, _)| !is_hex(kind)) else {
            return Prefix::parse(text).map(|prefix| Self::Net(prefix.0));
        };
        let wrong = |hint: &str| Wrong::new(format!("`{}` names no place", short(text))).hint(hint);
        match kind {
            "class" => Name::parse(value).map(|name| Self::Class(name.0)),
            "asn" => match value.trim_start_matches("AS").parse() {
                Ok(number) => Ok(Self::Asn(number)),
                Err(_) => Err(wrong("the number of an autonomous system, such as \"asn:4134\"")),
            },
            "city" if value.bytes().all(|b| b.is_ascii_digit()) => match value.parse() {
                Ok(id) => Ok(Self::CityId(id)),
                Err(_) => Err(wrong("the GeoNames id of the city, such as \"city:1795565\"")),
            },
            "city" if (2..=100).contains(&value.len()) && !value.contains(char::is_control) => {
                Ok(Self::City(value.to_lowercase()))
            }
            "city" => Err(wrong("the GeoNames id of the city or its English name, such as \"city:1795565\"")),
            "subdivision" => match value.split_once('-') {
                Some((country, part)) if is_code(country, 2..=2) && is_code(part, 1..=3) => {
                    Ok(Self::Subdivision(value.to_ascii_uppercase()))
                }
                _ => Err(wrong("ISO 3166-2 with the country before it, such as \"subdivision:CN-GD\"")),
            },
            "country" if is_code(value, 2..=2) => Ok(Self::Country(value.to_ascii_uppercase())),
            "country" => Err(wrong("ISO 3166-1 in two letters, such as \"country:CN\"")),
            "continent" if CONTINENTS.contains(&value.to_ascii_uppercase().as_str()) => {
                Ok(Self::Continent(value.to_ascii_uppercase()))
            }
            "continent" => Err(wrong("one of AF, AN, AS, EU, NA, OC and SA")),
            _ => {
                let wrong = Wrong::new(format!("`{}:` is no kind of place", short(kind)));
                Err(match did_you_mean(kind, KINDS) {
                    Some(hint) => wrong.hint(hint),
                    None => wrong,
                })
            }
        }
    }
}

fn is_hex(text: &str) -> bool {
    text.len() <= 4 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_code(text: &str, lengths: std::ops::RangeInclusive<usize>) -> bool {
    lengths.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_shown_as_they_are_written() {
        for (said, shown) in [
            ("10.1.0.0/16", "10.1.0.0/16"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("::/0", "::/0"),
            ("fd00::/8", "fd00::/8"),
            ("class:office", "class:office"),
            ("asn:AS4134", "asn:4134"),
            ("city:1795565", "city:1795565"),
            ("city:São Paulo", "city:são paulo"),
            ("subdivision:cn-gd", "subdivision:CN-GD"),
            ("country:cn", "country:CN"),
            ("continent:as", "continent:AS"),
        ] {
            let read = Locality::parse(said).map_err(|wrong| wrong.message);
            assert_eq!(read.map(|l| l.to_string()), Ok(shown.to_owned()));
        }
        for wrong in [
            "country:CHN",
            "continent:XX",
            "asn:x",
            "subdivision:GD",
            "class:a b",
            "city:",
            "planet:earth",
            "10.1.0.0/8",
        ] {
            assert!(Locality::parse(wrong).is_err(), "{wrong}");
        }
    }
}
