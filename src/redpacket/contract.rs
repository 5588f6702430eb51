//! The interface as a document: OpenAPI 3.1, made from the codes that the services answer with and from one table of
//! operations. `springtide docs openapi` prints it; a test holds every answer of the running services against it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::model::Code;

mod cash;
mod gifts;
mod shape;

use shape::{Field, Shape, object};

/// One call.
struct Operation {
    method: &'static str,
    path: &'static str,
    /// Its name, for generated clients.
    name: &'static str,
    about: &'static str,
    /// Which service answers.
    service: &'static str,
    user: User,
    /// In the path and in the query.
    asks: &'static [Field],
    body: &'static [Field],
    gives: &'static [Gives],
    /// Codes that come with nothing but themselves.
    refuses: &'static [Code],
}

/// Whether a call says for whom it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum User {
    Must,
    May,
}

/// What comes with some codes.
struct Gives {
    codes: &'static [Code],
    fields: &'static [Field],
}

/// What every service says when it has too much to do, or is asked something that it does not understand.
const ALWAYS: &[Code] = &[Code::Overloaded];

/// All operations.
fn operations() -> impl Iterator<Item = &'static Operation> {
    gifts::OPERATIONS.iter().chain(cash::OPERATIONS)
}

/// The document, as JSON with a line end.
pub fn openapi() -> String {
    let mut paths = Map::new();
    for operation in operations() {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(operation.method.to_owned(), operation.describe());
        }
    }
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Springtide red packets",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description": "Gifts and packets of money. Every answer is one flat object with a `code`; whoever gets no answer, or \
                            DEADLINE, asks again with the same words and is never given anything twice.",
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "paths": paths,
        "components": { "schemas": shape::named(), "responses": { "Edge": edge() } },
    });
    // Text and numbers in memory: this cannot fail, and an empty document would fail the test that compares it.
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}

impl Operation {
    fn describe(&self) -> Value {
        let mut said = json!({
            "operationId": self.name,
            "summary": self.about,
            "tags": [self.service],
            "parameters": self.parameters(),
            "responses": self.responses(),
        });
        if let (Some(said), false) = (said.as_object_mut(), self.body.is_empty()) {
            let schema = object(self.body.iter(), true);
            let body = json!({ "required": true, "content": { "application/json": { "schema": schema } } });
            said.insert("requestBody".to_owned(), body);
        }
        said
    }

    fn parameters(&self) -> Vec<Value> {
        let is_required = self.user == User::Must;
        let own = |name: &str, about: &str, is_required: bool, schema: Value| json!({ "name": name, "in": "header", "description": about, "required": is_required, "schema": schema });
        let user = own("x-user-id", "For whom; the edge vouches for it.", is_required, Shape::Id.schema());
        let trace = own(
            "x-request-id",
            "The request's id, for logs; one is made where there is none.",
            false,
            json!({ "type": "string", "maxLength": 64 }),
        );
        let deadline = own(
            "x-deadline-ms",
            "How long the answer may take. It can only shorten the service's own limit.",
            false,
            json!({ "type": "integer", "minimum": 0 }),
        );
        let asked = self.asks.iter().map(|field| {
            let place = if self.path.contains(&format!("{{{}}}", field.name)) { "path" } else { "query" };
            json!({ "name": field.name, "in": place, "description": field.about, "required": field.is_required, "schema": field.shape.schema() })
        });
        [user, trace, deadline].into_iter().chain(asked).collect()
    }

    /// One response for each status: whatever codes share it.
    fn responses(&self) -> Map<String, Value> {
        let bare = Gives { codes: self.refuses, fields: &[] };
        let always = Gives { codes: ALWAYS, fields: &[] };
        let mut by_status: BTreeMap<u16, Vec<(Code, &[Field])>> = BTreeMap::new();
        for gives in self.gives.iter().chain([&bare, &always]) {
            for code in gives.codes {
                by_status.entry(code.status().as_u16()).or_default().push((*code, gives.fields));
            }
        }
        let mut responses = Map::new();
        for (status, all) in by_status {
            let about: Vec<String> =
                all.iter().map(|(code, _)| format!("{}: {}", code.as_str(), code.message())).collect();
            let mut schemas: Vec<Value> = all.iter().map(|(code, fields)| answer(*code, fields)).collect();
            let schema = if schemas.len() == 1 { schemas.remove(0) } else { json!({ "oneOf": schemas }) };
            let content = json!({ "application/json": { "schema": schema } });
            responses.insert(status.to_string(), json!({ "description": about.join("\n\n"), "content": content }));
        }
        responses.insert("default".to_owned(), json!({ "$ref": "#/components/responses/Edge" }));
        responses
    }
}

/// The schema of the answer with `code` and these fields beside the envelope's.
fn answer(code: Code, fields: &[Field]) -> Value {
    let mut schema = object(shape::ENVELOPE.iter().chain(fields), false);
    if let Some(said) = schema.pointer_mut("/properties/code") {
        *said = json!({ "const": code.as_str() });
    }
    if let Some(key) = schema.pointer_mut("/properties/msg_key") {
        *key = json!({ "const": code.msg_key() });
    }
    if let Some(retryable) = schema.pointer_mut("/properties/retryable") {
        *retryable = json!({ "const": code.retryable() });
    }
    schema
}

/// What an edge says where no service could be asked.
fn edge() -> Value {
    let schema = json!({
        "type": "object",
        "required": ["code", "message", "msg_key", "retryable", "request_id"],
        "properties": {
            "code": { "type": "string", "pattern": "^[a-z_]+$" },
            "message": { "type": "string" },
            "msg_key": { "type": "string", "pattern": "^edge\\.[a-z_]+$" },
            "retryable": { "type": "boolean" },
            "retry_after_ms": { "type": ["integer", "null"], "minimum": 0 },
            "request_id": { "type": "string" },
        },
    });
    json!({ "description": "The edge's own answer: no service could be asked.", "content": { "application/json": { "schema": schema } } })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_name_is_one_operations_alone_and_every_path_names_what_it_asks_for() {
        let mut names = HashSet::new();
        for operation in operations() {
            assert!(names.insert(operation.name), "{} stands twice", operation.name);
            for part in operation.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
                let asked = operation.asks.iter().find(|field| field.name == part);
                assert!(asked.is_some_and(|field| field.is_required), "{} does not ask for {part}", operation.path);
            }
        }
    }

    #[test]
    fn the_document_is_json_with_all_paths() {
        let document: Value = serde_json::from_str(&openapi()).unwrap();
        for operation in operations() {
            let said = &document["paths"][operation.path][operation.method];
            assert_eq!(said["operationId"], operation.name);
            assert!(said["responses"].as_object().unwrap().len() >= 2, "{}", operation.path);
        }
    }
}
