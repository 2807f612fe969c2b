#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Build and test on Debian 13 (trixie), whatever this machine runs: there are libpq 17, which cancels
# without a thread, libmicrohttpd 1.0, PostgreSQL 17 and gcc 14.
#
#   trixie.sh [TARGET...]    make TARGET... there (test); settings such as CK_RUN_SUITE are passed on
#
# Needs root and debootstrap. The system is made once, in var/trixie, from the mirror that apt has
# here; the sources are copied into it each time, so that only what has changed is built. Its mounts
# and processes end with this script. To start anew: rm -rf var/trixie.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
SYSTEM=$PWD/var/trixie

die() {
    printf 'trixie.sh: %s\n' "$*" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || die "only root can change into another system: run it with sudo"
command -v debootstrap >/dev/null || die "debootstrap is missing: apt-get install debootstrap"

if [ ! -e "$SYSTEM/made" ]; then
    mirror=$(apt-get indextargets --format '$(SITE)' 'Identifier: Packages' | grep -m 1 '/debian$') ||
        die "apt has no Debian mirror here"
    rm -rf "$SYSTEM"
    mkdir -p "$SYSTEM"
    packages=$(make -s deps-list)
    debootstrap --variant=minbase --include="make,procps,${packages// /,}" trixie "$SYSTEM" "$mirror" \
        >"$SYSTEM.log" 2>&1 || {
        tail -n 20 "$SYSTEM.log" >&2
        die "debootstrap failed: all it said is in $SYSTEM.log"
    }
    mkdir "$SYSTEM/src"
    : >"$SYSTEM/made"
fi
find "$SYSTEM/src" -mindepth 1 -maxdepth 1 ! -name build ! -name var -exec rm -rf {} +
git ls-files -z --cached --others --exclude-standard | tar -cf - --null --ignore-failed-read -T - 2>/dev/null |
    tar -C "$SYSTEM/src" -xf -

# Process 1 of a name space of its own takes all others along when it ends. It must be a shell, which
# clears away the processes that others left: not `make`, as which it would go on without the `||`.
settings=$(env | sed -n '/^CK_\|^CF_TEST_LONG=/p')
export SYSTEM settings
exec unshare --mount --pid --fork --kill-child bash -euc '
    mount -t proc proc "$SYSTEM/proc"
    mount --rbind /dev "$SYSTEM/dev"
    mount --bind /sys "$SYSTEM/sys"
    mapfile -t set <<<"$settings"
    chroot "$SYSTEM" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
        ${set[0]:+"${set[@]}"} make -C /src "$@" || exit' bash "${@:-test}"
