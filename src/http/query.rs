//! The query part of a URL: names and values, values as bytes, because keys are bytes.

use super::answer::Failure;
use percent_encoding::percent_decode_str;

/// `a=1&b=%ff`, decoded.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, Vec<u8>)>);

impl Query {
    /// Reads the part behind the question mark.
    pub fn parse(text: Option<&str>) -> Query {
        let decode = |part: &str| -> Vec<u8> {
            let spaced = part.replace('+', " ");
            percent_decode_str(&spaced).collect()
        };
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = String::from_utf8_lossy(&decode(name)).into_owned();
            (name, decode(value))
        };
        let pairs = text.unwrap_or_default().split('&');
        Query(pairs.filter(|p| !p.is_empty()).map(pair).collect())
    }

    /// The first value of `name`.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        let found = self.0.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| &value[..])
    }

    /// The value of `name` as text, for people: what is not UTF-8 is replaced.
    pub fn text(&self, name: &str) -> Option<String> {
        self.bytes(name)
            .map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// The value of `name` as a number up to `max`.
    pub fn number(&self, name: &str, max: u64) -> Result<Option<u64>, Failure> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits && number <= max => Ok(Some(number)),
            _ if max == u64::MAX => Err(Failure::BadRequest(format!(
                "{name}={text:?}: expected a number"
            ))),
            _ => Err(Failure::BadRequest(format!(
                "{name}={text:?}: expected a number from 0 to {max}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bytes() {
        let query = Query::parse(Some("key=%ff%00a+b%2Bc&group=7&&flag&key=again"));
        assert_eq!(query.bytes("key"), Some(&b"\xff\0a b+c"[..]));
        assert_eq!(query.number("group", u64::MAX).unwrap(), Some(7));
        assert_eq!(query.bytes("flag"), Some(&b""[..]));
        assert_eq!(query.bytes("absent"), None);
        assert!(Query::parse(None).bytes("").is_none());
    }

    #[test]
    fn refusals_quote_the_value() {
        let query = Query::parse(Some("group=se%22ven&db=16&sign=%2B1"));
        for (name, max, said) in [
            ("group", u64::MAX, r#"group="se\"ven": expected a number"#),
            ("db", 15, r#"db="16": expected a number from 0 to 15"#),
            ("sign", 9, r#"sign="+1": expected a number from 0 to 9"#),
        ] {
            match query.number(name, max) {
                Err(Failure::BadRequest(why)) => assert_eq!(why, said),
                other => panic!("{other:?}"),
            }
        }
    }
}
