#!/bin/sh
# Builds guest.elf from boot.S, guest.c, workload.h, pages.h and link.ld with the system's gcc
# (no 32-bit libraries needed). Same compiler, same bytes.
#   guest/build.sh           writes guest/guest.elf
#   guest/build.sh --check   builds aside and exits 1 when guest/guest.elf differs
set -eu
cd "$(dirname "$0")"

case "${1-}" in
"") output=guest.elf ;;
--check)
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    output=$folder/guest.elf
    ;;
*)
    echo "usage: guest/build.sh [--check]" >&2
    exit 2
    ;;
esac

# No loop may become a call of memset (there is no C library), no register but the
# general ones may be used (the timer interrupt saves no others), and nothing that
# changes from build to build may enter the file.
gcc -m32 -march=i686 -std=c11 -O2 -Wall -Wextra -Werror \
    -ffreestanding -fno-tree-loop-distribute-patterns -mgeneral-regs-only \
    -fno-pic -no-pie -fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables \
    -nostdlib -static -s -Wl,--build-id=none -Wl,-n -Wl,-T,link.ld \
    -o "$output" boot.S guest.c
chmod 644 "$output"

if [ "${1-}" = --check ] && ! cmp "$output" guest.elf; then
    echo "guest.elf is not what its sources give with $(gcc --version | head -n 1)." >&2
    echo "Another compiler gives other bytes: guest/README.md names the one it was made with." >&2
    exit 1
fi
