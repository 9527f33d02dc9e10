"""Pictures from outside: read and decoded by worker processes, which may crash or be killed."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vecsearch.imaging import stalls, thumbnails, worker
from vecsearch.imaging.decode import Facts
from vecsearch.imaging.processes.decoding import WORKERS
from vecsearch.imaging.processes.process import Ended
from vecsearch.imaging.reading import (
    CHANGED,
    MOST_BYTES,
    Source,
    bytes_sha256,
    most_bytes,
    too_large,
)
from vecsearch.imaging.scan import Unanswered, Unreadable, sentence
from vecsearch.imaging.sources import containers, remote
from vecsearch.imaging.thumbnails import Thumbnail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image as Picture

    from vecsearch.imaging.preprocessing import Preprocessing

# Held while a picture of more than `worker.LARGE` pixels is decoded.
_ONE_LARGE = threading.Lock()


@dataclass(frozen=True)
class Wanted:
    """What to make of a picture.

    Attributes:
        thumbnail: whether to draw its thumbnail.
        preprocessing: how to prepare it as an encoder's input, or what tells that, which is called
            once the picture could be decoded, or its header read if fewer pixels may do.
        fit: a width and height that it is to be resized to fit.
        crop: the box, from its upper left corner, to be prepared and fitted: left, top, right,
            bottom.
        may_shrink: whether it may be made of fewer pixels than the file has, at less cost.

    """

    thumbnail: bool = False
    preprocessing: "Preprocessing | Callable[[], Preprocessing] | None" = None
    fit: tuple[int, int] | None = None
    crop: tuple[int, int, int, int] | None = None
    may_shrink: bool = False


@dataclass(frozen=True)
class Made:
    """What was made of a picture: what was wanted, and the facts of its file.

    Attributes:
        inputs: shape (height, width, 3).
        fitted: mode RGB.

    """

    facts: Facts
    thumbnail: Thumbnail | None = None
    inputs: "NDArray[np.uint8] | None" = None
    fitted: "Picture | None" = None


@dataclass(frozen=True)
class Outside:
    """A crop is not within the picture, which has this width and height."""

    width: int
    height: int


def read(path: str, *, keep: int, max_pixels: int) -> Source | Unreadable:
    """Read and hash the file at `path`; keep its bytes if they are so few."""
    found = _at_hand(path, most_bytes(max_pixels))
    if isinstance(found, Unreadable):
        return found
    if isinstance(found, Source):
        return found if len(found.content or b"") <= keep else replace(found, content=None)
    request = {"do": "read", "path": path, "keep": keep, "most": most_bytes(max_pixels)}
    try:
        fields, blobs = WORKERS.ask(request, seconds=stalls.STALL_S, answer=_go_on)
    except Ended as ended:
        return _left(path, ended, is_reading=True)
    if "reason" in fields:
        return Unreadable(path, fields["reason"])
    return Source(path, fields["sha256"], blobs[0] if blobs else None)


def make(source: Source | str, wanted: Wanted, *, max_pixels: int) -> Made | Unreadable | Outside:
    """Decode a file, and make what is wanted of it.

    Args:
        source: a file that was read, or the path of one to read.
        wanted: what to make.
        max_pixels: pictures with more are unreadable.

    Raises:
        Exception: what `wanted.preprocessing` raises.

    """
    found = _at_hand(source, most_bytes(max_pixels))
    if isinstance(found, Unreadable):
        return found
    path, sha256, content = (
        (found, None, None) if isinstance(found, str) else (found.path, found.sha256, found.content)
    )
    prepare = wanted.preprocessing
    request = {
        "do": "make",
        "path": path,
        "sha256": sha256,
        "max_pixels": max_pixels,
        "most": most_bytes(max_pixels),
        "thumbnail": wanted.thumbnail,
        "preprocessing": {} if callable(prepare) else prepare and prepare.to_json(),
        "fit": wanted.fit,
        "crop": wanted.crop,
        "may_shrink": wanted.may_shrink,
    }
    limit = worker.seconds(worker.LARGE)
    is_reading = content is None
    with ExitStack() as held:

        def answer(question: dict[str, Any]) -> tuple[dict[str, Any], float]:
            nonlocal is_reading
            if worker.READING in question:
                return _go_on(question)
            is_reading = False
            if worker.READ in question:
                return {}, limit
            if worker.MAY_BEGIN in question:
                held.close()  # of a worker that crashed
                held.enter_context(_ONE_LARGE)
                return {}, worker.seconds(min(question[worker.MAY_BEGIN], max_pixels))
            assert callable(prepare)  # noqa: S101 - otherwise nobody asks
            return prepare().to_json(), limit

        try:
            fields, blobs = WORKERS.ask(
                request,
                () if content is None else [content],
                seconds=stalls.STALL_S if content is None else limit,
                answer=answer,
            )
        except Ended as ended:
            return _left(str(path), ended, is_reading=is_reading)
    return _made(str(path), fields, blobs)


def size_of(source: str | bytes) -> tuple[int, int] | None:
    """Return the width and height of an upright picture, from its file's header alone.

    None if the file, which is named or given as bytes, has no header of a picture.
    """
    found = _at_hand(source, MOST_BYTES) if isinstance(source, str) else of_bytes(source, "")
    if isinstance(found, Unreadable):
        return None
    path, blobs = (found, []) if isinstance(found, str) else ("", [found.content or b""])
    request = {"do": "size", "path": path, "most": MOST_BYTES}
    try:
        fields, _ = WORKERS.ask(request, blobs, seconds=stalls.STALL_S, answer=_go_on)
    except Ended:
        return None
    size = fields.get("size")
    return None if size is None else (size[0], size[1])


def fitted(
    sources: "Iterable[Path | bytes]", width: int, height: int, *, max_pixels: int
) -> "Iterator[Picture | Unreadable]":
    """Yield each file, or its bytes, resized to fit width x height pixels, in order.

    For a picture that cannot be read, the reason is yielded.
    """

    def small(source: Path | bytes) -> "Picture | Unreadable":
        made = make(
            of_bytes(source, "the query") if isinstance(source, bytes) else str(source),
            Wanted(fit=(width, height), may_shrink=True),
            max_pixels=max_pixels,
        )
        if isinstance(made, Unreadable):
            return made
        assert isinstance(made, Made) and made.fitted is not None  # noqa: S101, PT018 - as wanted
        return made.fitted

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(small, sources)


def of_bytes(content: bytes, name: str, sha256: str | None = None) -> Source:
    """Return a source for the bytes of a file; the name is for messages."""
    return Source(name, sha256 or bytes_sha256(content), content)


def _at_hand(source: Source | str, most: int) -> Source | str | Unreadable:
    """Return a file that a worker can open; one behind a URL comes with its bytes.

    Fetching, unlike decoding, crashes no process.
    """
    path = source if isinstance(source, str) else source.path
    if not remote.is_url(path) or (isinstance(source, Source) and source.content is not None):
        return source
    fetched = fetch(path, most)
    if isinstance(source, Source) and isinstance(fetched, Source):
        return fetched if fetched.sha256 == source.sha256 else Unreadable(path, CHANGED)
    return fetched


def fetch(url: str, most: int) -> Source | Unreadable:
    """Return the file at a URL with its bytes, if they are at most so many.

    Raises:
        InvalidInput: a package is missing that opens such URLs.

    """
    try:
        content = remote.read(url, most)
    except OSError as error:
        return Unreadable(url, sentence(error))
    if len(content) > most:
        return Unreadable(url, too_large(len(content), most))
    return of_bytes(content, url)


def _go_on(_: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """Answer a worker whose file is still being read."""
    return {}, stalls.STALL_S


def _left(path: str, ended: Ended, *, is_reading: bool) -> Unreadable:
    if is_reading and not ended.in_time:
        return Unanswered.at(path)
    return Unreadable(path, f"{ended.words}.")


def _made(path: str, fields: dict[str, Any], blobs: list[bytearray]) -> Made | Unreadable | Outside:
    if "reason" in fields:
        return Unreadable(path, fields["reason"])
    if "outside" in fields:
        return Outside(*fields["outside"])
    told = fields["facts"]
    if told["taken_at"] is not None:
        told["taken_at"] = datetime.fromisoformat(told["taken_at"])
    if (kind := containers.of(path)) is not None and kind.format is not None:
        told["format"] = kind.format
    facts = Facts(**told)
    named = dict(zip(fields["blobs"], blobs, strict=True))
    thumbnail = inputs = fitting = None
    if "thumbnail" in named:
        size = thumbnails.size(facts.width, facts.height)
        thumbnail = Thumbnail(facts.sha256, *size, bytes(named["thumbnail"]))
    if "inputs" in named:
        import numpy as np

        width, height = fields["inputs"]
        inputs = np.frombuffer(named["inputs"], np.uint8).reshape(height, width, 3)
    if "fitted" in named:
        import PIL.Image

        fitting = PIL.Image.frombytes("RGB", tuple(fields["fitted"]), bytes(named["fitted"]))
    return Made(facts, thumbnail, inputs, fitting)
