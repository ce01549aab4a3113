//! Parameters of a request, by name and type.

use super::error::DynamoError;
use super::json;
use rangekv_model::dynamo::value::Item;
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;

type Result<T> = std::result::Result<T, DynamoError>;

/// The members of a JSON object. `null` counts as absent.
#[derive(Clone, Copy, Debug)]
pub struct Parameters<'a>(&'a Map<String, Json>);

impl<'a> Parameters<'a> {
    /// The parameters in `json`, which is an object.
    pub fn of(json: &'a Json) -> Result<Self> {
        Ok(Parameters(json::object(json)?))
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&'a Json> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// Whether `name` is there.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// A string.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>> {
        self.get(name).map(json::text).transpose()
    }

    /// A boolean; false if absent.
    pub fn flag(&self, name: &str) -> Result<bool> {
        Ok(self
            .get(name)
            .map(json::boolean)
            .transpose()?
            .unwrap_or(false))
    }

    /// An integer.
    pub fn integer(&self, name: &str) -> Result<Option<i64>> {
        self.get(name).map(json::integer).transpose()
    }

    /// An array.
    pub fn array(&self, name: &str) -> Result<Option<&'a Vec<Json>>> {
        self.get(name).map(json::array).transpose()
    }

    /// An object.
    pub fn object(&self, name: &str) -> Result<Option<&'a Map<String, Json>>> {
        self.get(name).map(json::object).transpose()
    }

    /// An item.
    pub fn item(&self, name: &str) -> Result<Option<Item>> {
        self.get(name).map(json::item).transpose()
    }

    /// An array of strings.
    pub fn texts(&self, name: &str) -> Result<Option<Vec<String>>> {
        let Some(array) = self.array(name)? else {
            return Ok(None);
        };
        let texts = array.iter().map(|text| Ok(json::text(text)?.to_owned()));
        texts.collect::<Result<_>>().map(Some)
    }

    /// An object of strings.
    pub fn names(&self, name: &str) -> Result<Option<BTreeMap<String, String>>> {
        let Some(object) = self.object(name)? else {
            return Ok(None);
        };
        let names = object
            .iter()
            .map(|(k, v)| Ok((k.clone(), json::text(v)?.to_owned())));
        names.collect::<Result<_>>().map(Some)
    }

    /// One of `allowed`; absent = the first of them.
    pub fn choice(&self, name: &str, allowed: &[&'static str]) -> Result<&'static str> {
        let Some(text) = self.text(name)? else {
            return Ok(allowed[0]);
        };
        let found = allowed.iter().find(|choice| **choice == text);
        found.copied().ok_or_else(|| {
            constraint(
                text,
                name,
                &format!(
                    "Member must satisfy enum value set: [{}]",
                    allowed.join(", ")
                ),
            )
        })
    }

    /// An integer within bounds.
    pub fn bounded(&self, name: &str, least: i64, most: i64) -> Result<Option<i64>> {
        let Some(n) = self.integer(name)? else {
            return Ok(None);
        };
        if n < least {
            let rule = format!("Member must have value greater than or equal to {least}");
            return Err(constraint(&n.to_string(), name, &rule));
        }
        if n > most {
            let rule = format!("Member must have value less than or equal to {most}");
            return Err(constraint(&n.to_string(), name, &rule));
        }
        Ok(Some(n))
    }

    /// The name of a table, bare or as the end of an ARN.
    pub fn table_name(&self) -> Result<&'a str> {
        self.table_name_in("TableName")
    }

    /// As [`table_name`](Self::table_name), in the parameter `name`.
    pub fn table_name_in(&self, name: &str) -> Result<&'a str> {
        let text = self.text(name)?.ok_or_else(|| {
            DynamoError::validation(format!(
                "The parameter '{name}' is required but was not present in the request"
            ))
        })?;
        check_table_name(table_of_arn(text))
    }
}

/// The table's name in an ARN; what is no ARN is a name.
pub fn table_of_arn(text: &str) -> &str {
    match text.strip_prefix("arn:") {
        Some(arn) => arn.split_once(":table/").map_or(text, |(_, name)| name),
        None => text,
    }
}

/// Refuses what can't be a table's name.
pub fn check_table_name(name: &str) -> Result<&str> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if (3..=255).contains(&name.len()) && name.bytes().all(legal) {
        return Ok(name);
    }
    Err(DynamoError::validation(
        "Invalid table/index name.  Table/index names must be between 3 and 255 characters long, and may contain only the characters a-z, A-Z, 0-9, '_', '-', and '.'",
    ))
}

/// The error of a member outside its bounds; `name` as in the request.
pub fn constraint(value: &str, name: &str, rule: &str) -> DynamoError {
    let mut letters = name.chars();
    let first = letters.next().map(|c| c.to_ascii_lowercase());
    let member: String = first.into_iter().chain(letters).collect();
    DynamoError::validation(format!(
        "1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: {rule}"
    ))
}

/// The error of a member that must be there.
pub fn missing(name: &str) -> DynamoError {
    let mut letters = name.chars();
    let first = letters.next().map(|c| c.to_ascii_lowercase());
    let member: String = first.into_iter().chain(letters).collect();
    DynamoError::validation(format!(
        "1 validation error detected: Value null at '{member}' failed to satisfy constraint: Member must not be null"
    ))
}
