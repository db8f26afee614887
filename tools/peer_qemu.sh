#!/bin/sh
# peer_qemu.sh DIR: make a Debian root in DIR that has a QEMU with cpr-exec, for `make bench-update`. As root; needs debootstrap and
# some minutes. Run it with: chroot DIR qemu-system-riscv64
set -eu
dir=${1:?usage: peer_qemu.sh DIR}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
command -v debootstrap > /dev/null || { echo "peer_qemu.sh: no debootstrap; 'apt-get install debootstrap' as root" >&2; exit 3; }
[ -x "$dir/usr/bin/apt-get" ] || debootstrap --variant=minbase trixie "$dir" "$mirror"
echo "deb $mirror trixie-backports main" > "$dir/etc/apt/sources.list.d/backports.list"
# QEMU reads /proc and /dev when it makes its memory.
mountpoint -q "$dir/proc" || mount -t proc proc "$dir/proc"
mountpoint -q "$dir/dev" || mount --bind /dev "$dir/dev"
DEBIAN_FRONTEND=noninteractive
export DEBIAN_FRONTEND
chroot "$dir" apt-get update -q
chroot "$dir" apt-get install -y -q --no-install-recommends -t trixie-backports qemu-system-riscv
chroot "$dir" qemu-system-riscv64 --version
