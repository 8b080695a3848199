#!/bin/busybox sh
# The first program of the virtual machine, in its initramfs: mounts the host's root over virtiofs,
# read-only, below a tmpfs that gets the writes.
bb=/bin/busybox
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev
for module in /modules/*.ko; do $bb insmod "$module" || echo "guest: no $module"; done
$bb mount -t virtiofs -o ro host /host || { echo 'guest: no root'; $bb poweroff -f; }
$bb mount -t tmpfs -o size=80% tmpfs /over
$bb mkdir /over/upper /over/work
$bb mount -t overlay -o lowerdir=/host,upperdir=/over/upper,workdir=/over/work overlay /new
for name in kmod modprobe lsmod; do
  [ -e /new/usr/sbin/$name ] || $bb cp /bin/kmod /new/usr/sbin/$name
done
$bb cp /guest-main.sh /new/.guest-main.sh
$bb mkdir -p /new/.host && $bb mount --move /host /new/.host
for name in proc sys dev; do $bb mount --move /$name /new/$name; done
exec $bb switch_root /new /bin/bash /.guest-main.sh
