//! The OpenAPI document against the routes and the types.

use mesh_control::{Document, ErrorCode, Peers, Version};
use serde_json::{Map, Value};

use super::{Server, samples};
use crate::api::routes::OPENAPI;

#[tokio::test]
async fn every_path_and_method_is_routed() {
    let server = Server::start();
    let document = document();
    for (path, methods) in object(&document["paths"]) {
        let route = path.replace("{name}", "pi");
        for method in ["get", "post"] {
            if route == "/v1/events" || (route == "/v1/down" && method == "post") {
                continue;
            }
            let (status, _) =
                server.raw(&format!("{} {route} HTTP/1.1\r\nhost: mesh\r\n", method.to_uppercase())).await;
            let documented = methods.get(method).is_some();
            assert_eq!(status != 404 && status != 405, documented, "{method} {path} answers {status}");
        }
    }
    let served = server.raw("GET /v1/openapi.json HTTP/1.1\r\nhost: mesh\r\n").await.1;
    assert_eq!(serde_json::from_str::<Value>(&served).unwrap(), document);
}

#[test]
fn every_route_is_documented() {
    let source = include_str!("../routes.rs");
    let routes: Vec<&str> =
        source.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let document = document();
    let documented: Vec<&String> = object(&document["paths"]).keys().collect();
    assert_eq!(routes.len(), documented.len());
    assert!(routes.iter().all(|route| documented.iter().any(|path| path == route)), "{routes:?}");
}

#[test]
fn full_samples_have_exactly_the_documented_fields() {
    let version = Version { version: "0".into(), protocol: "mesh/1".into(), api: "v1".into() };
    let mut checks = vec![
        ("Version", json(&version)),
        ("Id", json(&samples::id())),
        ("Status", json(&samples::status())),
        ("Peers", json(&Peers { peers: vec![samples::peer()] })),
        ("Peer", json(&samples::peer())),
        ("UpAnswer", json(&samples::up())),
        ("DownAnswer", json(&samples::down())),
        ("Netcheck", json(&samples::netcheck())),
        ("PingRequest", json(&samples::ping_request())),
        ("PingAnswer", json(&samples::ping())),
        ("InviteRequest", json(&samples::invite_request())),
        ("InviteAnswer", json(&samples::invite())),
        ("Relays", json(&samples::relays())),
        ("Error", json(&samples::error())),
    ];
    checks.extend(samples::up_requests().iter().map(|request| ("UpRequest", json(request))));
    checks.extend(samples::relay_requests().iter().map(|request| ("RelayRequest", json(request))));
    checks.extend(samples::events().iter().map(|event| ("Event", json(event))));
    let document = document();
    for (name, sample) in &checks {
        let schema = &document["components"]["schemas"][*name];
        assert!(schema.is_object(), "no schema {name}");
        fits(&document, schema, sample).unwrap_or_else(|why| panic!("{name}: {why}\n{sample:#}"));
    }
    let unused = ["ErrorCode"].into_iter().chain(NESTED);
    let checked: Vec<&str> = checks.iter().map(|(name, _)| *name).chain(unused).collect();
    for name in object(&document["components"]["schemas"]).keys() {
        assert!(checked.contains(&name.as_str()), "schema {name} has no sample");
    }
}

#[test]
fn required_fields_are_those_that_cannot_be_left_out() {
    let document = document();
    for (name, sample) in
        [("PingRequest", json(&samples::ping_request())), ("Error", json(&samples::error()))]
    {
        for field in object(&sample).keys() {
            let mut smaller = sample.clone();
            object_mut(&mut smaller).remove(field);
            let bytes = smaller.to_string();
            let read = match name {
                "PingRequest" => mesh_control::PingRequest::from_request(bytes.as_bytes()).is_ok(),
                _ => mesh_control::ApiError::from_json(bytes.as_bytes()).is_ok(),
            };
            let required = &document["components"]["schemas"][name]["required"];
            assert_eq!(
                !read,
                required.as_array().unwrap().contains(&field.as_str().into()),
                "{name}.{field}"
            );
        }
    }
}

#[test]
fn error_codes_are_all_documented() {
    let document = document();
    let documented = document["components"]["schemas"]["ErrorCode"]["enum"].as_array().unwrap().clone();
    let codes: Vec<Value> = ErrorCode::ALL.iter().map(|code| code.as_str().into()).collect();
    assert_eq!(documented, codes);
}

#[test]
fn every_reference_has_a_target() {
    fn walk(document: &Value, value: &Value) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(target)) = map.get("$ref") {
                    assert!(resolve(document, target).is_object(), "{target}");
                }
                map.values().for_each(|value| walk(document, value));
            }
            Value::Array(values) => values.iter().for_each(|value| walk(document, value)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    walk(&document(), &document());
}

/// Checks a value against the part of JSON Schema that the document uses. Objects must have every property of their
/// schema: the samples leave nothing out.
fn fits(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(Value::String(target)) = schema.get("$ref") {
        return fits(document, resolve(document, target), value);
    }
    if let Some(Value::Array(parts)) = schema.get("allOf") {
        let mut properties = Map::new();
        for part in parts {
            let part = part.get("$ref").map_or(part, |target| resolve(document, target.as_str().unwrap()));
            properties.extend(object(&part["properties"]).clone());
        }
        return fits(document, &serde_json::json!({"type": "object", "properties": properties}), value);
    }
    if let Some(Value::Array(choices)) = schema.get("oneOf") {
        let results: Vec<_> = choices.iter().map(|choice| fits(document, choice, value)).collect();
        let fitting = results.iter().filter(|result| result.is_ok()).count();
        return if fitting == 1 { Ok(()) } else { Err(format!("{fitting} of the choices fit: {results:?}")) };
    }
    if let Some(constant) = schema.get("const") {
        return if constant == value { Ok(()) } else { Err(format!("{value} is not {constant}")) };
    }
    if let Some(Value::Array(values)) = schema.get("enum")
        && !values.contains(value)
    {
        return Err(format!("{value} is none of {values:?}"));
    }
    match (schema["type"].as_str().expect("a schema has a type"), value) {
        ("string", Value::String(_)) | ("boolean", Value::Bool(_)) | ("number", Value::Number(_)) => Ok(()),
        ("integer", Value::Number(number)) if number.is_u64() => Ok(()),
        ("array", Value::Array(values)) => {
            assert!(!values.is_empty(), "a sample leaves nothing out");
            values.iter().try_for_each(|value| fits(document, &schema["items"], value))
        }
        ("object", Value::Object(fields)) => fits_object(document, schema, fields),
        (kind, _) => Err(format!("{value} is no {kind}")),
    }
}

fn fits_object(document: &Value, schema: &Value, fields: &Map<String, Value>) -> Result<(), String> {
    let Some(Value::Object(properties)) = schema.get("properties") else {
        let values = &schema["additionalProperties"];
        return fields.values().try_for_each(|value| fits(document, values, value));
    };
    if let Some(missing) = properties.keys().find(|name| !fields.contains_key(*name)) {
        return Err(format!("{missing} is documented and absent"));
    }
    for (name, value) in fields {
        let property = properties.get(name).ok_or_else(|| format!("{name} is not documented"))?;
        fits(document, property, value).map_err(|why| format!("{name}: {why}"))?;
    }
    Ok(())
}

fn document() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

fn json<T: Document>(value: &T) -> Value {
    serde_json::from_str(&value.to_json().unwrap()).unwrap()
}

fn resolve<'a>(document: &'a Value, target: &str) -> &'a Value {
    document.pointer(target.strip_prefix('#').unwrap()).unwrap_or(&Value::Null)
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap()
}

fn object_mut(value: &mut Value) -> &mut Map<String, Value> {
    value.as_object_mut().unwrap()
}

/// Checked as parts of the others.
const NESTED: [&str; 25] = [
    "FamilyCheck",
    "NatFiltering",
    "PortMappingCheck",
    "NodeState",
    "NetworkStatus",
    "NodeStatus",
    "RelaySource",
    "RelayStatus",
    "Readiness",
    "PeerStatus",
    "PathKind",
    "SessionStatus",
    "Counters",
    "CryptoStatus",
    "Slowdown",
    "PathChange",
    "ThreadCounters",
    "DirectStatus",
    "NatMapping",
    "AddressKind",
    "OwnAddress",
    "BirthdayStatus",
    "RemoteAddress",
    "WssStatus",
    "PeerWss",
];
