"""The API does what its own schema says, whatever is asked: by schemathesis, each time the same."""

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import positive_data_acceptance
from schemathesis.core.result import Ok
from support import PixelEncoder, ingest, once
from web_support import LOCAL

from vecsearch.library import Library
from vecsearch.postgres.rows import image_id
from vecsearch.web.app import create_app
from vecsearch.web.site import Options

EXAMPLES = 50
BOTH = schemathesis.GenerationMode
# What a form cannot say: that of image and id one is needed, and null.
EXCLUDED = [positive_data_acceptance]


@once
@pytest.mark.parametrize("kind", ["valid", "invalid", "stored"])
def test_the_api_conforms_to_its_schema(library: Library, photos: Path, kind: str) -> None:
    ingest(library.engine, [photos], PixelEncoder())
    schema = schemathesis.openapi.from_asgi(
        "/openapi.json",
        create_app(library, Options("images")),
        headers={"Host": "127.0.0.1"},
    )
    schema.config.update(base_url=LOCAL)
    stored = {
        "collection": "images",
        "id": str(image_id(str(photos / "cats" / "01.png"))),
    }
    operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    assert len(operations) == 11
    for operation in operations:
        mode = BOTH.NEGATIVE if kind == "invalid" else BOTH.POSITIVE
        fixed: dict[str, Any] = {}
        if kind == "stored":
            needed = {parameter.name for parameter in operation.path_parameters}
            fixed = {"path_parameters": {name: stored[name] for name in needed}}

        @settings(
            derandomize=True,
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(mode, **fixed))
        def conforms(case: schemathesis.Case[Any]) -> None:
            case.call_and_validate(excluded_checks=EXCLUDED)

        if mode is BOTH.POSITIVE or operation.path_parameters or operation.body:
            conforms()
