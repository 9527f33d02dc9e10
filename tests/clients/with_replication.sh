#!/bin/bash
# Logical replication of the collection's table into a database with the same tables and functions.
# The server needs wal_level = logical, which the embedded one has not unless its owner sets it.
set -euo pipefail
other=${OWNER_URL/\/vecsearch\?/\/clients_copy?}
psql() { "${PSQL:-psql}" -XAtq -v ON_ERROR_STOP=1 "$@"; }
clean() {
  psql -c 'ALTER SUBSCRIPTION photos DISABLE' -c 'ALTER SUBSCRIPTION photos SET (slot_name = NONE)' \
    -c 'DROP SUBSCRIPTION photos' "$other"
  psql -c "SELECT pg_drop_replication_slot('photos')" -c 'DROP PUBLICATION photos' "$OWNER_URL"
  psql -c 'DROP DATABASE clients_copy WITH (FORCE)' "$OWNER_URL"
} >/dev/null 2>&1
clean || true
[ "$(psql -c 'SHOW wal_level' "$OWNER_URL")" = logical ] || { echo 'wal_level is not logical' >&2; exit 3; }
psql -c 'CREATE DATABASE clients_copy' "$OWNER_URL"
"${PG_DUMP:-pg_dump}" --schema-only "$OWNER_URL" | psql "$other" >/dev/null
psql -c 'ALTER DATABASE clients_copy SET search_path = vecsearch, public' "$OWNER_URL"
psql -c 'CREATE PUBLICATION photos FOR TABLE vecsearch.images' "$OWNER_URL"
# On one server, the slot must exist before the subscription, which would wait for itself.
psql -c "SELECT pg_create_logical_replication_slot('photos', 'pgoutput')" "$OWNER_URL" >/dev/null
source=$(psql -c "SELECT format('host=%s port=%s user=%s dbname=vecsearch',
  trim(split_part(current_setting('unix_socket_directories'), ',', 1), chr(34)), current_setting('port'), current_user)" "$OWNER_URL")
psql -c "CREATE SUBSCRIPTION photos CONNECTION '$source' PUBLICATION photos
  WITH (create_slot = false, slot_name = 'photos')" "$other"
for _ in $(seq 300); do
  [ "$(psql -c "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate = 'r'" "$other")" = 1 ] && break
  sleep 0.1
done
psql -c 'ANALYZE' "$other"
ASKED_URL=$other bash "$(dirname "$0")/with_psql.sh"
clean
