#!/bin/sh
# Builds the initramfs of the Linux test guest: /init (init.c, static) and an empty
# /proc; /dev/console comes with every kernel. Prints the path of the result.
#   guest/linux/build.sh FOLDER    writes FOLDER/initramfs.cpio.gz
# Needs gcc, the static C library (libc6-dev) and cpio.
set -eu
if [ $# -ne 1 ]; then
    echo "usage: guest/linux/build.sh FOLDER" >&2
    exit 2
fi
mkdir -p "$1"
output=$(cd "$1" && pwd)/initramfs.cpio.gz
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir "$work/root" "$work/root/proc"
gcc -std=c11 -O2 -Wall -Wextra -Werror -static -pthread -s -Wl,--build-id=none \
    -o "$work/root/init" init.c
# Same compiler and library, same bytes: no times, owners or inode numbers.
find "$work/root" -exec chmod 755 {} + -exec touch -h -d @0 {} +
(cd "$work/root" && printf '%s\n' init proc | cpio --quiet -o -H newc -R 0:0 --reproducible) |
    gzip -n -9 >"$work/initramfs.cpio.gz"
mv "$work/initramfs.cpio.gz" "$output"
echo "$output"
