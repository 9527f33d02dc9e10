"""Names are declared once, and what implements them covers them all."""

import inspect
from dataclasses import fields

import pytest

from vecsearch.analysis import ranking
from vecsearch.cli import query
from vecsearch.errors import InvalidInput
from vecsearch.search.indexes import METHODS
from vecsearch.search.query import Query
from vecsearch.vocabulary import (
    Engine,
    IndexMethod,
    KeepRule,
    Metric,
    Precision,
    build_options,
    choices,
    counted,
    parse,
)


def test_every_metric_has_its_numpy() -> None:
    assert set(ranking.DISTANCES) == set(Metric)
    assert set(Metric) >= ranking.ELEMENTWISE


def test_every_index_method_has_its_class() -> None:
    assert set(METHODS) == set(IndexMethod)
    assert all(index.method is method for method, index in METHODS.items())


def test_build_options_allow_their_defaults() -> None:
    for option in build_options():
        assert option.least <= option.default <= option.most


@pytest.mark.parametrize("kind", [Metric, IndexMethod, Precision, KeepRule, Engine])
def test_an_unknown_name_is_refused_with_those_there_are(kind: type[Metric]) -> None:
    with pytest.raises(InvalidInput, match=f"'nothing'. Use {choices(kind)}"):
        parse(kind, "nothing")
    assert [parse(kind, str(name)) for name in kind] == list(kind)


def test_the_command_line_offers_every_field_of_the_query() -> None:
    # --where says what filters do, and more; every part of a question is one of the terms.
    left_out = {"filters", "image", "id", "text", "terms"}
    offered = {name.rstrip("_") for name in inspect.signature(query.query).parameters}
    assert {field.name for field in fields(Query)} - left_out <= offered
    assert {"images", "ids", "texts", "not_images", "not_ids", "not_texts", "crop"} <= offered


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1_000, "1,000 rows")]
)
def test_a_number_agrees_with_its_noun(count: int, text: str) -> None:
    assert counted(count, "row") == text
