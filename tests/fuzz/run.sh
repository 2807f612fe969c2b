#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Run targets of fuzzing one after the other, each for FUZZ_SECONDS: run.sh DIRECTORY TARGET...
#
# Begins with the inputs in corpus/TARGET beside this file and with what earlier runs have found
# worth keeping in DIRECTORY/corpus. Says every few seconds how far it is. Stops at the first input
# that breaks a promise, prints where it lies, and fails.

set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
directory=$1
seconds=${FUZZ_SECONDS:-600}
shift

# The last line of libFuzzer's that has figures, as one that a person reads.
progress() {
    sed -n 's/^#\([0-9]*\).* cov: \([0-9]*\).* corp: \([0-9]*\).*/\1 runs, \2 edges, \3 inputs/p' "$1" |
        tail -n 1
}

fuzz() {
    local target=$1 log=$directory/$1.log found=$directory/found/$1 start=$SECONDS pid status=0
    local args=(-max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -artifact_prefix="$found/")
    local dictionary=$here/dict/$target.dict

    mkdir -p "$found" "$directory/corpus/$target"
    if [ -e "$dictionary" ]; then
        args+=(-dict="$dictionary")
    fi
    "$directory/fuzz-$target" "${args[@]}" "$directory/corpus/$target" "$here/corpus/$target" \
        >"$log" 2>&1 </dev/null &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        if [ -t 1 ]; then
            printf '\r  %-9s %4d of %d s: %s ' "$target" $((SECONDS - start)) "$seconds" "$(progress "$log")"
        fi
        sleep 1
    done
    wait "$pid" || status=$?
    if [ -t 1 ]; then
        printf '\r'
    fi
    printf '  %-9s %4d s: %s\n' "$target" $((SECONDS - start)) "$(progress "$log")"
    if [ "$status" -ne 0 ]; then
        tail -n 40 "$log" >&2
        echo "fuzz: $target failed: $(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)" >&2
        echo "fuzz: mend it, and keep the input as a test in $here/corpus/$target" >&2
        exit 1
    fi
}

for target; do
    fuzz "$target"
done
