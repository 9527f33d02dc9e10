"""Import and export: a file of embeddings becomes a collection, all of it or none, and back."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from vecsearch.config import Runtime
from vecsearch.encoders import base, registry
from vecsearch.encoders.base import Identity, Weights
from vecsearch.errors import EncoderMismatch, InvalidInput
from vecsearch.imaging import decode, scan
from vecsearch.imaging.thumbnails import Thumbnail
from vecsearch.ingest import formats, staging
from vecsearch.ingest.formats.base import COLUMNS, Block, Contents
from vecsearch.ingest.staging import Imported
from vecsearch.postgres import catalog, thumbnails
from vecsearch.postgres.catalog import Collection
from vecsearch.postgres.rows import analyze, image_id, lock_collection

# Of imported embeddings, when nobody says what made them.
UNKNOWN_MODEL = "unknown"


@dataclass(frozen=True)
class Origin:
    """What made the embeddings of a file.

    Attributes:
        identity: its `weights_sha256` is None if which weights they were is not known.
        weights: where those are.
        dimensions: None if any will do.
        default_metric: of a new collection.

    """

    identity: Identity
    weights: Weights
    dimensions: int | None = None
    default_metric: str = "cosine"


@dataclass(frozen=True)
class Imports:
    """What an import came to.

    Attributes:
        added: rows at new paths.
        updated: rows whose path was there.
        with_file: rows whose picture was at hand, or whose file told what it would have.
        model: what made the embeddings, as far as it is known.

    """

    added: int
    updated: int
    with_file: int
    model: str


# What is being done, how far it is, and of how many rows, if that is known.
OnProgress = Callable[[str, int, int | None], None]


def find_origin(
    file: Path,
    contents: Contents,
    name: str,
    model: str | None,
    weights: str | Path | None,
    *,
    runtime: Runtime,
) -> Origin:
    """Return what made a file's embeddings: by the file's own word, or else by the caller's.

    Args:
        file: for messages.
        contents: what `vecsearch.ingest.formats.open_file` gave.
        name: the collection that it is for.
        model: see `vecsearch.library.Library.import_file`.
        weights: likewise.
        runtime: where an encoder that is named is loaded.

    Raises:
        InvalidInput: the file says something that makes no sense.
        EncoderError: `model` or `weights` are not what the file says, or cannot be loaded.

    """
    named = registry.weights_file(model, weights)
    unknown = Origin(
        Identity(base.UNKNOWN, model or UNKNOWN_MODEL, base.POOLED, None, {}), Weights(None, None)
    )
    told = unknown if contents.collection is None else _told_origin(file, contents.collection)
    if told.identity.weights_sha256 is not None:
        registry.for_collection(
            name, told.identity, told.weights, model=model, weights=weights, runtime=runtime
        )
        return told if named is None else replace(told, weights=Weights.of_file(named))
    if named is not None:
        encoder = registry.load(model or base.DEFAULT_MODEL, weights, device=runtime.device)
        return Origin(encoder.identity, encoder.weights, encoder.dimensions, told.default_metric)
    return told if model is None else replace(unknown, default_metric=told.default_metric)


def _told_origin(file: Path, told: dict[str, Any]) -> Origin:
    try:
        return Origin(
            Identity.from_json(told["identity"]),
            Weights(**told["weights"]),
            int(told["dimensions"]),
            str(told["default_metric"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(
            f"{file} does not say of its encoder what a vecsearch export says. Export it again."
        ) from error


def import_file(
    connection: sa.Connection,
    name: str,
    file: Path,
    contents: Contents,
    origin: Origin,
    *,
    root: Path,
    max_pixels: int,
    index_method: str | None = None,
    on_progress: OnProgress,
) -> Imports:
    """Store the rows of an open file in the collection `name`, which is made if it is not there.

    Args:
        connection: a session of its own, outside any transaction.
        name: the collection.
        file: for messages.
        contents: what `vecsearch.ingest.formats.open_file` gave.
        origin: what made the embeddings.
        root: where relative paths begin.
        max_pixels: a picture with more is not read.
        index_method: of a new collection, for `vecsearch.search.indexes.build.ensure`; None: hnsw.
        on_progress: called after each block.

    Raises:
        InvalidInput: a row cannot be stored, or a path comes twice; nothing is imported.
        EncoderMismatch: the collection's encoder is another.

    """
    with connection.begin():
        lock_collection(connection, name)
        first = next(contents.blocks, None)
        # Our own export of an empty collection tells its dimensions all the same.
        told = None if contents.collection is None else origin.dimensions
        dimensions = told if first is None else first.embeddings.shape[1]
        if dimensions is None:
            raise InvalidInput(f"{file} has no rows. Give one line or row for each picture.")
        _require_dimensions(file, dimensions, origin.dimensions, origin.identity.name)
        stored = catalog.find_collection(connection, name)
        if stored is not None:
            _require_same(file, stored, origin, dimensions)
            catalog.require_index_method(stored, index_method)
        rows = _Rows(
            contents.blocks if first is None else chain([first], contents.blocks),
            contents.rows,
            root=root,
            max_pixels=max_pixels,
            on_progress=on_progress,
        )
        staged = staging.stage(connection, rows)
        twice = staging.find_duplicate(connection)
        if twice is not None:
            path, one, other = twice
            raise InvalidInput(
                f"{file}, {contents.unit} {other}: {path} stands in {contents.unit} {one} already. "
                "Give each picture one row."
            )
        thumbnails.hold(connection)
        collection = stored or catalog.create_collection(
            connection,
            name,
            origin.identity,
            origin.weights,
            dimensions,
            default_metric=origin.default_metric,
            indexed=False,
            index_method=index_method or "hnsw",
        )
        added = staging.merge(connection, collection.table)
        staging.store_thumbnails(connection)
        analyze(connection, collection.table)
    if added < staged:
        with connection.begin():
            thumbnails.delete_orphans(connection)
    return Imports(added, staged - added, rows.with_file, origin.identity.name)


def export_file(
    connection: sa.Connection, collection: Collection, file: Path, *, on_progress: OnProgress
) -> int:
    """Write the collection to a file, as the transaction sees it; return the number of rows.

    Raises:
        InvalidInput: the file cannot be written, or its suffix names no format.

    """
    source = _Source(connection, collection)
    formats.write_file(file, source, lambda done: on_progress("Exporting", done, source.rows))
    return source.rows


class _Rows:
    """The rows of blocks, with what the pictures' own files tell where they are at hand."""

    def __init__(
        self,
        blocks: Iterator[Block],
        total: int | None,
        *,
        root: Path,
        max_pixels: int,
        on_progress: OnProgress,
    ) -> None:
        self._blocks = blocks
        self._total = total
        self._root = root
        self._max_pixels = max_pixels
        self._on_progress = on_progress
        self.with_file = 0

    def __iter__(self) -> Iterator[Imported]:
        done = 0
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for block in self._blocks:
                # As strings: normalised like the walk's, links kept.
                paths = [os.path.abspath(self._root / path) for path in block.paths]  # noqa: PTH100
                told: Iterator[tuple[dict[str, Any], Thumbnail | None]] = (
                    (
                        ({name: block.columns[name][row] for name in COLUMNS}, None)
                        for row in range(len(paths))
                    )
                    if block.columns
                    else pool.map(self._told_by_file, paths)
                )
                for number, path, embedding, (columns, thumbnail) in zip(
                    block.numbers, paths, block.embeddings, told, strict=True
                ):
                    self.with_file += columns.get("sha256") is not None
                    yield Imported(number, image_id(path), path, embedding, columns, thumbnail)
                done += len(paths)
                self._on_progress("Reading", done, self._total)

    def _told_by_file(self, path: str) -> tuple[dict[str, Any], Thumbnail | None]:
        """Return what the picture at `path` tells; without one, only the folder's name."""
        columns: dict[str, Any] = {"label": scan.label(path)}
        file = scan.find(path)
        if file is None:
            return columns, None
        image = decode.load(path, max_pixels=self._max_pixels)
        if isinstance(image, scan.Unreadable):
            return columns, None
        columns |= {"file_size": file.file_size, "modified_at": file.modified_at}
        return columns | asdict(image.facts), Thumbnail.of(image)


class _Source:
    """See `vecsearch.ingest.formats.Source`."""

    def __init__(self, connection: sa.Connection, collection: Collection) -> None:
        self._connection = connection
        self._table = collection.table
        self.rows, self.longest_path = staging.measure(connection, self._table)
        self.dimensions = collection.dimensions
        self.collection = {
            "name": collection.name,
            "identity": asdict(collection.identity),
            "weights": asdict(collection.weights),
            "dimensions": collection.dimensions,
            "default_metric": collection.default_metric,
        }

    def blocks(self, *, embeddings: bool, columns: bool) -> Iterator[Block]:
        return staging.read_blocks(
            self._connection, self._table, embeddings=embeddings, columns=columns
        )


def _require_dimensions(file: Path, found: int, expected: int | None, made_by: str) -> None:
    if expected is not None and found != expected:
        raise EncoderMismatch(
            f"{file} has {found:,} numbers a picture, and {made_by} makes {expected:,}. "
            "Use another file, or a --collection of its own."
        )


def _require_same(file: Path, stored: Collection, origin: Origin, dimensions: int) -> None:
    _require_dimensions(file, dimensions, stored.dimensions, f"collection {stored.name!r}")
    if origin.identity != stored.identity:
        raise EncoderMismatch(
            f"The embeddings of {file} were made by {origin.identity.name}, and those of "
            f"collection {stored.name!r} by {stored.identity.name}"
            f"{_other_weights(origin.identity, stored.identity)}, so they cannot be compared. "
            "Name their encoder with --model and --weights, or use another --collection."
        )


def _other_weights(one: Identity, other: Identity) -> str:
    return " with other weights" if one.name == other.name else ""
