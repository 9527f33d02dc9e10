"""A pool of actors on a Ray cluster, as the place where a run's files are read and embedded.

A chunk is bound to the actor that reads it, which keeps the bytes of its small files until they are
embedded. The chunks of an actor that ends go to others, which read the files again.
"""

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from time import monotonic
from typing import Any, Self

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vecsearch.errors import ClusterUnavailable, InvalidInput, first_line
from vecsearch.imaging.reading import Source
from vecsearch.imaging.scan import Unreadable
from vecsearch.imaging.sources.remote import is_url
from vecsearch.ingest.stages.actor import Actor, Setup, Task
from vecsearch.ingest.stages.places import MadeBy, Order, Product

# For each actor, chunks to be read at once, and chunks on their way while one is written.
READING, AHEAD = 2, 3
# Calls that an actor serves at once, so that its encoder never waits for a file or a COPY.
CALLS = 8
# How long to wait for a first actor, or for another one when none is left.
JOIN_S = 60.0
# After how long that is said; an actor may take seconds to start.
SAY_AFTER_S = 20.0
# Between two looks at which nodes there are.
LOOK_S = 5.0
POLL_S = 0.5
# Actors that may end over one chunk, or while they start on one node, before that is given up.
ATTEMPTS = 3
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Member:
    """An actor.

    Attributes:
        handle: Ray's.
        node: the id of its node.
        ready: the answer to whether it can do its part.
        chunks: how many it has.

    """

    handle: Any
    node: str
    ready: Any
    chunks: int = 0


class Ended(Exception):
    """An actor has ended, or does not answer any more."""


@dataclass
class Pool:
    """The actors of one run; see `Place`. They are asked for early, and killed in the end.

    One runs on each GPU, or on each node without one, as an encoder uses all cores of a node. Ray
    starts them as it has room for them; more come when nodes join.

    Args:
        setup: what each is given.
        connection: done once Ray is connected to, or has been started.

    """

    setup: Setup
    connection: Future[None]
    _made_by: Future[MadeBy] | None = None
    _starting: list[Member] = field(default_factory=list)
    _members: list[Member] = field(default_factory=list)
    _failures: Counter[str] = field(default_factory=Counter)
    _numbers: "count[int]" = field(default_factory=count)
    _looked: float = -LOOK_S

    def __enter__(self) -> Self:
        if self.connection.done():
            self._look()
        return self

    def __exit__(self, *_: object) -> None:
        for member in (*self._members, *self._starting):
            _kill(member)
        self._members.clear()
        self._starting.clear()

    @property
    def reading(self) -> int:
        """See `Place`."""
        return READING * max(1, len(self._members))

    @property
    def ahead(self) -> int:
        """See `Place`."""
        return AHEAD * max(1, len(self._members))

    @property
    def made_by(self) -> MadeBy:
        """The encoder; waited for while it is loaded here.

        Raises:
            VecsearchError: it cannot be.

        """
        assert self._made_by is not None  # noqa: S101 - a run tells it before it embeds
        return self._made_by.result()

    def expect(self, made_by: Callable[[], MadeBy]) -> None:
        """See `Place`."""
        told: Future[MadeBy] = Future()
        self._made_by = told

        def load() -> None:
            try:
                told.set_result(made_by())
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                told.set_exception(error)

        threading.Thread(target=load, daemon=True).start()

    def take(self, paths: Sequence[str], *, keep: bool) -> "RemoteFiles":
        """See `Place`."""
        return RemoteFiles(self, next(self._numbers), paths, keep=keep)

    def member(self) -> Member:
        """Return the actor with the fewest chunks.

        Raises:
            ClusterUnavailable: there is none, and none comes.
            InvalidInput: a node cannot do its part.

        """
        self.connection.result()
        until, say_at = monotonic() + JOIN_S, monotonic() + SAY_AFTER_S
        self._look()
        self._join(0)
        while not self._members:
            if monotonic() > until:
                raise ClusterUnavailable(
                    f"No worker of the Ray cluster is free, and none became so within {JOIN_S:.0f} "
                    "s. See `ray status`, and run the command again; what is stored stays."
                )
            if monotonic() > say_at:
                _log.warning("Waiting for a worker of the Ray cluster.")
                say_at = until + 1
            self._look()
            self._join(POLL_S)
        return min(self._members, key=lambda member: member.chunks)

    def answer(self, member: Member, asked: Any) -> Any:
        """Wait for what an actor answers.

        Raises:
            Ended: the actor has.
            VecsearchError: what it has raised.

        """
        try:
            while not ray.wait([asked], timeout=POLL_S)[0]:
                self._look()
                self._join(0)
            return ray.get(asked)
        except RayTaskError as error:
            raise _raised(error) from error
        except RayError as error:
            if member in self._members:
                self._members.remove(member)
            _kill(member)
            self._looked = -LOOK_S
            raise Ended(first_line(error)) from error

    def _look(self) -> None:
        """Ask for actors on the nodes that have too few."""
        if monotonic() < self._looked + LOOK_S:
            return
        self._looked = monotonic()
        alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        self._starting = [member for member in self._starting if member.node in alive]
        there = Counter(member.node for member in (*self._members, *self._starting))
        for node, facts in alive.items():
            cores = int(facts["Resources"].get("CPU", 0))
            gpus = int(facts["Resources"].get("GPU", 0))
            wanted = gpus or min(cores, 1)
            if self._failures[node] >= ATTEMPTS:
                continue
            for _ in range(wanted - there[node]):
                self._starting.append(self._start(node, cores // wanted, 1 if gpus else 0))

    def _start(self, node: str, cores: int, gpus: int) -> Member:
        handle = (
            ray.remote(Actor)
            .options(
                num_cpus=cores,
                num_gpus=gpus,
                max_concurrency=CALLS,
                max_restarts=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            )
            .remote(self.setup)
        )
        return Member(handle, node, handle.check.remote())

    def _join(self, seconds: float) -> None:
        """Take in the actors that have started, waiting so long for the first."""
        ready = [member.ready for member in self._starting]
        if not ready:
            return
        started, _ = ray.wait(ready, num_returns=1, timeout=seconds)
        for member in [member for member in self._starting if member.ready in started]:
            self._starting.remove(member)
            try:
                ray.get(member.ready)
            except RayTaskError as error:
                raise _raised(error) from error
            except RayError as error:
                self._failed(member, error)
            else:
                self._members.append(member)
                self._prepare(member)

    def _prepare(self, member: Member) -> None:
        """Have an actor load the encoder as soon as that is known."""

        def known(told: Future[MadeBy]) -> None:
            if told.exception() is None:
                member.handle.prepare.remote(told.result())

        if self._made_by is not None:
            self._made_by.add_done_callback(known)

    def _failed(self, member: Member, error: RayError) -> None:
        """Note that an actor has ended while it started."""
        _kill(member)
        if "No module named" in str(error):
            raise InvalidInput(
                "A node of the Ray cluster lacks vecsearch, or has an older one. Install "
                f"'vecsearch[ray]' {self.setup.version} on every node."
            ) from error
        self._failures[member.node] += 1
        given_up = self._failures[member.node] >= ATTEMPTS
        if given_up and not self._members and not self._starting:
            raise ClusterUnavailable(
                f"Ray cannot start a worker: {first_line(error)}. See `ray status` and Ray's logs, "
                "and run the command again; what is stored stays."
            ) from error


class RemoteFiles:
    """The files of a chunk, on a cluster; see `Files`, and `Making` once they are being embedded.

    Args:
        pool: the actors.
        number: of the chunk.
        paths: of the files.
        keep: see `Place.take`.

    """

    def __init__(self, pool: Pool, number: int, paths: Sequence[str], *, keep: bool) -> None:
        self._pool = pool
        self._number = number
        self._paths = paths
        self._keep = keep
        self._is_repeated = False
        self._member = pool.member()
        self._member.chunks += 1
        self._ask: Callable[[], Any] = self._reading
        self._asked = self._reading() if paths else None

    def read(self) -> Sequence[Source | Unreadable]:
        """See `Files`."""
        found: Sequence[Source | Unreadable] = self._answer() if self._paths else []
        if found:
            self._require_seen(found)
        if not self._keep:
            self._member.chunks -= 1
        return found

    def embed(self, order: Order) -> "RemoteFiles | Nothing":
        """See `Files`."""
        if not order.contents and not order.missing:
            if self._paths:
                self._member.handle.forget.remote(self._number)
            self._member.chunks -= 1
            self._asked = None
            return Nothing()
        made_by = self._pool.made_by

        def embedding() -> Any:
            task = Task(order, made_by, self._is_repeated)
            return self._member.handle.embed.remote(self._number, task)

        self._ask = embedding
        self._is_repeated = False
        self._asked = embedding()
        return self

    def result(self) -> Product:
        """See `Making`."""
        product: Product = self._answer()
        self._member.chunks -= 1
        # Ray would try to make again what a node had that ends while somebody refers to it.
        self._asked = None
        return product

    def _reading(self) -> Any:
        return self._member.handle.read.remote(self._number, self._paths, keep=self._keep)

    def _answer(self) -> Any:
        """Return what the chunk's actor answers, or another one if it ends."""
        ended = 0
        while True:
            try:
                return self._pool.answer(self._member, self._asked)
            except Ended as error:
                ended += 1
                if ended == ATTEMPTS:
                    raise ClusterUnavailable(
                        f"{ended} workers of the Ray cluster ended over the same files: {error}. "
                        "See Ray's logs, and run the command again; what is stored stays."
                    ) from error
            self._is_repeated = True
            self._member = self._pool.member()
            self._member.chunks += 1
            self._asked = self._ask()

    def _require_seen(self, found: Sequence[Source | Unreadable]) -> None:
        """Check that it is not the node alone that does not see the files.

        Raises:
            InvalidInput: it sees none of them.

        """
        path = self._paths[0]
        if (
            all(isinstance(item, Unreadable) for item in found)
            and not is_url(path)
            and os.access(path, os.R_OK)
            and "No such file" in str(found[0])
        ):
            raise InvalidInput(
                f"A node of the Ray cluster does not see {path}, which this machine does. Put the "
                "pictures where every node sees them under the same path, or in a bucket, and give "
                "its URL."
            )


class Nothing:
    """A chunk of which nothing has to be embedded; see `Making`."""

    def result(self) -> Product:
        """See `Making`."""
        return Product({}, {})


def _raised(error: RayTaskError) -> BaseException:
    """Return what was raised in an actor, as it was there."""
    cause: BaseException | None = getattr(error, "cause", None)
    return cause or RuntimeError(str(error))


def _kill(member: Member) -> None:
    with suppress(Exception):
        ray.kill(member.handle)
