# shellcheck shell=bash
# A real libvirt in level 1: it is not installed, its packages are laid over /usr, and so are those of ioward's other peers.

libvirt_files() { # and users and folders, as its packages make them
  mountpoint -q /usr || mount -t overlay overlay -o lowerdir=/run/lab/libvirt/usr:/run/lab/peers/usr:/usr /usr
  # Debian's libvirt runs machines as libvirt-qemu, whom its package makes.
  local group
  for group in kvm libvirt libvirt-qemu; do getent group "$group" >/dev/null || groupadd -r "$group"; done
  getent passwd libvirt-qemu >/dev/null ||
    useradd -r -M -g libvirt-qemu -G kvm -d /var/lib/libvirt libvirt-qemu
  mkdir -p /run/libvirt /run/ioward-libvirt /var/log/libvirt/qemu /var/lib/libvirt
}
libvirt_start() { # as a host does at boot: it may answer nobody yet, while the hook of a domain waits
  virtlogd -d -p /run/virtlogd.pid
  libvirtd -d -p /run/libvirtd.pid
}
libvirt_answers() {
  local until=$((SECONDS + 180))
  until virsh version >/dev/null 2>&1; do [ $SECONDS -le $until ] || return 1; sleep 0.2; done
}
libvirt_up() { # if it is not up already
  ! virsh version >/dev/null 2>&1 || return 0
  libvirt_files
  libvirt_start
  libvirt_answers
}
libvirtd_up() { # alone, once it has been killed
  libvirtd -d -p /run/libvirtd.pid
  libvirt_answers
}
