//! Recursive descent over the tokens of an expression.
//!
//! A syntax error ends the parse. Everything else that is wrong is noted, and the gravest is
//! reported at the end, as DynamoDB does: a reserved word is worth a message only in an
//! expression that could be read at all.

use super::ast::{Comparator, Condition, Operand, SetOperand, Update};
use super::lexer::{tokens, Token, TokenKind};
use super::path::{Clash, Path, Step};
use super::reserved::is_reserved;
use super::{Kind, Placeholders, BYTES_MAX};
use crate::dynamo::number::Number;
use crate::dynamo::value::Value;
use std::cmp::Ordering;

/// Parentheses and functions in one another at most: the parser recurses.
const NESTING_MAX: usize = 100;
/// Values in the list of an IN at most.
const IN_MAX: usize = 100;

/// What is wrong, the gravest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Grade {
    Parentheses,
    Function,
    Reserved,
    Placeholder,
    Operand,
    Clash,
}

/// Why there is no expression. A syntax error carries its whole text.
pub struct Failed(String);

type Parsed<T> = Result<T, Failed>;

/// See the module's documentation.
pub struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    next: usize,
    placeholders: &'a Placeholders,
    nesting: usize,
    problem: Option<(Grade, String)>,
}

/// Parses all of `text` by `rule`.
pub fn parse<'a, T>(
    kind: Kind,
    text: &'a str,
    placeholders: &'a Placeholders,
    rule: impl Fn(&mut Parser<'a>) -> Parsed<T>,
) -> Result<T, String> {
    let invalid = |why: String| format!("Invalid {}: {why}", kind.name());
    if text.is_empty() {
        return Err(invalid("The expression can not be empty;".into()));
    }
    if text.len() > BYTES_MAX {
        return Err(too_long(kind, text));
    }
    let mut parser = Parser {
        text,
        tokens: tokens(text),
        next: 0,
        placeholders,
        nesting: 0,
        problem: None,
    };
    let parsed = rule(&mut parser).and_then(|parsed| match parser.peek().kind {
        TokenKind::End => Ok(parsed),
        _ => Err(parser.syntax()),
    });
    match (parsed, parser.problem) {
        (Ok(parsed), None) => Ok(parsed),
        (Err(Failed(why)), _) | (_, Some((_, why))) => Err(invalid(why)),
    }
}

/// The error of an expression that is too long.
pub fn too_long(kind: Kind, text: &str) -> String {
    format!(
        "Invalid {}: Expression size has exceeded the maximum allowed size; expression size: {}",
        kind.name(),
        text.len()
    )
}

impl<'a> Parser<'a> {
    fn peek(&self) -> &Token {
        &self.tokens[self.next]
    }

    fn text_of(&self, token: usize) -> &'a str {
        &self.text[self.tokens[token].at.clone()]
    }

    fn word(&self) -> &'a str {
        self.text_of(self.next)
    }

    fn is_symbol(&self, symbol: &str) -> bool {
        self.peek().kind == TokenKind::Symbol && self.word() == symbol
    }

    fn is_keyword(&self, keyword: &str) -> bool {
        self.peek().kind == TokenKind::Word && self.word().eq_ignore_ascii_case(keyword)
    }

    fn take(&mut self) -> &'a str {
        let word = self.word();
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        word
    }

    fn symbol(&mut self, symbol: &str) -> Parsed<()> {
        match self.accept(symbol) {
            true => Ok(()),
            false => Err(self.syntax()),
        }
    }

    fn accept(&mut self, symbol: &str) -> bool {
        let found = self.is_symbol(symbol);
        if found {
            self.take();
        }
        found
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        let found = self.is_keyword(keyword);
        if found {
            self.take();
        }
        found
    }

    /// The error at the next token, with its neighbours.
    fn syntax(&self) -> Failed {
        let token = match self.peek().kind {
            TokenKind::End => "<EOF>",
            _ => self.word(),
        };
        let from = self.tokens[self.next.saturating_sub(1)].at.start;
        let to = self.tokens[(self.next + 1).min(self.tokens.len() - 1)]
            .at
            .end;
        let near = &self.text[from..to];
        Failed(format!(
            "Syntax error; token: \"{token}\", near: \"{near}\""
        ))
    }

    fn note(&mut self, grade: Grade, why: String) {
        if self
            .problem
            .as_ref()
            .is_none_or(|(worst, _)| grade < *worst)
        {
            self.problem = Some((grade, why));
        }
    }

    fn nested<T>(&mut self, rule: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.nesting == NESTING_MAX {
            return Err(Failed(format!(
                "The expression is nested too deeply; allowed: {NESTING_MAX}"
            )));
        }
        self.nesting += 1;
        let parsed = rule(self);
        self.nesting -= 1;
        parsed
    }

    // ---- Conditions

    /// `a OR b`, `a AND b`, `NOT a` and what binds closer.
    pub fn condition(&mut self) -> Parsed<Condition> {
        let mut left = self.conjunction()?;
        while self.keyword("OR") {
            let right = self.conjunction()?;
            left = Condition::Or(Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn conjunction(&mut self) -> Parsed<Condition> {
        let mut left = self.negation()?;
        while self.keyword("AND") {
            let right = self.negation()?;
            left = Condition::And(Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn negation(&mut self) -> Parsed<Condition> {
        if self.keyword("NOT") {
            let inner = self.nested(Self::negation)?;
            return Ok(Condition::Not(Box::new(inner)));
        }
        if !self.is_symbol("(") {
            return self.predicate();
        }
        let open = self.next;
        self.take();
        let inner = self.nested(Self::condition)?;
        let close = self.next;
        self.symbol(")")?;
        let doubled = self.text_of(open + 1) == "(" && self.text_of(close - 1) == ")";
        if doubled && self.closes(open + 1) == close - 1 {
            let why = "The expression has redundant parentheses;".into();
            self.note(Grade::Parentheses, why);
        }
        Ok(inner)
    }

    /// Where the parenthesis at token `open` is closed.
    fn closes(&self, open: usize) -> usize {
        let mut depth = 0;
        for at in open..self.tokens.len() {
            match (self.tokens[at].kind, self.text_of(at)) {
                (TokenKind::Symbol, "(") => depth += 1,
                (TokenKind::Symbol, ")") if depth == 1 => return at,
                (TokenKind::Symbol, ")") => depth -= 1,
                _ => {}
            }
        }
        self.tokens.len()
    }

    fn is_call(&self) -> bool {
        self.peek().kind == TokenKind::Word
            && self
                .tokens
                .get(self.next + 1)
                .is_some_and(|t| t.kind == TokenKind::Symbol)
            && self.text_of(self.next + 1) == "("
            && !self.is_keyword("IN")
    }

    fn predicate(&mut self) -> Parsed<Condition> {
        if self.is_call() && self.word() != "size" {
            let name = self.take();
            let arguments = self.arguments()?;
            return Ok(self.function(name, arguments));
        }
        let left = self.operand()?;
        if self.keyword("BETWEEN") {
            let low = self.operand()?;
            if !self.keyword("AND") {
                return Err(self.syntax());
            }
            let high = self.operand()?;
            self.check_between(&left, &low, &high);
            return Ok(Condition::Between(left, low, high));
        }
        if self.keyword("IN") {
            let list = self.arguments()?;
            if list.len() > IN_MAX {
                self.wrong_count("IN", list.len() + 1);
            }
            list.iter()
                .for_each(|other| self.distinct("IN", &left, other));
            return Ok(Condition::In(left, list));
        }
        let comparator = match self.word() {
            "=" => Comparator::Eq,
            "<>" => Comparator::Ne,
            "<" => Comparator::Lt,
            "<=" => Comparator::Le,
            ">" => Comparator::Gt,
            ">=" => Comparator::Ge,
            _ => return Err(self.syntax()),
        };
        self.take();
        let right = self.operand()?;
        if !matches!(comparator, Comparator::Eq | Comparator::Ne) {
            for operand in [&left, &right] {
                self.check_type(comparator.symbol(), operand, &["S", "N", "B"]);
            }
        }
        self.distinct(comparator.symbol(), &left, &right);
        Ok(Condition::Compare(comparator, left, right))
    }

    /// `(a, b, …)`, at least one.
    fn arguments(&mut self) -> Parsed<Vec<Operand>> {
        self.symbol("(")?;
        let mut arguments = vec![self.operand()?];
        while self.accept(",") {
            arguments.push(self.operand()?);
        }
        self.symbol(")")?;
        Ok(arguments)
    }

    fn function(&mut self, name: &str, arguments: Vec<Operand>) -> Condition {
        let expected = match name {
            "attribute_exists" | "attribute_not_exists" => 1,
            "attribute_type" | "begins_with" | "contains" => 2,
            _ => {
                let why = format!("Invalid function name; function: {name}");
                self.note(Grade::Function, why);
                return Condition::Exists(Path::of(""));
            }
        };
        let count = arguments.len();
        if count != expected {
            self.wrong_count(name, count);
        }
        let mut arguments = arguments.into_iter();
        let first = arguments.next().unwrap_or(Operand::Value(Value::Null));
        let second = arguments.next().unwrap_or(Operand::Value(Value::Null));
        match name {
            "attribute_exists" => Condition::Exists(self.path_argument(name, first)),
            "attribute_not_exists" => Condition::NotExists(self.path_argument(name, first)),
            "attribute_type" => {
                let path = self.path_argument(name, first);
                let type_name = self.type_name(&second);
                Condition::Type(path, type_name)
            }
            "begins_with" => {
                for operand in [&first, &second] {
                    self.check_type(name, operand, &["S", "B"]);
                }
                self.distinct(name, &first, &second);
                Condition::BeginsWith(first, second)
            }
            _ => {
                self.distinct(name, &first, &second);
                Condition::Contains(first, second)
            }
        }
    }

    fn wrong_count(&mut self, name: &str, count: usize) {
        let why = format!(
            "Incorrect number of operands for operator or function; operator or function: {name}, number of operands: {count}"
        );
        self.note(Grade::Operand, why);
    }

    fn path_argument(&mut self, name: &str, operand: Operand) -> Path {
        if let Operand::Path(path) = operand {
            return path;
        }
        let why =
            format!("Operator or function requires a document path; operator or function: {name}");
        self.note(Grade::Operand, why);
        Path::of("")
    }

    fn type_name(&mut self, operand: &Operand) -> String {
        const TYPES: [&str; 10] = ["B", "NULL", "SS", "BOOL", "L", "BS", "N", "NS", "S", "M"];
        match operand {
            Operand::Value(Value::S(name)) if TYPES.contains(&&**name) => return name.clone(),
            Operand::Value(Value::S(name)) => {
                let why = format!(
                    "Invalid attribute type name found; type: {name}, valid types: {{{}}}",
                    TYPES.join(",")
                );
                self.note(Grade::Operand, why);
            }
            Operand::Value(_) => self.check_type("attribute_type", operand, &["S"]),
            _ => {
                let why = "Incorrect operand type for operator or function; operator or function: attribute_type, operand type: {NS,SS,L,BS,N,M,B,BOOL,NULL,S}".into();
                self.note(Grade::Operand, why);
            }
        }
        String::new()
    }

    /// A placeholder's value must be of one of these types.
    fn check_type(&mut self, name: &str, operand: &Operand, types: &[&str]) {
        if let Operand::Value(value) = operand {
            self.check_value(name, value, types);
        }
    }

    fn check_value(&mut self, name: &str, value: &Value, types: &[&str]) {
        if !types.contains(&value.type_name()) {
            let why = format!(
                "Incorrect operand type for operator or function; operator or function: {name}, operand type: {}",
                value.type_name()
            );
            self.note(Grade::Operand, why);
        }
    }

    fn check_between(&mut self, left: &Operand, low: &Operand, high: &Operand) {
        for operand in [left, low, high] {
            self.check_type("BETWEEN", operand, &["S", "N", "B"]);
        }
        let (Operand::Value(a), Operand::Value(b)) = (low, high) else {
            return;
        };
        let bounds = || {
            format!(
                "lower bound operand: AttributeValue: {}, upper bound operand: AttributeValue: {}",
                shown(a),
                shown(b)
            )
        };
        let why = match a.compare(b) {
            None => format!(
                "The BETWEEN operator requires same data type for lower and upper bounds; {}",
                bounds()
            ),
            Some(Ordering::Greater) => format!(
                "The BETWEEN operator requires upper bound to be greater than or equal to lower bound; {}",
                bounds()
            ),
            _ => return,
        };
        self.note(Grade::Operand, why);
    }

    fn distinct(&mut self, name: &str, first: &Operand, other: &Operand) {
        if let (Operand::Path(path), true) = (first, first == other) {
            let why = format!(
                "The first operand must be distinct from the remaining operands for this operator or function; operator: {name}, first operand: {path}"
            );
            self.note(Grade::Operand, why);
        }
    }

    fn operand(&mut self) -> Parsed<Operand> {
        if self.is_call() {
            let name = self.take();
            if name != "size" {
                let known = [
                    "attribute_exists",
                    "attribute_not_exists",
                    "attribute_type",
                    "begins_with",
                    "contains",
                ];
                let why = match known.contains(&name) {
                    true => format!("The function is not allowed to be used this way in an expression; function: {name}"),
                    false => format!("Invalid function name; function: {name}"),
                };
                self.note(Grade::Function, why);
            }
            let mut arguments = self.nested(Self::arguments)?;
            if arguments.len() != 1 {
                self.wrong_count(name, arguments.len());
            }
            return Ok(match arguments.remove(0) {
                Operand::Path(path) => Operand::Size(path),
                Operand::Value(value) => self.size_of(&value),
                Operand::Size(path) => {
                    let why = "The function is not allowed to be used this way in an expression; function: size".into();
                    self.note(Grade::Function, why);
                    Operand::Size(path)
                }
            });
        }
        match self.peek().kind {
            TokenKind::Value => Ok(Operand::Value(self.value()?)),
            _ => Ok(Operand::Path(self.path()?)),
        }
    }

    fn size_of(&mut self, value: &Value) -> Operand {
        let length = value.length().unwrap_or_else(|| {
            self.check_value("size", value, &[]);
            0
        });
        let length = Number::parse(&length.to_string()).expect("a length is a number");
        Operand::Value(Value::N(length))
    }

    fn value(&mut self) -> Parsed<Value> {
        if self.peek().kind != TokenKind::Value {
            return Err(self.syntax());
        }
        let placeholder = self.take();
        Ok(match self.placeholders.value(placeholder) {
            Some(value) => value.clone(),
            None => {
                let why = format!("An expression attribute value used in expression is not defined; attribute value: {placeholder}");
                self.note(Grade::Placeholder, why);
                // Of the type that all checks accept.
                Value::S(String::new())
            }
        })
    }

    fn path(&mut self) -> Parsed<Path> {
        let mut path = Path::of(self.name()?);
        loop {
            if self.accept(".") {
                path.steps.push(Step::Name(self.name()?));
            } else if self.accept("[") {
                if self.peek().kind != TokenKind::Index {
                    return Err(self.syntax());
                }
                // An index that no list can have leads nowhere, as any that is too great.
                let index = self.take().parse().unwrap_or(usize::MAX);
                path.steps.push(Step::Index(index));
                self.symbol("]")?;
            } else {
                return Ok(path);
            }
        }
    }

    fn name(&mut self) -> Parsed<String> {
        match self.peek().kind {
            TokenKind::Word => {
                let name = self.take();
                if is_reserved(name) {
                    let why =
                        format!("Attribute name is a reserved keyword; reserved keyword: {name}");
                    self.note(Grade::Reserved, why);
                }
                Ok(name.to_owned())
            }
            TokenKind::Name => {
                let placeholder = self.take();
                match self.placeholders.name(placeholder) {
                    Some(name) => Ok(name.clone()),
                    None => {
                        let why = format!("An expression attribute name used in the document path is not defined; attribute name: {placeholder}");
                        self.note(Grade::Placeholder, why);
                        Ok(placeholder.to_owned())
                    }
                }
            }
            _ => Err(self.syntax()),
        }
    }

    // ---- Projections

    /// `path, path, …`.
    pub fn projection(&mut self) -> Parsed<Vec<Path>> {
        let mut paths = vec![self.path()?];
        while self.accept(",") {
            paths.push(self.path()?);
        }
        self.check_clashes(&paths.iter().collect::<Vec<_>>());
        Ok(paths)
    }

    fn check_clashes(&mut self, paths: &[&Path]) {
        for (i, one) in paths.iter().enumerate() {
            for two in &paths[i + 1..] {
                let clash = match one.clash(two) {
                    Some(Clash::Overlap) => "overlap",
                    Some(Clash::Conflict) => "conflict",
                    None => continue,
                };
                let why = format!("Two document paths {clash} with each other; must remove or rewrite one of these paths; path one: {one}, path two: {two}");
                return self.note(Grade::Clash, why);
            }
        }
    }

    // ---- Updates

    /// `SET …`, `REMOVE …`, `ADD …`, `DELETE …`, each once, in any order.
    pub fn update(&mut self) -> Parsed<Update> {
        let mut update = Update::default();
        let mut seen = Vec::new();
        while self.peek().kind != TokenKind::End {
            let section = self.word().to_ascii_uppercase();
            if self.peek().kind != TokenKind::Word
                || !["SET", "REMOVE", "ADD", "DELETE"].contains(&&*section)
            {
                return Err(self.syntax());
            }
            self.take();
            if seen.contains(&section) {
                let why = format!(
                    "The \"{section}\" section can only be used once in an update expression;"
                );
                self.note(Grade::Parentheses, why);
            }
            loop {
                self.clause(&section, &mut update)?;
                if !self.accept(",") {
                    break;
                }
            }
            seen.push(section);
        }
        if seen.is_empty() {
            return Err(self.syntax());
        }
        let targets: Vec<&Path> = update.targets().collect();
        self.check_clashes(&targets);
        Ok(update)
    }

    fn clause(&mut self, section: &str, update: &mut Update) -> Parsed<()> {
        let path = self.path()?;
        match section {
            "SET" => {
                self.symbol("=")?;
                let value = self.set_value()?;
                update.set.push((path, value));
            }
            "REMOVE" => update.remove.push(path),
            _ => {
                let value = self.value()?;
                let fits = match section {
                    "ADD" => matches!(
                        value,
                        Value::N(_) | Value::Ss(_) | Value::Ns(_) | Value::Bs(_)
                    ),
                    _ => matches!(value, Value::Ss(_) | Value::Ns(_) | Value::Bs(_)),
                };
                if !fits {
                    let why = format!(
                        "Incorrect operand type for operator or function; operator: {section}, operand type: {}, typeSet: {}",
                        long_type(&value),
                        if section == "ADD" { "ALLOWED_FOR_ADD_OPERAND" } else { "ALLOWED_FOR_DELETE_OPERAND" },
                    );
                    self.note(Grade::Operand, why);
                }
                match section {
                    "ADD" => update.add.push((path, value)),
                    _ => update.delete.push((path, value)),
                }
            }
        }
        Ok(())
    }

    fn set_value(&mut self) -> Parsed<SetOperand> {
        let left = self.set_operand()?;
        let symbol = match self.word() {
            symbol @ ("+" | "-") => symbol,
            _ => return Ok(left),
        };
        self.take();
        let right = self.set_operand()?;
        for operand in [&left, &right] {
            if let SetOperand::Value(value) = operand {
                self.check_value(symbol, value, &["N"]);
            }
        }
        let (left, right) = (Box::new(left), Box::new(right));
        Ok(match symbol {
            "+" => SetOperand::Plus(left, right),
            _ => SetOperand::Minus(left, right),
        })
    }

    fn set_operand(&mut self) -> Parsed<SetOperand> {
        if self.accept("(") {
            let inner = self.nested(Self::set_value)?;
            self.symbol(")")?;
            return Ok(inner);
        }
        if !self.is_call() {
            return Ok(match self.peek().kind {
                TokenKind::Value => SetOperand::Value(self.value()?),
                _ => SetOperand::Path(self.path()?),
            });
        }
        let name = self.take();
        self.symbol("(")?;
        let mut arguments = vec![self.nested(Self::set_operand)?];
        while self.accept(",") {
            arguments.push(self.nested(Self::set_operand)?);
        }
        self.symbol(")")?;
        if !["if_not_exists", "list_append"].contains(&name) {
            let known = [
                "attribute_exists",
                "attribute_not_exists",
                "attribute_type",
                "begins_with",
                "contains",
                "size",
            ];
            let why = match known.contains(&name) {
                true => {
                    format!("The function is not allowed in an update expression; function: {name}")
                }
                false => format!("Invalid function name; function: {name}"),
            };
            self.note(Grade::Function, why);
        }
        let count = arguments.len();
        let mut arguments = arguments.into_iter();
        let (Some(first), Some(second), 2) = (arguments.next(), arguments.next(), count) else {
            self.wrong_count(name, count);
            return Ok(SetOperand::Value(Value::Null));
        };
        if name == "list_append" {
            for operand in [&first, &second] {
                if let SetOperand::Value(value) = operand {
                    self.check_value(name, value, &["L"]);
                }
            }
            return Ok(SetOperand::ListAppend(Box::new(first), Box::new(second)));
        }
        match first {
            SetOperand::Path(path) => Ok(SetOperand::IfNotExists(path, Box::new(second))),
            _ => {
                let why = format!(
                    "Operator or function requires a document path; operator or function: {name}"
                );
                self.note(Grade::Operand, why);
                Ok(second)
            }
        }
    }
}

/// A scalar as errors show it.
fn shown(value: &Value) -> String {
    match value {
        Value::S(s) => format!("{{S:{s}}}"),
        Value::N(n) => format!("{{N:{n}}}"),
        other => format!("{{{}}}", other.type_name()),
    }
}

fn long_type(value: &Value) -> &'static str {
    match value {
        Value::S(_) => "STRING",
        Value::N(_) => "NUMBER",
        Value::B(_) => "BINARY",
        Value::Bool(_) => "BOOLEAN",
        Value::Null => "NULL",
        Value::L(_) => "LIST",
        Value::M(_) => "MAP",
        Value::Ss(_) => "STRING_SET",
        Value::Ns(_) => "NUMBER_SET",
        Value::Bs(_) => "BINARY_SET",
    }
}
