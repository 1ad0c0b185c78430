//! `/api/v1/openapi.json` and `docs/reference/api.md`, made from the table of routes and from `schemas.yaml`.

use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::Json;
use axum::routing::on;
use serde_json::{Map, Value, json};

use super::routes::{Route, all, get};
use crate::auth::permission::Permission;
use crate::document::fault::SourceFile;
use crate::document::node;

pub(super) const ROUTES: &[Route] =
    &[get("/api/v1/openapi.json", Permission::Read, "This API as an OpenAPI 3.1 document", |m| on(m, show)).answers("Anything")];

/// What a status means when something is wrong.
const PROBLEMS: &[(u16, &str)] = &[
    (400, "The request is not valid"),
    (401, "A token is needed"),
    (403, "The token may not do that"),
    (404, "There is no such thing"),
    (408, "The body did not arrive in time"),
    (409, "It cannot be done now"),
    (412, "It was changed meanwhile; `If-Match` and `If-None-Match` say what was expected"),
    (413, "The body is too large"),
    (422, "It is understood, and wrong; `errors` has each fault"),
    (503, "The store cannot be used, or too much arrives; `Retry-After` says when to try again"),
];

static DOCUMENT: LazyLock<Value> = LazyLock::new(make);

async fn show() -> Json<&'static Value> {
    Json(document())
}

/// The document.
#[must_use]
pub fn document() -> &'static Value {
    &DOCUMENT
}

fn make() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in all() {
        let method = route.method.name().to_lowercase();
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[method] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Signalman", "version": env!("CARGO_PKG_VERSION"),
            "description": "Errors are problem documents (RFC 9457). Lists are newest first and paged by cursor: `next` of a page is `before` of the following one.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "A token of the site; the first one is in data/admin.token"}},
        },
    })
}

fn operation(route: &Route) -> Value {
    let schema = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    let good = match route.answer {
        Some(name) => json!({route.media: {"schema": schema(name)}}),
        None => json!({route.media: {}}),
    };
    let mut responses = json!({route.status.to_string(): {"description": route.summary, "content": good}});
    for status in problems(route) {
        let says = PROBLEMS.iter().find(|(known, _)| *known == status).map_or("A problem", |(_, says)| says);
        responses[status.to_string()] =
            json!({"description": says, "content": {"application/problem+json": {"schema": schema("Problem")}}});
    }
    let in_path = names(route.path).map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    let in_query = route.query.iter().map(|parameter| {
        json!({"name": parameter.name, "in": "query", "required": false, "description": parameter.summary, "schema": {"type": parameter.kind}})
    });
    let mut operation = json!({
        "operationId": operation_id(route), "summary": route.summary, "tags": [tag(route)], "x-permission": route.permission.name(),
        "parameters": in_path.chain(in_query).collect::<Vec<_>>(), "responses": responses,
        "security": if route.permission == Permission::Open { json!([]) } else { json!([{"token": []}]) },
    });
    if let Some(body) = route.body {
        operation["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": schema(body)}}});
    }
    operation
}

/// Every status that tells of a problem of the route.
fn problems(route: &Route) -> Vec<u16> {
    let mut statuses = route.problems.to_vec();
    if route.permission != Permission::Open {
        statuses.extend([400, 401, 403]);
    }
    if route.body.is_some() {
        statuses.extend([400, 408, 413]);
    }
    statuses.push(503);
    statuses.sort_unstable();
    statuses.dedup();
    statuses
}

/// The names of the parts of a path that stand for something.
fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('{').skip(1).filter_map(|rest| rest.split('}').next())
}

/// `GET /api/v1/rules/{rule}/why/{event}` is `get_rules_rule_why_event`.
fn operation_id(route: &Route) -> String {
    let path = route.path.trim_start_matches("/api/v1").replace(['{', '}'], "").replace(['/', '.'], "_");
    format!("{}{path}", route.method.name().to_lowercase())
}

fn tag(route: &Route) -> &'static str {
    route.path.strip_prefix("/api/v1/").and_then(|rest| rest.split('/').next()).unwrap_or("health")
}

/// Every schema.
fn schemas() -> Map<String, Value> {
    let source = SourceFile::new("schemas.yaml", include_str!("schemas.yaml"));
    let written = node::parse(&source).unwrap_or_else(|fault| panic!("{fault}")).value();
    let Value::Object(written) = written else { panic!("schemas.yaml is a map") };
    written.iter().map(|(name, fields)| (name.clone(), schema(&written, fields))).collect()
}

fn schema(all: &Map<String, Value>, fields: &Value) -> Value {
    let Value::Object(fields) = fields else { return kind(fields.as_str().unwrap_or_default()) };
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for (name, of) in fields {
        if name == "+" {
            let base = schema(all, &all[of.as_str().unwrap_or_default()]);
            properties.extend(base["properties"].as_object().cloned().unwrap_or_default());
            required.extend(base["required"].as_array().cloned().unwrap_or_default());
            continue;
        }
        let of = kind(of.as_str().unwrap_or_else(|| panic!("the type of `{name}` in schemas.yaml is a word")));
        if !name.ends_with('?') {
            required.push(name.as_str().into());
        }
        properties.insert(name.trim_end_matches('?').into(), of);
    }
    json!({"type": "object", "properties": properties, "required": required})
}

/// A type, from its word.
fn kind(word: &str) -> Value {
    if let Some(of) = word.strip_suffix("|null") {
        return json!({"anyOf": [kind(of), {"type": "null"}]});
    }
    let inside = |outside: &str| word.strip_prefix(outside)?.strip_prefix('<')?.strip_suffix('>');
    if let Some(of) = inside("list") {
        return json!({"type": "array", "items": kind(of)});
    }
    if let Some(of) = inside("map") {
        return json!({"type": "object", "additionalProperties": kind(of)});
    }
    match word {
        "any" => json!({}),
        "time" => json!({"type": "string", "format": "date-time"}),
        "id" => json!({"type": "string", "pattern": "^[0-9A-HJKMNP-TV-Z]{26}$"}),
        "string" | "integer" | "number" | "boolean" | "object" => json!({"type": word}),
        words if words.contains('/') => json!({"type": "string", "enum": words.split('/').collect::<Vec<_>>()}),
        name => json!({"$ref": format!("#/components/schemas/{name}")}),
    }
}

/// The page `docs/reference/api.md`.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# HTTP API\n\nGenerated from the code by `signalman reference api`. The same, for programs, is `GET /api/v1/openapi.json` (OpenAPI 3.1).\n\n\
         Every request but the open ones needs `Authorization: Bearer TOKEN`; the permission is what the token must have. \
         Errors are problem documents (RFC 9457, `application/problem+json`) with `type`, `title`, `status`, `detail`, `instance` and, where \
         single fields are wrong, `errors`; every answer has an `X-Request-Id`, which `instance` names. A 503 says in `Retry-After` when to try \
         again. `HEAD` and `OPTIONS` are answered everywhere; another method is 405 with `Allow`. Query parameters that a route does not know \
         are refused.\n\n\
         Lists are newest first. A page ends after `limit` entries or about 4 MiB; its `next` is the `before` of the following one, null at the end. \
         An id may be given by its last six characters.\n",
    );
    let mut last = "";
    for route in all() {
        let own = tag(route);
        if own != last {
            let _ = write!(page, "\n## {own}\n");
            last = own;
        }
        let _ = write!(
            page,
            "\n### {} {}\n\n{}.\n\n- permission: `{}`\n",
            route.method.name(),
            route.path,
            route.summary,
            route.permission.name()
        );
        for parameter in route.query {
            let _ = writeln!(page, "- `?{}=` ({}): {}", parameter.name, parameter.kind, parameter.summary);
        }
        if let Some(body) = route.body {
            let _ = writeln!(page, "- body: {}", linked(body));
        }
        let answer = route.answer.map_or_else(|| format!("`{}`", route.media), linked);
        let _ = writeln!(page, "- answers {}: {answer}", route.status);
        let statuses: Vec<String> = problems(route).iter().map(ToString::to_string).collect();
        let _ = writeln!(page, "- problems: {}", statuses.join(", "));
    }
    page.push_str(
        "\n## Schemas\n\n`name?` may be left out; `list<X>` and `map<X>` hold such values; `time` is RFC 3339, `id` has 26 characters.\n",
    );
    let written =
        node::parse(&SourceFile::new("schemas.yaml", include_str!("schemas.yaml"))).unwrap_or_else(|fault| panic!("{fault}")).value();
    for (name, fields) in written.as_object().into_iter().flatten() {
        let _ = write!(page, "\n### {name}\n\n```yaml\n");
        match fields {
            Value::Object(fields) => {
                for (name, of) in fields {
                    let _ = writeln!(page, "{name}: {}", of.as_str().unwrap_or_default());
                }
            }
            of => {
                let _ = writeln!(page, "{}", of.as_str().unwrap_or_default());
            }
        }
        page.push_str("```\n");
    }
    page
}

fn linked(schema: &str) -> String {
    format!("[{schema}](#{})", schema.to_lowercase())
}
