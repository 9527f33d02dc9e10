"""The worker process that reads a file of embeddings; `registry.open_file` asks it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vecsearch.errors import InvalidInput
from vecsearch.imaging.processes import child
from vecsearch.ingest.formats import registry
from vecsearch.ingest.formats.base import SECONDS

if TYPE_CHECKING:
    from vecsearch.imaging.processes.channel import Channel, Message
    from vecsearch.ingest.formats.base import Block

# Bytes of memory, whatever the file has.
MEMORY = 1_000_000_000


def main() -> None:
    """Read a file, and end with the parent."""
    child.serve(_do)


def _do(channel: "Channel", message: "Message") -> None:
    """Send what the file says of itself, its blocks, and an empty message."""
    file = Path(message[0]["file"])
    child.bound_memory(MEMORY)
    child.bound_time(SECONDS)
    try:
        with registry.format_of(file).opened(file) as contents:
            told = {name: getattr(contents, name) for name in ("unit", "collection", "rows")}
            channel.send(told)
            for block in contents.blocks:
                child.bound_time(SECONDS)
                _send(channel, file, block)
        channel.send({})
    except InvalidInput as error:
        channel.send({"invalid": str(error)})
    except MemoryError:
        advice = "Save it in smaller parts, or again with vecsearch export."
        channel.send({"invalid": f"Reading {file} takes {child.out_of_memory()}. {advice}"})


def _send(channel: "Channel", file: Path, block: "Block") -> None:
    fields: dict[str, Any] = {
        "numbers": block.numbers,
        "paths": block.paths,
        "columns": {name: [*map(_plain, values)] for name, values in block.columns.items()},
        "dimensions": block.embeddings.shape[1],
    }
    try:
        channel.send(fields, [block.embeddings.tobytes()])
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"{file} has values that no export of vecsearch has. Export it again."
        ) from error


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value
