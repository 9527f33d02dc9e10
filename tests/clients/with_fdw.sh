#!/bin/bash
# postgres_fdw, from another server that has it and pgvector: PG_BIN is the folder of its programs.
# Its owner cannot be root, so root runs it as the user postgres.
set -euo pipefail
bin=${PG_BIN:?}
folder=$(mktemp -d)
as=()
if [ "$(id -u)" = 0 ]; then chown postgres "$folder"; as=(runuser -u postgres --); fi
port=$((20000 + RANDOM % 20000))
trap '"${as[@]}" "$bin/pg_ctl" -s -m immediate -D "$folder/data" stop; rm -rf "$folder"' EXIT
cd /
"${as[@]}" "$bin/initdb" -U postgres -A trust -D "$folder/data" >/dev/null
"${as[@]}" "$bin/pg_ctl" -s -w -D "$folder/data" -l "$folder/log" \
  -o "-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories=''" start >/dev/null
other=postgresql://postgres@127.0.0.1:$port/postgres
psql() { "${PSQL:-psql}" -XAtq -v ON_ERROR_STOP=1 "$other"; }
psql <<END
CREATE EXTENSION vector;
CREATE EXTENSION postgres_fdw;
-- pgvector's operators may be sent to the other server, as it is there, too.
CREATE SERVER photos FOREIGN DATA WRAPPER postgres_fdw
    OPTIONS (host '$PGHOST', port '$PGPORT', dbname '$PGDATABASE', extensions 'vector', fetch_size '50');
CREATE USER MAPPING FOR CURRENT_USER SERVER photos OPTIONS (user '$PGUSER', password '$PGPASSWORD');
CREATE SCHEMA photos;
IMPORT FOREIGN SCHEMA vecsearch LIMIT TO (images, images_view) FROM SERVER photos INTO photos;
ALTER DATABASE postgres SET search_path = photos, public;
END
# A function is not imported, so the questions are asked in the plain form.
own="(SELECT embedding FROM images WHERE id = '$IMAGE')"
# psql cannot say it with this statement: where the work is done.
plan=$(psql <<<"EXPLAIN (VERBOSE, COSTS OFF) SELECT id FROM images ORDER BY embedding <=> $own LIMIT 10")
case $plan in
  *"ORDER BY"*"LIMIT"*) echo $'note\tORDER BY and LIMIT run at the source' ;;
  *) echo $'note\tORDER BY runs here: every row is fetched' ;;
esac
export ASK_NEAREST="SELECT id FROM images ORDER BY embedding <=> $own LIMIT 10"
export ASK_HUNDRED="SELECT id FROM images ORDER BY embedding <=> $own LIMIT 100"
export ASK_FILTER="SELECT id FROM images WHERE label = '$LABEL' ORDER BY embedding <=> $own LIMIT 20"
export ASK_ALL="SELECT id FROM images ORDER BY embedding <=> $own"
ASKED_URL=$other bash "$(dirname "$0")/with_psql.sh"
printf "version\t%s\n" "$("$bin/postgres" --version | cut -d" " -f3)"
