#!/usr/bin/env bash
# Makes one cluster of the six nodes that start.sh has started, and returns when it serves.
#
# May be run again at any time. Fails, and says at which step, if a node is not there, is a member of
# another cluster, or does not serve. Ids are asked for, never assumed.
. "$(dirname "$0")/common.sh"

REPLICAS=${REPLICAS:-3}
ctl() { "$RANGEKV" ctl --endpoints "$(grpc 1),$(grpc 2),$(grpc 3)" --timeout 20s "$@"; }

# Prints id and cluster of node $1, which has both once it has joined.
identity() {
    "$RANGEKV" probe --json "$(grpc "$1")" |
        jq -er 'select((.store // 0) > 0) | "\(.store) \(.cluster)"'
}

command -v jq >/dev/null || die "jq is not installed"
cluster=
for n in $(seq $NODES); do
    wait_for "$(name "$n") joins" 60 identity "$n"
    read -r id its <<< "$(identity "$n")"
    cluster=${cluster:-$its}
    [ "$its" = "$cluster" ] || die "$(name "$n") belongs to cluster $its, the first node to $cluster: its data directory is another cluster's"
    echo "$(name "$n") is store $id of cluster $its"
done

ctl config set replication-factor "$REPLICAS"
whole() {
    local status
    status=$(ctl --json store list) || { echo "$status"; return 1; }
    jq -e --argjson nodes $NODES '[.[] | select(.state == "up")] | length == $nodes' <<< "$status" || return 1
    ctl --json range list |
        jq -e --argjson want "$REPLICAS" 'all(.leader != null and (.id == 1 or (.replicas | length >= $want)))'
}
wait_for "every range has a leader and $REPLICAS replicas" 120 whole

for n in $(seq $NODES); do
    # A key per node, read back through the next one.
    other=$((n % NODES + 1))
    set_one() { [ "$(redis-cli -h "$HOST" -p "$(redis_port "$n")" SET "init:$n" "$cluster")" = OK ]; }
    wait_for "a write through $(name "$n")" 30 set_one
    [ "$(redis-cli -h "$HOST" -p "$(redis_port "$other")" GET "init:$n")" = "$cluster" ] ||
        die "$(name "$other") does not read what $(name "$n") has written"
    redis-cli -h "$HOST" -p "$(redis_port "$n")" DEL "init:$n" >/dev/null
done
echo "the cluster serves: redis-cli -h $HOST -p $(redis_port 1)"
