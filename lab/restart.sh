#!/bin/bash
# `cargo xtask lab restart`: under two machines and a domain of libvirt's the daemon is killed, and then their host is reset, each
# stage as a person would read it. Runs in level 1, and once more from its beginning after the reset: IOWARD_LAB_BOOT says which time it is.
# Ends with status 0 only if nothing is lost: what ioward says is held against `ip`, sysfs and the guests.
set -euo pipefail

# shellcheck source=lab/stages.sh
. lab/stages.sh
# shellcheck source=lab/libvirtd.sh
. lab/libvirtd.sh
nic0=/sys/bus/pci/devices/0000:01:00.0
nic1=/sys/bus/pci/devices/0000:03:00.0

until_so() { # WHAT COMMAND…: the same as check, with as much time as emulation on a busy machine may need
  local what=$1 until=$((SECONDS + 600)); shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -le $until ] || check "$what" false
    sleep 0.1
  done
  echo "  ✓ $what"
}
reads() { # FILE TEXT: whether a file has that text
  [ "$(cat "$1")" = "$2" ]
}
tells() { # TEXT: whether ioward has told of it as an event
  grep -q -- "$1" <<<"$(ioward events)"
}
serve() { # again until one stays, as systemd would: a killed one's write to sysfs that is under way keeps the state locked
  local until=$((SECONDS + 600))
  printf '%s$ ioward serve &%s\n' "$cyan" "$plain"
  ioward serve 2>>/run/ioward.log & daemon=$!
  until ioward partitions >/dev/null 2>&1; do
    [ $SECONDS -le $until ] || check "the daemon serves" false
    kill -0 "$daemon" 2>/dev/null || { ioward serve 2>>/run/ioward.log & daemon=$!; }
    sleep 0.2
  done
  check "the daemon serves" kill -0 "$daemon"
}
kill_daemon() {
  printf '%s$ kill -9 %s%s\n' "$cyan" "$daemon" "$plain"
  # The shell would tell of its end by itself, in the middle of this.
  { kill -9 "$daemon" && wait "$daemon"; } 2>/dev/null || true
}
machines() { pgrep -f qemu-system | sort || true; }
how_it_is() { # what a daemon or a host that comes back is to find, or to make again
  local pf vf
  for pf in "$nic0" "$nic1"; do
    echo "${pf##*/}: $(cat "$pf/sriov_numvfs") VFs, autoprobe $(cat "$pf/sriov_drivers_autoprobe")"
    for vf in "$pf"/virtfn*; do
      [ ! -e "$vf" ] || echo "  $(basename "$(readlink "$vf")") on $(basename "$(readlink "$vf/driver")")"
    done
    ip link show "$(ls "$pf/net")" | grep -w vf || true
  done
}
libvirt() { # as its package would start it; definitions are kept as on a host's disk, and the hook is as ioward's package installs it
  libvirt_files
  mkdir -p /run/kept/libvirt /etc/libvirt
  mount --bind /run/kept/libvirt /etc/libvirt
  mkdir -p /etc/libvirt/hooks/qemu.d
  # As a host's tmpfiles.d has it at boot, before either daemon.
  mkdir -p -m 0700 /run/ioward /run/ioward/channels
  # Emulation takes its time.
  sed 's/libvirt-hook/& --within 600/' packaging/libvirt-hook >/etc/libvirt/hooks/qemu.d/ioward
  chmod +x /etc/libvirt/hooks/qemu.d/ioward
  printf '%s$ libvirtd -d%s\n' "$cyan" "$plain"
  libvirt_start
}
domain_is() { # STATE: how libvirt says that the domain is
  [ "$(virsh domstate shop | head -1)" = "$1" ]
}
domain_has_its_vf() { # its QEMU has the VF open that has its MAC, and its definition says so
  local vf group
  vf=$(ip link show "$(ls "$nic1/net")" | sed -n 's/^ *vf \([0-9]*\) .*52:54:00:aa:00:03.*/\1/p')
  group=$(basename "$(readlink "$nic1/virtfn$vf/iommu_group")")
  [ -n "$(find "/proc/$(cat /run/libvirt/qemu/shop.pid)/fd" -lname "/dev/vfio/$group")" ] &&
    grep -q ua-ioward-net0 <<<"$(virsh dumpxml shop)"
}
addresses() {
  lab-guest web 'ip addr add 10.0.0.1/24 dev eth0; ip link set eth0 up' >/dev/null
  lab-guest db 'ip addr add 10.0.0.2/24 dev eth0; ip link set eth0 up' >/dev/null
  until_so "web reaches db" lab-guest web 'ping -c 1 -W 1 10.0.0.2'
  until_so "db reaches web" lab-guest db 'ping -c 1 -W 1 10.0.0.1'
}
answered() { # PARTITION: how many pings have been answered
  lab-guest "$1" 'grep -c seq= /run/pings || true'
}
goes_on() { # PARTITION COUNT: whether more than COUNT have been
  [ "$(answered "$1")" -gt "$2" ]
}
unbroken() { # PARTITION: every ping up to the last answer has its own answer, and one at most was still on its way; says what is not so
  local lost
  lost=$(lab-guest "$1" "awk '/seq=/ { sub(/.*seq=/, \"\"); if (\$1 + 0 != n) print \"no answer to\", n, \"but to\", \$1; n = \$1 + 1 }
    /transmitted/ { if (\$1 - n > 1) print \"no answer from\", n, \"on, of\", \$1; told = 1 }
    END { if (!told) print \"it goes on\" }' /run/pings") || return
  [ -z "$lost" ] || { echo "$lost"; return 1; }
}

trap 'status=$?; [ $status = 0 ] || tail -30 /run/ioward.log >&2; exit $status' EXIT

if [ "$IOWARD_LAB_BOOT" = 1 ]; then
  stage "A domain of libvirt's, which starts with the host"
  libvirt
  run virsh define lab/restart-domain.xml
  run virsh autostart shop

  stage "The daemon is killed in the middle of a change"
  before=$(how_it_is)
  serve
  printf '%s$ ioward apply -f lab/restart.toml --yes &%s\n' "$cyan" "$plain"
  ioward apply -f lab/restart.toml --yes >/run/apply.log 2>&1 & apply=$!
  until_so "it has made a VF" reads "$nic0/sriov_numvfs" 1
  kill_daemon
  status=0; wait "$apply" || status=$?
  check "who had asked for the change is told that it was not done" test "$status" != 0
  check "some of it had been done" test "$before" != "$(how_it_is)"

  stage "The next one: all is as it was before"
  serve
  check "it tells that a change was cut off" tells "was interrupted by the end of the daemon"
  check "VF counts, settings and drivers are as before" test "$before" = "$(how_it_is)"
  check "no machine is left" test -z "$(machines)"

  stage "The change once more: everything is there, and once"
  run ioward apply -f lab/restart.toml --yes
  run ioward partitions
  made=$(how_it_is); echo "$made"
  check "one adapter has one VF, the other two" test "$(cat "$nic0/sriov_numvfs" "$nic1/sriov_numvfs" | tr -d '\n')" = 12
  check "all are bound to vfio-pci" test "$(grep -c 'on vfio-pci' <<<"$made")" = 3
  check "their MACs are those asked for" test "$(grep -c '52:54:00:aa:00:0[123]' <<<"$made")" = 3
  check "there are two machines" test "$(machines | wc -l)" = 2
  check "the domain is not among them" domain_is "shut off"
  check "the same again is nothing" grep -q "nothing to do" <<<"$(ioward apply -f lab/restart.toml --yes)"

  stage "The domain is started by hand"
  run virsh start shop
  check "it has its VF" domain_has_its_vf
  check "there is one machine more" test "$(machines | wc -l)" = 3
  check "VF counts, settings and drivers are the same" test "$made" = "$(how_it_is)"

  stage "The daemon is killed while both partitions ping each other"
  addresses
  for way in "web 10.0.0.2" "db 10.0.0.1"; do
    in_guest "${way% *}" "ping -i 0.2 ${way#* } >/run/pings 2>&1 & echo \$! >/run/ping.pid"
  done
  until_so "web has answers" goes_on web 10
  until_so "db has answers" goes_on db 10
  running=$(machines)
  kill_daemon
  web=$(answered web) db=$(answered db)
  until_so "web has answers while there is no daemon" goes_on web $((web + 10))
  until_so "db has answers while there is no daemon" goes_on db $((db + 10))
  serve
  web=$(answered web) db=$(answered db)
  until_so "web has answers beside the new daemon" goes_on web $((web + 10))
  until_so "db has answers beside the new daemon" goes_on db $((db + 10))
  for partition in web db; do
    in_guest $partition 'kill -INT $(cat /run/ping.pid); until grep transmitted /run/pings; do sleep 1; done'
    check "no ping of $partition is lost" unbroken $partition
  done
  check "the machines are the same processes" test "$running" = "$(machines)"
  check "VF counts, settings and drivers are the same" test "$made" = "$(how_it_is)"

  stage "The host is reset"
  echo "$made" >/run/kept/made
  # level1.sh looks for it, so that a reset nobody asked for is not taken for this one.
  echo "by lab/restart.sh" >/run/kept/reset
  sync /run/kept/made /run/kept/reset
  printf '%s$ echo b >/proc/sysrq-trigger%s\n' "$cyan" "$plain"
  echo b >/proc/sysrq-trigger
  sleep infinity
fi

stage "It has booted: nothing is left of VFs and machines"
check "no adapter has VFs" test "$(cat "$nic0/sriov_numvfs" "$nic1/sriov_numvfs" | tr -d '\n')" = 00
check "there is no machine" test -z "$(machines)"

stage "libvirt starts with the host, before ioward: it waits with the domain"
libvirt
until_so "its hook waits for ioward" pgrep -f 'ioward libvirt-hook'
check "there is no machine yet" test -z "$(machines)"

stage "The daemon starts with the host, and nobody does anything"
serve
until_so "it tells that the host has booted" tells "the host has booted"
until_so "it tells that all is as it is to be" tells "the host is as it is to be after its boot"
ioward events | grep -e 'host has booted' -e 'started with the host' -e 'is to be after'
check "and nothing is left out" test -z "$(ioward events | grep -e '; but' -e 'could not be started' || true)"
run ioward partitions
how_it_is
check "VF counts, settings and drivers are as before the reset" test "$(cat /run/kept/made)" = "$(how_it_is)"
until_so "the domain runs" domain_is running
check "it has its VF" domain_has_its_vf
check "there are two machines and the domain" test "$(machines | wc -l)" = 3
in_guest web 'hostname; cat /sys/class/net/eth0/address'
in_guest db 'hostname; cat /sys/class/net/eth0/address'
addresses
in_guest web 'ping -c 3 10.0.0.2'
in_guest web 'ioward-agent vf list'
check "nothing differs from what was asked for" test "$(ioward drift --json)" = "[]"
stage "Done"
