#!/bin/busybox sh
# /init of the initramfs: loads the drivers of the disk and the network (in the order of /modules/order) and goes on
# with the root file system.
/bin/busybox mount -t devtmpfs dev /dev
while read -r module; do
    /bin/busybox insmod "/modules/$module"
done </modules/order
/bin/busybox mount -t ext4 -o rw,noatime,noinit_itable /dev/vda /root
/bin/busybox mount -o move /dev /root/dev
exec /bin/busybox switch_root /root /lab/init
