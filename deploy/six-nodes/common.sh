# What the scripts of six nodes have in common; not to be run by itself.
#
# RANGEKV  the binary                        rangekv
# HOST     address of this machine           127.0.0.1
# BASE     data directories and logs         ./rangekv-six
set -euo pipefail

RANGEKV=${RANGEKV:-rangekv}
HOST=${HOST:-127.0.0.1}
BASE=${BASE:-$PWD/rangekv-six}
NODES=6

die() { echo "$(basename "$0"): $*" >&2; exit 1; }
name() { echo "node$1"; }
grpc() { echo "$HOST:$((50050 + $1))"; }
redis_port() { echo $((6378 + $1)); }
pid_file() { echo "$BASE/$(name "$1").pid"; }

# Whether node $1 runs: its process is there and holds its data directory's lock.
runs() {
    local pid
    pid=$(cat "$(pid_file "$1")" 2>/dev/null) && kill -0 "$pid" 2>/dev/null &&
        [ "$(readlink "/proc/$pid/cwd")" = "$(realpath "$BASE")" ]
}

# Tries "$@" for $1 seconds, then fails with its last output.
wait_for() {
    local what=$1 end=$((SECONDS + $2)) out
    shift 2
    until out=$("$@" 2>&1); do
        [ $SECONDS -lt $end ] || die "$what: not in time: $out"
        sleep 0.2
    done
}
