#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Run each micro-benchmark and its peer in Go in turns, and print the least of each: what else the
# machine does falls on both, and only ever adds.
# Usage: run.sh BENCH_MICRO [GO_TEST_BINARY]; MICRO= (a pattern of names), MICRO_ROUNDS=.

set -euo pipefail

ours=$1
peer=${2:-}
ms=2    # So short that now and then nobody else runs meanwhile.
times=5 # In one process.

# ctx_timeout is BenchmarkCtxTimeout there.
run_peer() {
    "$peer" -test.run '^$' -test.bench "^Benchmark$(sed -E 's/(^|_)(.)/\U\2/g' <<<"$1")\$" \
        -test.benchtime "${ms}ms" -test.count $times | awk '/^Benchmark/ { print $3 }'
}

printf '%-24s %12s %12s %8s\n' 'ns per operation' curfew Go ratio
for name in $("$ours" --list | grep -E "${MICRO:-.}"); do
    for ((i = 0; i < ${MICRO_ROUNDS:-10}; i++)); do
        "$ours" "$name" $ms $times | sed 's/^/ours /'
        [ -z "$peer" ] || run_peer "$name" | sed 's/^/peer /'
    done | awk -v name="$name" '
        !($1 in least) || $2 < least[$1] { least[$1] = $2 }
        END {
            printf "%-24s %12.1f", name, least["ours"]
            if ("peer" in least) {
                printf " %12.1f %8.2f", least["peer"], least["ours"] / least["peer"]
            }
            printf "\n"
        }'
done
