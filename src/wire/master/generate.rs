//! `$GENERATE` (BIND's, in its manual under "Primary File Extension"): many lines from one with a number in it.
//!
//! `$` stands for the number, `${offset,width,base}` for another form of it (base `d`, `o`, `x`, `X`, or `n` and `N` for
//! nibbles with dots, the last one first), `$$` and `\$` for a dollar. A last word in quotes is read as data, not as a string.

use std::fmt::Write as _;

use super::{Problem, Token};

/// What a `$GENERATE` that makes no sense is told.
pub(super) const WRONG: Problem = Problem::Argument {
    directive: "$GENERATE",
    expected: "a range such as 1-100 or 0-30/10, an owner, a type and data, with `$` or `${offset,width,base}` for the number",
};
/// The widest number, in characters: more than any name has room for.
const MAX_WIDTH: usize = 255;

/// The numbers of `START-STOP` or `START-STOP/STEP`.
pub(super) fn range(text: &str) -> Option<impl Iterator<Item = u32> + use<>> {
    let (range, step) = text.split_once('/').unwrap_or((text, "1"));
    let (start, stop) = range.split_once('-')?;
    let number = |t: &str| t.parse::<u32>().ok().filter(|n| i32::try_from(*n).is_ok());
    let (start, stop, step) = (number(start)?, number(stop)?, number(step)?);
    (start <= stop && step > 0).then(|| (start..=stop).step_by(step as usize))
}

/// The line that the words make, to be filled in. The data is the last word; BIND knows no other, and takes its quotes off.
pub(super) fn template(words: &[Token<'_>]) -> Option<String> {
    let at = words.iter().skip(1).position(|w| super::rdata::type_of(w.text).is_some())? + 2;
    let (head, data) = words.split_at_checked(at)?;
    let mut line: Vec<String> = head.iter().map(|w| w.text.to_owned()).collect();
    match data {
        [] => return None,
        [only] => line.push(only.text.to_owned()),
        several => {
            line.extend(several.iter().map(|w| if w.quoted { format!("\"{}\"", w.text) } else { w.text.to_owned() }));
        }
    }
    Some(line.join(" "))
}

/// The line for `number`; `None` where what stands between braces is no form of a number.
pub(super) fn line(template: &str, number: u32) -> Option<String> {
    let mut line = String::with_capacity(template.len() + 8);
    let mut rest = template;
    while let Some(at) = rest.find(['$', '\\']) {
        let (before, from) = rest.split_at_checked(at)?;
        line.push_str(before);
        if let Some(after) = from.strip_prefix('\\') {
            // An escape stays as it is, `\$` among them.
            let next = after.chars().next()?;
            line.push('\\');
            line.push(next);
            rest = after.get(next.len_utf8()..)?;
        } else if let Some(after) = from.strip_prefix("$$") {
            line.push_str("\\$");
            rest = after;
        } else if let Some(after) = from.strip_prefix("${") {
            let (form, after) = after.split_once('}')?;
            line.push_str(&formed(form, number)?);
            rest = after;
        } else {
            let _ = write!(line, "{number}");
            rest = from.get(1..)?;
        }
    }
    line.push_str(rest);
    line.push('\n');
    Some(line)
}

fn formed(form: &str, number: u32) -> Option<String> {
    let mut parts = form.split(',');
    let offset = parts.next()?.parse::<i64>().ok()?;
    let width = parts.next().map_or(Some(0), |w| w.parse::<usize>().ok()).filter(|w| *w <= MAX_WIDTH)?;
    let base = parts.next().unwrap_or("d");
    let number = u32::try_from(i64::from(number).checked_add(offset)?).ok()?;
    if parts.next().is_some() {
        return None;
    }
    Some(match base {
        "d" => format!("{number:0width$}"),
        "o" => format!("{number:0width$o}"),
        "x" => format!("{number:0width$x}"),
        "X" => format!("{number:0width$X}"),
        "n" => nibbles(&format!("{number:x}"), width),
        "N" => nibbles(&format!("{number:X}"), width),
        _ => return None,
    })
}

/// Digits with dots between them, the last one first; the width counts the dots.
fn nibbles(digits: &str, width: usize) -> String {
    let mut text = String::new();
    for digit in digits.chars().rev() {
        if !text.is_empty() {
            text.push('.');
        }
        text.push(digit);
    }
    while text.len() < width {
        text.push(if text.len() % 2 == 1 { '.' } else { '0' });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(range: &str, words: &[(&str, bool)]) -> Option<Vec<String>> {
        let words: Vec<Token<'_>> =
            words.iter().map(|(text, quoted)| Token { text, quoted: *quoted, line: 1 }).collect();
        let template = template(&words)?;
        super::range(range)?.map(|n| line(&template, n).map(|l| l.trim_end().to_owned())).collect()
    }

    #[test]
    fn lines_are_made_as_bind_makes_them() {
        let made = |range, words: &[(&str, bool)]| lines(range, words).unwrap().join("; ");
        // Each with what BIND 9.18's named-compilezone makes of it.
        assert_eq!(made("1-2", &[("h$", false), ("A", false), ("192.0.2.$", false)]), "h1 A 192.0.2.1; h2 A 192.0.2.2");
        assert_eq!(
            made("0-20/10", &[("$", false), ("CNAME", false), ("$.x", false)]),
            "0 CNAME 0.x; 10 CNAME 10.x; 20 CNAME 20.x"
        );
        assert_eq!(
            made("9-9", &[("${1,4}", false), ("60", false), ("IN", false), ("A", false), ("192.0.2.${-9}", false)]),
            "0010 60 IN A 192.0.2.0"
        );
        assert_eq!(
            made("255-255", &[("${0,3,x}-${0,0,X}-${0,0,o}", false), ("A", false), ("192.0.2.1", false)]),
            "0ff-FF-377 A 192.0.2.1"
        );
        assert_eq!(made("18-18", &[("${0,8,n}", false), ("PTR", false), ("h", false)]), "2.1.0.0. PTR h");
        assert_eq!(made("18-18", &[("${0,3,n}", false), ("PTR", false), ("h", false)]), "2.1 PTR h");
        assert_eq!(made("1-1", &[("m", false), ("MX", false), ("10 mx$", true)]), "m MX 10 mx1");
        assert_eq!(
            made("1-1", &[("m", false), ("TXT", false), ("a $$ \\$", true), ("$", false)]),
            r#"m TXT "a \$ \$" 1"#
        );
    }

    #[test]
    fn what_makes_no_sense_makes_no_line() {
        let word = [("h$", false), ("A", false), ("192.0.2.$", false)];
        for range in ["2-1", "1", "1-", "a-b", "1-2/0", "1-4294967295", "-1-2"] {
            assert_eq!(lines(range, &word), None, "{range}");
        }
        for owner in ["${", "${x}", "${0,300}", "${0,1,q}", "${0,1,d,1}", "${-5}"] {
            assert_eq!(lines("1-2", &[(owner, false), ("A", false), ("192.0.2.1", false)]), None, "{owner}");
        }
        assert_eq!(lines("1-2", &[("h", false), ("A", false)]), None);
        assert_eq!(lines("1-2", &[("h", false)]), None);
    }
}
