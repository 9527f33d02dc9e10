"""What runs on a node of a Ray cluster: it reads and embeds files, and adds their rows."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from vecsearch import __version__
from vecsearch.config import Runtime, Settings
from vecsearch.encoders import registry
from vecsearch.encoders.base import Encoder, LazyEncoder, package_of
from vecsearch.encoders.openvino.cache import Exported
from vecsearch.errors import (
    DatabaseUnavailable,
    EncoderError,
    InvalidInput,
    WeightsUnavailable,
    first_line,
)
from vecsearch.imaging import stalls
from vecsearch.imaging.reading import Source
from vecsearch.imaging.scan import Unreadable
from vecsearch.imaging.stalls import Devices
from vecsearch.ingest import writes
from vecsearch.ingest.stages.pipeline import Encoded
from vecsearch.ingest.stages.places import FilesHere, Here, MadeBy, Order, Product
from vecsearch.ingest.writes import Embedded
from vecsearch.postgres import catalog, database, migrate, quantized, thumbnails
from vecsearch.postgres.rows import image_id, writing
from vecsearch.postgres.sessions import hosts


@dataclass(frozen=True)
class Setup:
    """What an actor is given when it starts.

    Attributes:
        version: of the vecsearch that runs the ingest.
        url: the database's.
        collection: its name.
        roots: the paths that are ingested; URLs are not among them.
        settings: of that vecsearch, without the database's URL.

    """

    version: str
    url: str = field(repr=False)
    collection: str
    roots: Sequence[str]
    settings: Settings = field(repr=False)

    @property
    def runtime(self) -> Runtime:
        """How encoders run; a cache folder that nobody has named is the node's own."""
        return self.settings.runtime


@dataclass(frozen=True)
class Task:
    """An order for an actor.

    Attributes:
        order: what is to be made.
        made_by: the encoder.
        is_repeated: whether it was given to another actor before, which may have ended after it
            had added the rows.

    """

    order: Order
    made_by: MadeBy
    is_repeated: bool


class Actor:
    """Reads, embeds and adds files; its methods are called from several threads.

    Chunks are known by numbers that the caller chooses.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._made_by: MadeBy | None = None
        self._chunks: dict[int, FilesHere] = {}
        self._engine = database.open_engine(_named(setup.url))
        self._encoder = LazyEncoder(self._load)
        self._here = Here(self._encoder, max_pixels=setup.settings.max_pixels, devices=Devices())

    def close(self) -> None:
        """Disconnect, and end the threads."""
        self._here.__exit__()
        self._engine.dispose()

    def check(self) -> None:
        """Check that this node can do its part.

        Raises:
            InvalidInput: it cannot; the message says why, and names the node.

        """
        setup, node = self._setup, platform.node()
        if setup.version != __version__:
            raise InvalidInput(
                f"Node {node} has vecsearch {__version__}, and this command is {setup.version}. "
                "Install the same version on every node."
            )
        seen = stalls.answers(setup.roots, os.path.exists, unanswered=False)
        for root, is_seen in zip(setup.roots, seen, strict=True):
            if not is_seen:
                raise InvalidInput(
                    f"Node {node} does not see {root}. Put the pictures where every node sees them "
                    "under the same path, or in a bucket, and give its URL."
                )
        try:
            with database.session(self._engine):
                pass
        except DatabaseUnavailable as error:
            raise InvalidInput(
                f"Node {node} cannot use the database: {first_line(error).partition('. ')[0]}. "
                "Set --database-url to one that every node reaches."
            ) from error

    def prepare(self, made_by: MadeBy) -> None:
        """Load the encoder before there is something to embed.

        Raises:
            VecsearchError: as `embed` will.

        """
        self._made_by = made_by
        _ = self._encoder.preprocessing

    def read(self, number: int, paths: Sequence[str], *, keep: bool) -> list[Source | Unreadable]:
        """Read and hash files; see `vecsearch.ingest.stages.places.Files.read`."""
        taken = self._here.take(paths, keep=keep)
        found = taken.read()
        if keep:
            self._chunks[number] = taken
        return found

    def embed(self, number: int, task: Task) -> Product:
        """Embed files, and add the new ones; bytes that were kept of other files are dropped."""
        self._made_by = task.made_by
        # Those of an actor that has ended are read again.
        taken = self._chunks.pop(number, None) or self._here.take([], keep=True)
        order = task.order
        product = taken.embed(order).result()
        encoded = product.encoded
        files = [
            Embedded(file, encoded[digest].facts, encoded[digest].embedding)
            for file, digest in order.new
            if digest in encoded
        ]
        added = self._add(files, encoded, task) if files else frozenset()
        needed = {digest for file, digest in order.new if image_id(file.path) not in added}
        needed |= order.needed
        returned = {digest: one for digest, one in encoded.items() if digest in needed}
        return Product(returned, product.reasons, product.drawn, added)

    def forget(self, number: int) -> None:
        """Drop the bytes that were kept of a chunk's files."""
        self._chunks.pop(number, None)

    def _add(
        self, files: Sequence[Embedded], encoded: dict[str, Encoded], task: Task
    ) -> frozenset[UUID]:
        name = self._setup.collection
        with (
            database.session(self._engine) as connection,
            writing(connection, name, adding=True),
        ):
            thumbnails.hold(connection)
            table = catalog.get_collection(connection, name).table
            since = task.order.since if task.is_repeated else None
            added = writes.add_files(connection, table, files, since=since)
            stored = [row for row in files if image_id(row.file.path) in added]
            drawn = [encoded[digest].thumbnail for digest in {row.facts.sha256 for row in stored}]
            if drawn:
                thumbnails.store(connection, drawn)
            writes.write_errors(connection, name, [], [row.file.path for row in stored])
        return added

    def _load(self) -> Encoder:
        """Make the encoder of the run.

        Raises:
            EncoderError: this node cannot; the message names it.

        """
        made_by, node = self._made_by, platform.node()
        assert made_by is not None  # noqa: S101 - it is asked for when something is embedded
        source = made_by.weights.source
        try:
            encoder = registry.for_collection(
                self._setup.collection,
                made_by.identity,
                made_by.weights,
                model=None,
                weights=None,
                runtime=self._setup.runtime,
                quantized=self._find_quantized,
            )
            _ = encoder.identity
        except EncoderError as error:
            if source is not None and package_of(source) is None and not Path(source).is_file():
                raise WeightsUnavailable(
                    f"Node {node} has no file {source}. Put the weights there on every node."
                ) from error
            reason = first_line(error).partition(". ")[0]
            raise EncoderError(
                f"Node {node} cannot make this run's encoder: {reason}. Install the same packages "
                "and weights on every node."
            ) from error
        return encoder

    def _find_quantized(self, precision: str) -> Exported | None:
        with migrate.reading_current(self._engine) as connection:
            return quantized.find(connection, precision)


def _named(url: str) -> str:
    """Return the database's URL with a name for the sessions of actors, unless it has one."""
    parsed = hosts.parse(url)
    if "application_name" not in parsed.query:
        name = f"vecsearch worker (PID {os.getpid()} on {platform.node()[:30]})"
        parsed = parsed.update_query_dict({"application_name": name})
    return parsed.render_as_string(hide_password=False)
