//! What may be written, described: the sections' own metadata as a reference page and as a JSON schema.
//!
//! Nothing is said here that a section does not say: keys, kinds, defaults and words come from `section!` and from the
//! kinds. `springtide docs config` and `springtide docs schema` print them; a test holds the committed files to them.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use toml::de::DeValue;

use super::raw::Root;
use super::reader::Kind;

/// What a value looks like.
pub(super) enum Shape {
    /// One value.
    Scalar {
        /// With its article: "a duration ...".
        words: String,
        /// Its JSON schema.
        schema: Value,
    },
    /// A list, or one value in its stead.
    List {
        /// Of what.
        of: Box<Self>,
        /// Whether one value may stand for a list of one.
        single: bool,
        /// At most so many.
        max: usize,
    },
    /// A table whose keys are names.
    Keyed {
        /// Names of what.
        by: &'static str,
        /// To what.
        of: Box<Self>,
    },
    /// One of two.
    Either(Box<Self>, Box<Self>),
    /// A section.
    Section(fn() -> Section),
    /// A table with these keys, where no more is known of it.
    Table(&'static [&'static str]),
}

/// A section.
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) fields: Vec<Field>,
}

/// A key of a section.
pub(super) struct Field {
    pub(super) key: &'static str,
    pub(super) about: &'static str,
    pub(super) shape: Shape,
    pub(super) presence: Presence,
}

/// Whether a key has to be there.
#[derive(Clone, Copy)]
pub(super) enum Presence {
    Required,
    Optional,
    /// The default, as TOML.
    Default(&'static str),
}

impl Shape {
    /// A scalar.
    pub(super) fn scalar(words: impl Into<String>, schema: Value) -> Self {
        Self::Scalar { words: words.into(), schema }
    }

    /// What it is, with its article.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Scalar { words, .. } => words.clone(),
            Self::List { of, single: true, .. } => format!("{}, or a list", of.words()),
            Self::List { of, single: false, .. } => format!("a list of {}", bare(&of.words())),
            Self::Keyed { by, of } => format!("a table: {by} = {}", of.words()),
            Self::Either(a, b) => format!("{}, or {}", a.words(), b.words()),
            Self::Section(_) | Self::Table(_) => "a table".into(),
        }
    }

    /// What it is, in as few words as a label beside a source line wants.
    pub(super) fn brief(&self) -> String {
        let table = |keys: &[&str]| match keys {
            [a, b, c, _, ..] => format!("a table: {{ {a}, {b}, {c}, ... }}"),
            keys => format!("a table: {{ {} }}", keys.join(", ")),
        };
        match self {
            Self::Section(describe) => table(&describe().fields.iter().map(|f| f.key).collect::<Vec<_>>()),
            Self::Table(keys) => table(keys),
            Self::Keyed { by, .. } => format!("a table with an entry for each {by}"),
            Self::List { single: false, .. } => "a section that repeats".into(),
            Self::List { of, single: true, .. } => format!("{}, or a list", of.brief()),
            Self::Either(a, b) => format!("{}, or {}", a.brief(), b.brief()),
            Self::Scalar { .. } => self.words(),
        }
    }

    fn json(&self, defs: &mut Map<String, Value>) -> Value {
        match self {
            Self::Scalar { schema, .. } => schema.clone(),
            Self::List { of, single, max } => {
                let one = of.json(defs);
                let many = json!({ "type": "array", "items": one, "maxItems": max });
                if *single { json!({ "anyOf": [one, many] }) } else { many }
            }
            Self::Keyed { of, .. } => json!({ "type": "object", "additionalProperties": of.json(defs) }),
            Self::Either(a, b) => json!({ "anyOf": [a.json(defs), b.json(defs)] }),
            Self::Table(_) => json!({ "type": "object" }),
            Self::Section(describe) => {
                let section = describe();
                if !defs.contains_key(section.name) {
                    defs.insert(section.name.to_owned(), Value::Null);
                    let object = section.json(defs);
                    defs.insert(section.name.to_owned(), object);
                }
                json!({ "$ref": format!("#/$defs/{}", section.name) })
            }
        }
    }

    /// The sections within, each with how its header or key is written after `path`.
    fn sections(&self, path: &str, key: &str) -> Option<(String, Section)> {
        let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        match self {
            Self::Section(describe) => Some((below(key), describe())),
            Self::List { of, .. } => of.sections(path, key),
            Self::Keyed { by, of } => of.sections(&below(key), &format!("<{by}>")),
            Self::Either(a, b) => a.sections(path, key).or_else(|| b.sections(path, key)),
            Self::Scalar { .. } | Self::Table(_) => None,
        }
    }

    fn repeats(&self) -> bool {
        matches!(self, Self::List { of, .. } if matches!(**of, Self::Section(_)))
    }

    /// Headers of the sections below that repeat.
    pub(super) fn repeating(&self, path: &str) -> Vec<String> {
        let Self::Section(describe) = self else { return Vec::new() };
        let mut headers = Vec::new();
        for field in describe().fields {
            let header = if path.is_empty() { field.key.to_owned() } else { format!("{path}.{}", field.key) };
            if field.shape.repeats() {
                headers.push(header);
            } else {
                headers.extend(field.shape.repeating(&header));
            }
        }
        headers
    }
}

impl Section {
    fn json(&self, defs: &mut Map<String, Value>) -> Value {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in &self.fields {
            let mut schema = field.shape.json(defs);
            if let Value::Object(object) = &mut schema {
                object.insert("description".into(), paragraph(field.about).into());
                if let Presence::Default(default) = field.presence {
                    object.insert("default".into(), toml_to_json(default));
                }
            }
            if matches!(field.presence, Presence::Required) {
                required.push(field.key);
            }
            properties.insert(field.key.to_owned(), schema);
        }
        json!({
            "type": "object",
            "description": paragraph(self.about),
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        })
    }
}

/// The JSON schema (draft 2020-12), for editors.
pub fn json_schema() -> String {
    let Shape::Section(describe) = Root::shape() else { return String::new() };
    let mut defs = Map::new();
    let root = describe().json(&mut defs);
    let mut schema =
        json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Springtide configuration" });
    if let (Value::Object(schema), Value::Object(root)) = (&mut schema, root) {
        schema.extend(root);
        schema.insert("$defs".into(), Value::Object(defs));
    }
    format!("{schema:#}\n")
}

/// The reference page.
pub fn markdown() -> String {
    let Shape::Section(describe) = Root::shape() else { return String::new() };
    let root = describe();
    let mut out = String::from("# Configuration\n\n<!-- Generated: springtide docs config > docs/CONFIG.md -->\n\n");
    let _ = writeln!(out, "{}", root.about.lines().map(str::trim).collect::<Vec<_>>().join("\n").trim());
    for field in &root.fields {
        if let Some((path, section)) = field.shape.sections("", field.key) {
            let header = if field.shape.repeats() { format!("[[{path}]]") } else { format!("[{path}]") };
            page(&mut out, 2, &header, &path, &section);
        }
    }
    out
}

fn page(out: &mut String, depth: usize, header: &str, path: &str, section: &Section) {
    let _ = writeln!(out, "\n{} `{header}`\n\n{}\n", "#".repeat(depth.min(4)), paragraph(section.about));
    out.push_str("| key | what | default | |\n|---|---|---|---|\n");
    for field in &section.fields {
        let default = match field.presence {
            Presence::Required => "required".to_owned(),
            Presence::Optional => String::new(),
            Presence::Default(default) => format!("`{default}`"),
        };
        let words = field.shape.words();
        let _ = writeln!(out, "| `{}` | {} | {default} | {} |", field.key, cell(&words), cell(&paragraph(field.about)));
    }
    for field in &section.fields {
        if let Some((inner, section)) = field.shape.sections(path, field.key) {
            let header = if field.shape.repeats() { format!("[[{inner}]]") } else { inner.clone() };
            page(out, depth + 1, &header, &inner, &section);
        }
    }
}

/// Documentation in one line.
fn paragraph(about: &str) -> String {
    about.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// Words without their article.
fn bare(words: &str) -> String {
    words.strip_prefix("a ").or_else(|| words.strip_prefix("an ")).unwrap_or(words).to_owned()
}

fn toml_to_json(text: &str) -> Value {
    fn convert(value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(s) => s.as_ref().into(),
            DeValue::Integer(i) => i.as_str().parse::<i64>().map_or(Value::Null, Value::from),
            DeValue::Float(f) => f.as_str().parse::<f64>().map_or(Value::Null, Value::from),
            DeValue::Boolean(b) => (*b).into(),
            DeValue::Datetime(d) => d.to_string().into(),
            DeValue::Array(a) => a.iter().map(|v| convert(v.get_ref())).collect(),
            DeValue::Table(t) => {
                Value::Object(t.iter().map(|(k, v)| (k.get_ref().to_string(), convert(v.get_ref()))).collect())
            }
        }
    }
    DeValue::parse(text).map_or(Value::Null, |v| convert(v.get_ref()))
}
