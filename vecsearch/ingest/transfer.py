"""Import and export: from a file of embeddings to a collection, whole or not at all, and back."""

import os
from collections.abc import Iterator
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
from vecsearch.imaging import pictures, scan
from vecsearch.imaging.pictures import Made, Wanted
from vecsearch.imaging.sources.remote import is_url
from vecsearch.imaging.thumbnails import Thumbnail
from vecsearch.ingest import formats, staging
from vecsearch.ingest.formats.base import Block, Contents
from vecsearch.ingest.staging import Imported
from vecsearch.postgres import catalog, database, migrate, schema, thumbnails
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.postgres.columns import OF_FILE, names
from vecsearch.postgres.rows import analyze, image_id, writing
from vecsearch.search import collections
from vecsearch.search.indexes import build
from vecsearch.search.indexes.build import OnProgress
from vecsearch.search.store import Store
from vecsearch.vocabulary import IndexMethod, Metric, parse

# The model of imported embeddings, if neither file nor user names it.
UNKNOWN_MODEL = "unknown"


@dataclass(frozen=True)
class Origin:
    """What made the embeddings of a file.

    Attributes:
        identity: `weights_sha256` is None if the weights are not known.
        weights: where to find them.
        dimensions: None accepts any.
        default_metric: for a new collection.

    """

    identity: Identity
    weights: Weights
    dimensions: int | None = None
    default_metric: Metric = Metric.cosine


@dataclass(frozen=True)
class Imports:
    """What an import did.

    Attributes:
        added: rows at new paths.
        updated: rows whose path was there.
        with_file: rows with a SHA-256, from the image itself or from the export.
        model: what made the embeddings, as far as known.
        notes: sentences for the user.

    """

    added: int
    updated: int
    with_file: int
    model: str
    notes: tuple[str, ...] = ()

    def counts(self) -> dict[str, int | str]:
        """Return the counts and the model by name, in order, as commands print them."""
        return {name: value for name, value in vars(self).items() if name != "notes"}


def store_file(
    store: Store,
    name: str,
    file: Path,
    *,
    model: str | None,
    weights: str | Path | None,
    root: Path | None,
    index: str | None,
    on_progress: OnProgress,
) -> Imports:
    """Import a file, and build the index; see `vecsearch.collection.Collection.import_file`."""
    schema.require_collection_name(name)
    method = None if index is None else parse(IndexMethod, index)
    settings = store.settings
    with formats.open_file(file) as contents:
        created = migrate.prepare(store.engine)
        origin = find_origin(file, contents, name, model, weights, runtime=settings.runtime)
        rows = _Rows(
            contents,
            root=root or file.parent,
            max_pixels=settings.max_pixels,
            on_progress=on_progress,
        )
        with database.session(store.engine) as connection:
            done = _store(connection, name, file, origin, rows, method)
    notes = build.ensure(store.engine, name, resources=store.resources(), on_progress=on_progress)
    return replace(done, notes=(*created, *notes))


def find_origin(
    file: Path,
    contents: Contents,
    name: str,
    model: str | None,
    weights: str | Path | None,
    *,
    runtime: Runtime,
) -> Origin:
    """Return what made a file's embeddings, as the file says, or else the caller.

    Args:
        file: for messages.
        contents: what `vecsearch.ingest.formats.open_file` gave.
        name: the collection that it is for.
        model: see `vecsearch.collection.Collection.import_file`.
        weights: likewise.
        runtime: where an encoder that is named is loaded.

    Raises:
        InvalidInput: the file's description of its encoder is unusable.
        EncoderError: `model` or `weights` differ from the file's, or cannot be loaded.

    """
    named = registry.weights_file(model, weights)
    unknown = Origin(
        Identity(base.UNKNOWN, model or UNKNOWN_MODEL, base.POOLED, None, {}), Weights(None, None)
    )
    told = unknown if contents.collection is None else _told_origin(file, contents.collection)
    if told.identity.weights_sha256 is not None:
        encoder = registry.for_collection(
            name, told.identity, told.weights, model=model, weights=weights, runtime=runtime
        )
        return replace(told, weights=encoder.weights)
    if named is not None:
        loaded = registry.load(model or base.DEFAULT_MODEL, weights, device=runtime.device)
        return Origin(loaded.identity, loaded.weights, loaded.dimensions, told.default_metric)
    return told if model is None else replace(unknown, default_metric=told.default_metric)


def _told_origin(file: Path, told: dict[str, Any]) -> Origin:
    try:
        return Origin(
            Identity.from_json(told["identity"]),
            Weights(**told["weights"]),
            int(told["dimensions"]),
            parse(Metric, told["default_metric"]),
        )
    except (KeyError, TypeError, ValueError, InvalidInput) as error:
        raise InvalidInput(
            f"{file} describes its encoder in a way that no vecsearch export does. Export it again."
        ) from error


def _store(
    connection: sa.Connection,
    name: str,
    file: Path,
    origin: Origin,
    rows: "_Rows",
    index_method: IndexMethod | None,
) -> Imports:
    """Store a file's rows in the collection `name`; create it if there is none.

    Raises:
        InvalidInput: a row cannot be stored, or a path is a duplicate; nothing is imported.
        EncoderMismatch: the collection's embeddings were made by another encoder.

    """
    with writing(connection, name):
        # An export of an empty collection has dimensions, too.
        told = None if rows.contents.collection is None else origin.dimensions
        dimensions = rows.dimensions or told
        if dimensions is None:
            raise InvalidInput(f"{file} has no rows. Write one line or row per image.")
        _require_dimensions(file, dimensions, origin.dimensions, origin.identity.name)
        stored = catalog.find_collection(connection, name)
        if stored is not None:
            _require_same(file, stored, origin, dimensions)
            collections.require_index_method(stored, index_method)
        staged = staging.stage(connection, rows)
        twice = staging.find_duplicate(connection)
        if twice is not None:
            path, one, other = twice
            unit = rows.contents.unit
            raise InvalidInput(
                f"{file}, {unit} {other}: duplicate path {path}; first seen on {unit} {one}. "
                "Keep one of them."
            )
        thumbnails.hold(connection)
        collection = stored or collections.create(
            connection,
            name,
            origin.identity,
            origin.weights,
            dimensions,
            default_metric=origin.default_metric,
            index_method=index_method,
        )
        added = staging.merge(connection, collection.table)
        staging.store_thumbnails(connection)
    with connection.begin():
        analyze(connection, collection.table)
    if added < staged:
        with connection.begin():
            thumbnails.delete_orphans(connection)
    return Imports(added, staged - added, rows.with_file, origin.identity.name)


def export_file(
    connection: sa.Connection, collection: StoredCollection, file: Path, *, on_progress: OnProgress
) -> int:
    """Write the collection, as the transaction sees it, to a file; return the number of rows.

    Raises:
        InvalidInput: the file cannot be written, or its suffix is unknown.

    """
    source = _Source(connection, collection)
    formats.write_file(file, source, lambda done: on_progress("Exporting", done, source.rows))
    return source.rows


class _Rows:
    """The rows of an open file, completed from the image files that are there.

    Attributes:
        contents: the file's.
        dimensions: of its embeddings; None if it has no rows.
        with_file: how many rows so far have a SHA-256.

    """

    def __init__(
        self, contents: Contents, *, root: Path, max_pixels: int, on_progress: OnProgress
    ) -> None:
        self.contents = contents
        first = next(contents.blocks, None)
        self.dimensions = None if first is None else first.embeddings.shape[1]
        self.with_file = 0
        self._blocks = contents.blocks if first is None else chain([first], contents.blocks)
        self._root = root
        self._max_pixels = max_pixels
        self._on_progress = on_progress

    def __iter__(self) -> Iterator[Imported]:
        done = 0
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for block in self._blocks:
                # Normalised like the walk's.
                paths = [
                    scan.absolute(path if is_url(path) else self._root / path)
                    for path in block.paths
                ]
                values: Iterator[tuple[dict[str, Any], Thumbnail | None]] = (
                    (
                        ({name: column[row] for name, column in block.columns.items()}, None)
                        for row in range(len(paths))
                    )
                    if block.columns
                    else pool.map(self._from_file, paths)
                )
                for number, path, embedding, (columns, thumbnail) in zip(
                    block.numbers, paths, block.embeddings, values, strict=True
                ):
                    self.with_file += columns.get("sha256") is not None
                    yield Imported(number, image_id(path), path, embedding, columns, thumbnail)
                done += len(paths)
                self._on_progress("Reading", done, self.contents.rows)

    def _from_file(self, path: str) -> tuple[dict[str, Any], Thumbnail | None]:
        """Return the columns and thumbnail of the image at `path`; none without one."""
        file = scan.find(path)
        if file is None:
            return {}, None
        made = pictures.make(
            path, Wanted(thumbnail=True, may_shrink=True), max_pixels=self._max_pixels
        )
        if not isinstance(made, Made):
            return {}, None
        columns = {name: getattr(file, name) for name in names(OF_FILE)}
        return columns | asdict(made.facts), made.thumbnail


class _Source:
    """A stored collection; see `vecsearch.ingest.formats.base.Source`."""

    def __init__(self, connection: sa.Connection, collection: StoredCollection) -> None:
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
            f"{file} has embeddings of {found:,} dimensions; {made_by} has {expected:,}. "
            "Use another file or another --collection."
        )


def _require_same(file: Path, stored: StoredCollection, origin: Origin, dimensions: int) -> None:
    _require_dimensions(file, dimensions, stored.dimensions, f"collection {stored.name!r}")
    if origin.identity != stored.identity:
        raise EncoderMismatch(
            f"The embeddings of {file} were made by {origin.identity.name}, those of collection "
            f"{stored.name!r} by {stored.identity.name}"
            f"{_other_weights(origin.identity, stored.identity)}, so they cannot be compared. "
            "Name the file's encoder with --model and --weights, or use another --collection."
        )


def _other_weights(one: Identity, other: Identity) -> str:
    return " with other weights" if one.name == other.name else ""
