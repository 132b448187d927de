#!/usr/bin/env bash
# Unpacks libvirt 11 from Debian bookworm-backports into a cache folder, beside the installed one, so that tests can use
# both: it needs no installation but the libraries that the installed libvirt needs, too. Prints the folder on its last
# line. The mirror is read from the machine's own apt sources.
#
# usage: scripts/fetch-libvirt11.sh [FOLDER]      default: ${XDG_CACHE_HOME:-~/.cache}/deltavee/libvirt-11
set -euo pipefail

folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/deltavee/libvirt-11}
if [ -x "$folder/usr/sbin/libvirtd" ]; then
  echo "$folder"
  exit 0
fi

sources=/etc/apt/sources.list.d/debian.sources
if [ ! -r "$sources" ]; then
  echo "fetch-libvirt11: $sources is missing: this script knows Debian 12 only. Unpack libvirt 11 into $folder by hand." >&2
  exit 1
fi
# The stanza that lists plain bookworm (not bookworm-security) carries the mirror that also has backports.
uri=$(awk -v RS= '/Suites:[^\n]*bookworm( |\n)/' "$sources" | sed -n 's/^URIs: *\([^ ]*\).*/\1/p' | head -n 1)
key=$(awk -v RS= '/Suites:[^\n]*bookworm( |\n)/' "$sources" | sed -n 's/^Signed-By: *\([^ ]*\).*/\1/p' | head -n 1)
if [ -z "$uri" ] || [ -z "$key" ]; then
  echo "fetch-libvirt11: no bookworm stanza with URIs and Signed-By in $sources" >&2
  exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/parts" "$work/lists/partial" "$work/debs" "$work/root"
echo "deb [signed-by=$key] $uri bookworm-backports main" >"$work/parts/backports.list"
apt=(apt-get -q -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/parts" -o Dir::State::Lists="$work/lists")
"${apt[@]}" update >&2
(cd "$work/debs" && "${apt[@]}" -o APT::Sandbox::User=root download libvirt0 libvirt-common libvirt-daemon \
  libvirt-daemon-common libvirt-daemon-driver-qemu libvirt-daemon-log >&2)
for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$work/root"; done
mkdir -p "$(dirname "$folder")"
rm -rf "$folder.partial" && cp -a "$work/root" "$folder.partial" && rm -rf "$folder" && mv "$folder.partial" "$folder"
LD_LIBRARY_PATH="$folder/usr/lib/x86_64-linux-gnu" "$folder/usr/sbin/libvirtd" --version >&2
echo "$folder"
