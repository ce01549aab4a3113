#!/usr/bin/env bash
# Builds the image from a binary that is built already: image.sh BINARY TAG [docker build flags…]
#
# The last stage is that of deploy/Dockerfile; the first one, which compiles, is replaced by
# the files that deploy/rootfs.sh lays out. Needs no registry and no network.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
binary=$1 tag=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT

"$here/rootfs.sh" "$binary" "$context/image"
awk '
    /^FROM .* AS build$/ { print "FROM scratch AS build\nLABEL rangekv.stage=build\nCOPY image /image\n"; skipping = 1; next }
    /^FROM /             { skipping = 0 }
    !skipping' "$here/Dockerfile" > "$context/Dockerfile"
docker build --quiet --tag "$tag" "$@" "$context"
# The first stage has served: without a name it would only take room.
docker image prune --force --filter label=rangekv.stage=build >/dev/null
