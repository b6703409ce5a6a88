#!/bin/busybox sh
# /init of level 1's boot image: takes the developer's own file system (9p, read-only) with a tmpfs on top as the
# root, and goes on in it with level1.sh.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in /lib/modules/*.ko; do insmod "$module"; done

# cache=loose: nothing changes under level 1 while it runs, and asking the host every time is slow.
nine_p=trans=virtio,version=9p2000.L,msize=1048576,cache=loose,ro
mkdir -p /lower /upper /newroot
mount -t 9p -o "$nine_p" root /lower
mount -t tmpfs tmpfs /upper
mkdir -p /upper/data /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /newroot
for dir in proc sys dev; do mount --move "/$dir" "/newroot/$dir"; done
mount -t tmpfs tmpfs /newroot/run
mkdir -p /newroot/run/lab
mount -t 9p -o "$nine_p" lab /newroot/run/lab
exec switch_root /newroot /bin/bash /run/lab/level1.sh
