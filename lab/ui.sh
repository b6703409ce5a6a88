#!/bin/bash
# `cargo xtask lab ui`: the page on real VFs, for a browser on level 0. Runs in level 1, until it is ended.
#
#   browser ──127.0.0.1:PORT──> QEMU ──10.0.2.15:PORT──> systemd-socket-proxyd ──127.0.0.1:PORT──> ioward ui
#
# The port is the same all the way, since the page is answered under its own name only. `ioward ui` takes the relay for a program of its own
# user; who may use it is told by the token alone, then.
set -euo pipefail

ioward serve 2>/run/ioward.log &
trap 'status=$?; [ $status = 0 ] || tail -30 /run/ioward.log >&2; exit $status' EXIT
until [ -S /run/ioward/api.sock ]; do kill -0 $! || exit; sleep 0.2; done

# igbvf is for the VFs of network namespaces. QEMU's network for the page comes after the adapters, so that those have the names eth0 and eth1.
modprobe -a igbvf virtio_net
link=$(basename /sys/bus/virtio/drivers/virtio_net/virtio*/net/*)
ip addr add 10.0.2.15/24 dev "$link"
ip link set "$link" up
systemd-socket-activate --listen="10.0.2.15:$IOWARD_LAB_PAGE" /lib/systemd/systemd-socket-proxyd "127.0.0.1:$IOWARD_LAB_PAGE" 2>/run/relay.log &

ip netns add mail
ioward apply -f lab/ui.toml --yes >&2
ioward ui --port "$IOWARD_LAB_PAGE"
