#!/bin/bash
# dbt: `dbt show`, which runs a statement without a schema to write to. (Models: the dbt package.)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >dbt_project.yml <<END
name: photos
version: "1.0.0"
profile: photos
END
cat >profiles.yml <<END
photos:
  target: reader
  outputs:
    reader: {type: postgres, host: $PGHOST, port: $PGPORT, user: $PGUSER, password: "$PGPASSWORD",
      dbname: $PGDATABASE, schema: vecsearch, threads: 1}
END
export DBT_SEND_ANONYMOUS_USAGE_STATS=false
show() {
  # dbt wraps the statement; -1 is no LIMIT of its own.
  "$DBT" --quiet show --profiles-dir . --inline "$1" --limit -1 --output json --log-format text
}
printf 'version\t%s\n' "$("$DBT" --version | awk '/installed:/ {print $3; exit}')"
ids() { grep -o '"id": "[^"]*"' | cut -d'"' -f4 | sed "s/^/$1\t/"; }
show "$ASK_NEAREST" | ids nearest
show "$ASK_HUNDRED" | ids hundred
show "$ASK_FILTER" | ids filter
show "$ASK_ALL" | ids all
