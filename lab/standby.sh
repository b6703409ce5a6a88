#!/bin/bash
# `cargo xtask lab standby`: a guest whose VF has a standby on a bridge, which net_failover in it knows for one, is pinged all the time
# while the VF's port loses the link, while a person has the standby used, while its adapter reports an error, for which QEMU stops the
# machine, and while that is taken out of service. After each: pings lost, what was said, and that all is as before. Nothing of ioward's runs in the guest. Runs in level 1.
set -euo pipefail

# shellcheck source=lab/stages.sh
. lab/stages.sh
# shellcheck source=lab/pings.sh
. lab/pings.sh
guest=10.0.0.2
drivers() { # NAMES: what is under the guest's failover interface
  [ "$(lab-guest web 'for l in /sys/class/net/*/lower_*; do basename $(readlink -f $l/device/driver); done | sort' | tr -s '[:space:]' ' ')" = "$1 " ]
}
mac() { ip -j link show eth0 | grep -o '"vfinfo_list":.*' | grep -o '"address":"[^"]*"' | cut -d'"' -f4; }

modprobe -a bridge tun
# A bridge with a MAC of its own: one without takes the lowest of its ports. Its port is the adapter that gives no VFs.
run ip link add br0 address 52:54:00:bb:00:01 type bridge
run ip link set eth1 up master br0
run ip link set br0 up
ioward serve 2>/run/ioward.log &
trap 'status=$?; [ $status = 0 ] || { tail -30 /run/ioward.log; ioward events | tail -20; lab-guest web "ip addr; dmesg | tail -20"; ip addr; bridge fdb show br br0; bridge link; ip neigh || true; } >&2; exit $status' EXIT
until [ -S /run/ioward/api.sock ]; do kill -0 $! || exit; sleep 0.2; done

stage "A partition with a VF and a standby on a bridge"
run ioward apply -f lab/standby.toml --yes
run ioward partitions
echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore
ip addr add 10.0.0.3/24 dev br0
until_so "net_failover has both in the guest" drivers "igbvf virtio_net"
addressed() { # its failover interface has the address
  in_guest web "M=\$(ls -d /sys/class/net/*/lower_* | head -1 | cut -d/ -f5); ip addr add $guest/24 dev \$M; ip link set \$M up; ip link"
}
addressed
until_so "the guest answers" answers

stage "The port of its adapter loses its link, and has it again"
pings
run ip link set eth0 down
until_so "ioward says so" told 'web/net0 has failed over to bridge:br0: the port of 0000:01:00.0 has no link'
until_so "the VF is out of the guest" drivers virtio_net
until_so "the guest answers" answers
run ioward partitions
check "the VF has given its MAC up" test "$(mac)" = 06:54:00:aa:00:01
check "nothing differs from what is noted" test "$(ioward drift --json)" = "[]"
run ip link set eth0 up
until_so "ioward says that it is active again" told 'web/net0 is active again'
until_so "the VF is in the guest" drivers "igbvf virtio_net"
until_so "the guest answers" answers
count "a link that went and came"
check "the VF has its MAC" test "$(mac)" = 52:54:00:aa:00:01

stage "A person has the standby used, and the VF itself again"
pings
run ioward failover web/net0
until_so "the VF is out of the guest" drivers virtio_net
until_so "the guest answers" answers
run ioward failover web/net0 --back
until_so "the VF is in the guest" drivers "igbvf virtio_net"
until_so "the guest answers" answers
count "there and back"
check "nothing differs from what is noted" test "$(ioward drift --json)" = "[]"

stage "Its adapter reports an error that it could not correct"
# As in lab/failover.sh. The machine is reset, and its guest boots anew.
pings
modprobe aer_inject
printf '\001\000\000\000\000\100\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000' >/dev/aer_inject
until_so "the machine has halted" told 'partition web has halted: internal-error'
until_so "the machine was reset, by ioward" told 'it was reset after'
until_so "ioward has its VF active" told 'web/net0 is active again'
until_so "net_failover has both in the guest" drivers "igbvf virtio_net"
addressed
until_so "the guest answers" answers
count "an error, and a guest that boots anew"
check "nothing differs from what is noted" test "$(ioward drift --json)" = "[]"

stage "Its adapter is taken out of service, and returns"
pings
# There is no other adapter for its VF: the guest goes on by the standby.
run ioward evacuate 0000:01:00.0 --allow-disruption --yes
until_so "the VF is out of the guest" drivers virtio_net
until_so "the guest answers" answers
check "the adapter has no VFs" test "$(cat /sys/bus/pci/devices/0000:01:00.0/sriov_numvfs)" = 0
run ioward return 0000:01:00.0 --yes
run ioward apply -f lab/standby.toml --yes
until_so "the VF is in the guest" drivers "igbvf virtio_net"
until_so "the guest answers" answers
count "away and back"
check "nothing differs from what is noted" test "$(ioward drift --json)" = "[]"

stage "It is removed"
run ioward stop web --yes
run ioward remove web --yes
check "no tap is left" bash -c '! ip -br link | grep -q iow'
stage "Done"
