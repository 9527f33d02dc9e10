"""Messages between a process and its worker: a JSON object and some bytes, with their lengths."""

import json
import socket
import struct
from collections.abc import Sequence
from time import monotonic
from typing import Any

# What neither side takes, whatever the other announces.
MOST_JSON, MOST_BLOBS, MOST_BYTES = 1 << 26, 8, 1 << 32
BUFFER = 1 << 20
_HEAD = struct.Struct("!II")

Message = tuple[dict[str, Any], list[bytearray]]


class Channel:
    """One end of a socket; messages go both ways.

    Args:
        end: a connected stream socket, which the channel closes.

    Attributes:
        deadline: when sending and receiving give up, by `time.monotonic`; None: never.

    """

    def __init__(self, end: socket.socket) -> None:
        self.deadline: float | None = None
        self._end = end
        # A picture's reply in one piece, where the system allows that.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)

    def send(self, fields: dict[str, Any], blobs: Sequence[bytes | bytearray] = ()) -> None:
        """Send a message.

        Raises:
            OSError: nobody is at the other end.
            TimeoutError: the deadline has passed.

        """
        text = json.dumps(fields).encode()
        sizes = struct.pack(f"!{len(blobs)}Q", *map(len, blobs))
        head = _HEAD.pack(len(text), len(blobs)) + sizes + text
        self._set_timeout()
        sent = self._end.sendmsg([head, *blobs])
        # What did not fit into the system's buffer.
        for part in (head, *blobs):
            if sent < len(part):
                self._end.sendall(memoryview(part)[sent:])
            sent = max(0, sent - len(part))

    def receive(self) -> Message:
        """Return the next message.

        Raises:
            EOFError, OSError: nobody is at the other end, or it does not speak like this.
            TimeoutError: the deadline has passed.

        """
        self._set_timeout()
        length, count = _HEAD.unpack(self._exactly(_HEAD.size))
        if length > MOST_JSON or count > MOST_BLOBS:
            raise EOFError
        sizes = struct.unpack(f"!{count}Q", self._exactly(8 * count))
        if sum(sizes) > MOST_BYTES:
            raise EOFError
        fields = json.loads(self._exactly(length))
        return fields, [self._exactly(size) for size in sizes]

    def close(self) -> None:
        """Close this end; the other reads an end of file."""
        self._end.close()

    def _exactly(self, size: int) -> bytearray:
        content = bytearray(size)
        view = memoryview(content)
        while view:
            count = self._end.recv_into(view)
            if not count:
                raise EOFError
            if self.deadline is not None and monotonic() > self.deadline:
                raise TimeoutError
            view = view[count:]
        return content

    def _set_timeout(self) -> None:
        if self.deadline is not None:
            # Zero would mean not to wait at all.
            self._end.settimeout(max(self.deadline - monotonic(), 0.001))
