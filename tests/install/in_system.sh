#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# The part of bookworm.sh that happens inside: in_system.sh install|use|remove.

set -euo pipefail
cd /packages
CONF=/etc/curfew/curfewd.conf

die() {
    printf 'in_system.sh: %s\n' "$*" >&2
    [ ! -e /tmp/service.log ] || tail -n 20 /tmp/service.log >&2
    exit 1
}

say() { printf '  %-5s %s\n' DEB "$*"; }

quietly() { "$@" >/tmp/log 2>&1 || { cat /tmp/log >&2 && die "failed: $*"; }; }

# Wait for a command to succeed: within SECONDS COMMAND...
within() {
    local until=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$until" ] || return 1
        sleep 0.1
    done
}

# It becomes the command, to which signals go then: not so runuser, nor a function.
as_service=(setpriv --reuid=curfewd --regid=curfewd --init-groups)

install_all() {
    quietly apt-get update
    say "apt-get install ./curfewd_*.deb"
    quietly apt-get install -y --no-install-recommends ./curfewd_*.deb
    [ "$(stat -c '%U %G %a' "$CONF")" = 'root curfewd 640' ] || die "$CONF: who can read it?"
    getent passwd curfewd | grep -q ':/nonexistent:/usr/sbin/nologin$' || die "no system user"
    [ ! -e /usr/lib/x86_64-linux-gnu/libcurfew.so.0 ] || die "the service brought the library"
    curfewd --config "$CONF" --dump-config | grep -q '^CURFEW_LISTEN=' || die "$CONF cannot be read"

    say "apt-get install ./libcurfew*.deb"
    quietly apt-get install -y --no-install-recommends ./libcurfew*.deb
    quietly apt-get install -y --no-install-recommends gcc g++ libc6-dev pkg-config curl postgresql \
        debsums man-db
    quietly debsums --silent curfewd libcurfew0 libcurfew-dev
}

# As README.Debian says.
use_service() {
    local command service
    quietly pg_ctlcluster 15 main start
    quietly runuser -u postgres -- createuser curfewd
    quietly runuser -u postgres -- createdb --owner=curfewd curfew
    cat /usr/share/curfew/sql/[0-9]*.sql | quietly "${as_service[@]}" psql --single-transaction curfew
    echo 'DATABASE_URL=postgresql:///curfew?host=/run/postgresql' >>"$CONF"

    # There is no systemd in here: what its unit would start, as the user whom it would be.
    command=$(sed -n 's/^ExecStart=//p' /lib/systemd/system/curfewd.service)
    say "$command"
    # shellcheck disable=SC2086 # A command and its arguments.
    "${as_service[@]}" $command >/tmp/service.log 2>&1 &
    service=$!
    within 30 curl -fsS localhost:8080/readyz || die "the service does not get ready"
    curl -fsS localhost:8080/v1/users | grep -q ':\[\]' || die "no list of users"
    kill "$service"
    wait "$service" || die "the service ended with $?"
    quietly pg_ctlcluster 15 main stop
}

use_library() {
    local compiler expected
    expected=$(awk '/^\$ cc .*pkg-config/ { getline; print; exit }' README.md)
    awk 'inside && /^```$/ { exit } inside { print } /^```c$/ { inside = 1 }' README.md >/tmp/example.c
    cp /tmp/example.c /tmp/example.cc
    for compiler in 'gcc /tmp/example.c' 'g++ /tmp/example.cc'; do
        say "$compiler \$(pkg-config --cflags --libs curfew)"
        # shellcheck disable=SC2046,SC2086
        quietly $compiler -Wall -Wextra -Werror -o /tmp/example $(pkg-config --cflags --libs curfew)
        [ "$(/tmp/example)" = "$expected" ] || die "it printed: $(/tmp/example)"
    done
}

remove_all() {
    say "apt-get purge"
    quietly apt-get purge -y curfewd libcurfew0 libcurfew-dev
    for left in /etc/curfew /usr/share/curfew /usr/include/curfew /usr/bin/curfewd; do
        [ ! -e "$left" ] || die "left behind: $left"
    done
}

case $1 in
install) install_all ;;
use)
    use_service
    use_library
    ;;
remove) remove_all ;;
esac
