#!/bin/sh
# Gets Debian's kernel for cloud machines (the current one that linux-image-cloud-amd64
# depends on) without installing it, and prints the path of its vmlinuz.
#   guest/linux/fetch-kernel.sh FOLDER    leaves FOLDER/vmlinuz-VERSION
# A kernel that already lies in FOLDER is taken as it is. Needs apt and dpkg.
set -eu
if [ $# -ne 1 ]; then
    echo "usage: guest/linux/fetch-kernel.sh FOLDER" >&2
    exit 2
fi
mkdir -p "$1"
cd "$1"

kernel() {
    find "$PWD" -maxdepth 1 -type f -name 'vmlinuz-*' | sort | tail -n 1
}

if [ -z "$(kernel)" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    package() {
        apt-cache depends linux-image-cloud-amd64 2>/dev/null |
            sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1
    }
    # By default apt downloads as a user of its own, who may not write here.
    download() {
        (cd "$work" && apt-get download -o APT::Sandbox::User=root "$(package)" >&2)
    }
    # Package lists may be missing, or name a version that is gone by now.
    if [ -z "$(package)" ] || ! download; then
        apt-get update >&2
        download
    fi
    mkdir "$work/root"
    dpkg -x "$work"/linux-image-*.deb "$work/root"
    # A file of this name must be a whole kernel, also when two of us run at once.
    for found in "$work"/root/boot/vmlinuz-*; do
        cp "$found" "$PWD/.$(basename "$found").$$"
        mv "$PWD/.$(basename "$found").$$" "$PWD/$(basename "$found")"
    done
fi
path=$(kernel)
if [ -z "$path" ]; then
    echo "The kernel package holds no vmlinuz." >&2
    exit 1
fi
echo "$path"
