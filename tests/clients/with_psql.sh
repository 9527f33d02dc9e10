#!/bin/bash
# psql, with a cursor. ASKED_URL asks another database than the reader's.
set -euo pipefail
url=${ASKED_URL:-$READER_URL}
psql() { "${PSQL:-psql}" -XAtq -v ON_ERROR_STOP=1 "$@" "$url"; }
printf 'version\t%s\n' "$("${PSQL:-psql}" --version | cut -d' ' -f3)"
psql -F $'\t' <<<"$ASK_TYPES \gdesc" | sed 's/^/types\t/'
psql -c "$ASK_NEAREST" | cut -d'|' -f1 | sed 's/^/nearest\t/'
psql -c "$ASK_HUNDRED" | cut -d'|' -f1 | sed 's/^/hundred\t/'
psql -c "$ASK_FILTER" | cut -d'|' -f1 | sed 's/^/filter\t/'
psql <<END | cut -d'|' -f1 | sed 's/^/all\t/'
BEGIN;
DECLARE every CURSOR FOR $ASK_ALL;
FETCH 50 FROM every;
FETCH ALL FROM every;
COMMIT;
END
