//! The description of the API and what the program really answers: each says what the other does.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::harness::{Answer, Echo, Room, Running, document, kakei};

static DESCRIPTION: LazyLock<&'static Value> = LazyLock::new(kakei::control::api::description);
static VALIDATORS: LazyLock<Mutex<BTreeMap<String, &'static Validator>>> = LazyLock::new(Mutex::default);

/// The operation of a request, by its method and its path.
fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let path = path.split('?').next().unwrap();
    let fits = |template: &str| {
        let (asked, template): (Vec<&str>, Vec<&str>) = (path.split('/').collect(), template.split('/').collect());
        asked.len() == template.len()
            && asked.iter().zip(&template).all(|(part, of)| part == of || (of.starts_with('{') && !part.is_empty()))
    };
    let paths = DESCRIPTION["paths"].as_object().unwrap();
    let of = paths.iter().find(|(template, _)| *template == path).or(paths.iter().find(|(template, _)| fits(template)));
    of.map(|(_, of)| &of[method.to_ascii_lowercase()]).filter(|operation| !operation.is_null())
}

/// Nothing may be said that isn't described: where an object is described, it has no other keys.
fn strict(schema: &mut Value, is_part: bool) {
    let Value::Object(entries) = schema else { return };
    let is_object = entries.contains_key("properties");
    for (key, value) in entries.iter_mut() {
        match (key.as_str(), value) {
            ("allOf" | "oneOf" | "anyOf", Value::Array(parts)) => {
                parts.iter_mut().for_each(|part| strict(part, is_object || is_part));
            }
            ("properties" | "$defs", Value::Object(of)) => of.values_mut().for_each(|schema| strict(schema, false)),
            ("items" | "additionalProperties", of) => strict(of, false),
            _ => {}
        }
    }
    if is_object && !is_part && !entries.contains_key("additionalProperties") {
        entries.insert("unevaluatedProperties".to_owned(), json!(false));
    }
}

fn validator(schema: &Value) -> &'static Validator {
    let mut validators = VALIDATORS.lock().unwrap_or_else(PoisonError::into_inner);
    validators.entry(schema.to_string()).or_insert_with(|| {
        let mut schemas = DESCRIPTION["components"]["schemas"].clone();
        schemas.as_object_mut().unwrap().values_mut().for_each(|schema| strict(schema, false));
        let mut own = schema.clone();
        strict(&mut own, false);
        let whole = json!({"allOf": [own], "components": {"schemas": schemas}});
        Box::leak(Box::new(jsonschema::draft202012::new(&whole).expect("it is a JSON Schema")))
    })
}

fn wrong(schema: &Value, body: &Value) -> Option<String> {
    let wrong: Vec<String> =
        validator(schema).iter_errors(body).map(|error| format!("{}: {error}", error.instance_path())).collect();
    (!wrong.is_empty()).then(|| wrong.join("\n"))
}

/// That an answer is one that the description has for this request.
pub(crate) fn assert_described(method: &str, path: &str, answer: &Answer) {
    let Some(operation) = operation(method, path) else {
        assert!([404, 405].contains(&answer.status), "{method} {path} is served and not described: {}", answer.head);
        return;
    };
    let responses = &operation["responses"];
    let status = answer.status.to_string();
    let described = responses.get(&status).unwrap_or(&responses["default"]);
    assert!(answer.status == 200 || answer.status >= 400, "{method} {path}: {status}");
    let media = answer.header("content-type").unwrap_or_default().split(';').next().unwrap().trim();
    let content = described["content"].get(media);
    let content = content.unwrap_or_else(|| panic!("{method} {path}: {status} with {media:?} isn't described"));
    if media.ends_with("json") {
        let found = wrong(&content["schema"], &answer.json());
        assert_eq!(found, None, "{method} {path}: {}", answer.body);
    }
    let is_tagged = described["headers"].get("ETag").is_some();
    assert_eq!(is_tagged, answer.header("etag").is_some(), "{method} {path}: {}", answer.head);
}

/// That a body is one that the description has for this request.
fn is_described_body(method: &str, path: &str, body: &Value) -> bool {
    let operation = operation(method, path).unwrap();
    wrong(&operation["requestBody"]["content"]["application/json"]["schema"], body).is_none()
}

#[test]
fn the_description_is_the_programs_own() {
    let (room, backend) = (Room::new("openapi"), Echo::start("a"));
    let running = Running::start(&room, &document(&room, &[&backend], ""));
    let served = running.http("GET", "/v1/openapi.json", &[], "").json();
    assert_eq!(served, **DESCRIPTION);
    let printed = kakei().arg("openapi").output().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&printed.stdout).unwrap(), served);
    let schema = kakei().arg("schema").output().unwrap();
    let schema: Value = serde_json::from_slice(&schema.stdout).unwrap();
    assert_eq!(schema, kakei::config::json_schema());
    assert_eq!(served["openapi"], "3.1.0");
}

/// What kind of document says why something was refused.
const PROBLEM: Option<&str> = Some("application/problem+json");

#[test]
fn every_operation_answers_as_it_is_described() {
    let (room, backend) = (Room::new("openapi-answers"), Echo::start("a"));
    let running = Running::start(&room, &document(&room, &[&backend], ""));
    let local = running.front();
    let config = running.http("GET", "/v1/config", &[], "").body;
    let add =
        json!([{"change": "add", "kind": "cluster", "name": "d", "value": {"backends": ["127.0.0.1:9"]}}]).to_string();
    let from_here = format!("/v1/explain?local={local}&client=127.0.0.1:5");
    // What is said to it, of each operation: method, path, body, status.
    let asked: [(&str, &str, &str, u16); 25] = [
        ("GET", "/v1/config", "", 200),
        ("PUT", "/v1/config", &config, 200),
        ("GET", "/v1/status", "", 200),
        ("GET", "/v1/listeners", "", 200),
        ("GET", "/v1/routes", "", 200),
        ("GET", "/v1/clusters", "", 200),
        ("GET", "/v1/backends", "", 200),
        ("GET", "/v1/certificates", "", 200),
        ("GET", "/v1/flows?limit=3", "", 200),
        ("GET", "/v1/connections", "", 200),
        ("GET", "/v1/drains/cluster/c?limit=2", "", 200),
        ("GET", &from_here, "", 200),
        ("POST", "/v1/changes?message=why", &add, 200),
        ("POST", "/v1/clusters/d/backends", "\"127.0.0.1:10\"", 200),
        ("PATCH", "/v1/clusters/d/backends/127.0.0.1:10", "{\"weight\":3}", 200),
        ("DELETE", "/v1/clusters/d/backends/127.0.0.1:10", "", 200),
        ("POST", "/v1/rollback?confirm_within=1m", "{\"to\":1}", 200),
        ("POST", "/v1/generations/6/confirm", "", 200),
        ("POST", "/v1/confirm", "", 409),
        ("GET", "/v1/generations", "", 200),
        ("GET", "/v1/generations/2", "", 200),
        ("GET", "/v1/diff?from=1&to=2", "", 200),
        ("GET", "/metrics", "", 200),
        ("GET", "/healthz", "", 200),
        ("GET", "/readyz", "", 200),
    ];
    for (method, path, body, status) in asked {
        // Each answer is looked at by `http` itself.
        let answer = running.http(method, path, &["Content-Type: application/json"], body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        if status == 200 && !body.is_empty() {
            let body: Value = serde_json::from_str(body).unwrap();
            assert!(is_described_body(method, path, &body), "{method} {path}");
        }
    }
    let paths = DESCRIPTION["paths"].as_object().unwrap();
    let all: usize = paths.values().map(|of| of.as_object().unwrap().len()).sum();
    assert_eq!(all, asked.len() + 2, "events and the description itself are tried elsewhere");

    // What is refused is described, too: by its status and as a whole.
    let wrong: [(&str, &str, &str, u16); 11] = [
        ("PUT", "/v1/config", "{\"listener\":{}}", 422),
        ("PUT", "/v1/config", "{\"workers\":{\"count\":7}}", 409),
        ("POST", "/v1/changes", "[]", 400),
        ("POST", "/v1/changes", "[{\"change\":\"burn\"}]", 422),
        ("GET", "/v1/flows?color=red", "", 400),
        ("GET", "/v1/listeners?cluster=nope", "", 400),
        ("POST", "/v1/confirm?force=1", "", 400),
        ("GET", "/v1/generations/99", "", 404),
        ("PATCH", "/v1/clusters/x/backends/y", "{\"weight\":3}", 404),
        ("GET", "/v1/burn", "", 404),
        ("DELETE", "/v1/config", "", 405),
    ];
    for (method, path, body, status) in wrong {
        let answer = running.http(method, path, &["Content-Type: application/json"], body);
        assert_eq!((answer.status, answer.header("content-type")), (status, PROBLEM), "{method} {path}");
    }
    let mismatch = running.http("PUT", "/v1/config", &["If-Match: \"77\""], &config);
    assert_eq!(mismatch.json()["generation"], 6);
}

#[test]
fn bodies_that_are_not_described_are_refused() {
    let (room, backend) = (Room::new("openapi-bodies"), Echo::start("a"));
    let running = Running::start(&room, &document(&room, &[&backend], ""));
    let tried = [
        ("POST", "/v1/changes", json!([{"change": "add", "kind": "cluster", "name": "d"}])),
        ("POST", "/v1/changes", json!([{"change": "weigh_backend", "cluster": "c", "backend": "a", "weight": -1}])),
        ("POST", "/v1/changes", json!([{"change": "remove", "kind": "planet", "name": "d"}])),
        ("POST", "/v1/changes", json!({})),
        ("POST", "/v1/clusters/c/backends", json!({"weight": 1})),
        ("POST", "/v1/clusters/c/backends", json!({"address": "127.0.0.1:9", "color": "red"})),
        ("PATCH", "/v1/clusters/c/backends/a", json!({"weight": "heavy"})),
        ("PATCH", "/v1/clusters/c/backends/a", json!({"weight": 1, "backup": true})),
        ("POST", "/v1/rollback", json!({"to": "yesterday"})),
        ("PUT", "/v1/config", json!({"listeners": {"a": {"bind": "127.0.0.1:1"}}})),
    ];
    for (method, path, body) in tried {
        assert!(!is_described_body(method, path, &body), "{method} {path}: {body}");
        let answer = running.http(method, path, &["Content-Type: application/json"], &body.to_string());
        assert!([400, 422].contains(&answer.status), "{method} {path}: {body}: {}", answer.body);
    }
    assert_eq!(running.json(&["status"])["generation"], 1, "and nothing is different");
}
