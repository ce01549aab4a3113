# What the scripts beside it have in common; sourced by them. A program to measure, a directory that goes
# when the script ends, and with it what the script has started.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=${RANGEKV_TARGET_DIR:-${CARGO_TARGET_DIR:-$here/../../target}}
rangekv=${RANGEKV:-$target/release/rangekv}

die() { echo "${0##*/}: $*" >&2; exit 1; }

[ -x "$rangekv" ] || die "no binary at $rangekv: build it with 'cargo build --release', or set RANGEKV"
work=$(mktemp -d)
all_pids=() # of what is to end with the script

finish() {
    local status=$?
    trap - EXIT INT TERM
    for pid in "${all_pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${all_pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    if [ $status -ne 0 ]; then
        tail -n 5 "$work"/*.log >&2 2>/dev/null || true
    fi
    rm -rf "$work"
    exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM

# Ports that the kernel chose and that nobody listens on.
free_ports() {
    perl -MIO::Socket::INET -e '
        my @held = map { IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1:0") or die $! } 1..shift;
        print join(" ", map { $_->sockport } @held), "\n"' "$1"
}
