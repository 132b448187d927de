#!/usr/bin/env bash
# Unpacks libvirt 11 into a cache folder, beside the installed one, so that tests can use both: it needs nothing but the
# libraries that the installed libvirt needs, too. Prints the folder on its last line.
#
# usage: scripts/fetch-libvirt11.sh [FOLDER]      default: ${XDG_CACHE_HOME:-~/.cache}/deltavee/libvirt-11
set -euo pipefail

folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/deltavee/libvirt-11}
if [ ! -x "$folder/usr/sbin/libvirtd" ]; then
  "$(dirname "$0")/unpack-backports.sh" "$folder" libvirt0 libvirt-common libvirt-daemon libvirt-daemon-common \
    libvirt-daemon-driver-qemu libvirt-daemon-log
  LD_LIBRARY_PATH="$folder/usr/lib/x86_64-linux-gnu" "$folder/usr/sbin/libvirtd" --version >&2
fi
echo "$folder"
