#!/bin/bash
# pg_dump and psql: the whole database into another, which psql asks then.
set -euo pipefail
other=${OWNER_URL/\/vecsearch\?/\/clients_dump?}
psql() { "${PSQL:-psql}" -XAtq -v ON_ERROR_STOP=1 "$@"; }
psql -c 'DROP DATABASE IF EXISTS clients_dump' -c 'CREATE DATABASE clients_dump' "$OWNER_URL"
"${PG_DUMP:-pg_dump}" "$OWNER_URL" | psql "$other" >/dev/null
# A dump of one database leaves out what ALTER DATABASE set.
psql -c 'ALTER DATABASE clients_dump SET search_path = vecsearch, public' "$OWNER_URL"
ASKED_URL=$other bash "$(dirname "$0")/with_psql.sh"
psql -c 'DROP DATABASE clients_dump' "$OWNER_URL"
