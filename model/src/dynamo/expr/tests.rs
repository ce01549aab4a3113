//! Expressions as users write them, and what is said of those that are wrong.

use super::*;
use crate::dynamo::number::Number;
use crate::dynamo::value::Item;
use proptest::prelude::*;

fn s(text: &str) -> Value {
    Value::S(text.into())
}

fn n(text: &str) -> Value {
    Value::N(Number::parse(text).expect("a number"))
}

fn ss(texts: &[&str]) -> Value {
    Value::Ss(texts.iter().map(|t| t.to_string()).collect())
}

fn map<const N: usize>(entries: [(&str, Value); N]) -> BTreeMap<String, Value> {
    entries
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v))
        .collect()
}

fn item() -> Item {
    map([
        ("pk", s("a")),
        ("n1", n("5")),
        ("txt", s("hello")),
        ("tags", ss(&["x", "y"])),
        ("flag", Value::Bool(true)),
        ("nothing", Value::Null),
        (
            "lst",
            Value::L(vec![n("1"), s("two"), Value::L(vec![n("3")])]),
        ),
        (
            "doc",
            Value::M(map([
                ("a", n("1")),
                ("b", Value::M(map([("c", s("deep"))]))),
            ])),
        ),
    ])
}

fn placeholders() -> Placeholders {
    let names = [("#n", "n1"), ("#size", "size"), ("#unused", "x")];
    let values = map([
        (":n", n("5")),
        (":six", n("6")),
        (":one", n("1")),
        (":s", s("he")),
        (":x", s("x")),
        (":z", ss(&["z"])),
        (":y", ss(&["y"])),
        (":xy", ss(&["x", "y"])),
        (":N", s("N")),
        (":bad", s("NUMBER")),
        (":true", Value::Bool(true)),
        (":list", Value::L(vec![s("end")])),
    ]);
    let names = names.map(|(k, v)| (k.to_owned(), v.to_owned()));
    Placeholders::new(names.into(), values)
}

fn holds(text: &str) -> bool {
    let parsed = parse_condition(Kind::Condition, text, &placeholders());
    condition::holds(&parsed.unwrap_or_else(|e| panic!("{text}: {e}")), &item())
}

#[test]
fn conditions() {
    for (text, expected) in [
        ("n1 = :n", true),
        ("#n <> :n", false),
        ("absent <> :n", true),
        ("absent = :n", false),
        ("n1 < :six AND n1 > :one", true),
        ("n1 < :s", false),
        ("n1 BETWEEN :one AND :six", true),
        ("NOT n1 BETWEEN :one AND :six", false),
        ("n1 IN (:one, :six)", false),
        ("n1 in (:one, :n)", true),
        (
            "attribute_exists(doc.b.c) and attribute_not_exists(doc.c)",
            true,
        ),
        ("attribute_type(n1, :N)", true),
        ("begins_with(txt, :s)", true),
        ("begins_with(n1, :s)", false),
        ("contains(tags, :x)", true),
        ("contains(txt, :s)", true),
        ("contains(lst, :one)", true),
        ("size(txt) = :n", true),
        ("size(tags) < size(lst)", true),
        ("size(n1) = :n", false),
        ("lst[2][0] = doc.a", false),
        ("lst[0] = doc.a", true),
        ("lst[9] = :n OR flag = :true", true),
        ("n1 = :one AND n1 = :one OR n1 = :n", true),
        ("n1 = :one AND (n1 = :one OR n1 = :n)", false),
        ("NOT NOT n1 = :n", true),
        ("tags = :xy", true),
    ] {
        assert_eq!(holds(text), expected, "{text}");
    }
}

#[test]
fn wrong_conditions() {
    for (text, why) in [
        ("", "The expression can not be empty;"),
        ("n1 =", "Syntax error; token: \"<EOF>\", near: \"=\""),
        ("n1 = :n )", "Syntax error; token: \")\", near: \":n )\""),
        ("a ! b", "Syntax error; token: \"!\", near: \"a ! b\""),
        ("size = :n", "Attribute name is a reserved keyword; reserved keyword: size"),
        ("n1 = :q", "An expression attribute value used in expression is not defined; attribute value: :q"),
        ("#q = :n", "An expression attribute name used in the document path is not defined; attribute name: #q"),
        ("foo(n1)", "Invalid function name; function: foo"),
        ("n1 = contains(a, :x)", "The function is not allowed to be used this way in an expression; function: contains"),
        ("attribute_exists(:n)", "Operator or function requires a document path; operator or function: attribute_exists"),
        ("contains(tags)", "Incorrect number of operands for operator or function; operator or function: contains, number of operands: 1"),
        ("begins_with(txt, :n)", "Incorrect operand type for operator or function; operator or function: begins_with, operand type: N"),
        ("n1 < :true", "Incorrect operand type for operator or function; operator or function: <, operand type: BOOL"),
        ("attribute_type(n1, :bad)", "Invalid attribute type name found; type: NUMBER, valid types: {B,NULL,SS,BOOL,L,BS,N,NS,S,M}"),
        ("n1 BETWEEN :six AND :one", "The BETWEEN operator requires upper bound to be greater than or equal to lower bound; lower bound operand: AttributeValue: {N:6}, upper bound operand: AttributeValue: {N:1}"),
        ("n1 BETWEEN :six AND :s", "The BETWEEN operator requires same data type for lower and upper bounds; lower bound operand: AttributeValue: {N:6}, upper bound operand: AttributeValue: {S:he}"),
        ("n1 = n1", "The first operand must be distinct from the remaining operands for this operator or function; operator: =, first operand: [n1]"),
        ("((n1 = :n))", "The expression has redundant parentheses;"),
    ] {
        let error = parse_condition(Kind::Condition, text, &placeholders()).unwrap_err();
        assert_eq!(error, format!("Invalid ConditionExpression: {why}"), "{text}");
    }
    let deep = format!("{}a = :n{}", "(".repeat(2000), ")".repeat(2000));
    assert!(parse_condition(Kind::Condition, &deep, &placeholders()).is_err());
    let long = "a".repeat(EXPRESSION_BYTES_MAX + 1);
    let why = "Invalid ConditionExpression: Expression size has exceeded the maximum allowed size; expression size: 4097";
    assert_eq!(check_size(Kind::Condition, &long), Err(why.into()));
    assert_eq!(check_size(Kind::Condition, &long[1..]), Ok(()));
    let longer = "a".repeat(BYTES_MAX + 1);
    assert!(parse_condition(Kind::Condition, &longer, &placeholders()).is_err());
}

#[test]
fn parentheses_that_are_needed() {
    assert!(holds("(n1 = :n AND (flag = :true)) OR (n1 = :one)"));
    assert!(holds("((n1 = :one) OR (n1 = :n))"));
}

fn updated(text: &str) -> Result<Item, String> {
    let parsed = parse_update(text, &placeholders())?;
    update::apply(&parsed, &item()).map_err(|e| e.to_string())
}

#[test]
fn updates() {
    let cases: [(&str, &str, Option<Value>); 20] = [
        ("SET n1 = n1 + :one", "n1", Some(n("6"))),
        ("SET n1 = :one - n1", "n1", Some(n("-4"))),
        (
            "set fresh = if_not_exists(fresh, :one) + :one",
            "fresh",
            Some(n("2")),
        ),
        ("SET fresh = if_not_exists(n1, :one)", "fresh", Some(n("5"))),
        (
            "SET lst = list_append(:list, lst)",
            "lst",
            Some(Value::L(vec![
                s("end"),
                n("1"),
                s("two"),
                Value::L(vec![n("3")]),
            ])),
        ),
        (
            "SET lst[1] = :n",
            "lst",
            Some(Value::L(vec![n("1"), n("5"), Value::L(vec![n("3")])])),
        ),
        (
            "SET lst[10] = :n, lst[9] = :one",
            "lst",
            Some(Value::L(vec![
                n("1"),
                s("two"),
                Value::L(vec![n("3")]),
                n("1"),
                n("5"),
            ])),
        ),
        (
            "SET doc.b.d = :n",
            "doc",
            Some(Value::M(map([
                ("a", n("1")),
                ("b", Value::M(map([("c", s("deep")), ("d", n("5"))]))),
            ]))),
        ),
        (
            "REMOVE lst[0], lst[1]",
            "lst",
            Some(Value::L(vec![Value::L(vec![n("3")])])),
        ),
        ("REMOVE doc.b", "doc", Some(Value::M(map([("a", n("1"))])))),
        ("REMOVE absent", "absent", None),
        ("REMOVE n1 SET fresh = n1", "fresh", Some(n("5"))),
        ("ADD n1 :six", "n1", Some(n("11"))),
        ("ADD fresh :six", "fresh", Some(n("6"))),
        ("ADD tags :z", "tags", Some(ss(&["x", "y", "z"]))),
        (
            "ADD doc.a :one",
            "doc",
            Some(Value::M(map([
                ("a", n("2")),
                ("b", Value::M(map([("c", s("deep"))]))),
            ]))),
        ),
        ("DELETE tags :y", "tags", Some(ss(&["x"]))),
        ("DELETE tags :xy", "tags", None),
        ("DELETE fresh :xy", "fresh", None),
        ("SET n1 = txt, txt = n1", "n1", Some(s("hello"))),
    ];
    for (text, attribute, expected) in cases {
        let item = updated(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(item.get(attribute), expected.as_ref(), "{text}");
    }
}

/// An emptied set is no element any more, like what `REMOVE` names: both go by the indexes of the
/// list as it was, and so does what is written beside them.
#[test]
fn emptied_sets_leave_lists_as_removed_elements_do() {
    let strings = |texts: &[&str]| texts.iter().map(|text| s(text)).collect::<Vec<_>>();
    let cases: [(&str, Vec<Value>); 8] = [
        ("DELETE bags[0] :y", {
            vec![s("one"), ss(&["x", "y"]), s("three"), ss(&["y"])]
        }),
        ("DELETE bags[0] :y REMOVE bags[1]", {
            vec![ss(&["x", "y"]), s("three"), ss(&["y"])]
        }),
        ("REMOVE bags[1], bags[3] DELETE bags[0] :y", {
            vec![ss(&["x", "y"]), ss(&["y"])]
        }),
        (
            "DELETE bags[0] :y, bags[2] :xy, bags[4] :y",
            strings(&["one", "three"]),
        ),
        ("DELETE bags[0] :y, bags[2] :y", {
            vec![s("one"), ss(&["x"]), s("three"), ss(&["y"])]
        }),
        (
            "DELETE bags[0] :y, bags[4] :y REMOVE bags[2] SET bags[1] = :s, bags[9] = :x",
            strings(&["he", "three", "x"]),
        ),
        ("DELETE bags[0] :y ADD bags[2] :z", {
            vec![s("one"), ss(&["x", "y", "z"]), s("three"), ss(&["y"])]
        }),
        // New elements of all actions in the order of their indexes.
        (
            "ADD bags[8] :z SET bags[9] = :s REMOVE bags[0], bags[2], bags[4]",
            { vec![s("one"), s("three"), ss(&["z"]), s("he")] },
        ),
    ];
    for (text, expected) in cases {
        let mut item = item();
        let bags = vec![
            ss(&["y"]),
            s("one"),
            ss(&["x", "y"]),
            s("three"),
            ss(&["y"]),
        ];
        item.insert("bags".into(), Value::L(bags));
        let parsed = parse_update(text, &placeholders()).unwrap_or_else(|e| panic!("{text}: {e}"));
        let new = update::apply(&parsed, &item).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(new["bags"], Value::L(expected), "{text}");
    }
}

#[test]
fn wrong_updates() {
    let invalid = |why: &str| format!("Invalid UpdateExpression: {why}");
    for (text, why) in [
        ("SET n1 = :n SET fresh = :n", invalid("The \"SET\" section can only be used once in an update expression;")),
        ("SET a.b = :n, a = :one", invalid("Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [a, b], path two: [a]")),
        ("SET a.b = :n REMOVE a[1]", invalid("Two document paths conflict with each other; must remove or rewrite one of these paths; path one: [a, b], path two: [a, [1]]")),
        ("SET a = :s + :n", invalid("Incorrect operand type for operator or function; operator or function: +, operand type: S")),
        ("ADD a :s", invalid("Incorrect operand type for operator or function; operator: ADD, operand type: STRING, typeSet: ALLOWED_FOR_ADD_OPERAND")),
        ("SET a = if_not_exists(:n, :one)", invalid("Operator or function requires a document path; operator or function: if_not_exists")),
        ("SET a = size(b)", invalid("The function is not allowed in an update expression; function: size")),
        ("FROB a", invalid("Syntax error; token: \"FROB\", near: \"FROB a\"")),
        ("SET a", invalid("Syntax error; token: \"<EOF>\", near: \"a\"")),
        ("SET fresh = absent", "The provided expression refers to an attribute that does not exist in the item".into()),
        ("SET fresh = txt + :one", "An operand in the update expression has an incorrect data type".into()),
        ("ADD txt :one", "An operand in the update expression has an incorrect data type".into()),
        ("SET absent.a = :n", "The document path provided in the update expression is invalid for update".into()),
        ("SET n1[0] = :n", "The document path provided in the update expression is invalid for update".into()),
    ] {
        assert_eq!(updated(text), Err(why), "{text}");
    }
}

#[test]
fn projections() {
    let project = |text: &str| {
        let paths = parse_projection(text, &placeholders()).unwrap();
        path::project(&item(), &paths)
    };
    assert_eq!(project("#n, absent"), map([("n1", n("5"))]));
    assert_eq!(
        project("doc.b.c, lst[2], lst[0], doc.z"),
        map([
            (
                "doc",
                Value::M(map([("b", Value::M(map([("c", s("deep"))])))]))
            ),
            ("lst", Value::L(vec![n("1"), Value::L(vec![n("3")])])),
        ])
    );
    assert_eq!(
        parse_projection("a, a.b", &placeholders()).unwrap_err(),
        "Invalid ProjectionExpression: Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [a], path two: [a, b]"
    );
}

#[test]
fn unused_placeholders_are_errors() {
    let all = placeholders();
    parse_condition(Kind::Condition, "#n = :n AND #size = :six", &all).unwrap();
    assert_eq!(
        all.check_used().unwrap_err(),
        "Value provided in ExpressionAttributeNames unused in expressions: keys: {#unused}"
    );
    let some = Placeholders::new(BTreeMap::new(), map([(":a", n("1")), (":b", n("2"))]));
    parse_condition(Kind::Filter, "x = :a", &some).unwrap();
    assert_eq!(
        some.check_used().unwrap_err(),
        "Value provided in ExpressionAttributeValues unused in expressions: keys: {:b}"
    );
}

proptest! {
    #[test]
    fn no_text_panics(text in "([a-c]|#n|:n|:s|size|contains|AND|OR|NOT|IN|BETWEEN|SET|ADD|REMOVE|DELETE|[=<>()\\[\\].,+ -]|[0-9]|é){0,20}") {
        let all = placeholders();
        if let Ok(parsed) = parse_condition(Kind::Filter, &text, &all) {
            condition::holds(&parsed, &item());
        }
        if let Ok(parsed) = parse_update(&text, &all) {
            let _ = update::apply(&parsed, &item());
        }
        let _ = parse_projection(&text, &all);
    }
}
