"""Tables derived from each collection, a feed of its changes, and thumbnails as data URIs."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from vecsearch.postgres.migrate import collection_names

revision = "0018"
down_revision = "0017"

INTERNAL = "vecsearch_internal"
KINDS = "added, updated (another embedding), deleted; reset: any image may have changed"

# Positions are the numbers of transactions: whoever has read those of all transactions below the
# oldest running one has missed none, which would not be so with a sequence. Another server's
# transactions may have smaller numbers: after a restore, positions continue from the last one.
POSITION = f"""
    CREATE FUNCTION {INTERNAL}.change_position(collection text) RETURNS bigint
    LANGUAGE plpgsql VOLATILE STRICT
    SET search_path = pg_catalog, pg_temp AS $$
    DECLARE
        own constant bigint := pg_current_xact_id()::text::bigint;
        shift bigint;
    BEGIN
        SELECT CASE
            WHEN last.transaction < pg_snapshot_xmax(pg_current_snapshot())::text::bigint
                OR last.transaction = own AND last.at = now()
            THEN last.position - last.transaction ELSE last.position END
        INTO shift
        FROM {INTERNAL}.changes AS last WHERE last.collection = change_position.collection
        ORDER BY last.position DESC, last.number DESC LIMIT 1;
        RETURN own + coalesce(shift, 0);
    END $$"""

# It runs with its owner's rights, because whoever may change a collection need not write here.
RECORD = f"""
    CREATE FUNCTION {INTERNAL}.record_changes() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
    DECLARE
        place bigint;
        own bigint;
    BEGIN
        IF TG_TABLE_SCHEMA <> 'vecsearch' THEN
            RAISE EXCEPTION 'only collections have a feed of changes';
        END IF;
        -- A statement that changes nothing should not take a transaction's number.
        IF TG_OP = 'INSERT' THEN
            IF NOT EXISTS (SELECT FROM arriving) THEN RETURN NULL; END IF;
        ELSIF TG_OP <> 'TRUNCATE' THEN
            IF NOT EXISTS (SELECT FROM leaving) THEN RETURN NULL; END IF;
        END IF;
        place := {INTERNAL}.change_position(TG_TABLE_NAME);
        own := pg_current_xact_id()::text::bigint;
        IF TG_OP = 'INSERT' THEN
            INSERT INTO {INTERNAL}.changes (collection, position, transaction, kind, id)
            SELECT TG_TABLE_NAME, place, own, 'added', id FROM arriving;
        ELSIF TG_OP = 'DELETE' THEN
            INSERT INTO {INTERNAL}.changes (collection, position, transaction, kind, id)
            SELECT TG_TABLE_NAME, place, own, 'deleted', id FROM leaving;
        ELSIF TG_OP = 'TRUNCATE' THEN
            INSERT INTO {INTERNAL}.changes (collection, position, transaction, kind)
            VALUES (TG_TABLE_NAME, place, own, 'reset');
        ELSE
            -- Bytes are compared: pgvector's operators are not on this search path.
            INSERT INTO {INTERNAL}.changes (collection, position, transaction, kind, id)
            SELECT TG_TABLE_NAME, place, own,
                CASE WHEN l.id IS NULL THEN 'added' WHEN a.id IS NULL THEN 'deleted'
                ELSE 'updated' END, coalesce(a.id, l.id)
            FROM leaving AS l FULL JOIN arriving AS a ON a.id = l.id
            WHERE l.id IS NULL OR a.id IS NULL
                OR record_image_ne(ROW(l.embedding), ROW(a.embedding));
        END IF;
        RETURN NULL;
    END $$"""

THUMBNAIL = f"""
    CREATE FUNCTION vecsearch.thumbnail(sha256 text) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
        SELECT 'data:image/' || CASE WHEN substring(t.image FROM 1 FOR 4) = '\\x52494646'::bytea
            THEN 'webp' ELSE 'jpeg' END || ';base64,'
            || translate(encode(t.image, 'base64'), E'\\n', '')
        FROM {INTERNAL}.thumbnails AS t WHERE t.sha256 = thumbnail.sha256;
    END"""

COMMENTS = {
    f"{INTERNAL}.change_position(text)": "Place in the feed of what this transaction changes",
    f"{INTERNAL}.record_changes()": "Trigger of every collection: adds its changes to the feed",
    "vecsearch.thumbnail(text)": "Thumbnail of the file with this SHA-256 as a data URI, for an "
    "<img> or a BI tool; NULL if there is none",
}

TRIGGERS = {
    "INSERT": "REFERENCING NEW TABLE AS arriving",
    "UPDATE": "REFERENCING OLD TABLE AS leaving NEW TABLE AS arriving",
    "DELETE": "REFERENCING OLD TABLE AS leaving",
    "TRUNCATE": "",
}


def upgrade() -> None:
    connection = op.get_bind()
    create_tables()
    for statement in (
        POSITION,
        RECORD,
        THUMBNAIL,
    ):
        connection.exec_driver_sql(statement)
    for function, comment in COMMENTS.items():
        connection.exec_driver_sql(f"COMMENT ON FUNCTION {function} IS '{comment}'")
    names = collection_names(connection)
    for name in names:
        for statement in beside(connection, name):
            connection.exec_driver_sql(statement)
    grant(connection, names)


def create_tables() -> None:
    create(
        "changes",
        "Images added, changed and deleted; see the views NAME_changes",
        sa.Column(
            "position",
            sa.BigInteger,
            primary_key=True,
            comment="Place in the feed; the changes of a transaction share one",
        ),
        sa.Column(
            "number",
            sa.BigInteger,
            sa.Identity(),
            primary_key=True,
            comment="Order within a transaction",
        ),
        sa.Column(
            "transaction", sa.BigInteger, nullable=False, comment="Number of its transaction"
        ),
        sa.Column("kind", sa.Text, nullable=False, comment=KINDS),
        sa.Column("id", sa.Uuid, comment="Id of the image; NULL: reset"),
        time("at", "When its transaction began"),
    )
    create(
        "refreshes",
        "When each derived table was last refreshed, and how",
        sa.Column(
            "derived", sa.Text, primary_key=True, comment="neighbours, duplicates or clusters"
        ),
        sa.Column(
            "position",
            sa.BigInteger,
            nullable=False,
            comment="Place in the feed up to which it follows the collection",
        ),
        sa.Column("options", JSONB, nullable=False, comment="What it was made with"),
        time("refreshed_at", "When"),
    )
    create(
        "neighbours",
        "The nearest images of each image; see the views NAME_neighbours",
        image(),
        sa.Column("rank", sa.SmallInteger, primary_key=True, comment="From 1, the nearest first"),
        sa.Column("neighbour", sa.Uuid, nullable=False, comment="Id of the near image"),
        sa.Column("distance", sa.Double, nullable=False, comment="Cosine distance of the two"),
    )
    op.create_index(
        "neighbours_neighbour", "neighbours", ["collection", "neighbour"], schema=INTERNAL
    )
    create(
        "duplicates",
        "Groups of near-duplicates; see the views NAME_duplicates",
        image(),
        sa.Column("group_number", sa.Integer, nullable=False, comment="Group, from 1"),
        sa.Column("first", sa.Uuid, nullable=False, comment="Id of the group's oldest image"),
        sa.Column("distance", sa.Double, nullable=False, comment="Cosine distance to that image"),
        sa.Column(
            "difference", sa.Double, comment="Of their thumbnails, 0 to 2; NULL: one is missing"
        ),
    )
    create(
        "clusters",
        "Clusters of similar images; see the views NAME_clusters",
        image(),
        sa.Column("cluster", sa.Integer, nullable=False, comment="Cluster, from 1, the largest"),
        sa.Column("distance", sa.Double, nullable=False, comment="Cosine distance to its centre"),
    )


def create(name: str, comment: str, *columns: sa.Column[Any]) -> None:
    of = sa.Column("collection", sa.Text, primary_key=True, comment="Collection of the rows")
    op.create_table(name, of, *columns, schema=INTERNAL, comment=comment)


def image() -> sa.Column[Any]:
    return sa.Column("id", sa.Uuid, primary_key=True, comment="Id of the image")


def time(name: str, comment: str) -> sa.Column[Any]:
    kind = sa.DateTime(timezone=True)
    return sa.Column(name, kind, nullable=False, server_default=sa.func.now(), comment=comment)


def beside(connection: sa.Connection, name: str) -> list[str]:
    """Return the statements that make a collection's views and triggers."""
    table = f"vecsearch.{connection.dialect.identifier_preparer.quote(name)}"
    # By the table's number, so that the views follow when the collection is renamed.
    own = f"""(
        SELECT CAST(relname AS text) COLLATE "default" FROM pg_catalog.pg_class
        WHERE oid = CAST('{table}' AS regclass))"""
    statements = [
        f"""
        CREATE TRIGGER changes_{event.lower()} AFTER {event} ON {table} {transition}
        FOR EACH STATEMENT EXECUTE FUNCTION {INTERNAL}.record_changes()"""
        for event, transition in TRIGGERS.items()
    ]
    statements.append(
        f"""
        INSERT INTO {INTERNAL}.changes (collection, position, transaction, kind)
        SELECT '{name}', {INTERNAL}.change_position('{name}'),
            pg_current_xact_id()::text::bigint, 'reset'"""
    )
    for suffix, (select, comment, columns) in VIEWS.items():
        view = f"vecsearch.{name}_{suffix}"
        body = select.format(internal=INTERNAL, table=table, own=own)
        statements += [
            f"CREATE VIEW {view} WITH (security_invoker = true) AS {body}",
            f"COMMENT ON VIEW {view} IS '{comment.format(name=name)}'",
            *(f"COMMENT ON COLUMN {view}.{key} IS '{text}'" for key, text in columns.items()),
        ]
    return statements


# By suffix: the SELECT, the view's comment, its columns' comments.
VIEWS = {
    "neighbours": (
        """
        SELECT n.id, i.path, n.rank, n.neighbour, o.path AS neighbour_path, n.distance
        FROM {internal}.neighbours AS n
        JOIN {table} AS i ON i.id = n.id JOIN {table} AS o ON o.id = n.neighbour
        WHERE n.collection = {own}""",
        "The nearest images of each image of {name}, as of the last vecsearch refresh neighbours",
        {
            "id": "Id of the image",
            "path": "Its path",
            "rank": "From 1, the nearest first",
            "neighbour": "Id of the near image",
            "neighbour_path": "Its path",
            "distance": "Cosine distance of the two",
        },
    ),
    "duplicates": (
        """
        SELECT d.id, i.path, d.group_number, d.first, d.distance, d.difference
        FROM {internal}.duplicates AS d JOIN {table} AS i ON i.id = d.id
        WHERE d.collection = {own}""",
        "Groups of near-duplicates of {name}, as of the last vecsearch refresh duplicates",
        {
            "id": "Id of the image",
            "path": "Its path",
            "group_number": "Group, from 1; another refresh may number them otherwise",
            "first": "Id of the group''s oldest image",
            "distance": "Cosine distance to that image",
            "difference": "Of their thumbnails, 0 to 2; NULL: one is missing",
        },
    ),
    "clusters": (
        """
        SELECT c.id, i.path, c.cluster, c.distance
        FROM {internal}.clusters AS c JOIN {table} AS i ON i.id = c.id
        WHERE c.collection = {own}""",
        "Clusters of similar images of {name}, as of the last vecsearch refresh clusters",
        {
            "id": "Id of the image",
            "path": "Its path",
            "cluster": "Cluster, from 1, the largest",
            "distance": "Cosine distance to its centre",
        },
    ),
    "changes": (
        """
        SELECT c.position, c.number, c.kind, c.id, c.at FROM {internal}.changes AS c
        WHERE c.collection = {own}
        AND c.position < pg_snapshot_xmin(pg_current_snapshot())::text::bigint + (
            SELECT l.position - l.transaction FROM {internal}.changes AS l
            WHERE l.collection = {own} ORDER BY l.position DESC, l.number DESC LIMIT 1)""",
        "Changes of {name}, in transactions that all ended; continue after the largest position",
        {
            "position": "Place in the feed; the changes of a transaction share one",
            "number": "Order within a transaction",
            "kind": KINDS,
            "id": "Id of the image; NULL: reset",
            "at": "When its transaction began",
        },
    ),
}


def grant(connection: sa.Connection, names: list[str]) -> None:
    """Let those read what is new who may read the register."""
    grantees = connection.scalars(
        sa.text(
            "SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC'"
            " ELSE quote_ident(pg_get_userbyid(grantee)) END"
            " FROM pg_class, aclexplode(relacl)"
            " WHERE oid = 'vecsearch.collections'::regclass AND privilege_type = 'SELECT'"
            " AND grantee <> relowner"
        )
    )
    readable = [f"{INTERNAL}.{table}" for table in (*VIEWS, "refreshes")]
    readable += [f"vecsearch.{name}_{suffix}" for name in names for suffix in VIEWS]
    for grantee in grantees.all():
        connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {INTERNAL} TO {grantee}")
        connection.exec_driver_sql(f"GRANT SELECT ON {', '.join(readable)} TO {grantee}")
