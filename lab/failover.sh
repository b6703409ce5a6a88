#!/bin/bash
# `cargo xtask lab failover`: a guest with a VF on one adapter and its standby on the other, bonded by its agent, is pinged all the
# time while its adapter's port loses the link, while people and the guest itself switch, while its adapter reports an error, for which QEMU
# stops the machine, and while that is taken out of service. After each: pings lost, what was said, and that all is as before. Runs in level 1.
set -euo pipefail

# shellcheck source=lab/stages.sh
. lab/stages.sh
# shellcheck source=lab/pings.sh
. lab/pings.sh
guest=10.0.0.2
sends_by() { lab-guest web 'cat /sys/class/net/net0/bonding/active_slave' | grep -x "$1"; }

ioward serve 2>/run/ioward.log &
trap 'status=$?; [ $status = 0 ] || { tail -30 /run/ioward.log; ioward events | tail -20; lab-guest web "cat /run/bond.log; ip addr; grep . /sys/class/net/*/address /sys/class/net/*/carrier; dmesg | tail -20"; ip addr; ip -s link show eth1; ip neigh || true; } >&2; exit $status' EXIT
until [ -S /run/ioward/api.sock ]; do kill -0 $! || exit; sleep 0.2; done

stage "A partition with a VF and its standby, which its agent bonds"
run ioward apply -f lab/failover.toml --yes
run ioward host --risks
# Both PFs are on one network; the one that has the address is to answer for it, and no other. Before, its adapter would have been one
# that the host uses.
echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore
ip addr add 10.0.0.3/24 dev eth1
bonds() { # its agent bonds its VFs, and the bond has the address
  in_guest web 'setsid ioward-agent bond </dev/null >/run/bond.log 2>&1 & n=0; until grep -q . /sys/class/net/net0/bonding/active_slave 2>/dev/null || [ $n = 120 ]; do sleep 1; n=$((n+1)); done; cat /run/bond.log'
  in_guest web "ip addr add $guest/24 dev net0; ip link show net0"
}
in_guest web 'ioward-agent vf get net0'
bonds
first=$(lab-guest web 'cat /sys/class/net/net0/bonding/active_slave' | tr -d '[:space:]')
until_so "the guest answers" answers

stage "The port of its adapter loses its link, and has it again"
pings
run ip link set eth0 down
until_so "ioward says so" told 'web/net0 has failed over to net0-b: the port of 0000:01:00.0 has no link'
until_so "the guest answers" answers
check "it does not send by $first any more" bash -c "! lab-guest web 'cat /sys/class/net/net0/bonding/active_slave' | grep -qx $first"
run ip link set eth0 up
until_so "ioward says that it is active again" told 'web/net0 is active again'
until_so "the guest sends by $first" sends_by "$first"
until_so "the guest answers" answers
count "a link that went and came"

stage "A person has the standby used, and the VF itself again"
pings
run ioward failover web/net0
until_so "the guest does not send by $first" bash -c "! lab-guest web 'cat /sys/class/net/net0/bonding/active_slave' | grep -qx $first"
until_so "the guest answers" answers
run ioward failover web/net0 --back
until_so "the guest sends by $first" sends_by "$first"
until_so "the guest answers" answers
count "there and back"

stage "Its adapter reports an error that it could not correct"
# The kernel is made to believe that it did (Completion Timeout, not fatal): drivers/pci/pcie/aer_inject.c, `struct aer_error_inj`. VFIO tells
# QEMU, which stops the machine, whatever standby its guest has.
pings
modprobe aer_inject
printf '\001\000\000\000\000\100\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000' >/dev/aer_inject
until_so "ioward says that it is frozen" told 'adapter 0000:01:00.0 is frozen: 1 non-fatal error (AER)'
until_so "and that the machine has halted" told 'partition web has halted: internal-error'
until_so "it serves again" told 'adapter 0000:01:00.0 serves again'
until_so "the machine was reset, by ioward" told 'partition web was halted by an error of 0000:01:00.0; it was reset after'
bonds
until_so "ioward has its VF active" told 'web/net0 is active again'
until_so "the guest sends by $first" sends_by "$first"
until_so "the guest answers" answers
count "an error, and a guest that boots anew"

stage "Its adapter is taken out of service, and returns"
pings
# Its VF has nowhere to go but the adapter of its standby, so it is left out. The ping comes from there: the host uses it.
run ioward evacuate 0000:01:00.0 --leave-out --allow-disruption --allow-management-nic --yes
until_so "the guest answers" answers
run ioward host
check "the adapter has no VFs" test "$(cat /sys/bus/pci/devices/0000:01:00.0/sriov_numvfs)" = 0
run ioward return 0000:01:00.0 --yes
run ioward apply -f lab/failover.toml --yes
until_so "the guest sends by one of two" bash -c "lab-guest web 'cat /sys/class/net/net0/bonding/slaves' | grep -q ' '"
until_so "the guest answers" answers
count "away and back"
check "nothing differs from what is noted" test "$(ioward drift --json)" = "[]"
stage "Done"
