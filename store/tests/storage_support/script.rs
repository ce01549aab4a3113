//! Golden scripts: blocks of commands, a line `---`, what they printed, an empty line.
//! `UPDATE_GOLDEN=1` rewrites what they printed; the difference is reviewed like code.

use std::fs;
use std::path::Path;

/// Something that obeys commands.
pub trait Subject {
    /// Runs one line; what it prints ends with a line break, or is empty.
    fn run(&mut self, words: &[&str]) -> String;
}

/// Runs the script on each subject: all print the same.
pub fn run(name: &str, subjects: &mut [&mut dyn Subject]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/scripts")
        .join(name);
    let text = fs::read_to_string(&path).expect("the script is readable");
    let mut first = None;
    for subject in subjects {
        let printed = transcript(&text, *subject);
        match &first {
            None => first = Some(printed),
            Some(first) => assert_eq!(*first, printed, "{name}: two subjects differ"),
        }
    }
    let printed = first.expect("at least one subject");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, printed).expect("the script is writable");
    } else {
        assert_eq!(
            text, printed,
            "{name}: run with UPDATE_GOLDEN=1 and review the difference"
        );
    }
}

fn transcript(text: &str, subject: &mut dyn Subject) -> String {
    let mut blocks = Vec::new();
    for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let commands = block.split("\n---").next().unwrap_or_default().trim();
        let mut printed = format!("{commands}\n---\n");
        for line in commands.lines().filter(|line| !line.starts_with('#')) {
            printed += &subject.run(&line.split_whitespace().collect::<Vec<_>>());
        }
        blocks.push(printed);
    }
    blocks.join("\n")
}

/// The number after `name` in `words`, as in `keep=3`.
pub fn option(words: &[&str], name: &str) -> Option<u64> {
    let value = words
        .iter()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.parse().expect("a number"))
}
