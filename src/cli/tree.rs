//! An explanation as a tree for people: scalars first, lists as tables, the verdict last.
//!
//! It knows nothing of what is explained but that `verdict` is where it ends; so the edges are free in what they tell.

use serde_json::{Map, Value};

use super::table::{Cell, Paint, Table, Tone, cell, clean, width};

/// The key of the sentence that an explanation ends with.
const VERDICT: &str = "verdict";
const STEP: &str = "  ";

/// `value` as text.
pub(super) fn render(value: &Value, paint: Paint) -> String {
    let mut lines = Vec::new();
    match value {
        Value::Object(map) => {
            object(map, "", paint, &mut lines);
            if let Some(verdict) = map.get(VERDICT) {
                lines.extend([String::new(), paint.paint(Tone::Strong, &format!("=> {}", flat(verdict)))]);
            }
        }
        other => lines.push(flat(other)),
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

fn object(map: &Map<String, Value>, indent: &str, paint: Paint, lines: &mut Vec<String>) {
    let told = || map.iter().filter(|(key, value)| (!indent.is_empty() || *key != VERDICT) && !is_nothing(value));
    let wide = told().filter(|(_, v)| is_flat(v)).map(|(key, _)| width(&title(key))).max().unwrap_or(0);
    for (key, value) in told().filter(|(_, v)| is_flat(v)) {
        let key = title(key);
        let gap = " ".repeat(wide - width(&key) + 2);
        lines.push(format!("{indent}{}{gap}{}", paint.paint(Tone::Soft, &key), flat(value)));
    }
    for (key, value) in told().filter(|(_, v)| !is_flat(v)) {
        lines.push(format!("{indent}{}", paint.paint(Tone::Strong, &title(key))));
        deeper(value, &format!("{indent}{STEP}"), paint, lines);
    }
}

fn deeper(value: &Value, indent: &str, paint: Paint, lines: &mut Vec<String>) {
    match value {
        flat_one if is_flat(flat_one) => lines.push(format!("{indent}{}", flat(flat_one))),
        Value::Object(map) => object(map, indent, paint, lines),
        Value::Array(list) => array(list, indent, paint, lines),
        other => lines.push(format!("{indent}{}", flat(other))),
    }
}

fn array(list: &[Value], indent: &str, paint: Paint, lines: &mut Vec<String>) {
    let rows: Option<Vec<&Map<String, Value>>> =
        list.iter().map(|v| v.as_object().filter(|map| map.values().all(is_flat))).collect();
    if let Some(rows) = rows {
        lines.extend(table(&rows).lines(paint).into_iter().map(|line| format!("{indent}{line}")));
        return;
    }
    for (i, value) in list.iter().enumerate() {
        if value.is_object() {
            lines.push(format!("{indent}{}", paint.paint(Tone::Soft, &format!("{}.", i + 1))));
        }
        let inward = if is_flat(value) { indent.to_owned() } else { format!("{indent}{STEP}") };
        deeper(value, &inward, paint, lines);
    }
}

/// Columns in the order in which the rows first name them; those that say nothing anywhere are left out. A row's name
/// comes first, and what is longest (a reason) last.
fn table(rows: &[&Map<String, Value>]) -> Table {
    let mut keys: Vec<&String> = Vec::new();
    for (key, value) in rows.iter().flat_map(|row| row.iter()) {
        if !keys.contains(&key) && !is_nothing(value) {
            keys.push(key);
        }
    }
    keys.sort_by_key(|key| rank(key));
    let mut table = Table::headed(keys.iter().map(|key| title(key).to_uppercase()));
    for row in rows {
        table.row(keys.iter().map(|key| row.get(*key).map_or_else(Cell::default, |value| told(key, value))));
    }
    table
}

fn rank(key: &str) -> u8 {
    match key {
        "rank" => 0,
        "name" | "route" | "datacenter" => 1,
        "backend" | "address" | "service" => 2,
        "state" => 3,
        "reason" | "why" | "excluded" | "outcome" => 9,
        _ => 5,
    }
}

fn told(key: &str, value: &Value) -> Cell {
    let text = flat(value);
    let tone = match (key, text.as_str()) {
        ("state", "serving" | "healthy") | (_, "yes") => Tone::Good,
        ("state", "failed" | "down" | "ejected") => Tone::Bad,
        ("state", "drained" | "admin-down") => Tone::Aside,
        ("state", "returning" | "suspect" | "half-open" | "slow-start") => Tone::Watch,
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

/// Whether it fits a line: a scalar, or a list of scalars.
fn is_flat(value: &Value) -> bool {
    match value {
        Value::Object(_) => false,
        Value::Array(list) => list.iter().all(|v| !v.is_object() && !v.is_array()),
        _ => true,
    }
}

fn flat(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(yes) => (if *yes { "yes" } else { "no" }).to_owned(),
        Value::String(text) => clean(text),
        Value::Array(list) => list.iter().map(flat).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_explanation_reads_from_the_question_to_the_verdict() {
        let value = json!({
            "verdict": "203.0.113.10 and 198.51.100.10 for 5 s",
            "generation": 12,
            "question": {"name": "www.hongbao.test.", "type": "A", "client": "10.2.0.0/16"},
            "nothing": null,
            "policy": ["near", "weighted"],
            "candidates": [
                {"datacenter": "shenzhen", "state": "serving", "weight": 40, "chosen": true},
                {"datacenter": "tianjin", "state": "failed", "weight": 0, "chosen": false, "why": "gift-list is down"}
            ],
            "steps": [{"route": "gifts", "tries": [1, 2], "deeper": {"x": 1}}, "and so on"]
        });
        insta::assert_snapshot!(render(&value, Paint(false)), @r#"
        generation  12
        policy      near, weighted
        candidates
          DATACENTER  STATE    CHOSEN  WEIGHT  WHY
          shenzhen    serving  yes     40
          tianjin     failed   no      0       gift-list is down
        question
          client  10.2.0.0/16
          name    www.hongbao.test.
          type    A
        steps
          1.
            route  gifts
            tries  1, 2
            deeper
              x  1
          and so on

        => 203.0.113.10 and 198.51.100.10 for 5 s
        "#);
    }

    #[test]
    fn anything_renders() {
        assert_eq!(render(&json!("a\u{1b}b"), Paint(false)), "a·b\n");
        assert_eq!(render(&json!({}), Paint(false)), "");
        assert_eq!(render(&json!({"verdict": "no"}), Paint(false)), "\n=> no\n");
        assert_eq!(render(&json!({"list": [[1, [2]], {"a": {}}]}), Paint(false)), "list\n    1\n    2\n  2.\n");
    }
}
