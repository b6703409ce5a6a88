#!/bin/bash
# PID 1 of level 1, once its root is mounted: makes a Linux host with KVM, VFIO and SR-IOV adapters of it, runs the one
# command it was booted for, and tells xtask (machine.rs) how that went.
#
# /run/lab is the folder of this run, read-only: `env` and `command`, `bin/`, `guest/`, `modules/`. The ports under
# /dev/virtio-ports lead to xtask: lab.out and lab.err carry the command's output, lab.in (where there is one) what it reads,
# lab.control carries "alive" every 5 s, "up", "exit N", and "lost" after a reset that was not asked for. /dev/hvc0 is the
# terminal of `lab shell`. What this script prints itself is on the console.
set -u
export PATH=/run/lab/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
# shellcheck source=/dev/null
. /run/lab/env

mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ln -sfn /proc/self/fd /dev/fd
ln -sfn fd/0 /dev/stdin; ln -sfn fd/1 /dev/stdout; ln -sfn fd/2 /dev/stderr
echo level1 >/proc/sys/kernel/hostname

mkdir -p /lib/modules
ln -sfn /run/lab/modules "/lib/modules/$(uname -r)"
modprobe -a igb nvme vfio-pci kvm_amd

# No udev here: KVM's node is for everybody, as systemd's rules have it, and ports are named as udev would.
chmod 0666 /dev/kvm
mkdir -p /dev/virtio-ports
for port in /sys/class/virtio-ports/*; do
  [ -s "$port/name" ] && ln -sfn "/dev/${port##*/}" "/dev/virtio-ports/$(cat "$port/name")"
done
exec 3>/dev/virtio-ports/lab.control
while sleep 5; do echo alive >&3; done &

# A run that may reset this machine has a disk for it, which is the state folder too. Its command makes /run/kept/reset
# before it does so: without that, this kernel has panicked or the emulator has failed, and nobody is to take that for a reset
# that was survived.
export IOWARD_LAB_BOOT=1
if [ "$IOWARD_LAB_KEEPS" = yes ]; then
  modprobe -a virtio_blk ext4
  [ -n "$(blkid /dev/vda)" ] || mkfs.ext4 -q /dev/vda
  mkdir -p /run/kept /var/lib/ioward
  mount /dev/vda /run/kept || echo lost >&3
  if [ -e /run/kept/boots ]; then
    IOWARD_LAB_BOOT=$(($(cat /run/kept/boots) + 1))
    rm /run/kept/reset || echo lost >&3
  fi
  echo "$IOWARD_LAB_BOOT" >/run/kept/boots
  mkdir -p /run/kept/ioward
  mount --bind /run/kept/ioward /var/lib/ioward
  sync
fi

# A VF carries nothing while its PF is down. No addresses: those are the command's business. The links take a second or
# two; should one never come, the command finds out.
ip link set lo up
for link in eth0 eth1; do ip link set "$link" up; done
tries=100
until grep -q 1 /sys/class/net/eth0/carrier && grep -q 1 /sys/class/net/eth1/carrier; do
  tries=$((tries - 1)); [ "$tries" -gt 0 ] || break
  sleep 0.1
done

# The command has a cgroup of its own, so that what it leaves running can be told from what runs the lab.
mkdir /sys/fs/cgroup/lab
cd "$IOWARD_WORKSPACE" || exit
if [ "$IOWARD_LAB_TERMINAL" = yes ]; then
  # Open from before "up" until the end: what is typed ahead would be lost with the last close.
  exec 4<>/dev/hvc0
  stty rows "$IOWARD_LAB_ROWS" columns "$IOWARD_LAB_COLUMNS" <&4
  echo up >&3
  # shellcheck disable=SC2016
  setsid --ctty --wait bash -c 'echo $$ >/sys/fs/cgroup/lab/cgroup.procs; exec bash /run/lab/command' \
    <&4 >&4 2>&4 3>&- 4>&-
  status=$?
else
  echo up >&3
  # Through pumps and not straight into the ports: a port can be opened only once, and `>/dev/stderr` opens it again.
  mkfifo /run/lab.out /run/lab.err
  cat /run/lab.out >/dev/virtio-ports/lab.out 3>&- & pumps=$!
  cat /run/lab.err >/dev/virtio-ports/lab.err 3>&- & pumps="$pumps $!"
  input=/dev/virtio-ports/lab.in
  [ -e "$input" ] || input=/dev/null
  # shellcheck disable=SC2016
  bash -c 'echo $$ >/sys/fs/cgroup/lab/cgroup.procs; exec bash /run/lab/command' \
    <"$input" >/run/lab.out 2>/run/lab.err 3>&-
  status=$?
  # A pump ends when nobody can write to it any more, so whatever the command left running ends first.
  for cgroup in /sys/fs/cgroup/*/cgroup.kill; do echo 1 >"$cgroup"; done
  # shellcheck disable=SC2086
  wait $pumps
fi
echo "exit $status" >&3
# xtask turns the machine off. Ending PID 1 would be a kernel panic.
sleep infinity
