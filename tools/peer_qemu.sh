#!/bin/sh
# peer_qemu.sh DIR [TARGET...]: make a Debian root in DIR that has a QEMU with cpr-exec, as root, with debootstrap. TARGET is riscv (the default,
# for `make bench-update`) or x86 (for the lab: bind /dev into DIR there, see docs/decisions/0013-the-nested-lab.md).
# It takes some minutes; begun anew, it goes on. Nothing is mounted there, so that DIR can be removed like any folder.
# Run QEMU with: chroot DIR qemu-system-riscv64. DEBIAN_MIRROR= is another mirror than Debian's own.
set -eu
dir=${1:?usage: peer_qemu.sh DIR [TARGET...]}
shift
[ $# -gt 0 ] || set -- riscv
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
command -v debootstrap > /dev/null || { echo "peer_qemu.sh: no debootstrap; 'apt-get install debootstrap' as root" >&2; exit 3; }
[ -x "$dir/usr/bin/apt-get" ] || debootstrap --variant=minbase trixie "$dir" "$mirror"
echo "deb $mirror trixie-backports main" > "$dir/etc/apt/sources.list.d/backports.list"
DEBIAN_FRONTEND=noninteractive
export DEBIAN_FRONTEND
chroot "$dir" apt-get update -q
for target in "$@"; do
    chroot "$dir" apt-get install -y -q --no-install-recommends -t trixie-backports "qemu-system-$target"
done
chroot "$dir" sh -c 'for program in /usr/bin/qemu-system-*; do "$program" --version | head -n 1; done'
