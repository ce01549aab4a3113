//! Checks the shape of the source tree, which no compiler does: which crate may know which,
//! what the pure modules may not name, how a file begins.
//!
//! A rule that stands in somebody's way is either wrong, then change it here and in
//! ARCHITECTURE.md, or about to be broken.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Which of our crates a crate may depend on: `proto` ← `model` ← `store`, `pd`, `router`.
const EDGES: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("model", &["proto"]),
    ("store", &["proto", "model"]),
    ("pd", &["proto", "model"]),
    ("router", &["proto", "model"]),
    ("tests/tidy", &[]),
];

/// Crates whose sources are pure, and the files in them that are not.
const PURE: &[(&str, &[&str])] = &[
    ("model/src", &[]),
    ("pd/src", &[]),
    ("store/src", &["engine/rocks", "log/disk"]),
    ("router/src", &["poll", "server"]),
];

/// What a pure module does not name. Clocks and randomness are clippy.toml's.
const IMPURE: &[&str] = &[
    "tokio",
    "rocksdb",
    "std::net",
    "std::fs",
    "std::thread",
    "std::env",
];

/// Files longer than this are two ideas.
const LINES_MAX: usize = 1_000;

#[test]
fn crates_know_only_what_lies_below_them() {
    let mut wrong = Vec::new();
    for (name, may_know) in EDGES {
        for dependency in our_dependencies(&read(&root().join(name).join("Cargo.toml"))) {
            if !may_know.contains(&dependency.as_str()) {
                wrong.push(format!(
                    "{name}/Cargo.toml depends on {dependency}, not on {may_know:?} alone"
                ));
            }
        }
    }
    assert_none(wrong);
}

#[test]
fn every_crate_has_its_place() {
    let manifest = read(&root().join("Cargo.toml"));
    let members = manifest
        .lines()
        .find_map(|line| line.strip_prefix("members = ["))
        .unwrap();
    let members: BTreeSet<&str> = members
        .trim_end_matches(']')
        .split(',')
        .map(|name| name.trim().trim_matches('"'))
        .collect();
    let placed: BTreeSet<&str> = EDGES
        .iter()
        .map(|(name, _)| *name)
        .chain(["tests/sim"])
        .collect();
    assert_eq!(
        members, placed,
        "a new crate is a new edge: decide which others it may know"
    );
}

#[test]
fn pure_modules_do_not_name_the_outside() {
    let mut wrong = Vec::new();
    for (folder, shell) in PURE {
        let folder = root().join(folder);
        for path in files(&folder).iter().filter(|path| is_rust(path)) {
            let name = path.strip_prefix(&folder).unwrap().to_str().unwrap();
            if shell.iter().any(|prefix| name.starts_with(prefix)) || is_test(name) {
                continue;
            }
            for (number, line) in code_lines(&read(path)) {
                for word in IMPURE.iter().filter(|word| names(&line, word)) {
                    wrong.push(format!(
                        "{}:{number} names {word}: {}",
                        shown(path),
                        line.trim()
                    ));
                }
            }
        }
    }
    assert_none(wrong);
}

#[test]
fn files_say_what_they_are() {
    let sources = files(&root())
        .into_iter()
        .filter(|path| is_rust(path) && !is_test(&shown(path)));
    let wrong = sources.filter(|path| !read(path).starts_with("//!"));
    assert_none(
        wrong
            .map(|path| format!("{} does not open with //!", shown(&path)))
            .collect(),
    );
}

#[test]
fn files_are_one_idea() {
    let mut wrong = Vec::new();
    for path in files(&root()).into_iter().filter(|path| is_rust(path)) {
        let lines = read(&path).lines().count();
        if lines > LINES_MAX {
            wrong.push(format!(
                "{} has {lines} lines, more than {LINES_MAX}",
                shown(&path)
            ));
        }
    }
    assert_none(wrong);
}

#[test]
fn nothing_is_left_to_do() {
    let words = [["to", "do!("], ["unimple", "mented!("], ["db", "g!("]];
    let mut wrong = Vec::new();
    for path in files(&root()).into_iter().filter(|path| is_rust(path)) {
        for (number, line) in code_lines(&read(&path)) {
            for word in words
                .iter()
                .map(|word| word.concat())
                .filter(|word| line.contains(word))
            {
                wrong.push(format!("{}:{number} has {word}", shown(&path)));
            }
        }
    }
    assert_none(wrong);
}

/// A clone works in any directory, on any machine.
#[test]
fn no_file_names_somebodys_machine() {
    let words = [
        ["/ro", "ot/"],
        ["/ho", "me/"],
        ["/wo", "rk/"],
        ["/Us", "ers/"],
    ];
    let mut wrong = Vec::new();
    for path in files(&root()) {
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            for word in words
                .iter()
                .map(|word| word.concat())
                .filter(|word| line.contains(word))
            {
                wrong.push(format!("{}:{} names {word}", shown(&path), number + 1));
            }
        }
    }
    assert_none(wrong);
}

/// A reader types what stands there, and follows its links.
#[test]
fn readme_names_files_that_exist() {
    let readme = read(&root().join("README.md"));
    let typed = readme
        .lines()
        .map(str::trim)
        .filter_map(|line| line.strip_prefix("./"));
    let mut wrong = Vec::new();
    for command in typed {
        let file = command.split_whitespace().next().unwrap_or_default();
        if !root().join(file).is_file() {
            wrong.push(format!("README.md: ./{file} is not there"));
        }
    }
    for (text, _) in readme
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
    {
        let file = text.split('#').next().unwrap_or_default();
        if !file.contains("://") && !file.is_empty() && !root().join(file).exists() {
            wrong.push(format!("README.md links to {file}, which is not there"));
        }
    }
    assert_none(wrong);
}

/// `rangekv-…` in `[dependencies]`, as the folders of those crates.
fn our_dependencies(manifest: &str) -> Vec<String> {
    let mut section = "";
    let mut found = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line.trim();
        } else if let Some(rest) = line.strip_prefix("rangekv-") {
            if section == "[dependencies]" {
                let end = rest
                    .find(|c: char| !c.is_alphanumeric())
                    .unwrap_or(rest.len());
                found.push(rest[..end].to_owned());
            }
        }
    }
    found
}

/// Lines with their numbers, without comments.
fn code_lines(text: &str) -> Vec<(usize, String)> {
    let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, code(line)))
        .collect()
}

/// Whether `line` has `word` as a path or part of one, not within a longer word.
fn names(line: &str, word: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        !part(line[..at].chars().next_back()) && !part(line[at + word.len()..].chars().next())
    })
}

/// Tests may use files and threads, and need no heading beside what they test.
fn is_test(name: &str) -> bool {
    name.ends_with("_test.rs") || name.ends_with("_tests.rs") || name.ends_with("/tests.rs")
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap().to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// All files of the source tree; not what was built, nor what a running store left.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap_or_default();
            if path.is_symlink() || name == ".git" || name == "target" || name.ends_with("-data") {
                continue;
            }
            match path.is_dir() {
                true => folders.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort();
    found
}

fn assert_none(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The rules themselves, on examples.
mod rules {
    use super::*;

    #[test]
    fn words_and_paths() {
        for (line, word, expected) in [
            ("use tokio::net;", "tokio", true),
            ("let x = tokio_like();", "tokio", false),
            ("use std::fs::File;", "std::fs", true),
            ("use std::fsync;", "std::fs", false),
            ("mytokio::run()", "tokio", false),
        ] {
            assert_eq!(names(line, word), expected, "{line}");
        }
    }

    #[test]
    fn comments_are_no_code() {
        let lines: BTreeMap<usize, String> = code_lines("let a; // tokio\n/// rocksdb")
            .into_iter()
            .collect();
        assert_eq!(lines[&1], "let a; ");
        assert_eq!(lines[&2], "");
    }

    #[test]
    fn dependencies_of_a_manifest() {
        let manifest = "[package]\nname = \"rangekv-pd\"\n[dependencies]\n\
                        rangekv-proto.workspace = true\nrangekv-model = { path = \"../model\" }\n\
                        [dev-dependencies]\nrangekv-store.workspace = true\n";
        assert_eq!(our_dependencies(manifest), ["proto", "model"]);
    }
}
