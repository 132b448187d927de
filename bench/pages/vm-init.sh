#!/bin/busybox sh
# First process of the guest that the set "vm" is taken from: everyday programs (tar, gzip, sort, awk, sha256sum)
# over files in memory, for as long as the VM lives. Prints READY once all of them are at work.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mkdir /tmp/log

# Packs a tree of source files, unpacks it elsewhere, compares.
while :; do
    tar -cf - -C /data . | gzip >/tmp/data.tgz
    rm -rf /tmp/tree && mkdir /tmp/tree
    tar -xzf /tmp/data.tgz -C /tmp/tree
    find /tmp/tree -type f -exec sha256sum {} + >/tmp/sums
done &

# Makes records, sorts them, counts them.
while :; do
    awk 'BEGIN { srand(); for (i = 0; i < 60000; i++) printf "%08x %s %d\n", rand() * 4294967295, i % 97 ? "ok" : "late", rand() * 1000 }' >/tmp/records
    sort -k3n /tmp/records | cut -d" " -f2,3 | uniq -c | sort -rn >/tmp/counts
done &

# A table in one process's heap that changes all the time: a service with a moderate load.
awk 'BEGIN {
    srand()
    for (;;) {
        for (i = 0; i < 200; i++) {
            key = "user" int(rand() * 40000)
            visits[key]++
            last[key] = "page-" int(rand() * 1e6) ".html?session=" rand()
            if (rand() < 0.1) delete visits["user" int(rand() * 40000)]
        }
        system("usleep 20000")
    }
}' &

# A log that grows and is rotated, and the short-lived processes of a shell script.
while :; do
    echo "$(date) request $(cut -d. -f1 /proc/uptime) $(wc -l </tmp/records) lines" >>/tmp/log/current
    grep -c request /tmp/log/current >/tmp/log/count
    [ "$(cat /tmp/log/count)" -lt 2000 ] || mv /tmp/log/current /tmp/log/old
    usleep 100000
done &

sleep 8
echo
echo "READY everyday programs"
wait
