#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Install the packages of build/deb on a fresh Debian 12, as a user would with apt, and use them:
# the service against a PostgreSQL of that system, README's example against the library. Then remove
# them, and look for what is left.
#
# Needs root, debootstrap, and packages that were built on Debian 12. The fresh system is made once,
# in var/bookworm, from the mirror that apt has here; each run works on a copy.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
FRESH=$PWD/var/bookworm

die() {
    printf 'bookworm.sh: %s\n' "$*" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || die "only root can change into another system: run it with sudo"
command -v debootstrap >/dev/null || die "debootstrap is missing: apt-get install debootstrap"
mirror=$(apt-get indextargets --format '$(SITE)' 'Identifier: Packages' | grep -m 1 '/debian$') ||
    die "apt has no Debian mirror here"

if [ ! -e "$FRESH/made" ]; then
    rm -rf "$FRESH"
    mkdir -p "$FRESH"
    debootstrap --variant=minbase bookworm "$FRESH" "$mirror" >"$FRESH.log" 2>&1 || {
        tail -n 20 "$FRESH.log" >&2
        die "debootstrap failed: all it said is in $FRESH.log"
    }
    : >"$FRESH/made"
fi

SYSTEM=$(mktemp -d "$PWD/var/bookworm-XXXXXX")
trap 'rm -rf "$SYSTEM"' EXIT
cp -a "$FRESH/." "$SYSTEM"
mkdir "$SYSTEM/packages"
cp build/deb/*.deb README.md tests/install/in_system.sh "$SYSTEM/packages"
rm -f "$SYSTEM"/packages/*-dbgsym_*
cp /etc/resolv.conf "$SYSTEM/etc/resolv.conf"

# Process 1 of a name space of its own takes all others along when it ends. Its network is its own,
# too, once the packages are there: the service has ports of fixed numbers.
export SYSTEM
unshare --mount --pid --fork --kill-child bash -euc '
    mount -t proc proc "$SYSTEM/proc"
    mount --rbind /dev "$SYSTEM/dev"
    mount --bind /sys "$SYSTEM/sys"
    inside() {
        /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
            DEBIAN_FRONTEND=noninteractive "$@"
    }
    inside chroot "$SYSTEM" bash /packages/in_system.sh install
    inside unshare --net bash -euc "ip link set lo up; exec chroot $SYSTEM bash /packages/in_system.sh use"
    inside chroot "$SYSTEM" bash /packages/in_system.sh remove'
