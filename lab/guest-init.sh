#!/bin/busybox sh
# /init of the lab's guest (level 2): the drivers of the VFs it may be given, ioward-agent, a root shell on the serial
# console, and off when the power button is pressed. Configures no adapter by itself.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root TERM=linux
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /run /tmp
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run
# Each line is a sign of life for who waits for the shell (tests/src/guest.rs). Once that is there, the kernel's own messages
# stay out of what commands print.
for module in /lib/modules/*.ko; do echo "loading ${module##*/}"; insmod "$module"; done
echo 4 >/proc/sys/kernel/printk
name=$(sed -n 's/.*\bioward\.hostname=\([^ ]*\).*/\1/p' /proc/cmdline)
hostname "${name:-guest}"
ip link set lo up

for input in /sys/class/input/event*; do
  [ "$(cat "$input/device/name")" = "Power Button" ] || continue
  # 24 bytes are one event; any event of this device is a press.
  { dd if="/dev/input/${input##*/}" of=/dev/null bs=24 count=1 2>/dev/null && poweroff -f; } &
done

echo "ioward-guest ready"
cd /root
while :; do setsid cttyhack sh; done
