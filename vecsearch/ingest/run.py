"""From files to rows: hash, look up, decode, draw, embed, write; one transaction a batch.

While the encoder works on one batch, threads hash and decode those behind it. Lookups for a batch
happen before the previous ones are written, so what is in flight is remembered here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import sqlalchemy as sa

from vecsearch.config import DEFAULT_MAX_PIXELS
from vecsearch.encoders.base import Encoder, averaging, unusable
from vecsearch.errors import EncoderMismatch
from vecsearch.imaging import scan
from vecsearch.imaging.decode import Source
from vecsearch.imaging.scan import File, Unreadable
from vecsearch.imaging.thumbnails import Thumbnail
from vecsearch.ingest import metadata, survey, writes
from vecsearch.ingest.batch import Batch
from vecsearch.ingest.pipeline import Encoded, Pipeline
from vecsearch.ingest.survey import Content, Pending
from vecsearch.ingest.writes import Embedded, Known
from vecsearch.postgres import catalog, schema, thumbnails
from vecsearch.postgres.rows import analyze, image_id, lock_collection
from vecsearch.search import collections

# Files a transaction: more would save little of its cost, and a kill loses at most this much.
BATCH_SIZE = 32
# Batches being worked on while one is written: no thread of the encoder's may run out of portions.
AHEAD = 2


@dataclass
class Summary:
    """What became of the files: added + updated + moved + copied + unchanged + failed = files.

    Attributes:
        added: new content at a new path.
        updated: new content at a known path.
        moved: known content at a new path, its old path gone.
        copied: known content at a new path, its old path still there.
        unchanged: known content at a known path.
        pruned: rows removed because their files are gone.
        failed: files and folders that could not be read.
        notes: sentences for the user, complete once the run is done.

    """

    added: int = 0
    updated: int = 0
    moved: int = 0
    copied: int = 0
    unchanged: int = 0
    pruned: int = 0
    failed: int = 0
    notes: tuple[str, ...] = ()

    def counts(self) -> dict[str, int]:
        """Return the counts by name, in order, as commands print them."""
        return {name: value for name, value in vars(self).items() if name != "notes"}


@dataclass(frozen=True)
class Options:
    """How to ingest.

    Attributes:
        prune: delete rows under the roots whose files are gone.
        dry_run: write nothing, decode nothing, say what would be done.
        metadata_file: CSV or JSON lines that fill `metadata`.
        max_pixels: pictures with more are recorded as unreadable.
        index_method: of a new collection, for `vecsearch.search.indexes.build.ensure`; None: hnsw.

    """

    prune: bool = False
    dry_run: bool = False
    metadata_file: Path | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    index_method: str | None = None


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        done, total: files to open; what is unchanged, and has a thumbnail, is not among them.
        summary: the counts so far.
        step: what is being done, in a word or two.

    """

    done: int
    total: int
    summary: Summary
    step: str = "Ingesting"


class Ingest:
    """One run over a walk's files; iterate it to make it happen.

    A collection that it makes has no index: `vecsearch.search.indexes.build.ensure` builds that
    afterwards, for a fourth of what it takes to add row by row; also after a run that was killed.

    Args:
        connection: a session of its own, outside any transaction.
        name: the collection; made with the first batch that has something to store.
        walk: the files.
        encoder: used, and so loaded, only if there is new content.
        options: how.

    """

    def __init__(
        self,
        connection: sa.Connection,
        name: str,
        walk: scan.Walk,
        encoder: Encoder,
        options: Options,
    ) -> None:
        self._connection = connection
        self._name = schema.require_collection_name(name)
        self._walk = walk
        self._encoder = encoder
        self._options = options
        self._collection: catalog.StoredCollection | None = None
        self._table: sa.Table | None = None
        self._in_flight: list[Batch] = []
        self._claimed: set[UUID] = set()
        self._broken: dict[tuple[UUID, str], str] = {}
        self._predicted: dict[str, UUID] = {}
        self._outdated: set[UUID] = set()
        self._note_of_layer: str | None = None
        self._not_drawn: list[Unreadable] = []
        self.summary = Summary()

    def __iter__(self) -> Iterator[Progress]:
        """Ingest, yielding progress after each batch.

        Raises:
            VecsearchError: whatever stops a run; what was committed stays, and a next run
                carries on.

        """
        if self._options.metadata_file is not None:
            for _ in metadata.read_records(self._options.metadata_file):
                pass  # a bad line is found before anything is written
        total = self._survey()
        yield Progress(0, total, self.summary)
        done = 0
        with Pipeline(self._encoder, max_pixels=self._options.max_pixels) as pipeline:
            for batch in self._batches(pipeline):
                self._write(batch)
                done += len(batch.counts) + len(batch.failed)
                yield Progress(done, total, self.summary)
        self.summary.notes = tuple(self._conclude())
        yield Progress(total, total, self.summary)

    @property
    def collection(self) -> catalog.StoredCollection | None:
        """The collection, if there is one yet."""
        return self._collection

    def _survey(self) -> int:
        """Compare the walk with the table, set against set; return how many files to open."""
        with self._connection.begin():
            seen = survey.record_seen(self._connection, self._walk)
            self._collection = self._find_collection()
            if self._collection is not None:
                collections.require_index_method(self._collection, self._options.index_method)
            self._table = self._collection.table if self._collection else None
            pending = survey.record_pending(self._connection, self._table)
            if not self._options.dry_run:
                survey.forget_errors(self._connection, self._name, self._scope())
            self._record_failures(self._walk.unreadable, read=[])
        self.summary.unchanged = seen - pending
        self.summary.failed = len(self._walk.unreadable)
        return pending

    def _find_collection(self) -> catalog.StoredCollection | None:
        exists = self._connection.scalar(
            sa.select(sa.func.to_regclass(schema.collections.fullname))
        )
        # A dry run may meet a database that has no tables yet.
        return catalog.find_collection(self._connection, self._name) if exists else None

    def _batches(self, pipeline: Pipeline) -> Iterator[Batch]:
        """Yield batches that are being embedded, each while those behind it are, too."""
        after = 0
        while True:
            with self._connection.begin():
                files = survey.next_pending(self._connection, after, BATCH_SIZE)
            if files:
                after = files[-1].position
                self._in_flight.append(self._sort(files, pipeline))
            ahead = AHEAD if files else 0
            while len(self._in_flight) > ahead:
                yield self._in_flight[0]
                landed = self._in_flight.pop(0)
                if self._options.dry_run:
                    # Nothing was written, so lookups will not find what would have been.
                    self._predicted.update(landed.sources)
                    self._outdated |= landed.overwritten
            if not files:
                return

    def _sort(self, files: list[Pending], pipeline: Pipeline) -> Batch:
        """Decide for each file what is to be done, and have new content embedded."""
        batch = Batch()
        self_and_ahead = [*self._in_flight, batch]
        hashes: dict[UUID, str] = {}
        readable: list[tuple[Pending, str]] = []
        read: dict[str, Source] = {}
        paths = [item.file.path for item in files]
        sources = pipeline.read(paths, keep=not self._options.dry_run)
        for item, source in zip(files, sources, strict=True):
            if isinstance(source, Unreadable):
                batch.failed.append(source)
            else:
                read[source.path] = source
                readable.append((item, source.sha256))
                hashes[image_id(item.file.path)] = source.sha256
        contents: dict[str, list[Content]] = {}
        if self._table is not None and hashes:
            with self._connection.begin():
                contents = writes.find_contents(self._connection, self._table, hashes.values())
        for item, digest in readable:
            row_id = image_id(item.file.path)
            rows = contents.get(digest, [])
            if item.stored and digest != item.sha256 and all(row.id != row_id for row in rows):
                batch.overwritten.add(row_id)
        stale = self._outdated.union(*(flying.overwritten for flying in self_and_ahead))
        for item, digest in readable:
            rows = [row for row in contents.get(digest, ()) if row.id not in stale]
            self._place(batch, item, digest, rows)
        batch.encoded = pipeline.embed([read[file.path] for file, _ in batch.embed])
        if self._table is not None and not self._options.dry_run:
            self._draw(batch, {source.sha256: source for source in read.values()}, pipeline)
        return batch

    def _draw(self, batch: Batch, sources: dict[str, Source], pipeline: Pipeline) -> None:
        """Have thumbnails made of stored contents, here by SHA-256, that lack one."""
        coming = {digest for _, digest in batch.embed}
        coming.update(*(flying.sources for flying in self._in_flight))
        with self._connection.begin():
            missing = thumbnails.missing(self._connection, sources.keys() - coming)
        batch.draw += [pipeline.draw(sources[digest]) for digest in missing]

    def _place(self, batch: Batch, item: Pending, digest: str, rows: list[Content]) -> None:
        row_id = image_id(item.file.path)
        gone = None if item.stored else self._gone(item, rows)
        if digest in self._predicted:
            rows = [*rows, Content(self._predicted[digest], item.file.path)]
        in_flight = [
            flying.sources[digest] for flying in self._in_flight if digest in flying.sources
        ]
        unclaimed = [row.id for row in rows if row.id not in self._claimed]
        source = next(iter([*in_flight, *unclaimed]), None)
        source = batch.origins.get(digest, source)
        known: Known | None = None
        if digest == item.sha256:
            outcome = "unchanged"
            batch.unwritten.append(item.file.path)
        elif any(row.id == row_id for row in rows):
            outcome, known = "unchanged", Known(item.file, digest, row_id)  # only touched
        elif gone is not None:
            self._claimed.add(gone)
            outcome, known = "moved", Known(item.file, digest, gone, moved=True)
        elif source is not None:
            outcome = "updated" if item.stored else "copied"
            known = Known(item.file, digest, source)
        else:
            outcome = "updated" if item.stored else "added"
            if not self._options.dry_run:
                batch.embed.append((item.file, digest))
        batch.counts[row_id] = outcome
        batch.sources.setdefault(digest, row_id)
        batch.origins.setdefault(digest, row_id if known is None else known.source)
        if known is not None:
            batch.known.append(known)

    def _gone(self, item: Pending, rows: list[Content]) -> UUID | None:
        """Return a row of this content whose file is gone: by preference one of the same name."""
        left = [row for row in rows if row.id not in self._claimed]
        left.sort(key=lambda row: Path(row.path).name != item.file.name)
        return next((row.id for row in left if scan.is_gone(row.path)), None)

    def _write(self, batch: Batch) -> None:
        """Wait for what is being embedded and store the batch, all or nothing."""
        if not self._options.dry_run:
            rows, drawn = self._embedded(batch)
            drawn += self._drawn(batch)
            known = [row for row in batch.known if not self._breaks(batch, row)]
            with self._connection.begin():
                lock_collection(self._connection, self._name)
                thumbnails.hold(self._connection)
                if rows and self._table is None:
                    self._create_collection()
                if self._table is not None and rows:
                    writes.write_embedded(self._connection, self._table, rows)
                if self._table is not None and known:
                    writes.write_known(self._connection, self._table, known)
                if drawn:
                    thumbnails.store(self._connection, drawn)
                read = [row.file.path for row in rows] + [row.file.path for row in known]
                self._record_failures(batch.failed, read + batch.unwritten)
        for outcome in batch.counts.values():
            setattr(self.summary, outcome, getattr(self.summary, outcome) + 1)
        self.summary.failed += len(batch.failed)

    def _embedded(self, batch: Batch) -> tuple[list[Embedded], list[Thumbnail]]:
        rows, drawn = [], []
        results = (result for portion in batch.encoded for result in portion.result())
        for (file, digest), result in zip(batch.embed, results, strict=True):
            reason = unusable(result.embedding) if isinstance(result, Encoded) else result.reason
            if isinstance(result, Encoded) and reason is None:
                rows.append(Embedded(file, result.facts, result.embedding))
                drawn.append(result.thumbnail)
            elif reason is not None:
                self._fail(batch, file, digest, reason)
        return rows, drawn

    def _drawn(self, batch: Batch) -> list[Thumbnail]:
        results = [drawing.result() for drawing in batch.draw]
        self._not_drawn += [item for item in results if isinstance(item, Unreadable)]
        return [item for item in results if isinstance(item, Thumbnail)]

    def _breaks(self, batch: Batch, row: Known) -> bool:
        """Fail a file whose content was to come from one that turned out to be unreadable."""
        reason = self._broken.get((row.source, row.sha256))
        if reason is not None:
            self._fail(batch, row.file, row.sha256, reason)
        return reason is not None

    def _fail(self, batch: Batch, file: File, digest: str, reason: str) -> None:
        row_id = image_id(file.path)
        self._broken[row_id, digest] = reason
        del batch.counts[row_id]
        batch.failed.append(Unreadable(file.path, reason))

    def _record_failures(self, failed: list[Unreadable], read: list[str]) -> None:
        if not self._options.dry_run:
            writes.write_errors(self._connection, self._name, failed, read)

    def _create_collection(self) -> None:
        encoder = self._encoder
        self._collection = collections.create(
            self._connection,
            self._name,
            encoder.identity,
            encoder.weights,
            encoder.dimensions,
            index_method=self._options.index_method,
        )
        if self._collection.identity != encoder.identity:
            raise EncoderMismatch(
                f"Another command has just made collection {self._name!r} with another encoder. "
                "Use a collection of its own: --collection NAME"
            )
        self._table = self._collection.table
        self._note_of_layer = averaging(encoder)

    def _scope(self) -> survey.Scope:
        return survey.Scope(self._walk.roots, [item.path for item in self._walk.unreadable])

    def _gone_rows(self) -> list[UUID]:
        """Return the rows under the roots whose files were not seen and are not there."""
        assert self._table is not None  # noqa: S101 - for the type checker
        with self._connection.begin():
            unseen = survey.unseen_rows(self._connection, self._table, self._scope())
        return [row.id for row in unseen if row.id not in self._claimed and scan.is_gone(row.path)]

    def _conclude(self) -> Iterator[str]:
        """Prune, set metadata, refresh statistics; yield notes for the user."""
        if self._walk.skipped:
            yield f"Skipped {_counted(self._walk.skipped, 'file')} without an image suffix."
        if self._note_of_layer is not None:
            yield self._note_of_layer
        if self._not_drawn:
            undrawn = self._not_drawn[0]
            yield (
                f"No thumbnail could be made of {_counted(len(self._not_drawn), 'stored image')}. "
                f"The first is {undrawn.path}: {undrawn.reason}"
            )
        if self._table is None:
            return
        gone = self._gone_rows() if self._options.prune else []
        self.summary.pruned = len(gone)
        if self._options.dry_run:
            return
        with self._connection.begin():
            lock_collection(self._connection, self._name)
            survey.delete_rows(self._connection, self._table, gone)
            if self._options.metadata_file is not None:
                records = metadata.read_records(self._options.metadata_file)
                changed, unmatched, first = writes.write_metadata(
                    self._connection, self._table, records
                )
                yield f"Set the metadata of {_counted(changed, 'image')}."
                if first is not None:
                    yield _unmatched(self._options.metadata_file.name, unmatched, first)
        if self.summary.pruned or self.summary.updated:
            with self._connection.begin():
                thumbnails.delete_orphans(self._connection)
        if any(count for name, count in self.summary.counts().items() if name != "unchanged"):
            with self._connection.begin():
                analyze(self._connection, self._table)


def _unmatched(file: str, count: int, first: metadata.Record) -> str:
    lines = f"{_counted(count, 'line')} of {file} matched no image"
    if count == 1:
        return f"{lines}: line {first.line}, `{first.key}`."
    return f"{lines}. The first is line {first.line}, `{first.key}`."


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
