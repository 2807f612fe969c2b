#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Whoever interrupts `make run` leaves no server behind, and whoever interrupts `make pg-url` none that
# nobody knows of: sql/cluster.sh, in a directory of its own, is sent the SIGINT of a Ctrl-C, when it
# says that PostgreSQL runs, while pg_ctl runs, and at other moments.

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

# interrupt COMMAND... when MOMENT...: start it, and send it and all that it has started what a terminal
# sends, when the moment has come.
interrupt() {
    local command=() pid
    while [ "$1" != when ]; do
        command+=("$1")
        shift
    done
    shift
    : >"$PLACE/said"
    env --default-signal=INT setsid "$PLACE/sql/cluster.sh" "${command[@]}" >/dev/null 2>"$PLACE/said" &
    pid=$!
    "$@"
    kill -s INT -- "-$pid" 2>/dev/null || true # It may have ended.
    wait || true
}

# Moments; they are over if what was started has ended. In interrupt(), whose `pid` it is.
runs() { while ! grep -q 'runs on' "$PLACE/said" && kill -0 "$pid" 2>/dev/null; do :; done; }
after() { sleep "$1"; }
starts() {
    while ! pgrep -f "pg_ctl start --pgdata=$STATE/" >/dev/null && kill -0 "$pid" 2>/dev/null; do :; done
    sleep "$1"
}

# It begins with a directory that is empty, and the maker's.
mkdir "$PLACE/var/postgres" 2>/dev/null || true # Not where the cluster is in it.
"$PLACE/sql/cluster.sh" status >/dev/null || [ $? -eq 3 ] || die "an empty var/postgres is in its way"

STATE=$("$PLACE/sql/cluster.sh" status | sed -n 's|.*data in \(.*\)/data$|\1|p') || true
rounds=0
for moment in runs runs runs 'after 0.05' 'after 0.15' 'after 0.25' 'after 0.4' 'after 0.7'; do
    # shellcheck disable=SC2086
    interrupt run sleep 60 when $moment
    case $("$PLACE/sql/cluster.sh" status || true) in
    stopped*) ;;
    *) die "run, interrupted ($moment), left its server running: $(cat "$PLACE/said")" ;;
    esac
    rounds=$((rounds + 1))
done
for delay in 0.002 0.006 0.010 0.015 0.020 0.030; do
    interrupt url when starts "$delay"
    if "$PLACE/sql/cluster.sh" status >/dev/null && [ ! -e "$STATE/keep" ]; then
        die "url, interrupted $delay s behind pg_ctl, left a server that nobody knows of"
    fi
    "$PLACE/sql/cluster.sh" stop 2>/dev/null
    rounds=$((rounds + 1))
done
printf 'cluster: %d interrupted starts left no server behind\n' "$rounds"
