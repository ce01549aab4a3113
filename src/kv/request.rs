//! What a request asks for, and how keys and values stand in an answer.

use crate::http::answer::Failure;
use crate::http::query::Query;
use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use bytes::Bytes;
use serde_json::{Map, Value};

/// Characters of a body that an error quotes.
const QUOTED_MAX: usize = 80;

/// The key and the value of a body such as `{"key": "a", "value_base64": "/wA="}`.
pub fn pair(body: &[u8]) -> Result<(Bytes, Bytes), Failure> {
    let expected = r#"expected {"key": "…", "value": "…"}, with key_base64 and value_base64 for what is no UTF-8"#;
    let bad = |why: String| Failure::BadRequest(format!("{why}; {expected}"));
    let quoted = || {
        let text = String::from_utf8_lossy(body);
        let mut shown: String = text.chars().take(QUOTED_MAX).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        shown
    };
    let json: Value = serde_json::from_slice(body)
        .map_err(|e| bad(format!("the body {:?} is no JSON: {e}", quoted())))?;
    let Value::Object(mut fields) = json else {
        return Err(bad(format!("the body {:?} is no object", quoted())));
    };
    let key = field(&mut fields, "key").map_err(bad)?;
    let value = field(&mut fields, "value").map_err(bad)?;
    match fields.keys().next() {
        Some(unknown) => Err(bad(format!("the field {unknown:?} means nothing here"))),
        None => Ok((key, value)),
    }
}

/// Takes out a field, or the one with `_base64` behind its name.
fn field(fields: &mut Map<String, Value>, name: &str) -> Result<Bytes, String> {
    let encoded_name = format!("{name}_base64");
    match (fields.remove(name), fields.remove(&encoded_name)) {
        (Some(Value::String(text)), None) => Ok(text.into()),
        (None, Some(Value::String(text))) => STANDARD
            .decode(&text)
            .map(Bytes::from)
            .map_err(|e| format!("{encoded_name} {text:?} is no Base64: {e}")),
        (None, None) => Err(format!("there is no field {name:?}")),
        (Some(_), Some(_)) => Err(format!("{name:?} and {encoded_name:?} exclude each other")),
        (Some(other), None) | (None, Some(other)) => Err(format!(
            "the field {name:?} is {other}, and has to be a string"
        )),
    }
}

/// The key that a query names.
pub fn key(query: &Query) -> Result<Bytes, Failure> {
    match query.bytes("key") {
        Some(key) => Ok(Bytes::copy_from_slice(key)),
        None => Err(Failure::BadRequest(
            "which key? Expected ?key=…, percent-encoded".into(),
        )),
    }
}

/// Adds bytes to an answer under `name`, or in Base64 under its other name.
pub fn put(answer: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => answer.insert(name.to_owned(), text.into()),
        Err(_) => answer.insert(format!("{name}_base64"), STANDARD.encode(bytes).into()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_as_text_or_as_base64() {
        let read = |body: &str| pair(body.as_bytes());
        let (key, value) = read(r#"{"key":"user:123","value":"Jörg"}"#).unwrap();
        assert_eq!(
            (&key[..], &value[..]),
            (&b"user:123"[..], "Jörg".as_bytes())
        );
        let (key, value) = read(r#"{"key_base64":"/wA=","value":""}"#).unwrap();
        assert_eq!((&key[..], &value[..]), (&b"\xff\x00"[..], &b""[..]));
        let mut answer = Map::new();
        put(&mut answer, "key", &key);
        put(&mut answer, "value", b"x");
        let answer = Value::Object(answer).to_string();
        assert_eq!(answer, r#"{"key_base64":"/wA=","value":"x"}"#);
    }

    #[test]
    fn what_is_wrong_is_quoted() {
        for (body, quoted) in [
            ("{\"key\":", r#""{\"key\":""#),
            ("[1]", "[1]"),
            (r#"{"value":"x"}"#, r#"no field "key""#),
            (r#"{"key":"a"}"#, r#"no field "value""#),
            (r#"{"key":7,"value":"x"}"#, r#""key" is 7"#),
            (r#"{"key":"a","value":"x","ttl":9}"#, r#""ttl""#),
            (r#"{"key":"a","key_base64":"YQ==","value":"x"}"#, "exclude"),
            (r#"{"key":"a","value_base64":"*"}"#, r#""*" is no Base64"#),
        ] {
            match pair(body.as_bytes()) {
                Err(Failure::BadRequest(why)) => assert!(why.contains(quoted), "{body}: {why}"),
                other => panic!("{body}: {other:?}"),
            }
        }
    }
}
