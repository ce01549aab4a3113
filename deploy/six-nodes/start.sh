#!/usr/bin/env bash
# Starts six nodes on this machine, those that do not run yet: Redis on 6379–6384, gRPC on 50051–50056.
#
# The first one makes the cluster, the others join it; later starts are the same command.
. "$(dirname "$0")/common.sh"

command -v "$RANGEKV" >/dev/null || die "'$RANGEKV' is not there: set RANGEKV to the binary"
mkdir -p "$BASE"
cd "$BASE"
for n in $(seq $NODES); do
    runs "$n" && { echo "$(name "$n") runs already"; continue; }
    if [ "$n" -eq 1 ]; then
        how=(--bootstrap --bootstrap-members "$(name 1)=$(grpc 1)")
    else
        how=(--join "$(grpc 1)")
    fi
    nohup "$RANGEKV" start --id "$(name "$n")" --address "$(grpc "$n")" --redis-address "$HOST:$(redis_port "$n")" \
        --dynamo-address "$HOST:$((7999 + n))" --http-address "$HOST:$((8079 + n))" \
        --data-dir "$BASE/$(name "$n")" "${how[@]}" >> "$BASE/$(name "$n").log" 2>&1 < /dev/null &
    echo $! > "$(pid_file "$n")"
    echo "$(name "$n") started as process $!"
done
for n in $(seq $NODES); do
    wait_for "$(name "$n") at $(grpc "$n")" 30 "$RANGEKV" probe "$(grpc "$n")"
    runs "$n" || die "$(name "$n") has ended: $(tail -n 3 "$BASE/$(name "$n").log")"
done
echo "all $NODES nodes answer; next: init-cluster.sh"
