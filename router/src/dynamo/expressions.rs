//! The expressions of a request, or the older parameters that they replaced, as expressions.

use super::error::DynamoError;
use super::legacy;
use super::request::Parameters;
use rangekv_model::dynamo::command::Expressions;
use rangekv_model::dynamo::expr::ast::{Condition, Update};
use rangekv_model::dynamo::expr::path::Path;
use rangekv_model::dynamo::expr::{
    check_size, parse_condition, parse_projection, parse_update, Kind, Placeholders,
};
use rangekv_model::dynamo::schema::KeySchema;
use std::collections::BTreeMap;

type Result<T> = std::result::Result<T, DynamoError>;

/// What a request says in expressions: as it travels, and parsed.
#[derive(Default)]
pub struct Parsed {
    /// As it travels. A filter is its condition; a key condition does not travel.
    pub expressions: Expressions,
    /// Condition or filter.
    pub condition: Option<Condition>,
    /// Key condition.
    pub key_condition: Option<Condition>,
    /// Update.
    pub update: Option<Update>,
    /// Projection.
    pub projection: Option<Vec<Path>>,
}

/// Reads the expressions of the kinds that an operation has.
pub fn read(request: &Parameters<'_>, kinds: &[Kind]) -> Result<Parsed> {
    check_dialect(request, kinds)?;
    let texts: Vec<(Kind, Option<&str>)> = kinds
        .iter()
        .map(|kind| Ok((*kind, request.text(kind.name())?)))
        .collect::<Result<_>>()?;
    for (kind, text) in &texts {
        let checked = text.map_or(Ok(()), |text| check_size(*kind, text));
        checked.map_err(DynamoError::validation)?;
    }
    let names = request.names("ExpressionAttributeNames")?;
    let values = request.item("ExpressionAttributeValues")?;
    check_placeholders(&texts, names.as_ref(), values.as_ref())?;
    let mut texts: BTreeMap<&'static str, String> = texts
        .into_iter()
        .filter_map(|(kind, text)| Some((kind.name(), text?.to_owned())))
        .collect();
    let mut placeholders = Placeholders::new(names.unwrap_or_default(), values.unwrap_or_default());
    legacy::translate(request, kinds, &mut texts, &mut placeholders)?;
    let mut parsed = Parsed::default();
    let mut take = |kind: Kind| texts.remove(kind.name());
    let wrong = DynamoError::validation;
    if let Some(text) = take(Kind::KeyCondition) {
        let condition = parse_condition(Kind::KeyCondition, &text, &placeholders).map_err(wrong)?;
        parsed.key_condition = Some(condition);
    }
    for kind in [Kind::Condition, Kind::Filter] {
        if let Some(text) = take(kind) {
            parsed.condition = Some(parse_condition(kind, &text, &placeholders).map_err(wrong)?);
            parsed.expressions.condition = Some(text);
        }
    }
    if let Some(text) = take(Kind::Update) {
        parsed.update = Some(parse_update(&text, &placeholders).map_err(wrong)?);
        parsed.expressions.update = Some(text);
    }
    if let Some(text) = take(Kind::Projection) {
        parsed.projection = Some(parse_projection(&text, &placeholders).map_err(wrong)?);
        parsed.expressions.projection = Some(text);
    }
    placeholders.check_used().map_err(wrong)?;
    parsed.expressions.names = placeholders.names;
    parsed.expressions.values = placeholders.values;
    Ok(parsed)
}

/// The older parameters and expressions don't go together.
fn check_dialect(request: &Parameters<'_>, kinds: &[Kind]) -> Result<()> {
    let older: Vec<&str> = legacy::parameters(kinds)
        .into_iter()
        .filter(|name| request.has(name))
        .collect();
    let newer: Vec<&str> = kinds
        .iter()
        .map(|kind| kind.name())
        .filter(|name| request.has(name))
        .collect();
    if older.is_empty() || newer.is_empty() {
        return Ok(());
    }
    Err(DynamoError::validation(format!(
        "Can not use both expression and non-expression parameters in the same request: Non-expression parameters: {{{}}} Expression parameters: {{{}}}",
        older.join(", "),
        newer.join(", ")
    )))
}

fn check_placeholders(
    texts: &[(Kind, Option<&str>)],
    names: Option<&BTreeMap<String, String>>,
    values: Option<&rangekv_model::dynamo::value::Item>,
) -> Result<()> {
    let any = texts.iter().any(|(_, text)| text.is_some());
    if let Some(names) = names {
        if !any {
            let why = "ExpressionAttributeNames can only be specified when using expressions";
            return Err(DynamoError::validation(why));
        }
        if names.is_empty() {
            let why = "ExpressionAttributeNames must not be empty";
            return Err(DynamoError::validation(why));
        }
        if let Some(placeholder) = names.keys().find(|name| !is_placeholder(name, '#')) {
            return Err(DynamoError::validation(format!(
                "ExpressionAttributeNames contains invalid key: Syntax error; key: \"{placeholder}\""
            )));
        }
    }
    let Some(values) = values else {
        return Ok(());
    };
    let with_values: Vec<(Kind, Option<&str>)> = texts
        .iter()
        .filter(|(kind, _)| *kind != Kind::Projection)
        .copied()
        .collect();
    if with_values.iter().all(|(_, text)| text.is_none()) {
        let why = match &with_values[..] {
            [] => String::new(),
            kinds => {
                let absent: Vec<&str> = kinds.iter().map(|(kind, _)| kind.name()).collect();
                let verb = if absent.len() == 1 { "is" } else { "are" };
                format!(": {} {verb} null", absent.join(" and "))
            }
        };
        return Err(DynamoError::validation(format!(
            "ExpressionAttributeValues can only be specified when using expressions{why}"
        )));
    }
    if values.is_empty() {
        let why = "ExpressionAttributeValues must not be empty";
        return Err(DynamoError::validation(why));
    }
    match values.keys().find(|name| !is_placeholder(name, ':')) {
        None => Ok(()),
        Some(placeholder) => Err(DynamoError::validation(format!(
            "ExpressionAttributeValues contains invalid key: Syntax error; key: \"{placeholder}\""
        ))),
    }
}

fn is_placeholder(name: &str, mark: char) -> bool {
    name.strip_prefix(mark).is_some_and(|rest| {
        !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    })
}

/// An update must not change the key.
pub fn check_update_keys(update: &Update, schema: &KeySchema) -> Result<()> {
    for path in update.targets() {
        if let Some(key) = schema.find(&path.attribute) {
            return Err(DynamoError::validation(format!(
                "One or more parameter values were invalid: Cannot update attribute {}. This attribute is part of the key",
                key.name
            )));
        }
    }
    Ok(())
}
