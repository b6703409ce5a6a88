#!/bin/bash
# `cargo xtask lab demo`: the main job from end to end, each stage as a person would read it. Runs in level 1.
# Ends with status 0 only if every stage did what it shows: what ioward says is held against `ip`, sysfs and the guests.
set -euo pipefail

# shellcheck source=lab/stages.sh
. lab/stages.sh
vf_mac() { ip -j link show eth0 | grep -o '"address":"52:54:00:aa[^"]*"' | head -1; }
how_it_is() { # what must be the same at the end as at the start
  local pf
  for pf in 0000:01:00.0 0000:02:00.0 0000:03:00.0; do
    echo "$pf $(cat "/sys/bus/pci/devices/$pf/"{sriov_numvfs,sriov_drivers_autoprobe} | tr '\n' ' ')" \
      "$(basename "$(readlink "/sys/bus/pci/devices/$pf/driver")")"
  done
}

before=$(how_it_is)
ioward serve 2>/run/ioward.log &
trap 'status=$?; [ $status = 0 ] || tail -30 /run/ioward.log >&2; exit $status' EXIT
until [ -S /run/ioward/api.sock ]; do kill -0 $! || exit; sleep 0.2; done

stage "Identify: which SR-IOV adapters has this host?"
run ioward host

stage "Plan: what would this Spec change?"
run ioward plan -f lab/demo.toml

stage "Apply"
run ioward apply -f lab/demo.toml --yes
run ioward apply -f lab/demo.toml --yes
run ioward partitions
run ioward vfs
check "level 1 shows the MAC that the PF gave web" grep -q 52:54:00:aa:00:01 <<<"$(vf_mac)"

stage "Both partitions are up, each with its own VFs"
in_guest web 'ip link show eth0'
in_guest db 'ip link show eth0; cat /sys/class/nvme/nvme0/model'
in_guest web 'ip addr add 10.0.0.1/24 dev eth0; ip link set eth0 up'
in_guest db 'ip addr add 10.0.0.2/24 dev eth0; ip link set eth0 up'
in_guest web 'n=0; until ping -c 1 -W 1 10.0.0.2 >/dev/null || [ $n = 120 ]; do n=$((n+1)); done; ping -c 3 10.0.0.2'
in_guest db 'head -n 1 /dev/nvme0n1; dd if=/dev/nvme0n1 of=/dev/null bs=1M count=8'

stage "web configures its own VF, within what it may"
in_guest web 'ioward-agent vf list'
in_guest web 'ioward-agent vf set net0 mac=52:54:00:aa:00:77'
check "level 1 shows the MAC that web chose" grep -q 52:54:00:aa:00:77 <<<"$(vf_mac)"
status=0
in_guest web 'ioward-agent vf set net0 vlan=100' || status=$?
check "the VLAN was refused (exit status 3)" test "$status" = 3
check "level 1 shows no VLAN" test -z "$(ip link show eth0 | grep -o 'vlan [0-9]*' || true)"
run ioward audit

stage "A third VF is plugged into web while it runs, and taken out again"
run ioward attach web net1 --class network --pf 0000:01:00.0
in_guest web 'n=0; until [ -e /sys/class/net/eth1 ] || [ $n = 300 ]; do sleep 1; n=$((n+1)); done; ip link show eth1'
run ioward detach --yes web net1
check "web has let go of it" test -z "$(lab-guest web 'ls -d /sys/class/net/eth1 2>/dev/null' || true)"

stage "Both are removed, and everything is as it was found"
run ioward remove --yes web
run ioward remove --yes db
run ioward host
check "VF counts, autoprobe and drivers are as before" test "$before" = "$(how_it_is)"
check "no machine is left" test -z "$(pgrep -f qemu-system || true)"
stage "Done"
