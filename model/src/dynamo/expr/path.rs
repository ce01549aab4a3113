//! Document paths: `a.b[3].c`.

use crate::dynamo::value::{Item, Value};
use std::fmt;

/// A step into a document.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Step {
    /// Into a map.
    Name(String),
    /// Into a list.
    Index(usize),
}

/// A document path: the attribute's name and further steps.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Path {
    /// The attribute.
    pub attribute: String,
    /// Steps into its value.
    pub steps: Vec<Step>,
}

/// How two paths get in each other's way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clash {
    /// One is the beginning of the other, or both are the same.
    Overlap,
    /// One goes on with a name where the other has an index.
    Conflict,
}

impl Path {
    /// An attribute as a whole.
    pub fn of(attribute: impl Into<String>) -> Path {
        Path {
            attribute: attribute.into(),
            steps: Vec::new(),
        }
    }

    /// The value that it leads to.
    pub fn find<'a>(&self, item: &'a Item) -> Option<&'a Value> {
        let mut value = item.get(&self.attribute)?;
        for step in &self.steps {
            value = match (step, value) {
                (Step::Name(name), Value::M(map)) => map.get(name)?,
                (Step::Index(index), Value::L(list)) => list.get(*index)?,
                _ => return None,
            };
        }
        Some(value)
    }

    /// Whether both may stand in one update or projection.
    pub fn clash(&self, other: &Path) -> Option<Clash> {
        if self.attribute != other.attribute {
            return None;
        }
        for (a, b) in self.steps.iter().zip(&other.steps) {
            match (a, b) {
                _ if a == b => {}
                (Step::Name(_), Step::Index(_)) | (Step::Index(_), Step::Name(_)) => {
                    return Some(Clash::Conflict)
                }
                _ => return None,
            }
        }
        Some(Clash::Overlap)
    }
}

/// As errors show it: `[a, b, [3]]`.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}", self.attribute)?;
        for step in &self.steps {
            match step {
                Step::Name(name) => write!(f, ", {name}")?,
                Step::Index(index) => write!(f, ", [{index}]")?,
            }
        }
        f.write_str("]")
    }
}

/// The parts of `item` that `paths` lead to. Elements of a list keep their order and close up.
pub fn project(item: &Item, paths: &[Path]) -> Item {
    let mut tree = Tree::default();
    for path in paths {
        let mut node = tree.child(Step::Name(path.attribute.clone()));
        for step in &path.steps {
            node = node.child(step.clone());
        }
        node.whole = true;
    }
    let kept = item.iter().filter_map(|(name, value)| {
        let node = tree.children.get(&Step::Name(name.clone()))?;
        Some((name.clone(), node.pick(value)?))
    });
    kept.collect()
}

#[derive(Default)]
struct Tree {
    whole: bool,
    children: std::collections::BTreeMap<Step, Tree>,
}

impl Tree {
    fn child(&mut self, step: Step) -> &mut Tree {
        self.children.entry(step).or_default()
    }

    /// `None` if nothing is there.
    fn pick(&self, value: &Value) -> Option<Value> {
        if self.whole {
            return Some(value.clone());
        }
        match value {
            Value::M(map) => {
                let kept = self.children.iter().filter_map(|(step, node)| match step {
                    Step::Name(name) => Some((name.clone(), node.pick(map.get(name)?)?)),
                    Step::Index(_) => None,
                });
                let kept: std::collections::BTreeMap<_, _> = kept.collect();
                (!kept.is_empty()).then_some(Value::M(kept))
            }
            Value::L(list) => {
                let kept = self.children.iter().filter_map(|(step, node)| match step {
                    Step::Index(index) => node.pick(list.get(*index)?),
                    Step::Name(_) => None,
                });
                let kept: Vec<_> = kept.collect();
                (!kept.is_empty()).then_some(Value::L(kept))
            }
            _ => None,
        }
    }
}
