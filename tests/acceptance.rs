//! Every row of the acceptance list, typed as users type it, against hosts with addresses of their own:
//! tests/acceptance/run.py, which says more.

use std::path::PathBuf;
use std::process::{Command, Stdio};

#[test]
fn every_row_holds() {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_rangekv"));
    let target = binary.ancestors().nth(2).expect("target/release/rangekv");
    let python = target.join("python/bin/python3");
    assert!(
        python.exists(),
        "{} is missing: `./x setup` installs it",
        python.display()
    );
    let run = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/acceptance/run.py");
    // A pipe, whose other end prints: what a test's child prints by itself is not captured.
    let output = Command::new(python)
        .args(["-B".as_ref(), run.as_ref(), binary.as_os_str()])
        .stderr(Stdio::piped())
        .output()
        .expect("a Python that runs");
    println!("{}", String::from_utf8_lossy(&output.stdout));
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "run.py: {}", output.status);
}
