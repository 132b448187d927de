#!/usr/bin/env bash
# Unpacks packages of Debian bookworm-backports into a folder, which is there afterwards whole or not at all. Installs
# nothing. The mirror is read from the machine's own apt sources.
#
# usage: scripts/unpack-backports.sh FOLDER PACKAGE...
set -euo pipefail

folder=$1
shift
sources=/etc/apt/sources.list.d/debian.sources
if [ ! -r "$sources" ]; then
  echo "unpack-backports: $sources is missing: this script knows Debian 12 only. Unpack $* into $folder by hand." >&2
  exit 1
fi
# The stanza that lists plain bookworm (not bookworm-security) carries the mirror that also has backports.
uri=$(awk -v RS= '/Suites:[^\n]*bookworm( |\n)/' "$sources" | sed -n 's/^URIs: *\([^ ]*\).*/\1/p' | head -n 1)
key=$(awk -v RS= '/Suites:[^\n]*bookworm( |\n)/' "$sources" | sed -n 's/^Signed-By: *\([^ ]*\).*/\1/p' | head -n 1)
if [ -z "$uri" ] || [ -z "$key" ]; then
  echo "unpack-backports: no bookworm stanza with URIs and Signed-By in $sources" >&2
  exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/parts" "$work/lists/partial" "$work/debs" "$work/root"
echo "deb [signed-by=$key] $uri bookworm-backports main" >"$work/parts/backports.list"
apt=(apt-get -q -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/parts" -o Dir::State::Lists="$work/lists")
"${apt[@]}" update >&2
(cd "$work/debs" && "${apt[@]}" -o APT::Sandbox::User=root download "$@" >&2)
for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$work/root"; done
mkdir -p "$(dirname "$folder")"
rm -rf "$folder.partial" && cp -a "$work/root" "$folder.partial" && rm -rf "$folder" && mv "$folder.partial" "$folder"
