#!/usr/bin/env bash
# Unpacks QEMU 10.0 from Debian bookworm-backports into a cache folder, beside whatever QEMU is installed,
# so that tests can use both. Installs nothing on the system except what the binary needs and apt can name.
# Prints the folder on its last line. The mirror is read from the machine's own apt sources.
#
# usage: scripts/fetch-qemu10.sh [FOLDER]      default: ${XDG_CACHE_HOME:-~/.cache}/deltavee/qemu-10.0
set -euo pipefail

folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/deltavee/qemu-10.0}
if [ -x "$folder/usr/bin/qemu-system-x86_64" ]; then
  echo "$folder"
  exit 0
fi

sources=/etc/apt/sources.list.d/debian.sources
if [ ! -r "$sources" ]; then
  echo "fetch-qemu10: $sources is missing: this script knows Debian 12 only. Unpack QEMU 10 into $folder by hand." >&2
  exit 1
fi
# The stanza that lists plain bookworm (not bookworm-security) carries the mirror that also has backports.
uri=$(awk -v RS= '/Suites:[^\n]*bookworm( |\n)/' "$sources" | sed -n 's/^URIs: *\([^ ]*\).*/\1/p' | head -n 1)
key=$(awk -v RS= '/Suites:[^\n]*bookworm( |\n)/' "$sources" | sed -n 's/^Signed-By: *\([^ ]*\).*/\1/p' | head -n 1)
if [ -z "$uri" ] || [ -z "$key" ]; then
  echo "fetch-qemu10: no bookworm stanza with URIs and Signed-By in $sources" >&2
  exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/parts" "$work/lists/partial" "$work/debs" "$work/root"
echo "deb [signed-by=$key] $uri bookworm-backports main" >"$work/parts/backports.list"
apt=(apt-get -q -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/parts" -o Dir::State::Lists="$work/lists")
"${apt[@]}" update >&2
(cd "$work/debs" && "${apt[@]}" -o APT::Sandbox::User=root download \
  qemu-system-x86 qemu-system-common qemu-system-data seabios >&2)
for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$work/root"; done
mkdir -p "$(dirname "$folder")"
rm -rf "$folder.partial" && cp -a "$work/root" "$folder.partial" && rm -rf "$folder" && mv "$folder.partial" "$folder"
"$folder/usr/bin/qemu-system-x86_64" --version >&2
echo "$folder"
