//! A key condition as bounds of the keys that fulfil it.

use super::error::DynamoError;
use bytes::Bytes;
use rangekv_model::dynamo::expr::ast::{Comparator, Condition, Operand};
use rangekv_model::dynamo::keys;
use rangekv_model::dynamo::schema::{KeyAttribute, KeySchema};
use rangekv_model::dynamo::value::Value;
use std::ops::Range;

type Result<T> = std::result::Result<T, DynamoError>;

const INVALID: &str = "Invalid KeyConditionExpression: ";

/// The keys of table `table` that fulfil `condition`.
pub fn bounds(table: u32, schema: &KeySchema, condition: &Condition) -> Result<Range<Bytes>> {
    let mut parts = Vec::new();
    flatten(condition, &mut parts)?;
    if parts.len() > 2 {
        return Err(unsupported());
    }
    let mut partition = None;
    let mut sort = None;
    for part in parts {
        let attribute = attribute_of(part)?;
        let slot = match (&schema.partition, &schema.sort) {
            (key, _) if key.name == attribute => &mut partition,
            (_, Some(key)) if key.name == attribute => &mut sort,
            _ => continue,
        };
        if slot.replace(part).is_some() {
            return Err(DynamoError::validation(format!(
                "{INVALID}KeyConditionExpressions must only contain one condition per key"
            )));
        }
    }
    let Some(partition) = partition else {
        return Err(missed(&schema.partition.name));
    };
    let others = {
        let mut all = Vec::new();
        flatten(condition, &mut all)?;
        all.len() - 1 - usize::from(sort.is_some())
    };
    if others > 0 {
        return Err(match &schema.sort {
            Some(key) if sort.is_none() => missed(&key.name),
            _ => unsupported(),
        });
    }
    let Condition::Compare(Comparator::Eq, _, value) = oriented(partition)? else {
        return Err(unsupported());
    };
    let value = literal(&value)?;
    check(&schema.partition, &value)?;
    let prefix = keys::partition(table, &value);
    let (Some(sort), Some(key)) = (sort, &schema.sort) else {
        let end = keys::after_prefix(&prefix);
        return Ok(prefix.into()..end);
    };
    sort_bounds(&prefix, key, &oriented(sort)?)
}

fn missed(name: &str) -> DynamoError {
    DynamoError::validation(format!("Query condition missed key schema element: {name}"))
}

fn unsupported() -> DynamoError {
    DynamoError::validation("Query key condition not supported")
}

fn flatten<'a>(condition: &'a Condition, parts: &mut Vec<&'a Condition>) -> Result<()> {
    match condition {
        Condition::And(a, b) => {
            flatten(a, parts)?;
            flatten(b, parts)
        }
        Condition::Or(..) => Err(operator("OR")),
        Condition::Not(..) => Err(operator("NOT")),
        Condition::In(..) => Err(operator("IN")),
        Condition::Compare(Comparator::Ne, ..) => Err(operator("<>")),
        Condition::Contains(..) => Err(operator("contains")),
        Condition::Exists(..) => Err(operator("attribute_exists")),
        Condition::NotExists(..) => Err(operator("attribute_not_exists")),
        Condition::Type(..) => Err(operator("attribute_type")),
        part => {
            parts.push(part);
            Ok(())
        }
    }
}

fn operator(name: &str) -> DynamoError {
    DynamoError::validation(format!(
        "{INVALID}Invalid operator used in KeyConditionExpression: {name}"
    ))
}

/// The attribute that a part is about.
fn attribute_of(part: &Condition) -> Result<&str> {
    let (first, second) = match part {
        Condition::Compare(_, a, b) | Condition::BeginsWith(a, b) => (a, Some(b)),
        Condition::Between(a, ..) => (a, None),
        _ => return Err(unsupported()),
    };
    let path = match (first, second) {
        (Operand::Path(path), _) | (Operand::Value(_), Some(Operand::Path(path))) => path,
        (Operand::Size(_), _) | (_, Some(Operand::Size(_))) => return Err(operator("size")),
        _ => {
            return Err(DynamoError::validation(format!(
                "{INVALID}Invalid condition in KeyConditionExpression: a key attribute is required"
            )))
        }
    };
    if !path.steps.is_empty() {
        return Err(DynamoError::validation(format!(
            "{INVALID}KeyConditionExpressions cannot have conditions on nested attributes"
        )));
    }
    Ok(&path.attribute)
}

/// With the attribute on the left.
fn oriented(part: &Condition) -> Result<Condition> {
    let Condition::Compare(comparator, a @ Operand::Value(_), b) = part else {
        return Ok(part.clone());
    };
    let turned = match comparator {
        Comparator::Lt => Comparator::Gt,
        Comparator::Le => Comparator::Ge,
        Comparator::Gt => Comparator::Lt,
        Comparator::Ge => Comparator::Le,
        same => *same,
    };
    Ok(Condition::Compare(turned, b.clone(), a.clone()))
}

fn literal(operand: &Operand) -> Result<Value> {
    match operand {
        Operand::Value(value) => Ok(value.clone()),
        _ => Err(DynamoError::validation(format!(
            "{INVALID}Invalid condition in KeyConditionExpression: Multiple attribute names used in one condition"
        ))),
    }
}

fn check(key: &KeyAttribute, value: &Value) -> Result<()> {
    if !key.kind.fits(value) {
        return Err(DynamoError::validation(
            "One or more parameter values were invalid: Condition parameter type does not match schema type",
        ));
    }
    if matches!(value, Value::S(s) if s.is_empty()) || matches!(value, Value::B(b) if b.is_empty())
    {
        return Err(DynamoError::validation(format!(
            "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty {} value. Key: {}",
            if matches!(value, Value::S(_)) { "string" } else { "binary" },
            key.name
        )));
    }
    Ok(())
}

fn sort_bounds(prefix: &[u8], key: &KeyAttribute, part: &Condition) -> Result<Range<Bytes>> {
    let at = |value: &Operand| -> Result<Vec<u8>> {
        let value = literal(value)?;
        check(key, &value)?;
        let mut out = prefix.to_vec();
        keys::encode(&value, &mut out);
        Ok(out)
    };
    let first = || Bytes::copy_from_slice(prefix);
    let last = || keys::after_prefix(prefix);
    Ok(match part {
        Condition::Compare(comparator, _, value) => {
            let at = at(value)?;
            let behind = keys::after_prefix(&at);
            match comparator {
                Comparator::Eq => at.into()..behind,
                Comparator::Lt => first()..at.into(),
                Comparator::Le => first()..behind,
                Comparator::Gt => behind..last(),
                Comparator::Ge => at.into()..last(),
                Comparator::Ne => return Err(operator("<>")),
            }
        }
        Condition::Between(_, low, high) => at(low)?.into()..keys::after_prefix(&at(high)?),
        Condition::BeginsWith(_, value) => {
            let value = literal(value)?;
            check(key, &value)?;
            let mut out = prefix.to_vec();
            match &value {
                Value::S(s) => keys::escape_open(s.as_bytes(), &mut out),
                Value::B(b) => keys::escape_open(b, &mut out),
                _ => return Err(unsupported()),
            }
            let behind = keys::after_prefix(&out);
            out.into()..behind
        }
        _ => return Err(unsupported()),
    })
}
