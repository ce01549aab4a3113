//! What an update makes of an item.
//!
//! All right-hand sides see the item as it was. An update that can't be carried out changes
//! nothing.

use super::ast::{SetOperand, Update};
use super::path::{Path, Step};
use crate::dynamo::number::NumberError;
use crate::dynamo::value::{Item, Value};
use std::collections::BTreeMap;

/// Why an update can't be carried out on an item. The words are DynamoDB's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UpdateError {
    /// A right-hand side names an attribute that is not there.
    #[error("The provided expression refers to an attribute that does not exist in the item")]
    Missing,
    /// A map or list that a path goes through is not there.
    #[error("The document path provided in the update expression is invalid for update")]
    Path,
    /// A number is needed, or a list, or a set of the same type.
    #[error("An operand in the update expression has an incorrect data type")]
    Type,
    /// A sum is out of bounds.
    #[error(transparent)]
    Number(#[from] NumberError),
}

/// The item that `update` makes of `item`.
pub fn apply(update: &Update, item: &Item) -> Result<Item, UpdateError> {
    let mut puts: Vec<(&Path, Value)> = Vec::new();
    let mut gone: Vec<&Path> = update.remove.iter().collect();
    for (path, value) in &update.set {
        puts.push((path, evaluate(value, item)?));
    }
    for (path, value) in &update.add {
        puts.push((path, add(path.find(item), value)?));
    }
    for (path, value) in &update.delete {
        let Some(old) = path.find(item) else {
            check_parent(item, path)?;
            continue;
        };
        match subtract(old, value)? {
            Some(rest) => puts.push((path, rest)),
            None => gone.push(path),
        }
    }
    // Paths mean what they meant in the item as it was ("Using multiple update expressions",
    // Amazon DynamoDB Developer Guide). So lists first grow, in the order of the indexes, by what
    // is put behind their end, and then lose elements, from the end.
    let mut new = item.clone();
    puts.sort_by_key(|(path, _)| *path);
    for (path, value) in puts {
        put(&mut new, path, value)?;
    }
    gone.sort();
    for path in gone.into_iter().rev() {
        remove(&mut new, path)?;
    }
    Ok(new)
}

fn evaluate(operand: &SetOperand, item: &Item) -> Result<Value, UpdateError> {
    Ok(match operand {
        SetOperand::Value(value) => value.clone(),
        SetOperand::Path(path) => path.find(item).ok_or(UpdateError::Missing)?.clone(),
        SetOperand::IfNotExists(path, otherwise) => match path.find(item) {
            Some(value) => value.clone(),
            None => evaluate(otherwise, item)?,
        },
        SetOperand::ListAppend(a, b) => match (evaluate(a, item)?, evaluate(b, item)?) {
            (Value::L(mut a), Value::L(b)) => {
                a.extend(b);
                Value::L(a)
            }
            _ => return Err(UpdateError::Type),
        },
        SetOperand::Plus(a, b) | SetOperand::Minus(a, b) => {
            match (evaluate(a, item)?, evaluate(b, item)?) {
                (Value::N(a), Value::N(b)) if matches!(operand, SetOperand::Plus(..)) => {
                    Value::N(a.plus(b)?)
                }
                (Value::N(a), Value::N(b)) => Value::N(a.plus(b.negate())?),
                _ => return Err(UpdateError::Type),
            }
        }
    })
}

fn add(old: Option<&Value>, value: &Value) -> Result<Value, UpdateError> {
    Ok(match (old, value) {
        (None, value) => value.clone(),
        (Some(Value::N(a)), Value::N(b)) => Value::N(a.plus(*b)?),
        (Some(Value::Ss(a)), Value::Ss(b)) => Value::Ss(a.union(b).cloned().collect()),
        (Some(Value::Ns(a)), Value::Ns(b)) => Value::Ns(a.union(b).copied().collect()),
        (Some(Value::Bs(a)), Value::Bs(b)) => Value::Bs(a.union(b).cloned().collect()),
        _ => return Err(UpdateError::Type),
    })
}

/// `None` if nothing is left: there are no empty sets.
fn subtract(old: &Value, value: &Value) -> Result<Option<Value>, UpdateError> {
    Ok(match (old, value) {
        (Value::Ss(a), Value::Ss(b)) => {
            let rest: std::collections::BTreeSet<_> = a.difference(b).cloned().collect();
            (!rest.is_empty()).then_some(Value::Ss(rest))
        }
        (Value::Ns(a), Value::Ns(b)) => {
            let rest: std::collections::BTreeSet<_> = a.difference(b).copied().collect();
            (!rest.is_empty()).then_some(Value::Ns(rest))
        }
        (Value::Bs(a), Value::Bs(b)) => {
            let rest: std::collections::BTreeSet<_> = a.difference(b).cloned().collect();
            (!rest.is_empty()).then_some(Value::Bs(rest))
        }
        _ => return Err(UpdateError::Type),
    })
}

/// What the last step of a path leads into.
enum Parent<'a> {
    Map(&'a mut BTreeMap<String, Value>, &'a str),
    List(&'a mut Vec<Value>, usize),
}

fn parent<'a>(item: &'a mut Item, path: &'a Path) -> Result<Parent<'a>, UpdateError> {
    let Some((last, through)) = path.steps.split_last() else {
        return Ok(Parent::Map(item, &path.attribute));
    };
    let mut value = item.get_mut(&path.attribute).ok_or(UpdateError::Path)?;
    for step in through {
        value = match (step, value) {
            (Step::Name(name), Value::M(map)) => map.get_mut(name),
            (Step::Index(index), Value::L(list)) => list.get_mut(*index),
            _ => None,
        }
        .ok_or(UpdateError::Path)?;
    }
    match (last, value) {
        (Step::Name(name), Value::M(map)) => Ok(Parent::Map(map, name)),
        (Step::Index(index), Value::L(list)) => Ok(Parent::List(list, *index)),
        _ => Err(UpdateError::Path),
    }
}

fn check_parent(item: &Item, path: &Path) -> Result<(), UpdateError> {
    parent(&mut item.clone(), path).map(drop)
}

fn put(item: &mut Item, path: &Path, value: Value) -> Result<(), UpdateError> {
    match parent(item, path)? {
        Parent::Map(map, name) => {
            map.insert(name.to_owned(), value);
        }
        Parent::List(list, index) if index < list.len() => list[index] = value,
        Parent::List(list, _) => list.push(value),
    }
    Ok(())
}

/// What is not there may be removed, from what is.
fn remove(item: &mut Item, path: &Path) -> Result<(), UpdateError> {
    match parent(item, path)? {
        Parent::Map(map, name) => {
            map.remove(name);
        }
        Parent::List(list, index) if index < list.len() => {
            list.remove(index);
        }
        Parent::List(..) => {}
    }
    Ok(())
}
