"""From files to rows: hash, classify, decode, draw, embed, write; one transaction a chunk.

While the encoder works on one chunk, threads hash and decode the files of those behind it.
"""

from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from vecsearch.config import DEFAULT_MAX_PIXELS
from vecsearch.encoders.base import Encoder
from vecsearch.imaging import scan, skipping
from vecsearch.imaging.reading import Source
from vecsearch.imaging.scan import File, Unreadable
from vecsearch.ingest import classify, pending, pruning, scope, writes
from vecsearch.ingest.annotations import labels, metadata
from vecsearch.ingest.annotations.labels import Labels
from vecsearch.ingest.pending import Hashed, ToOpen
from vecsearch.ingest.scope import Scope
from vecsearch.ingest.stages.chunk import Chunk
from vecsearch.ingest.stages.places import Files, Here, Order, Place
from vecsearch.ingest.summary import Outcome, Progress, Summary
from vecsearch.ingest.target import Target
from vecsearch.postgres import catalog, thumbnails
from vecsearch.postgres.rows import analyze, forget_old_changes, image_id, writing
from vecsearch.vocabulary import Confirm, counted, refuse

if TYPE_CHECKING:
    from datetime import datetime

# Files in a transaction: more would save little of its cost, and a kill loses at most this much.
CHUNK_SIZE = 32
# Files hashed between two reports of progress, where that comes before everything else.
EARLY_SIZE = 1_000
# What becomes of files that had no row when the run began.
NEW = {Outcome.added, Outcome.copied}


@dataclass(frozen=True)
class Options:
    """How to ingest.

    Attributes:
        prune: delete rows under the roots whose files are gone.
        confirm: asked before a prune that `vecsearch.ingest.pruning` does not make unasked.
        dry_run: write nothing, decode nothing, say what would be done.
        metadata_file: CSV or JSON lines that fill `metadata`.
        labels: what labels images get.
        max_pixels: pictures with more are recorded as unreadable.
        index_method: of a new collection, for `vecsearch.search.indexes.build.ensure`; None: hnsw.

    """

    prune: bool = False
    confirm: Confirm = refuse
    dry_run: bool = False
    metadata_file: Path | None = None
    labels: Labels = labels.FOLDERS
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
        place: where files are read and embedded, entered and left by the run; None: here.

    Attributes:
        refused: what a prune would have deleted, if that was not confirmed; None otherwise.

    """

    def __init__(
        self,
        connection: sa.Connection,
        name: str,
        walk: scan.Walk,
        encoder: Encoder,
        options: Options,
        place: Place | None = None,
    ) -> None:
        self._connection = connection
        self._name = name
        self._walk = walk
        self._options = options
        self._place = place or Here(encoder, max_pixels=options.max_pixels, devices=walk.devices)
        self._target = Target(connection, name, encoder, options.index_method)
        self._began: datetime | None = None
        self.refused: str | None = None
        self._counts: Counter[Outcome] = Counter()
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
        with self._place:
            total = self._survey()
            if total and not self._options.dry_run:
                self._place.expect(self._target.made_by)
            yield Progress(0, total, self.summary)
            done = 0
            for _ in self._hash_early():
                yield Progress(0, total, self.summary, step="Comparing")
            for chunk in self._chunks():
                self._finish(chunk)
                done += len(chunk)
                yield Progress(done, total, self.summary)
        self._notes = tuple(self._conclude())
        yield Progress(total, total, self.summary)

    @property
    def collection(self) -> catalog.StoredCollection | None:
        """The collection, if there is one yet."""
        return self._target.collection

    @property
    def has_created(self) -> bool:
        """Whether the run, or another at the same time, created the collection."""
        return self._target.has_created

    @property
    def summary(self) -> Summary:
        """What has become of the files so far."""
        return Summary.of(self._counts, self._notes)

    def _survey(self) -> int:
        """Compare the walk with the table, set against set; return how many files to open."""
        with self._connection.begin():
            self._began = self._connection.scalar(sa.func.now().select())
            seen = pending.record_seen(self._connection, self._walk, self._options.labels)
            self._target.find()
            to_open = pending.record_pending(self._connection, self._target.table)
            if not self._options.dry_run:
                scope.forget_errors(self._connection, self._name, self._scope())
                writes.write_errors(self._connection, self._name, self._walk.unreadable, [])
        self._counts[Outcome.unchanged] = seen - to_open
        self._counts[Outcome.failed] = len(self._walk.unreadable)
        return to_open

    def _hash_early(self) -> Iterator[None]:
        """Hash the files that may show a picture whose row is about to be overwritten."""
        with self._connection.begin():
            if self._target.table is None or not pending.record_early(self._connection):
                return
        after = 0
        while True:
            with self._connection.begin():
                files = pending.next_early(self._connection, after, EARLY_SIZE)
            if not files:
                return
            after = files[-1].position
            starts = range(0, len(files), CHUNK_SIZE)
            chunks = [files[start : start + CHUNK_SIZE] for start in starts]
            taken = [self._take(chunk, keep=False) for chunk in chunks]
            for chunk, being_read in zip(chunks, taken, strict=True):
                self._hash(chunk, being_read)
            yield

    def _take(self, files: Sequence[ToOpen], *, keep: bool) -> Files:
        """Begin to read the files that are not hashed yet."""
        return self._place.take([file.path for file in files if not file.is_hashed], keep=keep)

    def _hash(self, files: Sequence[ToOpen], being_read: Files, chunk: int | None = None) -> None:
        """Note the hashes of files, and put them in a chunk, if one is named."""
        found = iter(being_read.read())
        hashed = []
        for file in files:
            item = None if file.is_hashed else next(found)
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

    def _chunks(self) -> Iterator[Chunk]:
        """Yield chunks that are being embedded, each while those behind it are, too.

        Files of further chunks are being read meanwhile, if the place reads more than one at once.
        """
        after = number = 0
        being_read: deque[tuple[Sequence[ToOpen], Files]] = deque()
        in_flight: deque[Chunk] = deque()
        is_last = False
        while True:
            while not is_last and len(being_read) < self._place.reading:
                with self._connection.begin():
                    files = pending.next_files(self._connection, after, CHUNK_SIZE)
                if files:
                    after = files[-1].position
                    taken = self._take(files, keep=not self._options.dry_run)
                    being_read.append((files, taken))
                is_last = not files
            if being_read:
                in_flight.append(self._begin(number, *being_read.popleft(), in_flight))
                number += 1
            is_over = is_last and not being_read
            ahead = 0 if is_over else self._place.ahead
            while len(in_flight) > ahead:
                yield in_flight[0]
                in_flight.popleft()
            if is_over:
                return

    def _begin(
        self,
        number: int,
        files: Sequence[ToOpen],
        being_read: Files,
        in_flight: "deque[Chunk]",
    ) -> Chunk:
        """Decide what to do with a chunk's files, and have new content embedded."""
        self._hash(files, being_read, number)
        table = self._target.table
        missing: set[str] = set()
        with self._connection.begin():
            if table is not None:
                classify.pull_followers(self._connection, number)
            vacant = classify.match_vacant(self._connection, table, number)
            classify.decide(self._connection, table, number, vacant)
            chunk = Chunk(number, *classify.read_chunk(self._connection, number))
            if table is not None and not self._options.dry_run:
                coming = {item.sha256 for flying in in_flight for item in flying.decisions}
                stored = {item.sha256 for item in chunk.decisions if item.source is not None}
                missing = thumbnails.missing(self._connection, stored - coming)
        if not self._options.dry_run:
            chunk.making = being_read.embed(self._order(chunk, missing))
        return chunk

    def _order(self, chunk: Chunk, missing: Collection[str]) -> Order:
        assert self._began is not None  # noqa: S101 - for the type checker
        sources: dict[str, Source] = {}
        unknown: dict[str, None] = {}
        new: list[tuple[File, str]] = []
        needed = set()
        for item in chunk.decisions:
            sources.setdefault(item.sha256, Source(item.file.path, item.sha256))
            if item.source is None:
                unknown[item.sha256] = None
                if self._target.table is not None and item.outcome in NEW:
                    new.append((item.file, item.sha256))
                else:
                    needed.add(item.sha256)
        return Order(
            [sources[digest] for digest in unknown],
            [sources[digest] for digest in missing],
            new,
            needed,
            self._began,
        )

    def _finish(self, chunk: Chunk) -> None:
        """Wait for what is being embedded and store the chunk, all or nothing."""
        failed = {} if self._options.dry_run else self._target.store(chunk)
        self._counts.update(item.outcome for item in chunk.decisions if item.id not in failed)
        self._counts[Outcome.failed] += len(chunk.unreadable) + len(failed)

    def _scope(self) -> Scope:
        return Scope(self._walk.roots, [item.path for item in self._walk.unreadable])

    def _conclude(self) -> Iterator[str]:
        """Prune, set metadata, refresh statistics; yield notes for the user."""
        yield from self._remarks()
        table = self._target.table
        if table is None:
            return
        yield from self._prune(table)
        with self._connection.begin():
            outdated = pending.count_outdated(self._connection)
        if outdated:
            which = f"The files of {counted(outdated, 'row')} cannot be read any more"
            yield f"{which}; the former content stays."
        yield from self._relabel(table)
        if self._options.dry_run:
            return
        if self._options.metadata_file is not None:
            with writing(self._connection, self._name):
                yield from writes.store_metadata(
                    self._connection, table, self._options.metadata_file
                )
        if self._counts[Outcome.pruned] or self._counts[Outcome.updated]:
            with self._connection.begin():
                thumbnails.delete_orphans(self._connection)
        changed = set(Outcome) - {Outcome.unchanged, Outcome.gone, Outcome.failed}
        if any(self._counts[outcome] for outcome in changed):
            with self._connection.begin():
                analyze(self._connection, table)
                forget_old_changes(self._connection, self._name)

    def _remarks(self) -> Iterator[str]:
        yield from skipping.remarks(self._walk.skipped)
        with self._connection.begin():
            yield from self._found_nothing()
            yield from labels.unmatched(self._connection)
        yield from self._target.remarks()

    def _found_nothing(self) -> Iterator[str]:
        """Yield a note on each folder without image files or rows, unless other notes say why."""
        folders = scope.walked_folders(self._connection, self._scope())
        empty = [path for path, is_empty in folders if is_empty]
        if not empty or self._walk.unreadable or self._walk.skipped:
            return
        table = self._target.table
        stored = {} if table is None else scope.count_under(self._connection, table, empty)
        named = dict(zip(self._walk.roots, self._walk.named, strict=True))
        for path in empty:
            if not stored.get(path):
                yield f"No image files in {scan.shown(str(named[path]))}."

    def _relabel(self, table: sa.Table) -> Iterator[str]:
        """Give the labels to images that were stored before; yield a note."""
        if not self._options.labels.are_given:
            return
        if self._options.dry_run:
            with self._connection.begin():
                yield from labels.store(self._connection, table, dry_run=True)
        else:
            with writing(self._connection, self._name):
                yield from labels.store(self._connection, table, dry_run=False)

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
        yield from gone.remarks(self._walk.named, self._name, prune=self._options.prune)
