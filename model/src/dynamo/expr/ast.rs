//! Parsed expressions.

use super::path::Path;
use crate::dynamo::value::Value;

/// An operand of a condition.
#[derive(Clone, PartialEq, Debug)]
pub enum Operand {
    /// An attribute, or a part of one.
    Path(Path),
    /// A `:placeholder`.
    Value(Value),
    /// `size(path)`.
    Size(Path),
}

/// A comparator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comparator {
    /// `=`
    Eq,
    /// `<>`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
}

impl Comparator {
    /// As it is written.
    pub fn symbol(self) -> &'static str {
        match self {
            Comparator::Eq => "=",
            Comparator::Ne => "<>",
            Comparator::Lt => "<",
            Comparator::Le => "<=",
            Comparator::Gt => ">",
            Comparator::Ge => ">=",
        }
    }
}

/// A condition, filter or key condition.
#[derive(Clone, PartialEq, Debug)]
pub enum Condition {
    /// `a = b` and the like.
    Compare(Comparator, Operand, Operand),
    /// `a BETWEEN low AND high`.
    Between(Operand, Operand, Operand),
    /// `a IN (b, c)`.
    In(Operand, Vec<Operand>),
    /// `attribute_exists(path)`.
    Exists(Path),
    /// `attribute_not_exists(path)`.
    NotExists(Path),
    /// `attribute_type(path, :type)`; the type's name.
    Type(Path, String),
    /// `begins_with(a, b)`.
    BeginsWith(Operand, Operand),
    /// `contains(a, b)`.
    Contains(Operand, Operand),
    /// Both.
    And(Box<Condition>, Box<Condition>),
    /// Either.
    Or(Box<Condition>, Box<Condition>),
    /// The opposite.
    Not(Box<Condition>),
}

impl Condition {
    /// Calls `see` with the path of each operand.
    pub fn paths<'a>(&'a self, see: &mut dyn FnMut(&'a Path)) {
        let mut operands = |all: &[&'a Operand]| {
            for operand in all {
                if let Operand::Path(path) | Operand::Size(path) = operand {
                    see(path);
                }
            }
        };
        match self {
            Condition::Compare(_, a, b)
            | Condition::BeginsWith(a, b)
            | Condition::Contains(a, b) => operands(&[a, b]),
            Condition::Between(a, low, high) => operands(&[a, low, high]),
            Condition::In(a, list) => {
                operands(&[a]);
                list.iter().for_each(|b| operands(&[b]));
            }
            Condition::Exists(path) | Condition::NotExists(path) | Condition::Type(path, _) => {
                see(path);
            }
            Condition::And(a, b) | Condition::Or(a, b) => {
                a.paths(see);
                b.paths(see);
            }
            Condition::Not(a) => a.paths(see),
        }
    }
}

/// What `SET` sets a path to.
#[derive(Clone, PartialEq, Debug)]
pub enum SetOperand {
    /// An attribute, or a part of one.
    Path(Path),
    /// A `:placeholder`.
    Value(Value),
    /// `if_not_exists(path, otherwise)`.
    IfNotExists(Path, Box<SetOperand>),
    /// `list_append(a, b)`.
    ListAppend(Box<SetOperand>, Box<SetOperand>),
    /// `a + b`.
    Plus(Box<SetOperand>, Box<SetOperand>),
    /// `a - b`.
    Minus(Box<SetOperand>, Box<SetOperand>),
}

/// An update. All right-hand sides see the item as it was.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Update {
    /// `SET path = operand`.
    pub set: Vec<(Path, SetOperand)>,
    /// `REMOVE path`.
    pub remove: Vec<Path>,
    /// `ADD path :value`: numbers and sets.
    pub add: Vec<(Path, Value)>,
    /// `DELETE path :value`: sets.
    pub delete: Vec<(Path, Value)>,
}

impl Update {
    /// All paths that it changes.
    pub fn targets(&self) -> impl Iterator<Item = &Path> {
        let set = self.set.iter().map(|(path, _)| path);
        let add = self.add.iter().map(|(path, _)| path);
        let delete = self.delete.iter().map(|(path, _)| path);
        set.chain(&self.remove).chain(add).chain(delete)
    }
}
