#!/bin/sh
# SPDX-License-Identifier: MIT
#
# While the container of PostgreSQL makes its cluster: apply the schema, and the sample data.

set -eu
for file in /sql/[0-9]*.sql /sql/seed.sql; do
    psql --quiet --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" --file="$file"
done
