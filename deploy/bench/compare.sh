#!/usr/bin/env bash
# Measures RangeKV beside etcd and Redis on this machine, with the same load generator.
#
#   deploy/bench/compare.sh [--rounds 3] [--seconds 5] [--systems etcd,redis,rangekv3,rangekv1]
#                           [--ranges N] [--sync-ms MS] [--out DIR]
#
# Systems, each with fsync on and all on 127.0.0.1:
#   etcd      3 members. Clients talk to the leader alone over 3 connections, because that is
#             where etcd is fastest (through all members both loads are 15 % slower).
#   redis     1 server, --appendonly yes --appendfsync always; its log is not rewritten meanwhile.
#   rangekv3  3 stores, 3 replicas; clients are dealt out to all stores, whoever leads. Or, "to the
#             slot's owner", they ask for CLUSTER NODES and go there, as libraries for Redis Cluster do.
#   rangekv1  1 store.
# --ranges: data ranges that RangeKV begins with, instead of its own choice.
# --sync-ms: every fsync and fdatasync of every system begins so much later (slowsync.py): what
#            the same load does on slower disks.
#
# All systems run for the whole time; a round runs each load on each system in turn, rotating
# who is first, so that whatever else the machine does falls on all of them. Reported is the
# median over the rounds. "CPU" is that of the system's processes per request; unlike the
# throughput it hardly depends on what else runs. "Others" is CPU taken by processes that are
# neither the system nor the generator: take the figures again if it is more than a few percent.
#
# Writes DIR/compare.json (every run) and DIR/compare.md (the tables). Needs etcd-server,
# etcd-client, redis-server, jq and perl of Debian, for the systems that are asked for. The
# binary is $RANGEKV, else `rangekv` of the release profile in the target directory.
set -euo pipefail

rounds=3
seconds=5
systems=etcd,redis,rangekv3,rangekv1
out=.
ranges=()
slow=()
while [ $# -gt 0 ]; do
    case $1 in
        --rounds) rounds=$2 ;;
        --seconds) seconds=$2 ;;
        --systems) systems=$2 ;;
        --ranges) ranges=(--initial-ranges "$2") ;;
        --sync-ms) slow=(python3 "$(dirname "$0")/slowsync.py" "$2") ;;
        --out) out=$2 ;;
        *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift 2
done
IFS=, read -ra systems <<<"$systems"

# shellcheck source=deploy/bench/lab.sh
. "$(dirname "$0")/lab.sh"
warmup=1
keys=100000
clients=64
value=128

mkdir -p "$out"
case $(stat -f -c %T "$work") in
    tmpfs | ramfs) die "${TMPDIR:-/tmp} is in memory, where fsync costs nothing: set TMPDIR to a disk" ;;
esac

declare -A pids      # system → its processes
declare -A endpoints # system → where its clients go

# run SYSTEM NAME COMMAND…: in the background, until the script ends.
run() {
    local system=$1 name=$2
    shift 2
    "${slow[@]}" "$@" >"$work/$name.log" 2>&1 &
    local pid=$!
    all_pids+=("$pid")
    if [ ${#slow[@]} -gt 0 ]; then
        eventually "$name" delayed "$pid" "$(basename "$1")"
        pid=$(delayed "$pid" "$(basename "$1")")
    fi
    pids[$system]="${pids[$system]:-} $pid"
}

# delayed PID PROGRAM: the child of slowsync.py; python3 may be a script that has others first.
delayed() {
    local child
    for child in $(<"/proc/$1/task/$1/children"); do
        [ "$(<"/proc/$child/comm")" = "$2" ] && echo "$child" && return
    done
    return 1
}

# eventually WHAT COMMAND…: tries for 20 seconds.
eventually() {
    local what=$1
    shift
    for _ in $(seq 200); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    die "$what did not come up"
}

start_etcd() {
    local ports cluster='' i
    read -ra ports <<<"$(free_ports 6)"
    for i in 0 1 2; do cluster+=",e$i=http://127.0.0.1:${ports[i + 3]}"; done
    for i in 0 1 2; do
        local client=http://127.0.0.1:${ports[i]} peer=http://127.0.0.1:${ports[i + 3]}
        run etcd "etcd$i" etcd --name "e$i" --data-dir "$work/etcd$i" \
            --listen-client-urls "$client" --advertise-client-urls "$client" \
            --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
            --initial-cluster "${cluster:1}" --initial-cluster-state new
    done
    local all="127.0.0.1:${ports[0]},127.0.0.1:${ports[1]},127.0.0.1:${ports[2]}"
    eventually etcd etcdctl_3 --endpoints "$all" endpoint health
    endpoints[etcd]=$(etcdctl_3 --endpoints "$all" endpoint status -w json |
        jq -r '.[] | select(.Status.leader == .Status.header.member_id) | .Endpoint')
    [ -n "${endpoints[etcd]}" ] || die "etcd has no leader"
}
etcdctl_3() { ETCDCTL_API=3 etcdctl "$@"; }

start_redis() {
    local port
    port=$(free_ports 1)
    mkdir "$work/redis"
    run redis redis redis-server --port "$port" --bind 127.0.0.1 --dir "$work/redis" --save '' \
        --appendonly yes --appendfsync always --auto-aof-rewrite-percentage 0
    endpoints[redis]=127.0.0.1:$port
    eventually redis load redis set --warmup 0s --requests 1
}

start_rangekv() {
    local system=rangekv$1 count=$1 ports members='' all='' i threads
    # Each store's share of the machine.
    threads=$(($(nproc) / count))
    read -ra ports <<<"$(free_ports $((2 * count)))"
    for ((i = 0; i < count; i++)); do
        members+=",n$i=127.0.0.1:${ports[count + i]}"
        all+=",127.0.0.1:${ports[i]}"
    done
    for ((i = 0; i < count; i++)); do
        run "$system" "$system-$i" "$rangekv" start --id "n$i" --data-dir "$work/$system-$i" \
            --address "127.0.0.1:${ports[count + i]}" --redis-address "127.0.0.1:${ports[i]}" \
            --redis-threads $((threads > 0 ? threads : 1)) \
            "${ranges[@]}" --bootstrap-members "${members:1}" --bootstrap="$([ "$i" = 0 ] && echo true || echo false)"
    done
    endpoints[$system]=${all:1}
    eventually "$system" load "$system" set --warmup 0s --requests 100
}

# load SYSTEM COMMAND FLAGS…: one run of the generator.
load() {
    local system=$1 command=$2
    shift 2
    local protocol=resp connections=()
    [ "$system" = etcd ] && { protocol=etcd; connections=(--connections 3); }
    "$rangekv" bench --json --protocol $protocol "${connections[@]}" --endpoints "${endpoints[$system]}" \
        --command "$command" --clients $clients --value-size $value --keys $keys "$@"
}

# CPU ticks that processes have used so far (utime + stime, fields 14 and 15).
process_ticks() {
    local pid total=0 fields
    for pid in "$@"; do
        fields=$(sed 's/.*) //' "/proc/$pid/stat") || die "process $pid has ended"
        set -- $fields
        total=$((total + ${12} + ${13}))
    done
    echo $total
}
machine_ticks() { awk '/^cpu / { print $2 + $3 + $4 + $7 + $8 + $9 }' /proc/stat; }

# measure ROUND NAME SYSTEM COMMAND FLAGS…: appends one line of JSON to runs.
measure() {
    local round=$1 name=$2 system=$3 command=$4
    shift 4
    local before machine_before after machine_after report
    # shellcheck disable=SC2086 # a list of pids
    before=$(process_ticks ${pids[$system]})
    machine_before=$(machine_ticks)
    report=$(load "$system" "$command" --duration "${seconds}s" --warmup "${warmup}s" "$@") ||
        die "$name on $system: no request succeeded: $(jq -c .errors <<<"$report")"
    machine_after=$(machine_ticks)
    # shellcheck disable=SC2086
    after=$(process_ticks ${pids[$system]})
    jq -c --arg system "$system" --arg load "$name" --argjson round "$round" \
        --argjson server $((after - before)) --argjson machine $((machine_after - machine_before)) \
        --argjson hz "$(getconf CLK_TCK)" --argjson warmup $warmup --argjson cores "$(nproc)" '
        (.seconds + $warmup) as $wall
        | ($server / $hz / $wall) as $server_cores
        | {$system, $load, $round, throughput, failed, latency_ms, errors,
           server_cpu_micros_per_request: ($server_cores / .throughput * 1e6),
           generator_cpu_micros_per_request,
           others_share: ([($machine / $hz / $wall - $server_cores - .generator_busy) / $cores, 0] | max)}
        ' <<<"$report" | tee -a "$work/runs" |
        jq -r '"round \(.round)  \(.load)  \(.system): \(.throughput | floor)/s, p99 \(.latency_ms.p99) ms, \(.failed) errors, others \(.others_share * 100 | round) %"'
}

for system in "${systems[@]}"; do
    case $system in
        etcd) start_etcd ;;
        redis) start_redis ;;
        rangekv3) start_rangekv 3 ;;
        rangekv1) start_rangekv 1 ;;
        *) die "--systems $system: expected etcd, redis, rangekv3 or rangekv1" ;;
    esac
    load "$system" get --preload --warmup 0s --requests 1 >/dev/null
done

touch "$work/runs"
for ((round = 1; round <= rounds; round++)); do
    while read -r command pipeline route name; do
        for ((i = 0; i < ${#systems[@]}; i++)); do
            system=${systems[(i + round - 1) % ${#systems[@]}]}
            flags=(--pipeline "$pipeline")
            if [ "$route" = owner ]; then
                [ "$system" = rangekv3 ] || continue
                flags+=(--cluster)
            fi
            if [ "$command" = incr ]; then
                [ "$system" = etcd ] && continue
                flags+=(--distribution hot)
            fi
            measure "$round" "$name" "$system" "$command" "${flags[@]}"
            sleep 0.5 # what a write leaves behind (compaction, heartbeats) is not the next one's
        done
    done <<'LOADS'
set 1 any SET
set 1 owner SET, to the slot's owner
get 1 any GET
get 1 owner GET, to the slot's owner
set 16 any SET, pipeline 16
set 16 owner SET, pipeline 16, to the slots' owners
get 16 any GET, pipeline 16
incr 1 any INCR of one key
LOADS
done

jq -s --arg cpu "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)" \
    --argjson cores "$(nproc)" --argjson clients $clients --argjson value $value \
    --argjson keys $keys --argjson seconds "$seconds" --argjson rounds "$rounds" \
    '{machine: {$cpu, $cores}, load: {$clients, value_bytes: $value, $keys, $seconds, $rounds}, runs: .}' \
    "$work/runs" >"$out/compare.json"
jq -r -f "$here/table.jq" "$out/compare.json" | tee "$out/compare.md"
