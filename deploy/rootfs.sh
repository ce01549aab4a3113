#!/usr/bin/env bash
# The files of an image: rootfs.sh BINARY DIR
#
# /app, the shared libraries that it needs, a list of users, and where a node notes its address.
# Beside them /sbom.spdx.json, which says what is in it. File times are SOURCE_DATE_EPOCH (0), so that
# the same binary gives the same files.
set -euo pipefail
[ $# -eq 2 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
binary=$1 root=$2
here=$(cd "$(dirname "$0")/.." && pwd)
when=${SOURCE_DATE_EPOCH:-0}

mkdir -p "$root"/{data,etc,run/rangekv,tmp}
chmod 1777 "$root/tmp"
# Symbols are two thirds of the binary; functions keep the names that a panic shows.
strip --strip-debug -o "$root/app" "$binary"
chmod 755 "$root/app"
# As ldd prints them: "NAME => PATH (…)", and the loader as a bare path.
ldd "$binary" | grep -o '/[^ ]*' | while read -r library; do
    install -D -m 755 "$(readlink -f "$library")" "$root$library"
done
printf '%s\n' 'root:x:0:0::/:' 'rangekv:x:65532:65532::/data:' > "$root/etc/passwd"
printf '%s\n' 'root:x:0:' 'rangekv:x:65532:' > "$root/etc/group"
printf 'hosts: files dns\n' > "$root/etc/nsswitch.conf"
# A node that is another user from its beginning notes its address as well.
chmod 1777 "$root/run/rangekv"
"$here/deploy/sbom.sh" "$root" "$here/Cargo.lock" > "$root.sbom"
mv "$root.sbom" "$root/sbom.spdx.json"
find "$root" -exec touch --no-dereference --date="@$when" {} +
