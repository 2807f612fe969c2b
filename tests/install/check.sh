#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Install into an empty directory, and build against that what a user would: README's first example,
# as C and as C++, with the shared library and with the static one. What it prints is in README, too.
# Then a program with loops and fibers, and every header as C++. At the end nothing is left behind.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

die() {
    printf 'check-install: %s\n' "$*" >&2
    exit 1
}

# Print the README's n-th block of this kind: block NTH KIND.
block() {
    awk -v nth="$1" -v start="^\`\`\`$2\$" '
        inside && /^```$/ { exit }
        inside { print }
        $0 ~ start && ++n == nth { inside = 1 }' README.md
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
settings=(--no-print-directory DESTDIR="$root" PREFIX=/opt/curfew MODE=release)

make "${settings[@]}" install
prefix=$root/opt/curfew
lib=$prefix/lib

export PKG_CONFIG_PATH=$lib/pkgconfig
cflags=$(PKG_CONFIG_SYSROOT_DIR=$root pkg-config --cflags curfew)
shared=$(PKG_CONFIG_SYSROOT_DIR=$root pkg-config --libs curfew)
mapfile -t private < <(pkg-config --print-requires-private curfew)
static="$lib/libcurfew.a $(pkg-config --libs "${private[@]}") -pthread"
[ "${shared% }" = "-L$lib -lcurfew" ] || die "pkg-config --libs says: $shared"

# Compile a source each way and compare what it prints: try NAME EXPECTED COMPILER...
try() {
    local name=$1 expected=$2 libs out
    shift 2
    for libs in "$shared" "$static"; do
        # shellcheck disable=SC2086 # Lists of words.
        "$@" -Wall -Wextra -Werror -o "$work/program" "$work/$name" $cflags $libs
        out=$(LD_LIBRARY_PATH=$lib "$work/program") || die "$name: exit status $?"
        [ "$out" = "$expected" ] || die "$name, $* with $libs printed: $out"
    done
}

block 1 c >"$work/example.c"
cp "$work/example.c" "$work/example.cc"
expected=$(awk '/^\$ cc .*pkg-config/ { getline; print; exit }' README.md)
[ -s "$work/example.c" ] && [ -n "$expected" ] || die "README has no example"
try example.c "$expected" gcc -std=c11
try example.cc "$expected" g++ -std=c++11

cp examples/pipeline.c "$work"
try pipeline.c "$(cat examples/expected/pipeline.txt)" gcc -std=gnu11

for header in "$prefix"/include/curfew/*.h; do
    echo "#include <curfew/${header##*/}>"
done >"$work/all.cc"
# shellcheck disable=SC2086
g++ -std=c++11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only $cflags "$work/all.cc"

readelf --dynamic "$lib/libcurfew.so" | grep -q 'SONAME.*\[libcurfew\.so\.[0-9]*\]' || die "no soname"
LD_LIBRARY_PATH=$lib "$prefix/bin/curfewd" --version | grep -q '^curfewd ' || die "curfewd does not run"
for page in curfewd.1 curfewd.5; do
    grep -q CURFEW_POOL "$prefix/share/man/man${page##*.}/$page" || die "$page: no settings"
    ! grep -n '@[A-Z]*@' "$prefix/share/man/man${page##*.}/$page" || die "$page: not filled in"
done

make "${settings[@]}" uninstall
left=$(find "$root" ! -type d)
[ -z "$left" ] || die "left behind: $left"
