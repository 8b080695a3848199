#!/usr/bin/env bash
# Makes the virtual machine a node, pure cgroup v2, and runs the test's script. The variables are set
# before these lines.
#
#   modules version         folder of the kernel's modules on the host, and their version
#   folder script           folder in which the script runs, and its text
#   output_port code_port   for its output and its exit code
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
export TMPDIR=/run/tmp

mkdir -p "/usr/lib/modules/$version" /run /dev/pts /dev/shm
mount --bind "/.host$modules" "/usr/lib/modules/$version"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -m 1777 "$TMPDIR"
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
for name in fd:/proc/self/fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do
  [[ -e /dev/${name%%:*} ]] || ln -s "${name#*:}" "/dev/${name%%:*}"
done
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
ip link set lo up
hostname vm
# Like a service of systemd: not in the root cgroup, and not in that of pods.
mkdir -p /sys/fs/cgroup/system.slice/test.service /sys/fs/cgroup/kubepods.slice
echo $$ >/sys/fs/cgroup/system.slice/test.service/cgroup.procs
for line in "$output_port" "$code_port"; do stty -F "/dev/$line" raw -echo 115200; done

# Runs a command and reports its result to the test: `check NAME COMMAND...`
check() {
  local name=$1 code=0
  shift
  printf '\n##begin %s\n' "$name"
  "$@" </dev/null 2>&1 || code=$?
  printf '\n##end %s\n' "$code"
}

cd "$folder" || exit
{
  (eval "$script") </dev/null 2>&1
  echo $? >/run/code
} | cat >"/dev/$output_port"
cat /run/code >"/dev/$code_port"
read -r up _ </proc/uptime
echo "guest: ended after $up s"
echo o >/proc/sysrq-trigger
sleep 60
