"""CSV as Postgres writes it: a path, then a vector in brackets."""

from pathlib import Path

import numpy as np
import pytest

from vecsearch.errors import InvalidInput
from vecsearch.ingest.formats.registry import open_file
from vecsearch.vocabulary import MAX_DIMENSIONS


def read(folder: Path, text: str) -> dict[str, list[float]]:
    file = folder / "e.csv"
    file.write_text(text)
    with open_file(file) as contents:
        blocks = list(contents.blocks)
    return {
        path: vector.tolist()
        for block in blocks
        for path, vector in zip(block.paths, block.embeddings, strict=True)
    }


@pytest.mark.parametrize("header", ["", "path,embedding\n", "id,vector\n"])
def test_a_vector_in_brackets_is_numbers(tmp_path: Path, header: str) -> None:
    lines = 'a.png,"[0.5,0,-1e-3]"\n"b, c.png"," [1, 2, 3] "\nd.png,4,5,6\n'
    assert read(tmp_path, header + lines) == {
        "a.png": [0.5, 0.0, pytest.approx(-1e-3)],
        "b, c.png": [1, 2, 3],
        "d.png": [4, 5, 6],
    }


def test_a_vector_of_one_number_or_of_the_most_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, "a.png,[1]\nb.png,[2]\n") == {"a.png": [1], "b.png": [2]}
    numbers = np.arange(1, MAX_DIMENSIONS + 1) / 1e6 + 1e-12
    (vector,) = read(tmp_path, f'a.png,"{numbers.tolist()}"\n').values()
    assert np.allclose(vector, numbers, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a.png,"[1,2,3]"\nb.png,"[1,2]"\n', "line 2: expected 3 dimensions, found 2"),
        ('a.png,"[1,2,3]"\nb.png,1,2\n', "line 2: expected 3 dimensions, found 2"),
        ('a.png,"[1,x,3]"\n', "line 1: 'x' is not a number"),
        ('a.png,"[x,y]"\n', "line 1: 'x' is not a number"),
        ('path,embedding\na.png,"[1,,3]"\n', "line 2: '' is not a number"),
        ('a.png,"[1,2"\n', r"line 1: '\[1,2' is not a number"),
        ('a.png,"[[1],[2]]"\n', r"line 1: '\[1\]' is not a number"),
        ('a.png,"[1 2 3]"\n', "line 1: '1 2 3' is not a number"),
        ("a.png,[]\n", "line 1: nothing follows the path"),
        ('a.png,"[1,NaN,3]"\n', "line 1: number 2 is not a finite number"),
        ('a.png,"[1,2,1e9]"\n', "line 1: number 3 is too large"),
        ('a.png,"[0,0]"\n', "line 1: the embedding is all zeros"),
        ('a.png,"[1]x"\n', r"line 1: '\[1\]x' is not a number"),
        ('a.png,"[1,2]",extra\n', r"'\[1,2\]' is not a number"),
    ],
)
def test_what_is_no_vector_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read(tmp_path, text)
