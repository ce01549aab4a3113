#!/usr/bin/env bash
# The slowest request while ranges are split, merged, moved and led by others, under full load.
#
#   deploy/bench/reshape.sh [--clients 64] [--command mixed] [--changes 6] [--rate PER_SECOND]
#
# Four stores on 127.0.0.1, three replicas of each range, nobody but this script changing them. For
# each kind of change one run of `rangekv bench`: a change every two seconds. Printed is the
# slowest request of the seconds in which a change was made, beside that of the seconds before
# the first of them; requests that failed are counted. The binary is $RANGEKV, else `rangekv`
# of the release profile in the target directory. Needs jq and perl of Debian.
set -euo pipefail

clients=64
load=mixed
changes=6
rate=()
while [ $# -gt 0 ]; do
    case $1 in
        --clients) clients=$2 ;;
        --command) load=$2 ;;
        --changes) changes=$2 ;;
        --rate) rate=(--rate "$2") ;;
        *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift 2
done

# shellcheck source=deploy/bench/lab.sh
. "$(dirname "$0")/lab.sh"

read -ra ports <<<"$(free_ports 8)"
members=''
doors=''
export RANGEKV_ENDPOINTS=''
for i in 0 1 2 3; do
    members+=",n$i=127.0.0.1:${ports[i]}"
    doors+=",127.0.0.1:${ports[i + 4]}"
    RANGEKV_ENDPOINTS+=",127.0.0.1:${ports[i]}"
done
RANGEKV_ENDPOINTS=${RANGEKV_ENDPOINTS:1}
for i in 0 1 2 3; do
    "$rangekv" start --id "n$i" --data-dir "$work/$i" --address "127.0.0.1:${ports[i]}" \
        --redis-address "127.0.0.1:${ports[i + 4]}" --initial-ranges 4 \
        --bootstrap-members "${members:1}" --bootstrap="$([ "$i" = 0 ] && echo true || echo false)" \
        >"$work/$i.log" 2>&1 &
    all_pids+=($!)
done
ctl() { "$rangekv" ctl "$@"; }
bench() {
    "$rangekv" bench --json --endpoints "${doors:1}" --clients "$clients" --command "$load" "$@"
}
for _ in $(seq 200); do
    bench --warmup 0s --requests 100 >/dev/null 2>&1 && break
    sleep 0.1
done
bench --preload --warmup 0s --requests 1 >/dev/null
ctl config set replication-factor 3 >/dev/null
until [ "$(ctl operators list --json | jq length)" = 0 ] &&
    ctl range list --json | jq -e 'all(.replicas | length <= 3)' >/dev/null; do sleep 0.5; done
for switch in leader-balance replica-balance hot-leader-spread range-split range-merge; do
    ctl config set "$switch" off >/dev/null
done

ranges() { ctl range list --json | jq -c '[.[] | select(.id != 1)]'; }
# Each prints nothing, and fails if the change was refused.
transfer() {
    local range
    range=$(ranges | jq -c ".[$1 % length]")
    ctl range transfer-leader "$(jq -r .id <<<"$range")" \
        "$(jq -r '.leader as $l | [.replicas[] | .store | select(. != $l)][0]' <<<"$range")"
}
split() { ctl range split --slot "$((1 + (16383 * (2 * $1 + 1)) / (2 * changes)))"; }
# The left one of two neighbours on the same stores.
merge() {
    local left
    left=$(ranges | jq -r '
        [range(length - 1) as $i | {id: .[$i].id, here: [.[$i].replicas[].store] | sort,
         next: [.[$i + 1].replicas[].store] | sort} | select(.here == .next)][0].id // empty')
    [ -n "$left" ] || { echo 'no two neighbours lie on the same stores'; return 1; }
    ctl range merge "$left"
}
move() {
    local range stores
    range=$(ranges | jq -c ".[$1 % length]")
    stores=$(ctl store list --json | jq -c '[.[] | .id]')
    ctl range move "$(jq -r .id <<<"$range")" \
        "$(jq -r '.leader as $l | [.replicas[] | .store | select(. != $l)][0]' <<<"$range")" \
        "$(jq -r --argjson all "$stores" '[.replicas[] | .store] as $has | [$all[] | select(. as $s | $has | index($s) | not)][0]' <<<"$range")"
}

printf '%-10s %8s %12s %14s %12s %8s\n' change made requests/s 'slowest before' 'slowest with' failed
for change in transfer split merge move; do
    seconds=$((2 * changes + 4))
    bench --warmup 1s --duration "${seconds}s" "${rate[@]}" >"$work/report" &
    loading=$!
    sleep 5
    made=0
    for ((i = 0; i < changes; i++)); do
        began=$(date +%s%N)
        if "$change" "$i" >"$work/ctl" 2>&1; then made=$((made + 1)); else tail -n 1 "$work/ctl" >&2; fi
        left=$((2000000000 - $(date +%s%N) + began))
        [ $left -gt 0 ] && sleep "$(printf '0.%09d' $((left % 1000000000)))" && sleep $((left / 1000000000))
    done
    wait "$loading" || true
    jq -r --arg change "$change" --argjson made $made '
        def slowest: ([.[].max_micros] | max // 0) / 1000 | round | "\(.) ms";
        [$change, $made, (.throughput | round), (.timeline[0:4] | slowest), (.timeline[4:] | slowest), .failed] | @tsv' \
        "$work/report" | { IFS=$'\t' read -r a b c d e f; printf '%-10s %8s %12s %14s %12s %8s\n' "$a" "$b" "$c" "$d" "$e" "$f"; }
done
