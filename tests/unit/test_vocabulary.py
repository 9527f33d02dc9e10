"""Names are declared once, and what implements them covers them all."""

import base64
import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from vecsearch.analysis import ranking
from vecsearch.cli import index, query, serve, train
from vecsearch.collection import Collection
from vecsearch.encoders.autoencoder import training
from vecsearch.errors import InvalidInput
from vecsearch.postgres.embedded import role
from vecsearch.postgres.sessions.settings import READING_LIMITS
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
from vecsearch.web import site
from vecsearch.web.mcp.arguments import Base64


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


def test_commands_have_the_defaults_of_what_they_call() -> None:
    def defaults(function: Callable[..., Any]) -> dict[str, Any]:
        found = inspect.signature(function).parameters.items()
        return {name: one.default for name, one in found}

    trained, options = defaults(train.train_autoencoder), training.Options()
    for name in ("latent", "epochs", "image_size", "patience", "seed", "resume"):
        assert trained[name] == getattr(options, name)
    assert defaults(index.tune)["recall"] == defaults(Collection.tune_index)["recall"]
    assert defaults(index.tune)["k"] == defaults(Collection.tune_index)["k"]
    most = defaults(serve.serve)["max_upload"] * 2**20
    assert site.Options("images").max_bytes == most
    taken = TypeAdapter(Base64)
    assert taken.validate_python(base64.b64encode(bytes(most))) == bytes(most)
    with pytest.raises(ValidationError, match=f"more than {most // 2**20} MB"):
        taken.validate_python(base64.b64encode(bytes(most + 1)))
    assert role.READER_SETTINGS["statement_timeout"] == READING_LIMITS["statement_timeout"]


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1_000, "1,000 rows")]
)
def test_a_number_agrees_with_its_noun(count: int, text: str) -> None:
    assert counted(count, "row") == text
