#!/bin/sh
# /lab/init of the guest: mounts what every program expects, gives the guest the address that the kernel's command line
# names (lab.address=ADDRESS/LENGTH lab.client=ADDRESS lab.client-mac=MAC), and goes on with busybox' init, which runs
# what /etc/inittab says.
export PATH=/lab/bin:/usr/lib/lmbench/bin/x86_64-linux-gnu:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
for folder in /dev/shm /run /tmp; do
    mount -t tmpfs -o mode=1777 tmpfs "$folder"
done
mkdir -p /run/lock

parameter() {
    tr ' ' '\n' </proc/cmdline | sed -n "s/^lab\.$1=//p"
}
hostname guest
ip link set lo up
ip address add "$(parameter address)" dev eth0
ip link set eth0 up
LAB_CLIENT=$(parameter client)
export LAB_CLIENT
# Nobody has to ask who the client is while the guest is being moved.
ip neighbour add "$LAB_CLIENT" lladdr "$(parameter client-mac)" nud permanent dev eth0
cd /root || exit
exec busybox init
