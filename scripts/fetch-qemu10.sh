#!/usr/bin/env bash
# Unpacks QEMU 10.0 into a cache folder, beside whatever QEMU is installed, so that tests can use both. Prints the folder
# on its last line.
#
# usage: scripts/fetch-qemu10.sh [FOLDER]      default: ${XDG_CACHE_HOME:-~/.cache}/deltavee/qemu-10.0
set -euo pipefail

folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/deltavee/qemu-10.0}
if [ ! -x "$folder/usr/bin/qemu-system-x86_64" ]; then
  "$(dirname "$0")/unpack-backports.sh" "$folder" qemu-system-x86 qemu-system-common qemu-system-data seabios
  "$folder/usr/bin/qemu-system-x86_64" --version >&2
fi
echo "$folder"
