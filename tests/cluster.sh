#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Whoever interrupts `make run` leaves no server behind: sql/cluster.sh, in a directory of its own, is
# sent the SIGINT of a Ctrl-C, first when it says that PostgreSQL runs, then at other moments.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset DATABASE_URL PGHOST
HERE=$PWD
PLACE=$(mktemp -d "$HERE/var/cluster-XXXXXX")

die() {
    printf 'cluster.sh: %s\n' "$*" >&2
    exit 1
}

# Root's cluster may lie elsewhere, so its place is asked for.
tidy() {
    local state
    "$PLACE/sql/cluster.sh" stop >/dev/null 2>&1 || true
    state=$("$PLACE/sql/cluster.sh" status 2>/dev/null | sed -n 's|.*data in \(.*\)/data$|\1|p') || true
    rm -rf "$PLACE" "${state:-$PLACE}"
}
trap tidy EXIT

cp -r sql "$PLACE/sql"
"$PLACE/sql/cluster.sh" run true 2>/dev/null || die "the cluster cannot be made"

# Start a command that does not end by itself, and interrupt both as a terminal does when `$1`, which
# is told the file of what was said, returns.
interrupt_when() {
    local said=$PLACE/said pid
    : >"$said"
    env --default-signal=INT setsid "$PLACE/sql/cluster.sh" run sleep 60 >/dev/null 2>"$said" &
    pid=$!
    "$@" "$said"
    kill -s INT -- "-$pid"
    wait || true
}

runs() { until grep -q 'runs on' "$1"; do :; done; }
after() { sleep "$1"; }

rounds=0
for moment in runs runs runs 'after 0.05' 'after 0.15' 'after 0.25' 'after 0.4' 'after 0.7'; do
    # shellcheck disable=SC2086
    interrupt_when $moment
    case $("$PLACE/sql/cluster.sh" status || true) in
    stopped*) ;;
    *) die "interrupted ($moment), it left its server running: $(cat "$PLACE/said")" ;;
    esac
    rounds=$((rounds + 1))
done
printf 'cluster: %d interrupted starts left no server\n' "$rounds"
