"""Whether files and folders are still there: here, or behind their URLs."""

import os
from collections.abc import Callable, Iterable

from vecsearch.imaging import stalls
from vecsearch.imaging.sources import remote


def gone(paths: Iterable[str]) -> set[str]:
    """Return the paths of files that are gone; one that stalls counts as existing."""
    return _those(paths, is_gone)


def missing(paths: Iterable[str]) -> set[str]:
    """Return the paths at which nothing exists, a folder neither; for stalls see `gone`."""
    return _those(paths, is_missing)


def links(paths: Iterable[str]) -> set[str]:
    """Return the paths that are symbolic links; for stalls see `gone`."""
    local = [path for path in paths if not remote.is_url(path)]
    answers = stalls.answers(local, os.path.islink, unanswered=False)
    return {path for path, is_link in zip(local, answers, strict=True) if is_link}


def _those(paths: Iterable[str], condition: Callable[[str], bool]) -> set[str]:
    asked = [*paths]
    urls = [path for path in asked if remote.is_url(path)]
    local = [path for path in asked if not remote.is_url(path)]
    answers = stalls.answers(local, condition, unanswered=False)
    found = {path for path, holds in zip(local, answers, strict=True) if holds}
    return found | remote.missing(urls) if urls else found


def is_gone(path: str) -> bool:
    """Return whether a file is gone: nothing exists at its path, or a folder is in its place."""
    return os.path.isdir(path) or is_missing(path)  # noqa: PTH112 - strings throughout


def is_missing(path: str) -> bool:
    """Return whether nothing exists at `path`; one that cannot be examined counts as existing."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
