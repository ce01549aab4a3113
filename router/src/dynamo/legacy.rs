//! The parameters that expressions replaced (`Expected`, `AttributeUpdates`, `KeyConditions`,
//! `QueryFilter`, `ScanFilter`, `AttributesToGet`, `ConditionalOperator`), written as expressions
//! with placeholders of our own, so that there is one evaluation of both.
//!
//! ("Legacy conditional parameters", Amazon DynamoDB Developer Guide.)

use super::error::DynamoError;
use super::json;
use super::request::{constraint, Parameters};
use rangekv_model::dynamo::expr::{Kind, Placeholders};
use rangekv_model::dynamo::value::Value;
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};

type Result<T> = std::result::Result<T, DynamoError>;

const INVALID: &str = "One or more parameter values were invalid: ";
/// Conditions of one parameter at most: as many as an expression may have operators ("Service,
/// account, and table quotas").
const CONDITIONS_MAX: usize = 300;

/// Names of the older parameters that stand for expressions of these kinds.
pub fn parameters(kinds: &[Kind]) -> Vec<&'static str> {
    let mut names = Vec::new();
    let query = kinds.contains(&Kind::KeyCondition);
    for kind in kinds {
        match kind {
            Kind::Condition => names.extend(["Expected", "ConditionalOperator"]),
            Kind::Filter if query => names.extend(["QueryFilter", "ConditionalOperator"]),
            Kind::Filter => names.extend(["ScanFilter", "ConditionalOperator"]),
            Kind::KeyCondition => names.push("KeyConditions"),
            Kind::Projection => names.push("AttributesToGet"),
            Kind::Update => names.push("AttributeUpdates"),
        }
    }
    names
}

/// Adds the older parameters of `request` to the expressions in `texts`.
pub fn translate(
    request: &Parameters<'_>,
    kinds: &[Kind],
    texts: &mut BTreeMap<&'static str, String>,
    placeholders: &mut Placeholders,
) -> Result<()> {
    let mut writer = Writer {
        placeholders,
        next: 0,
    };
    let joined = request.choice("ConditionalOperator", &["AND", "OR"])?;
    let mut joins = None;
    for kind in kinds {
        let parameter = parameters(&[*kind])[0];
        let parameter = match kind {
            Kind::Filter if kinds.contains(&Kind::KeyCondition) => "QueryFilter",
            _ => parameter,
        };
        let text = match kind {
            Kind::Projection => match request.texts(parameter)? {
                None => continue,
                Some(names) if names.is_empty() => {
                    let rule = "Member must have length greater than or equal to 1";
                    return Err(constraint("[]", parameter, rule));
                }
                Some(names) => {
                    let mut seen = BTreeSet::new();
                    if let Some(twice) = names.iter().find(|name| !seen.insert(*name)) {
                        return Err(DynamoError::validation(format!(
                            "{INVALID}Duplicate value in attribute name: {twice}"
                        )));
                    }
                    let names: Vec<String> = names.into_iter().map(|n| writer.name(n)).collect();
                    names.join(", ")
                }
            },
            Kind::Update => match request.object(parameter)? {
                None => continue,
                Some(updates) if updates.is_empty() => continue,
                Some(updates) => {
                    let mut sections = Sections::default();
                    for (name, update) in updates {
                        writer.update(name, Parameters::of(update)?, &mut sections)?;
                    }
                    sections.text()
                }
            },
            Kind::Condition | Kind::Filter | Kind::KeyCondition => {
                let Some(conditions) = request.object(parameter)?.filter(|c| !c.is_empty()) else {
                    continue;
                };
                if conditions.len() > CONDITIONS_MAX {
                    return Err(DynamoError::validation(format!(
                        "{INVALID}{parameter} has {} conditions, more than {CONDITIONS_MAX}",
                        conditions.len()
                    )));
                }
                if *kind != Kind::KeyCondition {
                    joins = Some(conditions.len());
                }
                let mut parts = Vec::new();
                for (name, condition) in conditions {
                    let condition = Parameters::of(condition)?;
                    parts.push(match kind {
                        Kind::Condition => writer.expected(name, condition)?,
                        _ => writer.comparison(name, condition)?,
                    });
                }
                if parts.len() > 1 && *kind != Kind::KeyCondition {
                    parts.join(&format!(" {joined} "))
                } else {
                    parts.join(" AND ")
                }
            }
        };
        texts.insert(kind.name(), text);
    }
    let conditional = kinds
        .iter()
        .any(|k| matches!(k, Kind::Condition | Kind::Filter));
    let why = match joins {
        _ if !conditional || !request.has("ConditionalOperator") => return Ok(()),
        None => "cannot be used without Filter or Expected",
        Some(1) => "can only be used when Filter or Expected has two or more elements",
        Some(_) => return Ok(()),
    };
    Err(DynamoError::validation(format!(
        "{INVALID}ConditionalOperator {why}"
    )))
}

#[derive(Default)]
struct Sections {
    set: Vec<String>,
    remove: Vec<String>,
    add: Vec<String>,
    delete: Vec<String>,
}

impl Sections {
    fn text(&self) -> String {
        let sections = [
            ("SET", &self.set),
            ("REMOVE", &self.remove),
            ("ADD", &self.add),
            ("DELETE", &self.delete),
        ];
        let written = sections.iter().filter(|(_, clauses)| !clauses.is_empty());
        let written = written.map(|(name, clauses)| format!("{name} {}", clauses.join(", ")));
        written.collect::<Vec<_>>().join(" ")
    }
}

struct Writer<'a> {
    placeholders: &'a mut Placeholders,
    next: usize,
}

impl Writer<'_> {
    fn name(&mut self, name: String) -> String {
        self.next += 1;
        let placeholder = format!("#__{}", self.next);
        self.placeholders.names.insert(placeholder.clone(), name);
        placeholder
    }

    fn value(&mut self, value: Value) -> String {
        self.next += 1;
        let placeholder = format!(":__{}", self.next);
        self.placeholders.values.insert(placeholder.clone(), value);
        placeholder
    }

    fn update(
        &mut self,
        name: &str,
        update: Parameters<'_>,
        sections: &mut Sections,
    ) -> Result<()> {
        let action = update.choice("Action", &["PUT", "ADD", "DELETE"])?;
        let value = update.get("Value").map(json::attribute).transpose()?;
        let attribute = self.name(name.to_owned());
        match (action, value) {
            ("DELETE", None) => sections.remove.push(attribute),
            (_, None) => {
                return Err(DynamoError::validation(format!(
                    "{INVALID}Only DELETE action is allowed when no attribute value is specified"
                )))
            }
            ("PUT", Some(value)) => {
                let value = self.value(value);
                sections.set.push(format!("{attribute} = {value}"));
            }
            ("ADD", Some(Value::L(list))) => {
                let (list, empty) = (self.value(Value::L(list)), self.value(Value::L(Vec::new())));
                let old = format!("if_not_exists({attribute}, {empty})");
                sections
                    .set
                    .push(format!("{attribute} = list_append({old}, {list})"));
            }
            ("ADD", Some(value @ (Value::N(_) | Value::Ss(_) | Value::Ns(_) | Value::Bs(_)))) => {
                let value = self.value(value);
                sections.add.push(format!("{attribute} {value}"));
            }
            ("DELETE", Some(value @ (Value::Ss(_) | Value::Ns(_) | Value::Bs(_)))) => {
                let value = self.value(value);
                sections.delete.push(format!("{attribute} {value}"));
            }
            (action, Some(value)) => {
                return Err(DynamoError::validation(format!(
                    "{INVALID}{action} action is not supported for the type {}",
                    value.type_name()
                )))
            }
        }
        Ok(())
    }

    /// A member of `Expected`: with `Value` and `Exists`, or a comparison.
    fn expected(&mut self, name: &str, condition: Parameters<'_>) -> Result<String> {
        if condition.has("ComparisonOperator") {
            if condition.has("Value") && condition.has("AttributeValueList") {
                return Err(DynamoError::validation(format!(
                    "{INVALID}Value and AttributeValueList cannot be used together for Attribute: {name}"
                )));
            }
            if condition.has("Exists") {
                return Err(DynamoError::validation(format!(
                    "{INVALID}Exists and ComparisonOperator cannot be used together for Attribute: {name}"
                )));
            }
            return self.comparison(name, condition);
        }
        let exists = match condition.has("Exists") {
            true => condition.flag("Exists")?,
            false => true,
        };
        let value = condition.get("Value").map(json::attribute).transpose()?;
        match (exists, value) {
            (true, Some(value)) => {
                let (attribute, value) = (self.name(name.to_owned()), self.value(value));
                Ok(format!("{attribute} = {value}"))
            }
            (false, None) => {
                let attribute = self.name(name.to_owned());
                Ok(format!("attribute_not_exists({attribute})"))
            }
            (true, None) => Err(DynamoError::validation(format!(
                "{INVALID}Value must be provided when Exists is {} for Attribute: {name}",
                if condition.has("Exists") {
                    "true"
                } else {
                    "null"
                }
            ))),
            (false, Some(_)) => Err(DynamoError::validation(format!(
                "{INVALID}Value cannot be used when Exists is false for Attribute: {name}"
            ))),
        }
    }

    fn comparison(&mut self, name: &str, condition: Parameters<'_>) -> Result<String> {
        const OPERATORS: [&str; 13] = [
            "EQ",
            "NE",
            "IN",
            "LE",
            "LT",
            "GE",
            "GT",
            "BETWEEN",
            "NOT_NULL",
            "NULL",
            "CONTAINS",
            "NOT_CONTAINS",
            "BEGINS_WITH",
        ];
        if !condition.has("ComparisonOperator") {
            return Err(super::request::missing("ComparisonOperator"));
        }
        let operator = condition.choice("ComparisonOperator", &OPERATORS)?;
        let values = match condition.array("AttributeValueList")? {
            Some(list) => list
                .iter()
                .map(json::attribute)
                .collect::<Result<Vec<_>>>()?,
            None => condition
                .get("Value")
                .map(|v: &Json| json::attribute(v))
                .transpose()?
                .into_iter()
                .collect(),
        };
        let count_fits = match operator {
            "NULL" | "NOT_NULL" => values.is_empty(),
            "BETWEEN" => values.len() == 2,
            "IN" => !values.is_empty(),
            _ => values.len() == 1,
        };
        if !count_fits {
            return Err(DynamoError::validation(format!(
                "{INVALID}Invalid number of argument(s) for the {operator} ComparisonOperator"
            )));
        }
        let types: &[&str] = match operator {
            "LE" | "LT" | "GE" | "GT" | "BETWEEN" => &["S", "N", "B"],
            "BEGINS_WITH" => &["S", "B"],
            "CONTAINS" | "NOT_CONTAINS" => &["S", "N", "B", "BOOL", "NULL"],
            "IN" => &["S", "N", "B"],
            _ => &["S", "N", "B", "BOOL", "NULL", "L", "M", "SS", "NS", "BS"],
        };
        if let Some(other) = values.iter().find(|v| !types.contains(&v.type_name())) {
            return Err(DynamoError::validation(format!(
                "{INVALID}ComparisonOperator {operator} is not valid for {} AttributeValue type",
                other.type_name()
            )));
        }
        let a = self.name(name.to_owned());
        let values: Vec<String> = values.into_iter().map(|v| self.value(v)).collect();
        let symbol = match operator {
            "EQ" => "=",
            "NE" => "<>",
            "LE" => "<=",
            "LT" => "<",
            "GE" => ">=",
            "GT" => ">",
            "IN" => return Ok(format!("{a} IN ({})", values.join(", "))),
            "BETWEEN" => return Ok(format!("{a} BETWEEN {} AND {}", values[0], values[1])),
            "NOT_NULL" => return Ok(format!("attribute_exists({a})")),
            "NULL" => return Ok(format!("attribute_not_exists({a})")),
            "CONTAINS" => return Ok(format!("contains({a}, {})", values[0])),
            "NOT_CONTAINS" => {
                // An attribute that is not there contains nothing, yet does not pass.
                let (b, value) = (&a, &values[0]);
                return Ok(format!(
                    "(attribute_exists({a}) AND NOT contains({b}, {value}))"
                ));
            }
            _ => return Ok(format!("begins_with({a}, {})", values[0])),
        };
        Ok(format!("{a} {symbol} {}", values[0]))
    }
}
