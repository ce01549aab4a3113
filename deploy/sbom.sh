#!/usr/bin/env bash
# What is in an image, as SPDX 2.3: sbom.sh DIR CARGO_LOCK
#
# Every crate of the lock file, which is more than what is compiled in (other systems need some, and
# tests), and every file of DIR with its SHA-256.
set -euo pipefail
[ $# -eq 2 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
when=$(date --utc --date="@${SOURCE_DATE_EPOCH:-0}" +%Y-%m-%dT%H:%M:%SZ)

crates() {
    awk -F'"' '
        /^\[\[package\]\]/ { name = "" }
        /^name = /    { name = $2 }
        /^version = / {
            if (name == "") next
            printf "%s    {\"SPDXID\": \"SPDXRef-%s-%s\", \"name\": \"%s\", \"versionInfo\": \"%s\", ", \
                separator, id(name), id($2), name, $2
            printf "\"downloadLocation\": \"NOASSERTION\", \"filesAnalyzed\": false}"
            separator = ",\n"
        }
        function id(text) { gsub(/[^A-Za-z0-9.]/, "-", text); return text }' "$1"
}

files() {
    local separator="" n=0 sum path
    while read -r sum path; do
        n=$((n + 1))
        printf '%s    {"SPDXID": "SPDXRef-File-%d", "fileName": "%s", ' "$separator" "$n" "$path"
        printf '"checksums": [{"algorithm": "SHA256", "checksumValue": "%s"}]}' "$sum"
        separator=$',\n'
    done < <(cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum)
}

cat <<SPDX
{
  "spdxVersion": "SPDX-2.3",
  "dataLicense": "CC0-1.0",
  "SPDXID": "SPDXRef-DOCUMENT",
  "name": "rangekv",
  "documentNamespace": "https://spdx.org/spdxdocs/rangekv-$(sha256sum "$1/app" | cut -c -16)",
  "creationInfo": {"created": "$when", "creators": ["Tool: deploy/sbom.sh"]},
  "packages": [
$(crates "$2")
  ],
  "files": [
$(files "$1")
  ]
}
SPDX
