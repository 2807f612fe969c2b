#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Build Debian packages for the system at hand, from a copy of the sources, into build/deb.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() {
    printf 'deb.sh: %s\n' "$*" >&2
    exit 1
}

version=$(sed -n 's/^#define CF_VERSION "\(.*\)"/\1/p' include/curfew/base.h)
packaged=$(dpkg-parsechangelog --file packaging/debian/changelog --show-field Version)
[ "$version" = "$packaged" ] || die "packaging/debian/changelog is of $packaged, base.h of $version"

out=$PWD/build/deb
rm -rf "$out"
mkdir -p "$out/curfew-$version"
cp -a Makefile README.md CHANGELOG.md LICENSE docs include packaging sql src "$out/curfew-$version"
mv "$out/curfew-$version/packaging/debian" "$out/curfew-$version"
cd "$out/curfew-$version"
# What an outer make has set is not meant for the one in here.
env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS dpkg-buildpackage --build=binary --no-sign \
    --jobs="$(nproc)" >"$out/log" 2>&1 || {
    tail -n 40 "$out/log" >&2
    die "all that was said is in $out/log"
}
rm -rf "$out/curfew-$version"
ls -1 "$out"/*.deb
