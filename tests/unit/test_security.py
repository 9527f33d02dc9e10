"""SECURITY.md names the test of each promise: they exist."""

import re
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


def test_every_test_that_is_named_is_there() -> None:
    named = re.findall(r"`(tests/\S+?\.py)(?:::(\w+))?`", (CHECKOUT / "SECURITY.md").read_text())
    assert len(named) > 20
    for file, name in named:
        text = (CHECKOUT / file).read_text()
        assert not name or re.search(rf"^(def|class) {name}\b", text, re.MULTILINE), name
