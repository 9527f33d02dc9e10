"""The error classes match the tree in the docstring of vecsearch.errors."""

import inspect
import re

import pytest

from vecsearch import errors
from vecsearch.errors import VecsearchError, first_line

FAMILY = {name: cls for name, cls in vars(errors).items() if inspect.isclass(cls)}


def drawn() -> dict[str, str | None]:
    """Return the parent of each class as the docstring's tree draws it."""
    parents: dict[str, str | None] = {}
    ancestors: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.fullmatch(r"    ([│├└─ ]*)([A-Z]\w+)(?: {2,}.*)?", line)
        if match is None:
            continue
        depth = len(match[1]) // 4
        parents[match[2]] = ancestors[depth - 1] if depth else None
        ancestors[depth:] = [match[2]]
    return parents


def test_the_tree_shows_every_class_under_its_parent() -> None:
    family = {
        name: None if cls is VecsearchError else cls.__mro__[1].__name__
        for name, cls in FAMILY.items()
    }
    assert drawn() == family


@pytest.mark.parametrize("name", FAMILY)
def test_every_error_is_one_of_the_family_and_says_when_it_is_raised(name: str) -> None:
    assert issubclass(FAMILY[name], VecsearchError)
    assert FAMILY[name].__doc__


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError("It broke.\nHere."), "It broke"),
        (OSError(), "OSError"),
        (OSError(" \n"), "OSError"),
    ],
)
def test_an_error_has_one_line_even_without_a_text(error: OSError, line: str) -> None:
    assert first_line(error) == line
