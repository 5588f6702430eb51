//! Shapes of what is sent and answered, as JSON Schema (draft 2020-12).

use serde_json::{Map, Value, json};

/// One field of an object, or one parameter.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) shape: Shape,
    pub(super) is_required: bool,
}

/// What stands in a field.
pub(super) enum Shape {
    /// An identifier.
    Id,
    /// The number of an order.
    OrderNo,
    /// Words for people.
    Text,
    /// Words for people, by language.
    Tongues,
    /// A number from 0 to 1.
    Share,
    /// A whole number, from this on.
    Whole(u64),
    /// A moment in UTC.
    Moment,
    /// Yes or no.
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Any number of these.
    List(&'static Shape),
    /// The thing with this name.
    Named(&'static str),
    /// That, or null.
    Or(&'static Shape),
}

/// A field that is always there.
pub(super) const fn has(name: &'static str, shape: Shape, about: &'static str) -> Field {
    Field { name, about, shape, is_required: true }
}

/// A field that may be there.
pub(super) const fn may(name: &'static str, shape: Shape, about: &'static str) -> Field {
    Field { name, about, shape, is_required: false }
}

/// What is in every answer (`reply::Envelope`).
pub(super) const ENVELOPE: &[Field] = &[
    has("code", Shape::Text, "The outcome."),
    has("msg_key", Shape::Text, "The key of the message, for translations."),
    has("message", Shape::Text, "The message for a person, in English."),
    has("retryable", Shape::Flag, "Whether the same request may do better later."),
    has("retry_after_ms", Shape::Or(&Shape::Whole(0)), "How long to wait before that, in ms."),
    has("degraded", Shape::List(&Shape::Text), "Dependencies that this answer made do without."),
    may("trace_id", Shape::Text, "The request's id, for logs."),
];

/// Things that have a name, because they stand in more than one place or in lists.
const NAMED: &[(&str, &[Field])] = &[
    ("Gift", super::gifts::GIFT),
    ("Role", super::gifts::ROLE),
    ("Zone", super::gifts::ZONE),
    ("Taste", super::gifts::TASTE),
    ("Share", super::cash::SHARE),
    ("Mine", super::cash::MINE),
];

/// The named things, as components.
pub(super) fn named() -> Map<String, Value> {
    NAMED.iter().map(|(name, fields)| ((*name).to_owned(), object(fields.iter(), false))).collect()
}

/// An object of these fields; whether others may stand beside them.
pub(super) fn object<'a>(fields: impl Iterator<Item = &'a Field>, is_open: bool) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for field in fields {
        let mut schema = field.shape.schema();
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("description".to_owned(), field.about.into());
        }
        properties.insert(field.name.to_owned(), schema);
        if field.is_required {
            required.push(field.name);
        }
    }
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": is_open })
}

impl Shape {
    /// Its schema.
    pub(super) fn schema(&self) -> Value {
        match self {
            Self::Id => json!({ "type": "string", "pattern": "^[A-Za-z0-9._:@~+=-]{1,64}$" }),
            Self::OrderNo => json!({ "type": "string", "pattern": "^[0-9a-f]{34}$" }),
            Self::Text => json!({ "type": "string" }),
            Self::Tongues => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
            Self::Share => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
            Self::Whole(least) => json!({ "type": "integer", "minimum": least }),
            Self::Moment => json!({ "type": "string", "format": "date-time" }),
            Self::Flag => json!({ "type": "boolean" }),
            Self::Word(words) => json!({ "type": "string", "enum": words }),
            Self::List(each) => json!({ "type": "array", "items": each.schema() }),
            Self::Named(name) => json!({ "$ref": format!("#/components/schemas/{name}") }),
            Self::Or(shape) => json!({ "oneOf": [shape.schema(), { "type": "null" }] }),
        }
    }
}
