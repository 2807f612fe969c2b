#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# The PostgreSQL that `make run` and `make test` use: a private cluster, or the one that
# DATABASE_URL or PGHOST names (then there is no private one, and nothing is started or stopped).
#
#   cluster.sh start       start it; make it first if it is not there
#   cluster.sh stop        stop it
#   cluster.sh status      say where it is; exit status 3 if it does not run
#   cluster.sh load        start it, apply the schema, and the seed if there are no users
#   cluster.sh url         start it, print its URL for the role `curfew`, which owns the database
#   cluster.sh url-admin   the same for the superuser
#   cluster.sh run CMD...  start it, load, run CMD with DATABASE_URL and CF_TEST_PG_* set, and stop
#                          it again if no one else wants it; CMD's exit status
#
# Where: var/postgres in this repository, or a directory in /var/lib/curfew-dev when the server's
# user cannot reach the repository. PostgreSQL refuses to run as root, so root runs it as `postgres`.
#
# Who may use it: nobody without a password, not even on this machine. The passwords are random,
# lie in files that only their owner can read, and never appear in an argument list.
#
# Who stops it: each `run` puts its process id into users/, and the last one to leave stops the
# server, unless the file `keep` says that another of these commands had started it.

set -euo pipefail

interrupted='' # The exit status, once a signal has come.

# Helpers

say() { printf '  %-5s %s\n' PG "$*" >&2; }

# What fails because it was interrupted is no failure.
die() {
    [ -z "$interrupted" ] || exit "$interrupted"
    printf 'cluster.sh: %s\n' "$*" >&2
    exit 1
}

# True if the PostgreSQL is not ours.
external() { [ -n "${DATABASE_URL:-}" ] || [ -n "${PGHOST:-}" ]; }

# Run a command as the server's user, in a directory that this user can reach. Descriptor 9 is the
# lock: a server that inherited it would keep it for good.
as_server() {
    if [ "$SERVER_USER" = "$(id -un)" ]; then
        (cd "$STATE" && exec "$@" 9>&-)
    else
        (cd "$STATE" && exec runuser -u "$SERVER_USER" -- "$@" 9>&-)
    fi
}

major_of() { "$1/postgres" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/'; }

secret() { od -An -N 16 -t x1 /dev/urandom | tr -d ' \n'; }

# True if something listens on the port.
taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# The place

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
ROOT_SUM=$(printf '%s' "$ROOT" | cksum | cut -d ' ' -f 1)

# Let one command at a time change the cluster.
lock() {
    exec 9<"$ROOT/var"
    flock 9
}

unlock() { exec 9>&-; }

# Set what all commands on the private cluster need, and take the lock.
open_cluster() {
    # Settings for another server are not for this one.
    unset PGHOSTADDR PGSERVICE PGSERVICEFILE PGOPTIONS PGSSLMODE PGTARGETSESSIONATTRS
    umask 022
    if [ ! -d "$ROOT/var" ]; then
        mkdir -p "$ROOT/var"
        [ "$(id -un)" != root ] || chown --reference="$ROOT" "$ROOT/var"
    fi
    lock
    find_state
    DATA=$STATE/data
    LOG=$DATA/server.log
    SOCKETS=/tmp/curfew-$ROOT_SUM # Short, because a socket's address has room for 107 characters.
    find_programs
}

# Find the user who runs the server, and the directory that holds its state; make the directory.
find_state() {
    local me
    me=$(id -un)
    STATE=$ROOT/var/postgres

    # An empty one is of a start that was cut short, and may not have its owner yet.
    if [ -d "$STATE" ] && ! rmdir "$STATE" 2>/dev/null; then
        SERVER_USER=$(stat -c %U "$STATE")
        [ "$me" = root ] || [ "$me" = "$SERVER_USER" ] ||
            die "$STATE belongs to $SERVER_USER: run this as that user, or remove it"
    elif [ "$me" = root ]; then
        SERVER_USER=postgres
    else
        SERVER_USER=$me
    fi
    [ "$SERVER_USER" != root ] || die "$STATE belongs to root, as whom PostgreSQL does not run"
    id "$SERVER_USER" >/dev/null 2>&1 ||
        die "there is no user $SERVER_USER to run PostgreSQL: install it, or do not run this as root"

    install -d -m 700 "$STATE"
    if [ "$me" = root ]; then
        chown "$SERVER_USER" "$STATE" || true
        if ! as_server test -w "$STATE" 2>/dev/null; then
            rmdir --ignore-fail-on-non-empty "$STATE"
            STATE=/var/lib/curfew-dev/$ROOT_SUM
            install -d -m 755 /var/lib/curfew-dev
            install -d -m 700 -o "$SERVER_USER" "$STATE"
        fi
    fi
}

# Find the server's programs: of the version that made the data, else the newest.
find_programs() {
    local dir want='' other=''
    [ ! -e "$DATA/PG_VERSION" ] || want=$(cat "$DATA/PG_VERSION")

    while read -r dir; do
        if [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ]; then
            BIN=$dir
            [ -n "$want" ] && [ "$(major_of "$dir")" != "$want" ] || return 0
            other=${other:-$(major_of "$dir")}
        fi
    done < <(
        printf '%s\n' "${PG_BINDIR:-}"
        printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV
        pg_config --bindir 2>/dev/null
        dirname "$(command -v initdb)" 2>/dev/null
    )
    [ -z "$other" ] || die "$DATA was made by PostgreSQL $want, and here is PostgreSQL $other:" \
        "install $want, or remove $STATE (the seed's data will be made again)"
    die "no PostgreSQL server found: install the package postgresql, or set PG_BINDIR"
}

# The server

# True if our server runs. That the process works in our data directory tells it from one that was
# given the process id of a server long gone.
running() {
    local pid
    pid=$(head -n 1 "$DATA/postmaster.pid" 2>/dev/null) && [ -n "$pid" ] &&
        [ "$(readlink "/proc/$pid/cwd")" = "$DATA" ]
}

# Make the data directory. It gets its name last, so that one cut short is not taken for whole.
create() {
    say "making a private cluster in $STATE"
    rm -rf "$DATA.new" "$STATE/port" "$STATE/database"
    (
        umask 077
        secret >"$STATE/password"
        secret >"$STATE/password-admin"
    )
    chown "$SERVER_USER" "$STATE/password" "$STATE/password-admin"
    as_server "$BIN/initdb" --pgdata="$DATA.new" --username=postgres --auth=scram-sha-256 \
        --pwfile="$STATE/password-admin" --encoding=UTF8 --locale=C.UTF-8 >"$STATE/initdb.log" 2>&1 || {
        cat "$STATE/initdb.log" >&2
        die "initdb failed"
    }
    mv "$DATA.new" "$DATA"
}

# Choose the port once: below 32768, where the kernel takes none for outgoing connections. It
# follows from the path, so that two checkouts seldom want the same. Another one is chosen only if
# someone took ours while the server was down.
choose_port() {
    local port
    port=$(cat "$STATE/port" 2>/dev/null) || port=$((20000 + ROOT_SUM % 12000))
    while taken "$port"; do
        port=$((20000 + (port + 1 - 20000) % 12000))
    done
    printf '%s\n' "$port" >"$STATE/port"
}

make_socket_dir() {
    [ -e "$SOCKETS" ] || as_server mkdir -m 700 "$SOCKETS"
    if [ "$(stat -c '%U %a' "$SOCKETS")" != "$SERVER_USER 700" ]; then
        SOCKETS=$(as_server mktemp -d /tmp/curfew-XXXXXX)
    fi
}

# Written at each start, so that a change here reaches clusters that exist.
configure() {
    as_server tee "$DATA/postgresql.conf" >/dev/null <<END
# Written by sql/cluster.sh at each start.
listen_addresses = '127.0.0.1'
port = $(cat "$STATE/port")
unix_socket_directories = '$SOCKETS'
max_connections = 200
password_encryption = 'scram-sha-256'

# A crash may lose the last half second, never the consistency.
synchronous_commit = off

timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %a: '
END
}

# Remove what a server that was killed left behind, if its process id means something else by now,
# which would keep the next one from starting. The lock files go only when no process of the dead
# server works in the data directory any more: two servers on one directory destroy it.
clear_locks() {
    local pid tries=100
    pid=$(head -n 1 "$DATA/postmaster.pid" 2>/dev/null) && [ -e "/proc/$pid" ] || return 0
    while grep -qxF "$DATA" < <(readlink /proc/[0-9]*/cwd 2>/dev/null); do
        [ $((tries -= 1)) -gt 0 ] || die "processes of a server that was killed still use $DATA"
        sleep 0.1
    done
    rm -f "$DATA/postmaster.pid" "$SOCKETS"/.s.PGSQL.*
}

# Start the server if it does not run. pg_ctl has a session of its own, and gives the server one: a
# Ctrl-C meant for the service reaches neither. If pg_ctl ended by one, the server could go on without
# anybody who knows of it.
start() {
    local try
    [ -d "$DATA" ] || create
    if running; then
        return
    fi
    clear_locks
    rm -rf "$STATE/keep" "$STATE/users"

    for try in 1 2 3; do
        choose_port
        make_socket_dir
        configure
        if as_server setsid --wait "$BIN/pg_ctl" start --pgdata="$DATA" --log="$LOG" \
            --wait --timeout=60 >"$STATE/start.log" 2>&1 </dev/null; then
            [ -e "$STATE/database" ] || create_database
            [ -z "${KEEP:-}" ] || : >"$STATE/keep"
            say "PostgreSQL $(cat "$DATA/PG_VERSION") runs on 127.0.0.1:$(cat "$STATE/port")," \
                "log: $LOG"
            return
        fi
        # Another try only if someone was faster to take the port.
        taken "$(cat "$STATE/port")" || break
    done
    cat "$STATE/start.log" >&2
    tail -n 20 "$LOG" >&2 || true
    die "PostgreSQL did not start (try $try)"
}

# The database and its owner, who is no superuser. The first try may have been cut short, so each
# statement may be run twice.
create_database() {
    as_admin psql_quiet <<END
select not exists (select from pg_roles where rolname = 'curfew') as missing \gset
\if :missing
    create role curfew login;
\endif
alter role curfew password '$(cat "$STATE/password")';
select not exists (select from pg_database where datname = 'curfew') as missing \gset
\if :missing
    create database curfew owner curfew;
\endif
END
    : >"$STATE/database"
}

stop() {
    if running; then
        as_server "$BIN/pg_ctl" stop --pgdata="$DATA" --mode=fast --wait --timeout=60 >/dev/null
        say "PostgreSQL stopped"
    fi
    rm -rf "$STATE/keep" "$STATE/users"
    rmdir "$SOCKETS" 2>/dev/null || true
}

status() {
    if running; then
        echo "running on 127.0.0.1:$(cat "$STATE/port"), data in $DATA"
    else
        echo "stopped, data in $DATA"
        return 3
    fi
}

# Print the URL for a role whose password lies in a file.
url_of() {
    printf 'postgresql://%s:%s@127.0.0.1:%s/curfew\n' "$1" "$(cat "$STATE/$2")" "$(cat "$STATE/port")"
}

# Schema and seed

psql_quiet() {
    "${BIN:+$BIN/}psql" --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --output=/dev/null "$@"
}

# Run a command with libpq's variables for the private server.
as_owner() {
    PGHOST=127.0.0.1 PGPORT=$(cat "$STATE/port") PGDATABASE=curfew PGUSER=curfew \
        PGPASSWORD=$(cat "$STATE/password") "$@"
}

as_admin() {
    PGHOST=127.0.0.1 PGPORT=$(cat "$STATE/port") PGDATABASE=postgres PGUSER=postgres \
        PGPASSWORD=$(cat "$STATE/password-admin") "$@"
}

# Run psql on the server that DATABASE_URL or the PG* variables name. A password in the URL goes
# into the environment, since everyone on the machine can read an argument list.
on_external() {
    local url=${DATABASE_URL:-postgresql://} password=${PGPASSWORD:-}
    if [[ $url =~ ^(postgres(ql)?://[^:/@?]*):([^@/?]*)@(.*)$ ]]; then
        url=${BASH_REMATCH[1]}@${BASH_REMATCH[4]}
        printf -v password '%b' "${BASH_REMATCH[3]//%/\\x}"
    fi
    PGPASSWORD=$password "$@" --dbname="$url"
}

# Print the psql script that brings a database up to date. It is one session with a lock, so that
# two loaders do not meet, and each file is one transaction together with its line in the table.
load_script() {
    local file name version
    cat <<'END'
set client_min_messages = warning;
select pg_advisory_lock(hashtext('curfew: schema_version'));
create table if not exists schema_version (
    version    int primary key,
    name       text not null,
    applied_at timestamptz not null default now()
);
END
    for file in sql/[0-9]*.sql; do
        name=$(basename "$file" .sql)
        version=$((10#${name%%_*}))
        cat <<END
select not exists (select from schema_version where version = $version) as missing \gset
\if :missing
    \warn '  PG    applying $name'
    begin;
    \i $file
    insert into schema_version (version, name) values ($version, '$name');
    commit;
\endif
END
    done
    cat <<'END'
select not exists (select from users) as missing \gset
\if :missing
    \warn '  PG    loading the seed'
    \i sql/seed.sql
\endif
END
}

load() {
    cd "$ROOT"
    if external; then
        load_script | on_external psql_quiet
    else
        load_script | as_owner psql_quiet
    fi
}

# Run a command

# Stop the server unless someone else uses it or had started it before us.
leave() {
    local status=${interrupted:-$?} user
    trap '' INT TERM HUP QUIT
    lock
    mkdir -p "$STATE/users"
    rm -f "$STATE/users/$$"
    for user in "$STATE"/users/*; do
        kill -0 "${user##*/}" 2>/dev/null || rm -f "$user"
    done
    if [ ! -e "$STATE/keep" ] && rmdir "$STATE/users" 2>/dev/null; then
        stop
    fi
    exit "$status"
}

# Send a signal on to the command, or keep it if the command is about to start. One signal can come
# twice, to us and from make to us; a second one tells the service to end at once, so what follows
# within a fifth of a second counts as the same.
forward() {
    local now=${EPOCHREALTIME/[.,]/}
    woken=yes
    if [ $((now - forwarded_us)) -lt 200000 ]; then
        return
    fi
    signaled=$1
    forwarded_us=$now
    [ -z "$child" ] || kill -s "$1" "$child" 2>/dev/null || true
}

# Run the command in a process group of its own, so that a Ctrl-C reaches it once, from us, and
# wait until it has ended, however many signals come.
supervise() {
    local status=0
    child='' signaled='' woken='' forwarded_us=0
    trap 'forward INT' INT
    trap 'forward TERM' TERM HUP
    trap 'forward QUIT' QUIT
    [ -z "$interrupted" ] || exit "$interrupted"

    set -m
    "$@" </dev/null &
    child=$!
    set +m
    [ -z "$signaled" ] || kill -s "$signaled" "$child" 2>/dev/null || true

    # A signal ends `wait` before its time, whatever becomes of the signal: wait again.
    while :; do
        woken=''
        wait "$child" && status=0 || status=$?
        [ -n "$woken" ] || break
    done
    return "$status"
}

run() {
    [ $# -gt 0 ] || die "run: which command?"
    if external; then
        load
        export CF_TEST_PG_URL=${CF_TEST_PG_URL:-${DATABASE_URL:-postgresql://}}
    else
        open_cluster
        trap leave EXIT # Also when it is interrupted while it starts: then there is no user.
        # Not `exit`: from within a trap, bash 5.2 ends at times in the midst of what is to be done at
        # the exit. A Ctrl-C ends the programs that run, too, and with that this.
        trap 'interrupted=130' INT
        trap 'interrupted=143' TERM HUP QUIT
        start
        mkdir -p "$STATE/users"
        : >"$STATE/users/$$"
        [ -z "$interrupted" ] || exit "$interrupted"
        load
        DATABASE_URL=$(url_of curfew password)
        CF_TEST_PG_URL=$DATABASE_URL
        CF_TEST_PG_ADMIN_URL=$(url_of postgres password-admin)
        export DATABASE_URL CF_TEST_PG_URL CF_TEST_PG_ADMIN_URL
        unlock
    fi
    supervise "$@"
}

# What `start` does for the commands that leave the server running.
start_and_keep() {
    open_cluster
    KEEP=yes
    start
}

case ${1:-} in
start)
    external || start_and_keep
    ;;
stop)
    external || {
        open_cluster
        stop
    }
    ;;
status)
    if external; then
        echo "not ours: DATABASE_URL or PGHOST is set"
    else
        open_cluster
        status
    fi
    ;;
load)
    external || start_and_keep
    load
    ;;
url)
    if external; then
        echo "${DATABASE_URL:-postgresql://}"
    else
        start_and_keep
        url_of curfew password
    fi
    ;;
url-admin)
    if external; then
        echo "${CF_TEST_PG_ADMIN_URL:?is not set, and the PostgreSQL is not ours}"
    else
        start_and_keep
        url_of postgres password-admin
    fi
    ;;
run)
    shift
    run "$@"
    ;;
*)
    sed -n '4,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
