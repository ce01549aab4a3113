//! Whether an item fulfils a condition.
//!
//! A comparison with something that is not there is false, `<>` with it is true.

use super::ast::{Comparator, Condition, Operand};
use crate::dynamo::number::Number;
use crate::dynamo::value::{Item, Value};
use std::borrow::Cow;
use std::cmp::Ordering;

/// Whether `item` (empty if there is none) fulfils `condition`.
pub fn holds(condition: &Condition, item: &Item) -> bool {
    match condition {
        Condition::Compare(comparator, a, b) => {
            compare(*comparator, operand(a, item), operand(b, item))
        }
        Condition::Between(a, low, high) => {
            let (a, low, high) = (operand(a, item), operand(low, item), operand(high, item));
            compare(Comparator::Ge, a.clone(), low) && compare(Comparator::Le, a, high)
        }
        Condition::In(a, list) => {
            let a = operand(a, item);
            a.is_some() && list.iter().any(|b| operand(b, item) == a)
        }
        Condition::Exists(path) => path.find(item).is_some(),
        Condition::NotExists(path) => path.find(item).is_none(),
        Condition::Type(path, name) => path.find(item).is_some_and(|v| v.type_name() == name),
        Condition::BeginsWith(a, b) => match (operand(a, item), operand(b, item)) {
            (Some(a), Some(b)) => match (&*a, &*b) {
                (Value::S(a), Value::S(b)) => a.starts_with(&**b),
                (Value::B(a), Value::B(b)) => a.starts_with(b),
                _ => false,
            },
            _ => false,
        },
        Condition::Contains(a, b) => match (operand(a, item), operand(b, item)) {
            (Some(a), Some(b)) => contains(&a, &b),
            _ => false,
        },
        Condition::And(a, b) => holds(a, item) && holds(b, item),
        Condition::Or(a, b) => holds(a, item) || holds(b, item),
        Condition::Not(a) => !holds(a, item),
    }
}

fn operand<'a>(operand: &'a Operand, item: &'a Item) -> Option<Cow<'a, Value>> {
    match operand {
        Operand::Path(path) => path.find(item).map(Cow::Borrowed),
        Operand::Value(value) => Some(Cow::Borrowed(value)),
        Operand::Size(path) => {
            let length = path.find(item)?.length()?;
            let length = Number::parse(&length.to_string()).expect("a length is a number");
            Some(Cow::Owned(Value::N(length)))
        }
    }
}

fn compare(comparator: Comparator, a: Option<Cow<'_, Value>>, b: Option<Cow<'_, Value>>) -> bool {
    let (Some(a), Some(b)) = (a, b) else {
        return comparator == Comparator::Ne;
    };
    let ordered = |holds: fn(Ordering) -> bool| a.compare(&b).is_some_and(holds);
    match comparator {
        Comparator::Eq => a == b,
        Comparator::Ne => a != b,
        Comparator::Lt => ordered(Ordering::is_lt),
        Comparator::Le => ordered(Ordering::is_le),
        Comparator::Gt => ordered(Ordering::is_gt),
        Comparator::Ge => ordered(Ordering::is_ge),
    }
}

/// Whether a string or binary has `b` within, a list or set as an element.
fn contains(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::S(a), Value::S(b)) => a.contains(&**b),
        (Value::B(a), Value::B(b)) => b.is_empty() || a.windows(b.len()).any(|part| part == b),
        (Value::L(list), b) => list.contains(b),
        (Value::Ss(set), Value::S(b)) => set.contains(b),
        (Value::Ns(set), Value::N(b)) => set.contains(b),
        (Value::Bs(set), Value::B(b)) => set.contains(b),
        _ => false,
    }
}
