#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Bring docker/compose.yaml up on the docker engine at hand, use it, and take it down again: are both
# services healthy, does a request get its answer, is the query of a client that hangs up gone within
# a second, does nothing stay behind. Prints the image's size and the idle service's memory.
#
# The base images debian:trixie-slim and postgres:17 are pulled; where that cannot be, stand-ins are
# made under their names (root, debootstrap, the mirror that apt has here), and removed at the end.
# Neither an image of that name that is here already, nor other containers, are touched. With
# KEEP_IMAGES=1 those that were made stay, for the next run.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

say() { printf '  %-5s %s\n' TEST "$*"; }

die() {
    printf 'docker: %s\n' "$*" >&2
    exit 1
}

# Wait for a command to succeed: within SECONDS COMMAND...
within() {
    local until=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$until" ] || return 1
        sleep 0.1
    done
}

has_image() { docker image inspect "$1" >/dev/null 2>&1; }

# An image that was not here before is removed at the end.
made=()
work=$(mktemp -d)

debian_stand_in() {
    local mirror
    [ "$(id -u)" = 0 ] && command -v debootstrap >/dev/null ||
        die "no debian:trixie-slim to be had; a stand-in takes root, and apt-get install debootstrap"
    mirror=$(apt-get indextargets --format '$(SITE)' 'Identifier: Packages' | grep -m 1 '/debian$') ||
        die "apt has no Debian mirror here"
    say "debootstrap trixie, as debian:trixie-slim"
    debootstrap --variant=minbase trixie "$work/trixie" "$mirror" >"$work/log" 2>&1 || {
        tail -n 20 "$work/log" >&2
        die "debootstrap failed"
    }
    rm -rf "$work"/trixie/var/{cache/apt/archives/*.deb,lib/apt/lists/*} \
        "$work"/trixie/usr/share/{doc,man,locale}/*
    tar -C "$work/trixie" -cf - . | docker import --change 'CMD ["bash"]' - debian:trixie-slim >/dev/null
    rm -rf "$work/trixie"
}

postgres_stand_in() {
    say "docker build tests/docker/postgres, as postgres:17"
    docker build -t postgres:17 tests/docker/postgres >"$work/log" 2>&1 || {
        tail -n 20 "$work/log" >&2
        die "the stand-in of postgres:17 cannot be built"
    }
}

# base IMAGE COMMAND: have the image, by the command if need be.
base() {
    has_image "$1" && return
    made=("$1" "${made[@]}")
    timeout 120 docker pull --quiet "$1" >/dev/null 2>&1 || "$2"
}

if docker compose version >/dev/null 2>&1; then
    compose=(docker compose)
else
    compose=(docker-compose) # Of version 2, or the last ones of version 1.
fi
docker info >/dev/null 2>&1 || die "no docker engine: start one, and be in its group"
"${compose[@]}" version >/dev/null 2>&1 || die "no docker compose"
has_image curfewd || made+=(curfewd)

export CURFEW_PORT=${CURFEW_PORT:-$((20000 + $$ % 12000))} CURFEW_DEMO=1
project=curfew-test-$$
compose+=(--project-name "$project" --file docker/compose.yaml)
url=http://127.0.0.1:$CURFEW_PORT

finish() {
    local status=$?
    trap '' INT TERM
    if [ "$status" -ne 0 ]; then
        "${compose[@]}" logs --tail=30 >&2 || true
    fi
    "${compose[@]}" down --volumes --timeout 15 >/dev/null 2>&1 || true
    [ -n "${KEEP_IMAGES:-}" ] || [ "${#made[@]}" = 0 ] || docker image rm "${made[@]}" >/dev/null 2>&1 || true
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT

base debian:trixie-slim debian_stand_in
base postgres:17 postgres_stand_in

container() { docker ps --all --quiet --filter "label=com.docker.compose.project=$project" \
    --filter "label=com.docker.compose.service=$1"; }
health() { docker inspect --format '{{.State.Health.Status}}' "$(container "$1")"; }
is_healthy() { [ "$(health "$1")" = healthy ]; }
asleep() { docker exec "$(container postgres)" psql --username=curfew --tuples-only --no-align --command \
    "select count(*) from pg_stat_activity where state = 'active' and query ~ 'pg_sleep' and pid <> pg_backend_pid()"; }
sleeps() { [ "$(asleep)" = "$1" ]; }

# Version 1 cannot wait: then we do.
waiting=--wait
"${compose[@]}" up --help | grep -q -e --wait || waiting=--detach
say "${compose[*]} up --build $waiting"
"${compose[@]}" up --build "$waiting" >"$work/log" 2>&1 || {
    tail -n 30 "$work/log" >&2
    die "compose up failed"
}
within 120 is_healthy curfewd || die "curfewd is $(health curfewd), postgres $(health postgres)"
is_healthy postgres || die "postgres is $(health postgres)"

say "what README asks for"
answer=$(curl -fsS "$url/v1/dashboard?user_id=42")
[[ $answer = *'"name":"Niamh Ivanova"'*'"order_count":14'* ]] || die "dashboard: $answer"
status=$(curl -s -o /dev/null -w '%{http_code}' "$url/v1/sleep?seconds=5&timeout=50ms")
[ "$status" = 504 ] || die "a deadline of 50 ms: $status"
[ "$(docker inspect --format '{{.Config.User}}' "$(container curfewd)")" = 10001:10001 ] || die "runs as root"
docker exec "$(container curfewd)" curfewd --ready || die "curfewd --ready: $?"
docker exec "$(container curfewd)" test -s /etc/ssl/certs/ca-certificates.crt || die "https would trust nobody"

say "a client that hangs up"
curl -s "$url/v1/sleep?seconds=30" &
client=$!
within 10 sleeps 1 || die "no query sleeps"
kill "$client"
within 1 sleeps 0 || die "its query runs on"
wait "$client" 2>/dev/null || true

say "PostgreSQL stops, and comes back"
docker stop "$(container postgres)" >/dev/null
within 60 bash -c '! docker exec "$1" curfewd --ready' bash "$(container curfewd)" || die "ready without PostgreSQL"
why=$(docker exec "$(container curfewd)" curfewd --ready 2>&1) || true
[[ $why = *'not ready: 503'* ]] || die "--ready says: $why"
docker start "$(container postgres)" >/dev/null
within 60 docker exec "$(container curfewd)" curfewd --ready || die "not ready again"

say "memory of the idle service: $(docker stats --no-stream --format '{{.MemUsage}}' "$(container curfewd)")"
say "size of its image: $(docker image inspect --format '{{.Size}}' curfewd | awk '{ printf "%.1f MB", $1 / 1e6 }'), of which debian:trixie-slim $(docker image inspect --format '{{.Size}}' debian:trixie-slim | awk '{ printf "%.1f MB", $1 / 1e6 }')"

say "${compose[*]} down -v"
id=$(container curfewd)
docker stop "$id" >/dev/null
[ "$(docker inspect --format '{{.State.ExitCode}}' "$id")" = 0 ] || die "curfewd did not stop cleanly"
"${compose[@]}" down --volumes >/dev/null 2>&1
left=$(docker ps --all --quiet --filter "label=com.docker.compose.project=$project"
    docker volume ls --quiet --filter "label=com.docker.compose.project=$project"
    docker network ls --quiet --filter "label=com.docker.compose.project=$project")
[ -z "$left" ] || die "left behind: $left"
say "passed"
