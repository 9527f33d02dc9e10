"""From files to rows: hash, classify, decode, draw, embed, write; one transaction a chunk.

While the encoder works on one chunk, threads hash and decode the files of those behind it.
"""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import sqlalchemy as sa

from vecsearch.config import DEFAULT_MAX_PIXELS
from vecsearch.encoders.base import Encoder, averaging, unusable
from vecsearch.errors import EncoderMismatch
from vecsearch.imaging import scan
from vecsearch.imaging.reading import Source
from vecsearch.imaging.scan import Unreadable
from vecsearch.imaging.thumbnails import Thumbnail
from vecsearch.ingest import classify, metadata, pending, pruning, scope, writes
from vecsearch.ingest.chunk import Chunk
from vecsearch.ingest.pending import Hashed, ToOpen
from vecsearch.ingest.pipeline import Encoded, Pipeline
from vecsearch.ingest.scope import Scope
from vecsearch.ingest.summary import Outcome, Progress, Summary
from vecsearch.ingest.writes import Embedded
from vecsearch.postgres import catalog, tables, thumbnails
from vecsearch.postgres.rows import analyze, forget_old_changes, image_id, writing
from vecsearch.search import collections
from vecsearch.vocabulary import Confirm, counted, refuse

# Files in a transaction: more would save little of its cost, and a kill loses at most this much.
CHUNK_SIZE = 32
# Chunks on their way while one is written: no thread of the encoder may run out of batches.
AHEAD = 2
# Files hashed between two reports of progress, where that comes before everything else.
EARLY_SIZE = 1_000


@dataclass(frozen=True)
class Options:
    """How to ingest.

    Attributes:
        prune: delete rows under the roots whose files are gone.
        confirm: asked before a prune that `vecsearch.ingest.pruning` does not make unasked.
        dry_run: write nothing, decode nothing, say what would be done.
        metadata_file: CSV or JSON lines that fill `metadata`.
        max_pixels: pictures with more are recorded as unreadable.
        index_method: of a new collection, for `vecsearch.search.indexes.build.ensure`; None: hnsw.

    """

    prune: bool = False
    confirm: Confirm = refuse
    dry_run: bool = False
    metadata_file: Path | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    index_method: str | None = None


class Ingest:
    """One run over a walk's files; iterate it to make it happen.

    A collection that it makes has no index: `vecsearch.search.indexes.build.ensure` builds that
    afterwards, for a fourth of what it takes to add row by row; also after a run that was killed.

    Args:
        connection: a session of its own, outside any transaction.
        name: the collection; made with the first chunk that has something to store.
        walk: the files.
        encoder: used, and so loaded, only if there is new content.
        options: how.

    Attributes:
        has_created: whether the run, or another at the same time, created the collection.
        refused: what a prune would have deleted, if that was not confirmed; None otherwise.

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
        self._name = name
        self._walk = walk
        self._encoder = encoder
        self._options = options
        self._collection: catalog.StoredCollection | None = None
        self.has_created = False
        self.refused: str | None = None
        self._counts: Counter[Outcome] = Counter()
        self._not_drawn: list[Unreadable] = []
        self._note_of_layer: str | None = None
        self._notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Progress]:
        """Ingest, yielding progress after each chunk.

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
        most, devices = self._options.max_pixels, self._walk.devices
        with Pipeline(self._encoder, max_pixels=most, devices=devices) as pipeline:
            for _ in self._hash_early(pipeline):
                yield Progress(0, total, self.summary, step="Comparing")
            for chunk in self._chunks(pipeline):
                self._finish(chunk)
                done += len(chunk)
                yield Progress(done, total, self.summary)
        self._notes = tuple(self._conclude())
        yield Progress(total, total, self.summary)

    @property
    def collection(self) -> catalog.StoredCollection | None:
        """The collection, if there is one yet."""
        return self._collection

    @property
    def summary(self) -> Summary:
        """What has become of the files so far."""
        return Summary.of(self._counts, self._notes)

    @property
    def _table(self) -> sa.Table | None:
        return None if self._collection is None else self._collection.table

    def _survey(self) -> int:
        """Compare the walk with the table, set against set; return how many files to open."""
        with self._connection.begin():
            seen = pending.record_seen(self._connection, self._walk)
            self._collection = self._find_collection()
            if self._collection is not None:
                collections.require_index_method(self._collection, self._options.index_method)
            to_open = pending.record_pending(self._connection, self._table)
            if not self._options.dry_run:
                scope.forget_errors(self._connection, self._name, self._scope())
                writes.write_errors(self._connection, self._name, self._walk.unreadable, [])
        self._counts[Outcome.unchanged] = seen - to_open
        self._counts[Outcome.failed] = len(self._walk.unreadable)
        return to_open

    def _find_collection(self) -> catalog.StoredCollection | None:
        exists = self._connection.scalar(
            sa.select(sa.func.to_regclass(tables.collections.fullname))
        )
        # A dry run may meet a database that has no tables yet.
        return catalog.find_collection(self._connection, self._name) if exists else None

    def _hash_early(self, pipeline: Pipeline) -> Iterator[None]:
        """Hash the files that may show a picture whose row is about to be overwritten."""
        with self._connection.begin():
            if self._table is None or not pending.record_early(self._connection):
                return
        after = 0
        while True:
            with self._connection.begin():
                files = pending.next_early(self._connection, after, EARLY_SIZE)
            if not files:
                return
            self._hash(files, pipeline)
            after = files[-1].position
            yield

    def _hash(
        self,
        files: Sequence[ToOpen],
        pipeline: Pipeline,
        chunk: int | None = None,
        *,
        keep: bool = False,
    ) -> dict[str, Source]:
        """Hash files that are not hashed yet, and put them in a chunk, if one is named.

        Returns:
            Those that could be read, by path, with their bytes if they are to be kept.

        """
        opened = pipeline.read([file.path for file in files if not file.is_hashed], keep=keep)
        read: dict[str, Source] = {}
        hashed = []
        for file in files:
            item = None if file.is_hashed else next(opened)
            if isinstance(item, Source):
                read[file.path] = item
            hashed.append(
                Hashed(
                    file.position,
                    image_id(file.path),
                    item.sha256 if isinstance(item, Source) else None,
                    item.reason if isinstance(item, Unreadable) else None,
                )
            )
        with self._connection.begin():
            pending.record_hashes(self._connection, hashed, chunk)
        return read

    def _chunks(self, pipeline: Pipeline) -> Iterator[Chunk]:
        """Yield chunks that are being embedded, each while those behind it are, too."""
        after = number = 0
        in_flight: deque[Chunk] = deque()
        while True:
            with self._connection.begin():
                files = pending.next_files(self._connection, after, CHUNK_SIZE)
            if files:
                after = files[-1].position
                in_flight.append(self._begin(number, files, in_flight, pipeline))
                number += 1
            ahead = AHEAD if files else 0
            while len(in_flight) > ahead:
                yield in_flight[0]
                in_flight.popleft()
            if not files:
                return

    def _begin(
        self,
        number: int,
        files: Sequence[ToOpen],
        in_flight: "deque[Chunk]",
        pipeline: Pipeline,
    ) -> Chunk:
        """Decide what to do with a chunk's files, and have new content embedded."""
        dry_run = self._options.dry_run
        read = self._hash(files, pipeline, number, keep=not dry_run)
        table = self._table
        missing: set[str] = set()
        with self._connection.begin():
            if table is not None:
                classify.pull_followers(self._connection, number)
            vacant = classify.match_vacant(self._connection, table, number)
            classify.decide(self._connection, table, number, vacant)
            chunk = Chunk(number, *classify.read_chunk(self._connection, number))
            if table is not None and not dry_run:
                coming = {item.sha256 for flying in in_flight for item in flying.decisions}
                stored = {item.sha256 for item in chunk.decisions if item.source is not None}
                missing = thumbnails.missing(self._connection, stored - coming)
        if dry_run:
            return chunk
        sources: dict[str, Source] = {}
        new: dict[str, None] = {}
        for item in chunk.decisions:
            # What was hashed early is read again.
            source = read.get(item.file.path, Source(item.file.path, item.sha256))
            sources.setdefault(item.sha256, source)
            if item.source is None:
                new[item.sha256] = None
        chunk.contents = [*new]
        chunk.embedding = pipeline.embed([sources[digest] for digest in chunk.contents])
        chunk.drawing = [pipeline.draw(sources[digest]) for digest in missing]
        return chunk

    def _finish(self, chunk: Chunk) -> None:
        """Wait for what is being embedded and store the chunk, all or nothing."""
        failed = {} if self._options.dry_run else self._store(chunk)
        self._counts.update(item.outcome for item in chunk.decisions if item.id not in failed)
        self._counts[Outcome.failed] += len(chunk.unreadable) + len(failed)

    def _store(self, chunk: Chunk) -> dict[UUID, str]:
        """Store the chunk; return why files turned out to be unreadable, by id."""
        results = [result for batch in chunk.embedding for result in batch.result()]
        encoded: dict[str, Encoded] = {}
        reasons: dict[str, str] = {}
        for digest, result in zip(chunk.contents, results, strict=True):
            reason = unusable(result.embedding) if isinstance(result, Encoded) else result.reason
            if isinstance(result, Encoded) and reason is None:
                encoded[digest] = result
            elif reason is not None:
                reasons[digest] = reason
        drawn = [item.thumbnail for item in encoded.values()] + self._drawn(chunk)
        with writing(self._connection, self._name):
            thumbnails.hold(self._connection)
            failed = pending.record_failures(self._connection, chunk.number, reasons)
            if encoded and self._collection is None:
                self._create_collection()
            if self._table is not None:
                chunk.overtake(
                    pending.record_overtaken(self._connection, self._table, chunk.number)
                )
            readable = [item for item in chunk.decisions if item.id not in failed]
            written = [item for item in readable if item.is_written]
            embedded = [
                Embedded(item.file, encoded[item.sha256].facts, encoded[item.sha256].embedding)
                for item in written
                if item.source is None
            ]
            known = [item for item in written if item.source is not None]
            if self._table is not None:
                writes.write_files(self._connection, self._table, embedded, known)
            if drawn:
                thumbnails.store(self._connection, drawn)
            unreadable = [
                Unreadable(item.file.path, failed[item.id])
                for item in chunk.decisions
                if item.id in failed
            ]
            writes.write_errors(
                self._connection,
                self._name,
                [*chunk.unreadable, *unreadable],
                [item.file.path for item in readable],
            )
        return failed

    def _drawn(self, chunk: Chunk) -> list[Thumbnail]:
        results = [drawing.result() for drawing in chunk.drawing]
        self._not_drawn += [item for item in results if isinstance(item, Unreadable)]
        return [item for item in results if isinstance(item, Thumbnail)]

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
        self.has_created = True
        if self._collection.identity != encoder.identity:
            raise EncoderMismatch(
                f"Another command has just made collection {self._name!r} with another encoder. "
                "Use a collection of its own: --collection NAME"
            )
        self._note_of_layer = averaging(encoder)

    def _scope(self) -> Scope:
        return Scope(self._walk.roots, [item.path for item in self._walk.unreadable])

    def _conclude(self) -> Iterator[str]:
        """Prune, set metadata, refresh statistics; yield notes for the user."""
        yield from self._remarks()
        if self._table is None:
            return
        yield from self._prune(self._table)
        with self._connection.begin():
            outdated = pending.count_outdated(self._connection)
        if outdated:
            which = f"The files of {counted(outdated, 'row')} cannot be read any more"
            yield f"{which}; the former content stays."
        if self._options.dry_run:
            return
        if self._options.metadata_file is not None:
            with writing(self._connection, self._name):
                yield from writes.store_metadata(
                    self._connection, self._table, self._options.metadata_file
                )
        if self._counts[Outcome.pruned] or self._counts[Outcome.updated]:
            with self._connection.begin():
                thumbnails.delete_orphans(self._connection)
        changed = set(Outcome) - {Outcome.unchanged, Outcome.gone, Outcome.failed}
        if any(self._counts[outcome] for outcome in changed):
            with self._connection.begin():
                analyze(self._connection, self._table)
                forget_old_changes(self._connection, self._name)

    def _remarks(self) -> Iterator[str]:
        if self._walk.skipped:
            yield f"Skipped {counted(self._walk.skipped, 'file')} without an image suffix."
        if self._note_of_layer is not None:
            yield self._note_of_layer
        if self._not_drawn:
            item = self._not_drawn[0]
            yield (
                f"No thumbnail could be made of {counted(len(self._not_drawn), 'stored image')}. "
                f"The first is {item.path}: {item.reason}"
            )

    def _prune(self, table: sa.Table) -> Iterator[str]:
        """Count the rows whose files are gone, and delete them if told to; yield notes."""
        with self._connection.begin():
            gone = pruning.find(self._connection, table, self._scope())
        pruned = 0
        if self._options.prune and gone.paths:
            question = gone.question()
            if self._options.dry_run:
                pruned = len(gone.paths)
            elif question is None or self._options.confirm(question):
                with writing(self._connection, self._name):
                    pruned = pruning.delete(self._connection, table, self._scope(), gone)
            else:
                self.refused = question
        self._counts[Outcome.pruned] = pruned
        self._counts[Outcome.gone] = len(gone.paths) - pruned
        yield from gone.remarks(prune=self._options.prune)
