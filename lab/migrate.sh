#!/bin/bash
# `cargo xtask lab migrate`: a guest with a VF and a standby on a bridge moves from one daemon's QEMU to another's, and back, while it is
# pinged. Level 1 is both hosts: each daemon has folders of its own, and a VF of the one port of the other's. Runs in level 1.
set -euo pipefail

# shellcheck source=lab/stages.sh
. lab/stages.sh
# shellcheck source=lab/pings.sh
. lab/pings.sh
guest=10.0.0.2
here=/run/ioward there=/run/there
console() { echo "$1/partitions/web/console.sock"; } # FOLDER
drivers() { # FOLDER NAMES: what is under the guest's failover interface
  [ "$(lab-guest "$(console "$1")" 'for l in /sys/class/net/*/lower_*; do basename $(readlink -f $l/device/driver); done | sort' | tr -s '[:space:]' ' ')" = "$2 " ]
}

modprobe -a bridge tun
run ip link add br0 address 52:54:00:bb:00:01 type bridge
run ip link set eth1 up master br0
run ip link set br0 up
# Neither daemon makes VFs: they would be the other one's, too.
echo 0 >/sys/bus/pci/devices/0000:01:00.0/sriov_drivers_autoprobe
echo 2 >/sys/bus/pci/devices/0000:01:00.0/sriov_numvfs
ioward serve 2>/run/here.log & first=$!
mkdir -p /run/there-state
ioward --socket $there/api.sock serve --runtime-dir $there --state-dir /run/there-state 2>/run/there.log & second=$!
trap 'status=$?; [ $status = 0 ] || { tail -30 /run/here.log /run/there.log; ip addr; bridge fdb show br br0 || true; } >&2; exit $status' EXIT
until [ -S $here/api.sock ] && [ -S $there/api.sock ]; do kill -0 $first && kill -0 $second || exit; sleep 0.2; done

stage "A machine with a VF and a standby on a bridge"
run ioward apply -f lab/migrate.toml --yes
echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore
ip addr add 10.0.0.3/24 dev br0
until_so "net_failover has both in the guest" drivers $here "igbvf virtio_net"
in_guest web "M=\$(ls -d /sys/class/net/*/lower_* | head -1 | cut -d/ -f5); ip addr add $guest/24 dev \$M; ip link set \$M up; touch /run/lives"
until_so "the guest answers" answers

stage "It moves to the other host"
pings
run ioward migrate web --to $there/api.sock --yes
until_so "it has a VF there" drivers $there "igbvf virtio_net"
until_so "the guest answers" answers
count "there"
check "it is the same guest" lab-guest "$(console $there)" 'test -e /run/lives'
check "nothing of it is left here" test "$(ioward partitions --json)" = "[]"
check "nothing differs from what is noted there" test "$(ioward --socket $there/api.sock drift --json)" = "[]"

stage "And back, with a daemon that is killed meanwhile"
pings
ioward --socket $there/api.sock migrate web --to $here/api.sock --yes & moving=$!
sleep 3
kill -KILL $second
ioward --socket $there/api.sock serve --runtime-dir $there --state-dir /run/there-state 2>>/run/there.log &
wait $moving || true
owner() { # it has one owner, and only one
  case "$(ioward partitions --json | grep -c '"name": "web"')$(ioward --socket $there/api.sock partitions --json | grep -c '"name": "web"')" in 10|01) ;; *) false ;; esac
}
until_so "it has one owner" owner
until_so "the guest answers" answers
count "back, or not"
stage "Done"
