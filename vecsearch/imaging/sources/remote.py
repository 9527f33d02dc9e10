"""Files behind URLs, such as in a bucket, by way of fsspec; and in containers of this machine."""

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from vecsearch.errors import InvalidInput, VecsearchError, first_line
from vecsearch.files import said_if_slow
from vecsearch.imaging.sources import containers

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

    from vecsearch.imaging.sources.archives import Archive
    from vecsearch.imaging.sources.videos import Video

# What a store says of a file or folder: its type, its size, and more.
Info = dict[str, Any]
# Two letters at least: C:/ is a drive. Chains of file systems (simplecache::s3://) are no URLs.
_URL = re.compile(r"([a-z][a-z0-9+.-]+)://(.+)", re.DOTALL | re.IGNORECASE)
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "http": "http", "https": "http"}
# Where stores put a file's modification time.
_MODIFIED = ("LastModified", "mtime", "updated", "last_modified", "modified", "created")
# Questions that are asked at once; each is a round trip.
_AT_ONCE = 16
# A web server's answers for what is not there.
_GONE = {404, 410}
T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """A file that was listed: its URL, its size in bytes, its modification time in microseconds."""

    url: str
    size: int
    modified_at: datetime


def is_url(path: str) -> bool:
    """Return whether a path is a URL, and so not a path on this machine."""
    return _URL.match(path) is not None


def normalised(url: str) -> str:
    """Return a URL in the form in which it is stored: its scheme in small letters.

    Raises:
        InvalidInput: it holds a password.

    """
    if (kind := containers.of(url)) is not None:
        return kind.location(url.partition("://")[2])
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise InvalidInput(
            "The URL holds a user or a password, which would be stored with every row. "
            "Put them into the environment or the configuration of that store."
        )
    scheme, _, rest = url.rstrip("/").partition("://")
    return f"{scheme.lower()}://{rest}"


def examine(urls: Iterable[str]) -> dict[str, Info]:
    """Return what the stores say of the files or folders at some URLs.

    Raises:
        InvalidInput: there is nothing at one of them, or it cannot be asked.

    """

    def examined(url: str) -> Info:
        try:
            system, inner = _opened(url)
            info: Info = system.info(inner)
        except InvalidInput:
            raise
        except Exception as error:
            if _is_missing(error):
                raise InvalidInput(
                    f"{url} does not exist, or may not be seen. Check the URL."
                ) from error
            advice = "Check the URL, the credentials and the network."
            if (kind := containers.of(url)) is not None:
                advice = f"Check the {kind.noun}."
            raise InvalidInput(f"{url} cannot be read: {reason(error)} {advice}") from error
        return info

    return dict(_of_each(urls, examined))


def walk(
    root: str, info: Info, *, enters: Callable[[str], bool], left: Callable[[str, str], None]
) -> Iterator[Found]:
    """Yield the files under a URL, folder by folder, in order of name.

    Args:
        root: the URL of a folder or of a file.
        info: of `examine`.
        enters: given a name, returns whether such a file or folder is looked at.
        left: called with a URL at or under which something is not listed, and the reason.

    """
    system, inner = _opened(root)
    if info["type"] == "file":
        yield _found(root, info)
        return
    listing = system.walk(inner, detail=True, on_error=lambda error: left(root, reason(error)))
    try:
        for folder, folders, files in listing:
            entered = [(name, folders[name]) for name in sorted(filter(enters, folders))]
            folders.clear()
            folders.update(entered)  # what the walk goes on with
            if files.get("", {}).get("type") == "directory":
                left(_url(root, inner, folder), "It has a folder without a name, as in a//b.")
            # Some tools mark a folder by a file without a name.
            for name in sorted(name for name in files if name and enters(name)):
                yield _found(_url(root, inner, files[name]["name"]), files[name])
    except VecsearchError:
        raise
    except Exception as error:  # noqa: BLE001 - each store raises its own
        left(root, reason(error))


def find(url: str) -> Found | None:
    """Return the file at a URL; None if there is none, or it cannot be asked."""
    try:
        info = examine([url])[url]
    except InvalidInput:
        return None
    return _found(url, info) if info["type"] == "file" else None


def read(url: str, most: int) -> bytes:
    """Return the bytes of the file at a URL, and at most one more than `most`.

    Raises:
        OSError: it cannot be read.
        InvalidInput: see `file_system`.

    """
    try:
        system, inner = _opened(url)
        if url.startswith("http"):
            return _streamed(system, inner, most + 1)
        content: bytes = system.cat_file(inner, start=0, end=most + 1)
    except InvalidInput:
        raise
    except Exception as error:
        if "InvalidRange" in f"{error} {error.__cause__}":  # S3 of a file without bytes
            return b""
        raise OSError(reason(error).removesuffix(".")) from error
    return content


def _streamed(system: "AbstractFileSystem", inner: str, most: int) -> bytes:
    """Return the first bytes of a file: a web server may send more than it was asked for."""
    content = bytearray()
    with system.open(inner, "rb", block_size=0) as stream:
        while len(content) < most and (piece := stream.read(most - len(content))):
            content += piece
    return bytes(content)


def missing(urls: Iterable[str]) -> set[str]:
    """Return the URLs at which nothing exists; one that cannot be asked counts as existing."""

    def is_missing(url: str) -> bool:
        try:
            system, inner = _opened(url)
            # Not `exists`, for which a server that does not answer has no files.
            system.info(inner)
        except Exception as error:  # noqa: BLE001 - each store raises its own
            return _is_missing(error)
        return False

    return {url for url, is_gone in _of_each(urls, is_missing) if is_gone}


def _of_each(urls: Iterable[str], ask: Callable[[str], T]) -> Iterator[tuple[str, T]]:
    """Yield each URL with what it is answered; many are asked at once."""
    asked = [*urls]
    if not asked:
        return
    with said_if_slow(asked[0]), ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from zip(asked, pool.map(ask, asked), strict=True)


def _is_missing(error: Exception) -> bool:
    """Return whether a store says that there is nothing, and not merely nothing at all."""
    cause = error.__cause__
    if type(cause).__module__.startswith("aiohttp"):
        # Whatever goes wrong with a web server, fsspec calls it a missing file.
        return getattr(cause, "status", None) in _GONE
    return isinstance(error, FileNotFoundError)


def reason(error: Exception) -> str:
    """Return why a store did not answer, as a sentence."""
    if _is_missing(error):
        return "No such file."
    error = error.__cause__ if isinstance(error.__cause__, Exception) else error
    return f"{(first_line(error) or type(error).__name__).rstrip('.')}."


def _opened(url: str) -> tuple["AbstractFileSystem | Archive | Video", str]:
    """Return the file system of a URL, and the URL's path in it."""
    if (inside := containers.opened(url)) is not None:
        return inside
    found = _URL.match(url)
    assert found is not None  # noqa: S101 - callers have asked `is_url`
    system = file_system(found[1])
    return system, system._strip_protocol(url)  # noqa: SLF001 - fsspec has no public name for it


@cache
def file_system(scheme: str) -> "AbstractFileSystem":
    """Return what opens URLs of a scheme; its connections serve the whole process.

    Raises:
        InvalidInput: nothing does, or a package is missing.

    """
    import fsspec

    try:
        # Without a cache, so that what is listed is what is there.
        return fsspec.filesystem(scheme, use_listings_cache=False)
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        what = f"pip install 'vecsearch[{extra}]'" if extra else first_line(error)
        raise InvalidInput(f"{scheme}:// needs a package: {what}") from error
    except ValueError as error:
        raise InvalidInput(
            f"{scheme}:// is no store that can be read. Use s3://, gs://, https:// or a folder."
        ) from error


def _url(root: str, inner: str, name: str) -> str:
    """Return the URL of what the walk of a root, which its store calls `inner`, calls `name`."""
    rest = name.removeprefix(inner).lstrip("/")
    return f"{root}/{rest}" if rest else root


def _found(url: str, info: Info) -> Found:
    told = next((info[name] for name in _MODIFIED if info.get(name)), None)
    with suppress(ValueError, OverflowError):
        if isinstance(told, str):
            told = datetime.fromisoformat(told)
        elif isinstance(told, int | float):
            told = datetime.fromtimestamp(told, UTC)
    # A store that tells no times: what it has is read again, and compared by content.
    modified_at = told if isinstance(told, datetime) else datetime.now(UTC)
    if modified_at.tzinfo is None:
        modified_at = modified_at.replace(tzinfo=UTC)
    return Found(url, int(info.get("size") or 0), modified_at)
