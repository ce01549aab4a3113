#!/usr/bin/env bash
# Commands on collections of two sizes, on one RangeKV store and on Redis.
#
#   deploy/bench/families.sh [--elements 1000000] [--warmup 15] [--seconds 3] [--clients 64]
#                            [--commands hget,hset,…]
#
# Both sync each write (Redis: appendfsync always) and run for the whole time on 127.0.0.1. A collection is
# filled once per type, then each command runs on it and on a collection of 10 elements, on one system
# after the other; on the large one after a warm-up of so many seconds, which fills caches. Prints a table
# of requests per second. The binary is $RANGEKV, else `rangekv` of the release profile in the target
# directory. Needs redis-server, jq and perl of Debian.
set -euo pipefail

elements=1000000
warmup=15
seconds=3
clients=64
commands=hget,hset,sismember,sadd,zscore,zadd,zrank,zrange,lpush,lrange,lindex
while [ $# -gt 0 ]; do
    case $1 in
        --elements) elements=$2 ;;
        --warmup) warmup=$2 ;;
        --seconds) seconds=$2 ;;
        --clients) clients=$2 ;;
        --commands) commands=$2 ;;
        *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift 2
done

# shellcheck source=deploy/bench/lab.sh
. "$(dirname "$0")/lab.sh"

read -ra ports <<<"$(free_ports 3)"
declare -A doors=([rangekv]=127.0.0.1:${ports[0]} [redis]=127.0.0.1:${ports[1]})
"$rangekv" start --id n1 --data-dir "$work/rangekv" --redis-address "${doors[rangekv]}" \
    --address "127.0.0.1:${ports[2]}" --bootstrap-members "n1=127.0.0.1:${ports[2]}" --bootstrap >"$work/rangekv.log" 2>&1 &
all_pids+=($!)
mkdir "$work/redis"
redis-server --port "${ports[1]}" --bind 127.0.0.1 --dir "$work/redis" --save '' \
    --appendonly yes --appendfsync always --auto-aof-rewrite-percentage 0 >/dev/null &
all_pids+=($!)

# bench SYSTEM COMMAND ELEMENTS FLAGS…: one run; small and large collections have names of their own.
bench() {
    local system=$1 command=$2 count=$3
    shift 3
    "$rangekv" bench --json --endpoints "${doors[$system]}" --clients "$clients" --keys "$count" \
        --key-prefix "$count:${kinds[$command]}:" --command "$command" "$@"
}
declare -A kinds=([hget]=hash [hset]=hash [sismember]=set [sadd]=set [zscore]=zset [zadd]=zset
    [zrank]=zset [zrange]=zset [lpush]=list [lrange]=list [lindex]=list)
for system in rangekv redis; do
    for _ in $(seq 200); do
        bench $system hset 10 --warmup 0s --requests 10 >/dev/null 2>&1 && break
        sleep 0.1
    done
done

number() { sed ':a;s/\B[0-9]\{3\}\>/,&/;ta' <<<"$1"; }
echo "| command | RangeKV, 10 | RangeKV, $(number "$elements") | Redis, 10 | Redis, $(number "$elements") |"
echo '|---|---|---|---|---|'
filled=
for command in ${commands//,/ }; do
    kind=${kinds[$command]:-}
    [ -n "$kind" ] || { echo "families.sh: no command '$command'" >&2; exit 2; }
    if [ "$filled" != "$kind" ]; then
        for system in rangekv redis; do
            for count in 10 "$elements"; do
                bench $system "$command" "$count" --preload --warmup 0s --requests 1 >/dev/null
            done
        done
        filled=$kind
    fi
    row="| $command "
    for system in rangekv redis; do
        for count in 10 "$elements"; do
            warm=1
            [ "$count" = 10 ] || warm=$warmup
            report=$(bench $system "$command" "$count" --warmup "${warm}s" --duration "${seconds}s")
            row+="| $(number "$(jq '.throughput | floor' <<<"$report")") "
            jq -e '.failed == 0' <<<"$report" >/dev/null || row+="(**$(jq .failed <<<"$report") errors**) "
        done
    done
    echo "$row|"
done
