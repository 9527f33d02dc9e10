"""Cache of exported encoders: one folder per identity, written atomically and checked when read.

If an export does not agree with torch, the folder has the reason instead.
"""

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vecsearch.encoders.base import Identity

# Version of the folder's layout and of the exporter; entries of another version are not used.
FORMAT = 1
META, MODEL, TENSORS = "meta.json", "model.xml", "model.bin"
_ABANDONED_S = 24 * 3600


@dataclass(frozen=True)
class Exported:
    """A network in OpenVINO's format: from bytes (n, height, width, 3) to embeddings.

    Attributes:
        model: its graph, as XML.
        tensors: its weights, which the graph refers to.
        dimensions: dimensions of an embedding.
        layer_shape: see `vecsearch.encoders.base.Encoder`.

    """

    model: bytes
    tensors: bytes
    dimensions: int
    layer_shape: tuple[int, ...]


@dataclass(frozen=True)
class Refused:
    """An export that must not be used, with the reason."""

    reason: str


class Cache:
    """A folder of exported encoders, which several processes may share.

    Args:
        folder: the cache folder; created when needed.
        engine: name and version of the engine that runs the exports.

    Attributes:
        folder: where the exports are.

    """

    def __init__(self, folder: Path, engine: str) -> None:
        self.folder = folder / "encoders"
        self._engine = engine

    def find(self, identity: Identity) -> Exported | Refused | None:
        """Return the cached entry; None if there is none, or it is damaged."""
        place = self._place(identity)
        try:
            meta = json.loads((place / META).read_text("utf-8"))
            if meta["identity"] != asdict(identity) or meta["format"] != FORMAT:
                return None
            if meta["refused"] is not None:
                return Refused(str(meta["refused"]))
            model, tensors = (
                _read(place / name, meta["sha256"][name]) for name in (MODEL, TENSORS)
            )
            return Exported(model, tensors, int(meta["dimensions"]), tuple(meta["layer_shape"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @contextmanager
    def partial(self) -> Iterator[Path]:
        """Yield an empty temporary folder, to fill and pass to `keep`.

        Raises:
            OSError: the cache cannot be written.

        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._tidy()
        with tempfile.TemporaryDirectory(
            prefix=".partial-", dir=self.folder, ignore_cleanup_errors=True
        ) as name:
            inner = Path(name) / "entry"
            inner.mkdir()
            yield inner

    def keep(self, identity: Identity, partial: Path, facts: dict[str, Any]) -> None:
        """Store a filled folder as the entry of an identity.

        Args:
            identity: identity of the encoder.
            partial: the folder from `partial`; empty if the export is refused.
            facts: further facts to store: dimensions, layer_shape, refused, …

        Raises:
            OSError: the cache cannot be written.

        """
        meta = {
            "format": FORMAT,
            "identity": asdict(identity),
            "engine": self._engine,
            "sha256": {file.name: _sha256(file.read_bytes()) for file in partial.iterdir()},
            **facts,
        }
        (partial / META).write_text(json.dumps(meta, indent=1), "utf-8")
        place = self._place(identity)
        try:
            partial.rename(place)
        except OSError:
            if self.find(identity) is not None:
                return  # another process was first
            place.rename(partial.with_name("damaged"))
            partial.rename(place)

    def add(self, identity: Identity, exported: Exported) -> None:
        """Store an export that was made elsewhere.

        Raises:
            OSError: the cache cannot be written.

        """
        with self.partial() as folder:
            (folder / MODEL).write_bytes(exported.model)
            (folder / TENSORS).write_bytes(exported.tensors)
            facts = {"dimensions": exported.dimensions, "layer_shape": exported.layer_shape}
            self.keep(identity, folder, {**facts, "refused": None})

    def _place(self, identity: Identity) -> Path:
        key = {"identity": asdict(identity), "format": FORMAT, "engine": self._engine}
        text = json.dumps(key, sort_keys=True, separators=(",", ":"))
        return self.folder / _sha256(text.encode())

    def _tidy(self) -> None:
        """Delete old temporary folders of killed processes."""
        for left in self.folder.glob(".partial-*"):
            with suppress(OSError):
                if left.stat().st_mtime < time.time() - _ABANDONED_S:
                    shutil.rmtree(left, ignore_errors=True)


def _read(file: Path, sha256: str) -> bytes:
    content = file.read_bytes()
    if _sha256(content) != sha256:
        raise ValueError(file)
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
