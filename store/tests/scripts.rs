//! Golden scripts: a cluster of workers over memory, driven line by line.
//!
//! A script is a list of blocks: commands, a line `---`, what they printed, an empty line.
//! `UPDATE_GOLDEN=1 cargo test -p rangekv-store --test scripts` rewrites the outputs; the
//! difference is then reviewed like code.

mod support;

use std::fs;
use std::path::Path;

fn run(path: &Path) {
    let text = fs::read_to_string(path).expect("the script is readable");
    let mut cluster = support::Cluster::new();
    let mut result = String::new();
    for block in text.split("\n\n").filter(|b| !b.trim().is_empty()) {
        let commands = block
            .split("\n---")
            .next()
            .expect("a block has commands")
            .trim_end();
        result.push_str(commands);
        result.push_str("\n---\n");
        for line in commands.lines().filter(|l| !l.starts_with('#')) {
            result.push_str(&cluster.run(line));
        }
        result.push('\n');
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path, &result).expect("the script is writable");
    } else {
        assert_eq!(
            text,
            result,
            "{}: run with UPDATE_GOLDEN=1 and review the difference",
            path.display()
        );
    }
}

macro_rules! scripts {
    ($($name:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
            run(&dir.join(concat!(stringify!($name), ".txt")));
        }
    )*};
}

scripts!(
    write_and_read,
    overlay_pipelines_one_key,
    leader_crashes_after_ok,
    split_at_a_key,
    split_child_keeps_its_vote,
    laggard_gets_a_snapshot,
    newcomer_wakes_its_leader,
    snapshot_before_a_split,
    replace_a_replica,
    transfer_ends_the_lease,
    transfer_is_followed,
    unfreeze_of_one_that_absorbs,
    restart_of_all,
    minority_answers_nothing,
    all_stop_at_once,
    barrier_and_proof,
    merge_two_ranges,
    merge_is_given_up,
    merge_leader_crashes_before_the_commit,
    merge_is_finished_by_the_next_leader,
    merge_is_replayed_by_one_alone,
    merge_by_a_snapshot,
    merge_needs_what_it_says,
    recover_two_of_five,
    recover_keeps_the_tail,
    recover_in_a_joint_configuration,
    recover_a_learner,
);
