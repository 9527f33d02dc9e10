"""Which changes below a watched folder count, and what is said if it cannot be watched."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import watchfiles

from vecsearch.errors import InvalidInput
from vecsearch.imaging.sources import watching


@pytest.mark.parametrize(
    ("path", "matters"),
    [
        ("cat.JPG", True),
        ("album/cat.jpg", True),
        ("gone.jpg", True),
        ("gone folder", True),
        ("album", True),
        ("notes.txt", False),
        (".cat.jpg", False),
        ("album/.hidden/cat.jpg", False),
        ("@eaDir/cat.jpg", False),
    ],
)
def test_what_a_walk_would_not_look_at_does_not_matter(
    tmp_path: Path, path: str, matters: bool
) -> None:
    # That a root is hidden itself changes nothing.
    root = tmp_path / ".root"
    (root / "album").mkdir(parents=True)
    (root / "notes.txt").touch()
    assert watching.may_matter(str(root / path), [str(root)]) is matters


def test_our_own_files_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def watch(*_: str, watch_filter: Any, **__: Any) -> Iterator[set[Any]]:
        yield set()
        asked.extend(watch_filter(1, str(tmp_path / name)) for name in ("data/x", "data2/x"))
        yield {1}

    monkeypatch.setattr(watchfiles, "watch", watch)
    changes = watching.changes([str(tmp_path)], apart=tmp_path / "data")
    assert [next(changes), next(changes)] == [None, None]
    assert asked == [False, True]


def test_a_system_that_cannot_watch_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def watch(*_: str, **__: Any) -> Iterator[set[Any]]:
        raise OSError(28, "OS file watch limit reached.", os.fspath(tmp_path))
        yield set()

    monkeypatch.setattr(watchfiles, "watch", watch)
    with pytest.raises(InvalidInput, match=r"OS file watch limit reached\. Watch fewer folders"):
        next(watching.changes([str(tmp_path)], apart=tmp_path / "data"))
