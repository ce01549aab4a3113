#!/usr/bin/env bash
# Stops the six nodes, one after the other, so that leaders move; their data stays. With --wipe the
# data goes as well.
. "$(dirname "$0")/common.sh"

case ${1:-} in
    "" | --wipe) ;;
    *) die "'$1': expected nothing or --wipe" ;;
esac
failed=
for n in $(seq $NODES); do
    if runs "$n"; then
        pid=$(cat "$(pid_file "$n")")
        kill -TERM "$pid"
        for _ in $(seq 200); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        if kill -0 "$pid" 2>/dev/null; then
            echo "$(name "$n") (process $pid) still runs 20 s after SIGTERM" >&2
            failed=yes
            continue
        fi
        echo "$(name "$n") stopped"
    fi
    rm -f "$(pid_file "$n")"
done
[ -z "$failed" ] || die "not all nodes have stopped"
if [ "${1:-}" = --wipe ]; then
    rm -rf "$BASE"
fi
