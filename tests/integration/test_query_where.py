"""Conditions written by the user: --where."""

from collections.abc import Iterator
from textwrap import dedent

import pytest
import sqlalchemy as sa
from support import Corpus, citus, every_server

from vecsearch.errors import DatabaseError, InvalidInput
from vecsearch.postgres import database

pytestmark = [citus, every_server]
# The servers of Citus that have shards lack the sequence.
REFUSED = r'read-only|read-write|non-volatile|denied|"public\.numbers" does not exist'


@pytest.fixture(scope="module")
def scribbled(corpus: Corpus) -> Corpus:
    """The corpus, in a database with functions that write."""
    with database.writing(corpus.library.engine) as connection:
        connection.execute(
            sa.text(
                "CREATE FUNCTION public.scribble() RETURNS boolean LANGUAGE plpgsql VOLATILE AS"
                " $$ BEGIN DELETE FROM vecsearch.images; RETURN true; END $$"
            )
        )
        connection.execute(sa.text("CREATE SEQUENCE public.numbers"))
    return corpus


@pytest.fixture(autouse=True)
def untouched(corpus: Corpus) -> Iterator[None]:
    """Check that a test changes nothing."""

    def state() -> object:
        with database.reading(corpus.library.engine) as connection:
            rows = "SELECT count(*), sum(xmin::text::bigint), sum(xmax::text::bigint) FROM images"
            relations = (
                "SELECT count(*) FROM pg_class WHERE relnamespace::regnamespace::text !~ 'pg_'"
            )
            return connection.execute(sa.text(rows)).one(), connection.scalar(sa.text(relations))

    before = state()
    yield
    assert state() == before


@pytest.mark.parametrize(
    ("where", "widths"),
    [
        ("width = 7", {7}),
        ("images.width = 7", {7}),
        ("path LIKE '%/00007.png'", None),
        ("path LIKE '%%/00007.png' AND path NOT LIKE '%(path)s'", None),
        ("label <> ':label' AND width::text = '7'", {7}),
        ("metadata->>'price' = '7'", {7}),
        ("metadata @> '{\"price\": 7}' AND metadata ? 'price'", {7}),
        ("label = 'it''s' OR width = 7", {7}),
        (r"label = E'\\' OR width = 7", {7}),
        ("width = 7 -- the seventh", {7}),
        ("width = 7 /* the seventh */", {7}),
        ("width\n= -- what?\n7\n", {7}),
        ("width = 7 OR width = 8", {7, 8}),
        ("width = (SELECT max(width) FROM images)", {2_999}),
        ("NULL", set()),
        ("modified_at < now() AND width IN (7, 8)", {7, 8}),
    ],
)
@pytest.mark.parametrize("exact", [False, True])
def test_a_condition_is_any_that_postgres_takes(
    corpus: Corpus,
    where: str,
    widths: set[int] | None,
    exact: bool,
) -> None:
    hits = corpus.library.query(id=corpus.ids[0], where=where, exact=exact).hits
    if widths is None:
        assert [hit.path for hit in hits] == ["/corpus/00007.png"]
    else:
        assert {hit.width for hit in hits} == widths
        assert len(hits) == len(widths)


def test_a_disjunction_does_not_escape_the_other_conditions(corpus: Corpus) -> None:
    hits = corpus.library.query(
        id=corpus.ids[0], where="width = 0 OR width = 1", exclude_self=True
    ).hits
    assert [hit.width for hit in hits] == [1]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (
            "label = = 'c1'",
            """\
            syntax error at or near "="
              label = = 'c1'
                      ^""",
        ),
        (
            "width > 1 AND colour = 'red'",
            """\
            column "colour" does not exist
              width > 1 AND colour = 'red'
                            ^""",
        ),
        (
            "width > 1\n  AND colour = 'red'\n  AND true",
            """\
            column "colour" does not exist
                AND colour = 'red'
                    ^""",
        ),
        (
            "true) OR (true",
            """\
            syntax error at or near ")"
              true) OR (true
                  ^""",
        ),
        (
            "width = 7 LIMIT 1",
            """\
            syntax error at or near "LIMIT"
              width = 7 LIMIT 1
                        ^""",
        ),
        (
            "true UNION SELECT",
            """\
            syntax error at or near "UNION"
              true UNION SELECT
                   ^""",
        ),
        ("true ORDER BY id", 'syntax error at or near "ORDER"\n  true ORDER BY id\n       ^'),
        ("width", "argument of WHERE must be type boolean, not type integer\n  width\n  ^"),
        ("true; DELETE FROM images", "One statement at a time"),
        ("true /* ", "unterminated /* comment"),
        ("label = 'c1", "unterminated quoted string"),
        ("$$", "unterminated dollar-quoted string"),
        ("-- nothing", "syntax error at end of input"),
        ("1 / (width - width) = 1", "division by zero"),
    ],
)
def test_a_condition_that_postgres_does_not_take_is_refused_in_its_words(
    corpus: Corpus, where: str, message: str
) -> None:
    with pytest.raises(DatabaseError) as caught:
        corpus.library.query(id=corpus.ids[0], where=where)
    assert str(caught.value).startswith(dedent(message))
    # The connection is as good as before.
    assert len(corpus.library.query(id=corpus.ids[0]).hits) == 10


def test_a_condition_locks_no_rows(corpus: Corpus) -> None:
    with pytest.raises(DatabaseError, match=r"syntax error|permission denied|with FOR UPDATE"):
        corpus.library.query(id=corpus.ids[0], where="true FOR UPDATE")


def test_a_long_condition_is_shown_around_the_fault(corpus: Corpus) -> None:
    where = " AND ".join(["width >= 0"] * 50 + ["colour"] + ["width >= 0"] * 50)
    with pytest.raises(DatabaseError) as caught:
        corpus.library.query(id=corpus.ids[0], where=where)
    _, shown, caret = str(caught.value).split("\n")[:3]
    assert shown[caret.index("^") :].startswith("colour")
    assert len(shown) < 130


@pytest.mark.parametrize(
    "where",
    [
        "scribble()",
        "nextval('numbers') > 0",
        "set_config('transaction_read_only', 'off', true) = 'off' AND scribble()",
        "set_config('default_transaction_read_only', 'off', false) = 'off' AND scribble()",
        "query_to_xml('DELETE FROM vecsearch.images', true, false, '') IS NULL",
        "lo_create(4711) > 0",
    ],
)
@pytest.mark.parametrize("exact", [False, True])
def test_a_condition_cannot_write(
    scribbled: Corpus,
    where: str,
    exact: bool,
) -> None:
    with pytest.raises(DatabaseError, match=REFUSED):
        scribbled.library.query(id=scribbled.ids[0], where=where, exact=exact)


def test_a_condition_sets_nothing_for_the_next_search(corpus: Corpus) -> None:
    where = "set_config('enable_seqscan', 'on', false) IS NOT NULL"
    corpus.library.query(id=corpus.ids[0], where=where)
    with corpus.library.sql("SHOW enable_seqscan") as (_, rows, _):
        assert list(rows) == [("off",)]


@pytest.mark.parametrize("where", ["", " \n"])
def test_an_empty_condition_is_refused(corpus: Corpus, where: str) -> None:
    with pytest.raises(InvalidInput, match=r"condition is empty\. Write one"):
        corpus.library.query(id=corpus.ids[0], where=where)
