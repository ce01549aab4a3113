#!/usr/bin/env bash
# Makes an image to compile with where no registry is reached: builder.sh TAG [SUITE]
#
# Debian (SUITE, bookworm) by debootstrap, a C++ compiler and libclang, this machine's Rust and what it
# trusts. Needs root, debootstrap, docker and a Debian mirror (MIRROR). Then:
#
#   docker build --network host --build-arg BUILDER=TAG -f deploy/Dockerfile -t rangekv .
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
tag=$1 suite=${2:-bookworm}
rust=$(rustc --print sysroot)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

debootstrap --variant=minbase --include=ca-certificates,g++,libclang-dev \
    "$suite" "$root" "${MIRROR:-http://deb.debian.org/debian}"
mkdir -p "$root/usr/local/cargo" "$root/usr/local/rust/bin"
cp -a "$rust/lib" "$root/usr/local/rust/"
cp -a "$rust"/bin/{cargo,rustc} "$root/usr/local/rust/bin/"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
tar -C "$root" -c . | docker import \
    --change 'ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    --change 'ENV CARGO_HOME=/usr/local/cargo' - "$tag"
