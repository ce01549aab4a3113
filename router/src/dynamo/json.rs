//! Attribute values and items in JSON, and what DynamoDB says of wrong ones.

use super::error::{DynamoError, Exception};
use base64::engine::general_purpose::STANDARD as BASE64;
use base64::Engine;
use rangekv_model::dynamo::number::Number;
use rangekv_model::dynamo::value::{Item, Value, DEPTH_MAX};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{json, Map, Value as Json};
use std::collections::{BTreeMap, BTreeSet};

type Result<T> = std::result::Result<T, DynamoError>;

const INVALID: &str = "One or more parameter values were invalid: ";

/// An item of a request.
pub fn item(json: &Json) -> Result<Item> {
    object(json)?
        .iter()
        .map(|(name, value)| Ok((name.clone(), attribute(value)?)))
        .collect()
}

/// An attribute value of a request: an object whose only key is the type.
pub fn attribute(json: &Json) -> Result<Value> {
    let parsed = value(json, 0)?;
    if parsed.deeper_than(DEPTH_MAX) {
        return Err(nested_too_deep());
    }
    Ok(parsed)
}

fn nested_too_deep() -> DynamoError {
    DynamoError::validation(rangekv_model::dynamo::NESTED_TOO_DEEP)
}

fn value(json: &Json, depth: usize) -> Result<Value> {
    if depth > DEPTH_MAX + 1 {
        return Err(nested_too_deep());
    }
    const TYPES: [&str; 10] = ["S", "N", "B", "BOOL", "NULL", "L", "M", "SS", "NS", "BS"];
    let known = object(json)?
        .iter()
        .filter(|(name, value)| TYPES.contains(&name.as_str()) && !value.is_null());
    let known: Vec<_> = known.collect();
    let [(name, inner)] = known[..] else {
        return Err(DynamoError::validation(match known.len() {
            0 => "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes",
            _ => "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes",
        }));
    };
    Ok(match name.as_str() {
        "S" => Value::S(text(inner)?.to_owned()),
        "N" => Value::N(number(text(inner)?)?),
        "B" => Value::B(binary(inner)?.into()),
        "BOOL" => Value::Bool(boolean(inner)?),
        "NULL" => match boolean(inner)? {
            true => Value::Null,
            false => {
                let why = "Null attribute value types must have the value of true";
                return Err(DynamoError::validation(format!("{INVALID}{why}")));
            }
        },
        "L" => Value::L(
            array(inner)?
                .iter()
                .map(|element| value(element, depth + 1))
                .collect::<Result<_>>()?,
        ),
        "M" => Value::M(
            object(inner)?
                .iter()
                .map(|(name, inner)| Ok((name.clone(), value(inner, depth + 1)?)))
                .collect::<Result<BTreeMap<_, _>>>()?,
        ),
        "SS" => Value::Ss(set(inner, "string", |e| Ok(text(e)?.to_owned()))?),
        "NS" => Value::Ns(set(inner, "number", |e| number(text(e)?))?),
        _ => Value::Bs(set(inner, "binary", |e| Ok(binary(e)?.into()))?),
    })
}

fn number(text: &str) -> Result<Number> {
    // DynamoDB accepts blanks around a number.
    Number::parse(text.trim()).map_err(|e| DynamoError::validation(e.to_string()))
}

fn set<T: Ord>(
    json: &Json,
    kind: &str,
    element: impl Fn(&Json) -> Result<T>,
) -> Result<BTreeSet<T>> {
    let elements = array(json)?;
    if elements.is_empty() {
        // Two blanks in the number set's message, as DynamoDB has them.
        let article = if kind == "number" {
            "An number set  may"
        } else {
            "An"
        };
        let why = match kind {
            "number" => format!("{article} not be empty"),
            _ => format!("{article} {kind} set may not be empty"),
        };
        return Err(DynamoError::validation(format!("{INVALID}{why}")));
    }
    let mut set = BTreeSet::new();
    for json in elements {
        if !set.insert(element(json)?) {
            let shown: Vec<&str> = elements.iter().filter_map(Json::as_str).collect();
            let why = format!(
                "Input collection [{}] contains duplicates.",
                shown.join(", ")
            );
            return Err(DynamoError::validation(match kind {
                "number" => "Input collection contains duplicates".to_string(),
                "string" => format!("{INVALID}{why}"),
                _ => format!(
                    "{INVALID}Input collection {}of type BS contains duplicates.",
                    format_args!("[{}]", shown.join(", "))
                ),
            }));
        }
    }
    Ok(set)
}

/// An item in a response.
pub fn item_json(item: &Item) -> Json {
    let entries = item.iter().map(|(name, v)| (name.clone(), value_json(v)));
    Json::Object(entries.collect::<Map<_, _>>())
}

/// An attribute value in a response.
pub fn value_json(value: &Value) -> Json {
    match value {
        Value::S(s) => json!({ "S": s }),
        Value::N(n) => json!({ "N": n.to_string() }),
        Value::B(b) => json!({ "B": BASE64.encode(b) }),
        Value::Bool(b) => json!({ "BOOL": b }),
        Value::Null => json!({ "NULL": true }),
        Value::L(list) => json!({ "L": list.iter().map(value_json).collect::<Vec<_>>() }),
        Value::M(map) => json!({ "M": item_json(map) }),
        Value::Ss(set) => json!({ "SS": set }),
        Value::Ns(set) => json!({ "NS": set.iter().map(Number::to_string).collect::<Vec<_>>() }),
        Value::Bs(set) => {
            json!({ "BS": set.iter().map(|b| BASE64.encode(b)).collect::<Vec<_>>() })
        }
    }
}

/// An item, written as JSON without a tree of it.
pub struct ItemText<'a>(pub &'a Item);

impl Serialize for ItemText<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> std::result::Result<S::Ok, S::Error> {
        out.collect_map(self.0.iter().map(|(name, value)| (name, ValueText(value))))
    }
}

/// A value, as [`ItemText`].
struct ValueText<'a>(&'a Value);

impl Serialize for ValueText<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = out.serialize_map(Some(1))?;
        map.serialize_key(self.0.type_name())?;
        match self.0 {
            Value::S(s) => map.serialize_value(s)?,
            Value::N(n) => map.serialize_value(&n.to_string())?,
            Value::B(b) => map.serialize_value(&BASE64.encode(b))?,
            Value::Bool(b) => map.serialize_value(b)?,
            Value::Null => map.serialize_value(&true)?,
            Value::L(list) => {
                let list: Vec<_> = list.iter().map(ValueText).collect();
                map.serialize_value(&list)?;
            }
            Value::M(item) => map.serialize_value(&ItemText(item))?,
            Value::Ss(set) => map.serialize_value(set)?,
            Value::Ns(set) => {
                let set: Vec<_> = set.iter().map(Number::to_string).collect();
                map.serialize_value(&set)?;
            }
            Value::Bs(set) => {
                let set: Vec<_> = set.iter().map(|b| BASE64.encode(b)).collect();
                map.serialize_value(&set)?;
            }
        }
        map.end()
    }
}

/// The body of a response with these members.
pub fn body(members: &impl Serialize) -> Result<String> {
    // No map here has keys that are no strings, so that this does not happen.
    let wrong = |why| DynamoError::new(Exception::Internal, format!("no JSON: {why}"));
    serde_json::to_string(members).map_err(wrong)
}

/// What DynamoDB calls the token at which a value begins.
fn token(json: &Json) -> &'static str {
    match json {
        Json::Null => "NULL_VALUE",
        Json::Bool(true) => "TRUE_VALUE",
        Json::Bool(false) => "FALSE_VALUE",
        Json::Number(n) if n.is_f64() => "DECIMAL_VALUE",
        Json::Number(_) => "NUMBER_VALUE",
        Json::String(_) => "STRING_VALUE",
        Json::Array(_) => "START_ARRAY",
        Json::Object(_) => "START_OBJECT",
    }
}

fn mismatch(json: &Json, wanted: &str) -> DynamoError {
    DynamoError::serialization(match json {
        Json::Array(_) | Json::Object(_) => {
            "Start of structure or map found where not expected.".to_string()
        }
        _ => format!("{} cannot be converted to {wanted}", token(json)),
    })
}

/// A JSON string.
pub fn text(json: &Json) -> Result<&str> {
    json.as_str().ok_or_else(|| mismatch(json, "String"))
}

/// A JSON boolean.
pub fn boolean(json: &Json) -> Result<bool> {
    json.as_bool().ok_or_else(|| mismatch(json, "Boolean"))
}

/// A JSON integer.
pub fn integer(json: &Json) -> Result<i64> {
    match json {
        Json::Number(n) => Ok(n
            .as_i64()
            .or(n.as_f64().map(|f| f as i64))
            .unwrap_or(i64::MAX)),
        _ => Err(mismatch(json, "Integer")),
    }
}

/// A JSON array.
pub fn array(json: &Json) -> Result<&Vec<Json>> {
    json.as_array().ok_or_else(|| match json {
        Json::Object(_) => {
            DynamoError::serialization("Start of structure or map found where not expected.")
        }
        _ => DynamoError::serialization("Unexpected field type"),
    })
}

/// A JSON object.
pub fn object(json: &Json) -> Result<&Map<String, Json>> {
    json.as_object().ok_or_else(|| match json {
        Json::Array(_) => {
            DynamoError::serialization("Unrecognized collection type class java.util.ArrayList")
        }
        _ => DynamoError::serialization("Unexpected value type in payload"),
    })
}

fn binary(json: &Json) -> Result<Vec<u8>> {
    let text = text(json)?;
    BASE64.decode(text).map_err(|_| {
        DynamoError::serialization(match text.len() % 4 {
            0 => "Invalid Base64 character found in the input".to_string(),
            _ => format!(
                "Base64 encoded length is expected a multiple of 4 bytes but found: {}",
                text.len()
            ),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_back() {
        for text in [
            r#"{"S":"é"}"#,
            r#"{"N":"-12.5"}"#,
            r#"{"B":"AP8="}"#,
            r#"{"BOOL":false}"#,
            r#"{"NULL":true}"#,
            r#"{"L":[{"S":""},{"M":{"a":{"L":[]}}}]}"#,
            r#"{"SS":["a","b"]}"#,
            r#"{"NS":["1","20"]}"#,
            r#"{"BS":["","AA=="]}"#,
        ] {
            let json: Json = serde_json::from_str(text).unwrap();
            let value = attribute(&json).unwrap();
            assert_eq!(value_json(&value), json, "{text}");
            assert_eq!(serde_json::to_string(&ValueText(&value)).unwrap(), text);
        }
    }

    #[test]
    fn wrong_values() {
        for (text, why) in [
            (r#"{}"#, "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"),
            (r#"{"X":"a"}"#, "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"),
            (r#"{"S":"a","N":"1"}"#, "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes"),
            (r#"{"S":1}"#, "NUMBER_VALUE cannot be converted to String"),
            (r#"{"N":"x"}"#, "The parameter cannot be converted to a numeric value: x"),
            (r#"{"NULL":false}"#, "One or more parameter values were invalid: Null attribute value types must have the value of true"),
            (r#"{"SS":[]}"#, "One or more parameter values were invalid: An string set may not be empty"),
            (r#"{"NS":[]}"#, "One or more parameter values were invalid: An number set  may not be empty"),
            (r#"{"SS":["a","a"]}"#, "One or more parameter values were invalid: Input collection [a, a] contains duplicates."),
            (r#"{"B":"a"}"#, "Base64 encoded length is expected a multiple of 4 bytes but found: 1"),
            (r#"{"B":"a?=="}"#, "Invalid Base64 character found in the input"),
            (r#""a""#, "Unexpected value type in payload"),
        ] {
            let json: Json = serde_json::from_str(text).unwrap();
            assert_eq!(attribute(&json).unwrap_err().message, why, "{text}");
        }
        let deep = format!(
            "{}{{\"S\":\"a\"}}{}",
            r#"{"L":["#.repeat(33),
            "]}".repeat(33)
        );
        let json: Json = serde_json::from_str(&deep).unwrap();
        assert!(attribute(&json)
            .unwrap_err()
            .message
            .starts_with("Nesting Levels"));
    }
}
