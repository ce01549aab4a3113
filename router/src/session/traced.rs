//! Commands that are traced: from being taken in until the reply stands in the buffer.

use super::Session;
use crate::trace::{Answered, Asked, Open};
use rangekv_model::redis::spec::Spec;
use rangekv_proto::Mark;

/// The name of what is no command of ours: others' names are not ours to make known.
const UNKNOWN: &str = "unknown";
/// Letters of an error's first word that are told.
const WORD_MAX: usize = 32;

impl Session {
    /// The command that is being taken in is traced.
    pub(super) fn begin_trace(&mut self, mark: Mark, spec: Option<&'static Spec>) {
        let Some(tracer) = &self.door.tracer else {
            return;
        };
        self.calls.trace(Open {
            command: self.first + self.queue.len() as u64,
            mark,
            name: spec.map_or(UNKNOWN, |spec| spec.name),
            began_ns: tracer.unix_ns(),
            asked: Asked::default(),
        });
    }

    /// The command at the front of the queue has its reply. Called while some command is traced.
    #[cold]
    pub(super) fn end_trace(&mut self, reply: &[u8]) {
        let (Some(open), Some(tracer)) = (self.calls.end_trace(self.first), &self.door.tracer)
        else {
            return;
        };
        tracer.answered(Answered {
            mark: open.mark,
            name: open.name,
            began_ns: open.began_ns,
            ended_ns: tracer.unix_ns(),
            asked: open.asked,
            error: error_word(reply),
        });
    }
}

/// `WRONGTYPE` and its like: the first word of an error.
fn error_word(reply: &[u8]) -> Option<String> {
    let text = reply.strip_prefix(b"-")?;
    let end = text.iter().position(|b| !b.is_ascii_alphanumeric());
    let word = &text[..end.unwrap_or(text.len()).min(WORD_MAX)];
    Some(String::from_utf8_lossy(word).into_owned())
}

#[cfg(test)]
mod tests {
    use super::error_word;

    #[test]
    fn an_error_is_told_by_its_first_word() {
        assert_eq!(
            error_word(b"-WRONGTYPE Operation\r\n").as_deref(),
            Some("WRONGTYPE")
        );
        assert_eq!(error_word(b"-ERR\r\n").as_deref(), Some("ERR"));
        assert_eq!(error_word(b"+OK\r\n"), None);
        assert_eq!(error_word(b"$-1\r\n"), None);
    }
}
