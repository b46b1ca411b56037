//! The `schema` field of every top object.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A top object of the API: it carries its schema name in JSON, so that a reader knows what it holds.
pub trait Document: Serialize + DeserializeOwned {
    /// The schema name with its major version, as `shadowmesh.status/1`.
    const SCHEMA: &'static str;

    /// Writes the object as one line of JSON that starts with its schema.
    ///
    /// # Errors
    /// Only when a value has no JSON form; the types of this crate all have one.
    fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&Tagged { schema: Self::SCHEMA, body: self })
    }

    /// The same over several indented lines.
    ///
    /// # Errors
    /// As [`Document::to_json`].
    fn to_json_pretty(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(&Tagged { schema: Self::SCHEMA, body: self })
    }

    /// Reads an answer; it must name this schema.
    ///
    /// # Errors
    /// [`DocumentError::Json`] for anything that does not parse, [`DocumentError::Schema`] for another schema.
    fn from_json(bytes: &[u8]) -> Result<Self, DocumentError> {
        read(bytes, Self::SCHEMA, true)
    }

    /// Reads a request; it may leave the schema out, which spares people who type it, but not name another.
    ///
    /// # Errors
    /// As [`Document::from_json`].
    fn from_request(bytes: &[u8]) -> Result<Self, DocumentError> {
        read(bytes, Self::SCHEMA, false)
    }
}

/// Why bytes are not the expected [`Document`].
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The bytes are no JSON, or a field is missing, unknown or of the wrong type. The text names it.
    #[error("{0}")]
    Json(serde_json::Error),
    /// The bytes are JSON, but no object.
    #[error("this is no JSON object")]
    NotAnObject,
    /// The object is of another schema or version.
    #[error("expected {expected}, found {}", found.as_deref().unwrap_or("no schema"))]
    Schema {
        /// The schema that was asked for.
        expected: &'static str,
        /// The schema that the object names, if any.
        found: Option<String>,
    },
}

#[derive(Serialize)]
struct Tagged<'a, T> {
    schema: &'static str,
    #[serde(flatten)]
    body: &'a T,
}

fn read<T: DeserializeOwned>(
    bytes: &[u8],
    expected: &'static str,
    required: bool,
) -> Result<T, DocumentError> {
    let mut value: Value = serde_json::from_slice(bytes).map_err(DocumentError::Json)?;
    let object = value.as_object_mut().ok_or(DocumentError::NotAnObject)?;
    match object.remove("schema") {
        Some(Value::String(schema)) if schema == expected => {}
        None if !required => {}
        Some(Value::String(found)) => return Err(DocumentError::Schema { expected, found: Some(found) }),
        Some(_) | None => return Err(DocumentError::Schema { expected, found: None }),
    }
    serde_json::from_value(value).map_err(DocumentError::Json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ApiError, ErrorCode, PingRequest};

    #[test]
    fn schema_comes_first_and_round_trips() {
        let error = ApiError::new(ErrorCode::Down, "the node is down");
        let json = error.to_json().unwrap();
        assert_eq!(json, r#"{"schema":"shadowmesh.error/1","code":"down","message":"the node is down"}"#);
        assert_eq!(ApiError::from_json(json.as_bytes()).unwrap(), error);
    }

    #[test]
    fn answer_of_another_schema_is_refused() {
        let other = br#"{"schema":"shadowmesh.error/2","code":"down","message":""}"#;
        assert_eq!(
            ApiError::from_json(other).unwrap_err().to_string(),
            "expected shadowmesh.error/1, found shadowmesh.error/2"
        );
        assert!(ApiError::from_json(br#"{"code":"down","message":""}"#).is_err());
    }

    #[test]
    fn request_may_leave_the_schema_out_but_not_add_fields() {
        assert!(PingRequest::from_request(br#"{"peer":"pi"}"#).is_ok());
        assert!(PingRequest::from_request(br#"{"schema":"shadowmesh.ping_request/1","peer":"pi"}"#).is_ok());
        assert!(PingRequest::from_request(br#"{"schema":"x","peer":"pi"}"#).is_err());
        assert!(PingRequest::from_request(br#"["pi", 1]"#).is_err());
        let error = PingRequest::from_request(br#"{"peer":"pi","timout":1}"#).unwrap_err().to_string();
        assert!(error.contains("timout"), "{error}");
    }
}
