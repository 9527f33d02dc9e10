"""Labels that words name: what is near, and the commands that list their images."""

import shlex

import pytest

from vecsearch.search.questions import labels


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("gerenok", ["gerenuk"]),
        ("Grand Pian", ["grand_piano"]),
        ("piano", ["grand_piano"]),
        ("xyzzy", []),
        ("", []),
    ],
)
def test_near_labels(text: str, found: list[str]) -> None:
    assert labels.near(text, ["gerenuk", "grand_piano", "stop_sign", ""]) == found


@pytest.mark.parametrize("label", ["rhino", "o'neil", 'a"b', "$HOME", "`id`", "a!b", "a\\b"])
def test_commands_are_one_argument_of_a_shell_whatever_the_label(label: str) -> None:
    # A backslash is itself in every session only behind an E.
    quoted = " E'a\\\\b'" if "\\" in label else "'" + label.replace("'", "''") + "'"
    condition = f"label = {quoted}"
    [said] = labels.notes("images", {label: 2})
    assert said.startswith(f"2 images have the label {label!r}. To list them: vecsearch sql ")
    _, _, where = said.partition(" --where ")
    assert shlex.split(where) == [condition]
