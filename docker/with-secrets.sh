#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Before PostgreSQL starts: make its password, if there is none yet, and the URL that the service reads.
# Only root and the service's group (10001, of docker/Dockerfile) can read them.

set -eu
umask 027
cd /run/curfew
if [ ! -s database-url ]; then
    od -An -N 16 -t x1 /dev/urandom | tr -d ' \n' >password
    echo "postgresql://curfew:$(cat password)@postgres:5432/curfew" >database-url.new
    chgrp 10001 . database-url.new
    chmod 750 .
    mv database-url.new database-url
fi
exec "$@"
