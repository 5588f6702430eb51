//! An explanation as a tree for people: what fits a line first, lists as tables.
//!
//! It knows the words that the edges use, to put them in the order in which one reads them; what it does not know
//! comes after them. So an edge may tell more tomorrow, and it shows.

use serde_json::{Map, Value};

use super::table::{Cell, Paint, Table, Tone, cell, clean, percent, width};

const STEP: &str = "  ";

/// Words in the order in which one reads them, in objects and as columns.
const ORDER: &str = "generation request rank name type method scheme host path path_match header client fate found routes \
    route matched user key hash service class balance policy backend datacenter reason datacenters backends local near \
    state health factor weight configured_weight effective panic latency_ms in_flight home group score share chosen \
    held_by placed tier pick retry repeatable tries per_try budget deadline ms by because excluded addresses near_leaf \
    scope answers ttl seconds base min why candidates answer rcode flags";

/// `value`, line by line.
pub(super) fn lines(value: &Value, paint: Paint) -> Vec<String> {
    let mut lines = Vec::new();
    deeper(value, "", paint, &mut lines);
    lines
}

fn object(map: &Map<String, Value>, indent: &str, paint: Paint, lines: &mut Vec<String>) {
    let mut told: Vec<(&String, &Value)> = map.iter().filter(|(_, value)| !is_nothing(value)).collect();
    told.sort_by_key(|(key, _)| rank(key));
    let (short, long): (Vec<_>, Vec<_>) = told.into_iter().partition(|(_, value)| fits(value));
    let wide = short.iter().map(|(key, _)| width(&title(key))).max().unwrap_or(0);
    for (key, value) in short {
        let title = title(key);
        let gap = " ".repeat(wide - width(&title) + 2);
        lines.push(format!("{indent}{}{gap}{}", paint.paint(Tone::Soft, &title), flat(key, value)));
    }
    for (key, value) in long {
        lines.push(format!("{indent}{}", paint.paint(Tone::Strong, &title(key))));
        deeper(value, &format!("{indent}{STEP}"), paint, lines);
    }
}

fn deeper(value: &Value, indent: &str, paint: Paint, lines: &mut Vec<String>) {
    match value {
        Value::Object(map) => object(map, indent, paint, lines),
        Value::Array(list) => array(list, indent, paint, lines),
        other => lines.push(format!("{indent}{}", flat("", other))),
    }
}

fn array(list: &[Value], indent: &str, paint: Paint, lines: &mut Vec<String>) {
    let rows: Option<Vec<&Map<String, Value>>> =
        list.iter().map(|v| v.as_object().filter(|map| map.values().all(fits))).collect();
    if let Some(rows) = rows {
        lines.extend(table(&rows).lines(paint).into_iter().map(|line| format!("{indent}{line}")));
        return;
    }
    for (i, value) in list.iter().enumerate() {
        if value.is_object() {
            lines.push(format!("{indent}{}", paint.paint(Tone::Soft, &format!("{}.", i + 1))));
        }
        let inward = if is_scalar(value) { indent.to_owned() } else { format!("{indent}{STEP}") };
        deeper(value, &inward, paint, lines);
    }
}

/// Columns that say nothing in any row are left out.
fn table(rows: &[&Map<String, Value>]) -> Table {
    let silent = |value: &Value| is_nothing(value) || value == false;
    let mut keys: Vec<&String> = Vec::new();
    for (key, value) in rows.iter().flat_map(|row| row.iter()) {
        if !keys.contains(&key) && !silent(value) {
            keys.push(key);
        }
    }
    keys.sort_by_key(|key| rank(key));
    let mut table = Table::headed(keys.iter().map(|key| title(key).to_uppercase()));
    for row in rows {
        table.row(
            keys.iter().map(|key| row.get(*key).filter(|v| !silent(v)).map_or_else(Cell::default, |v| told(key, v))),
        );
    }
    table
}

fn rank(key: &str) -> usize {
    ORDER.split_whitespace().position(|known| known == key).unwrap_or(usize::MAX)
}

fn told(key: &str, value: &Value) -> Cell {
    let text = flat(key, value);
    let tone = match (key, text.as_str()) {
        ("state", "serving" | "healthy") | ("fate", "taken") | (_, "yes") => Tone::Good,
        ("state", "failed" | "down" | "ejected") => Tone::Bad,
        ("state", "drained" | "admin-down" | "admin_down") => Tone::Aside,
        ("state", "returning" | "suspect" | "half-open" | "half_open" | "slow-start" | "slow_start") => Tone::Watch,
        _ => Tone::Plain,
    };
    cell(tone, text)
}

fn title(key: &str) -> String {
    clean(key).replace('_', " ")
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn is_scalar(value: &Value) -> bool {
    !value.is_object() && !value.is_array()
}

/// Whether it fits a line: a scalar, a list of words, a few of them with their names.
fn fits(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.values().all(|v| is_scalar(v) || is_nothing(v)),
        Value::Array(list) => list.iter().all(|v| is_scalar(v) && v.as_str().is_none_or(|text| !text.contains(' '))),
        _ => true,
    }
}

fn flat(key: &str, value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(yes) => (if *yes { "yes" } else { "no" }).to_owned(),
        Value::String(text) => clean(text),
        Value::Array(list) => list.iter().map(|v| flat(key, v)).collect::<Vec<_>>().join(", "),
        Value::Object(map) => {
            let mut parts: Vec<_> = map.iter().filter(|(_, v)| !is_nothing(v)).collect();
            parts.sort_by_key(|(key, _)| rank(key));
            parts.iter().map(|(key, v)| format!("{} {}", title(key), flat(key, v))).collect::<Vec<_>>().join(", ")
        }
        Value::Number(number) => match (key, number.as_f64()) {
            ("share", Some(share)) => percent(share),
            (_, Some(n)) if number.is_f64() => short(n),
            _ => number.to_string(),
        },
    }
}

/// At most three decimals, and none that say nothing.
fn short(n: f64) -> String {
    let text = format!("{n:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn known_words_come_in_order_and_unknown_ones_after_them() {
        let value = json!({
            "unheard": "of",
            "generation": 12,
            "nothing": null,
            "policy": ["near", "weighted"],
            "client": {"address": "10.2.3.4", "network": "10.2.3.0"},
            "candidates": [
                {"datacenter": "shenzhen", "state": "serving", "weight": 40.0, "share": 0.66666, "chosen": true, "near": false},
                {"datacenter": "tianjin", "state": "failed", "weight": 0.0, "share": 0, "chosen": false, "excluded": "too ill"}
            ],
            "answer": ["a. 5 IN A 10.0.0.1", "a. 5 IN A 10.0.0.2"],
            "steps": [{"route": "gifts", "tries": [1, 2], "deeper": {"x": {"y": 1}}}, "and so on"]
        });
        insta::assert_snapshot!(lines(&value, Paint(false)).join("\n"), @r#"
        generation  12
        client      address 10.2.3.4, network 10.2.3.0
        policy      near, weighted
        unheard     of
        candidates
          DATACENTER  STATE    WEIGHT  SHARE  CHOSEN  EXCLUDED
          shenzhen    serving  40      67%    yes
          tianjin     failed   0       0%             too ill
        answer
          a. 5 IN A 10.0.0.1
          a. 5 IN A 10.0.0.2
        steps
          1.
            route  gifts
            tries  1, 2
            deeper
              x  y 1
          and so on
        "#);
    }

    #[test]
    fn anything_renders() {
        assert_eq!(lines(&json!("a\u{1b}b"), Paint(false)), ["a·b"]);
        assert_eq!(lines(&json!({}), Paint(false)), [""; 0]);
        assert_eq!(lines(&json!({"list": [[1, [2]], {"a": {}}]}), Paint(false)), ["list", "    1", "      2", "  2."]);
    }
}
