#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Fetch packages of another architecture into a directory: sysroot.sh DIRECTORY ARCHITECTURE PACKAGE...
#
# With what they depend on, libc included, from where this system has its packages from. This system
# is not changed: apt works with a state of its own, and nothing is installed, only unpacked.

set -euo pipefail
directory=$1
architecture=$2
shift 2

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial"
: >"$work/status"
cat >"$work/apt.conf" <<END
APT::Architecture "$architecture";
APT::Architectures { "$architecture"; };
APT::Install-Recommends "false";
APT::Sandbox::User "$(id -un)";
Dir::State "$work/state";
Dir::State::status "$work/status";
Dir::Cache "$work/cache";
END
export APT_CONFIG=$work/apt.conf
apt-get update -qq
apt-get install -qq -y --download-only -o Debug::NoLocking=1 "$@"
rm -rf "$directory"
mkdir -p "$directory"
for package in "$work"/cache/archives/*.deb; do
    dpkg-deb --extract "$package" "$directory"
done
