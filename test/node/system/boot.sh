#!/bin/sh
# Process 1 of a test node: boot.sh ROOT RUN. Started in separate mount, pid, network, uts, ipc and
# cgroup namespaces; becomes systemd. All mounts are private to them and end with them.
#
#   ROOT  the Debian system, read-only below an overlay
#   RUN   upper, work: the overlay; root: where it is mounted; state: what is not on the overlay;
#         bind: links named like paths (opt-kubernetes) to folders that are mounted there read-only
set -eu
lower=$1 run=$2 root=$2/root

mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$run/upper,workdir=$run/work" "$root"
# containerd's snapshots are overlays; their upper folder cannot be on another overlay.
for part in "$run"/state/*; do
  at=$root/var/lib/${part##*/}
  mkdir -p "$at"
  mount --bind "$part" "$at"
done
for link in "$run"/bind/*; do
  at=$root/$(basename "$link" | tr - /)
  mkdir -p "$at"
  mount --bind "$(readlink "$link")" "$at"
  mount -o remount,bind,ro "$at"
done

mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t bpf bpf "$root/sys/fs/bpf"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 kmsg:1:11; do
  IFS=: read -r name major minor <<END
$node
END
  mknod -m 666 "$root/dev/$name" c "$major" "$minor"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for stream in stdin:0 stdout:1 stderr:2; do
  ln -s "/proc/self/fd/${stream#*:}" "$root/dev/${stream%:*}"
done

# The machine's sysctls stay unchanged: those outside the network namespace are read-only, and files
# of the same names replace those that the kubelet insists on.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount --bind "$root/proc/sys/net" "$root/proc/sys/net"
mount -o remount,bind,ro "$root/proc/sys"
mkdir "$root/run/sysctl"
for wish in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
  kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  path=${wish%=*}
  file=$root/run/sysctl/$(basename "$path")
  echo "${wish#*=}" >"$file"
  mount --bind "$file" "$root/proc/sys/$path"
done

hostname node-1
cd "$root"
mkdir -p old-root
pivot_root . old-root
mount --make-rprivate /old-root
umount -l /old-root
# Containers get later mounts of the node too, as on every node with systemd.
mount --make-rshared /
exec env -i container=test-node PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-target=journal --show-status=no
