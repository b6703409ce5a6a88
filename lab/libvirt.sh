#!/bin/bash
# `cargo xtask lab libvirt`: a domain that virsh alone made is looked after, and let go of again, each stage as a person would read
# it. Runs in level 1. Ends with status 0 only if every stage did what it shows: what ioward says is held against virsh, `ip`,
# sysfs and the guest.
set -euo pipefail

# shellcheck source=lab/stages.sh
. lab/stages.sh
# shellcheck source=lab/libvirtd.sh
. lab/libvirtd.sh
nic0=0000:01:00.0
nic1=0000:03:00.0

vf() { basename "$(readlink "/sys/bus/pci/devices/$nic0/virtfn$1")"; }
vf_mac() { ip -j link show eth0 | grep -o '"vf":'"$1"',[^}]*' | grep -o '52:54:[0-9a-f:]*' | head -1; }
in_web() { printf '%sweb# %s%s\n' "$cyan" "$1" "$plain"; lab-guest /run/web.serial "$1"; }
# The first line of a domain that runs has its number, which each start changes.
live() { virsh dumpxml web | tail -n +2; }
next() { virsh dumpxml --inactive web; }
how_it_is() {
  local pf
  for pf in "$nic0" "$nic1"; do
    echo "$pf $(cat "/sys/bus/pci/devices/$pf/"{sriov_numvfs,sriov_drivers_autoprobe} | tr '\n' ' ')"
    ip link show "$(ls "/sys/bus/pci/devices/$pf/net")" | grep -w vf || true
  done
  local n
  for n in 0 1 2 3; do basename "$(readlink "/sys/bus/pci/devices/$(vf $n)/driver")" || true; done
}
hostdev() { # a VF as a person writes it
  local rest=${1#0000:}
  echo "<hostdev mode='subsystem' type='pci' managed='no'><source>
    <address domain='0x0000' bus='0x${rest%%:*}' slot='0x${rest:3:2}' function='0x${rest##*.}'/></source></hostdev>"
}
domain() { # NAME, what it boots from, its VF
  local ports
  ports=$(for _ in 1 2 3 4; do echo "<controller type='pci' model='pcie-root-port'/>"; done)
  echo "<domain type='kvm'><name>$1</name>
  <memory unit='MiB'>192</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='q35'>hvm</type>$2</os>
  <features><acpi/></features><cpu mode='host-passthrough' check='none' migratable='off'/>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/><memballoon model='none'/><controller type='pci' model='pcie-root'/>$ports
    <serial type='unix'><source mode='bind' path='/run/$1.serial'/><target port='0'/></serial>
    $3
  </devices></domain>" >"/run/$1.xml"
}
no_vlan() { ! ip link show eth0 | grep -q 'vlan [0-9]'; }

stage "A host as it is today: a script made VFs, and virsh two domains with one each"
libvirt_up
end() {
  local status=$?
  [ $status = 0 ] || { tail -n 30 /run/ioward.log; tail -n 5 /var/log/libvirt/qemu/*.log; } >&2
  [ -z "${daemon-}" ] || { kill "$daemon"; wait "$daemon" || true; }
  exit $status
}
trap end EXIT
echo 0 >"/sys/bus/pci/devices/$nic0/sriov_drivers_autoprobe"
echo 4 >"/sys/bus/pci/devices/$nic0/sriov_numvfs"
modprobe igbvf
for n in 0 1; do
  run ip link set eth0 vf $n mac 52:54:00:aa:00:0$n
  echo vfio-pci >"/sys/bus/pci/devices/$(vf $n)/driver_override"
  vf $n >/sys/bus/pci/drivers_probe
done
domain web "<kernel>/run/lab/guest/vmlinuz</kernel><initrd>/run/lab/guest/initrd.img</initrd><cmdline>console=ttyS0 loglevel=6 net.ifnames=0 nopv no_timer_check ioward.hostname=web</cmdline>" "$(hostdev "$(vf 0)")"
domain db '' "$(hostdev "$(vf 1)")"
for name in web db; do run virsh -q define "/run/$name.xml"; run virsh -q start "$name"; done
live_before=$(live) next_before=$(next) before=$(how_it_is)

ioward serve 2>/run/ioward.log & daemon=$!
until [ -S /run/ioward/api.sock ]; do kill -0 $daemon || exit; sleep 0.2; done

stage "Whose is every VF?"
run ioward vfs
check "the VF of db is said to be its own" grep -q 'libvirt domain db' <<<"$(ioward vfs)"

stage "web is adopted as it is, and released again"
run ioward adopt web --yes
run ioward partitions
check "nothing of the host is different" test "$before" = "$(how_it_is)"
run ioward release web --yes
check "virsh dumpxml says what it said before" test "$live_before" = "$(live)"
check "and so it does of the next start" test "$next_before" = "$(next)"

stage "Adopted once more, and its Spec kept"
run ioward adopt web --yes --output /run/host.toml
run cat /run/host.toml
run ioward plan -f /run/host.toml
check "the Spec is what is there: nothing to do" grep -q 'nothing to do' <<<"$(ioward plan -f /run/host.toml)"

stage "A VF that is somebody else's"
cp /run/host.toml /run/greedy.toml
printf '\n[[partition.vf]]\nname  = "net1"\nclass = "network"\npf    = "%s"\nindex = 1\n' $nic0 >>/run/greedy.toml
status=0
run ioward plan -f /run/greedy.toml 2>&1 | tee /run/greedy || status=$?
check "the plan is refused (exit status 3)" test "$status" = 3
check "and says whose it is" grep -q 'libvirt domain db' /run/greedy

stage "A second VF and the channel, while it runs; and a network namespace with a VF"
run ip netns add blue
cat >>/run/host.toml <<SPEC

[[partition.vf]]
name  = "net1"
class = "network"
pf    = "$nic0"
mac   = "52:54:00:aa:00:11"
guest_may = ["mac"]

[[partition]]
name  = "blue"
netns = "blue"

[[partition.vf]]
name  = "net0"
class = "network"
pf    = "$nic1"
mac   = "52:54:00:aa:00:22"
SPEC
run ioward apply -f /run/host.toml --yes
run ioward vfs

stage "Its agent sets a MAC, and is refused a VLAN"
in_web 'n=0; until ioward-agent vf list || [ $n = 120 ]; do sleep 1; n=$((n+1)); done'
in_web 'ioward-agent vf set net1 mac=52:54:00:aa:00:77'
net1=$(ioward vfs | grep web/net1 | grep -o '^[0-9a-f:.]*')
check "level 1 shows the MAC that web chose" grep -q 52:54:00:aa:00:77 <<<"$(ip link show eth0)"
status=0
in_web 'ioward-agent vf set net1 vlan=100' || status=$?
check "the VLAN was refused (exit status 3)" test "$status" = 3
check "level 1 shows no VLAN" no_vlan

stage "The namespace pings the domain, through VFs"
in_web 'ip addr add 10.0.0.1/24 dev eth0; ip link set eth0 up'
run ip -n blue addr add 10.0.0.2/24 dev net0
run ip -n blue link set net0 up
until ip netns exec blue busybox ping -c 1 -W 1 10.0.0.1 >/dev/null; do [ $SECONDS -lt 1200 ] || break; done
run ip netns exec blue busybox ping -c 3 10.0.0.1

stage "virsh destroy and virsh start, by hand"
run virsh destroy web
run virsh start web
check "the second VF is in it" grep -q ua-ioward-net1 <<<"$(live)"
check "with the MAC that web chose" grep -q 52:54:00:aa:00:77 <<<"$(ip link show eth0)"
check "and its driver for machines" test "$(basename "$(readlink "/sys/bus/pci/devices/$net1/driver")")" = vfio-pci
in_web 'n=0; until ioward-agent vf list || [ $n = 120 ]; do sleep 1; n=$((n+1)); done'
run ioward drift

stage "Everything is released"
run ioward detach --yes web net1
run ioward remove --yes blue
run ioward release --yes web
run ioward vfs
check "virsh dumpxml says what it said before, of the next start" test "$next_before" = "$(next)"
# The controller of the channel can't be taken out of a machine that runs.
run virsh -q destroy web
run virsh -q start web
check "and of the machine, from then on" test "$live_before" = "$(live)"
check "the host is as before" test "$before" = "$(how_it_is)"
stage "Done"
