"""A network share for Linux that stalls, refuses or fails, as told: FUSE without its library.

It holds one folder of files, and needs root. A file that is not read is never missed.
"""

import ctypes
import errno
import os
import stat
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from pathlib import Path

ROOT = 1
REQUEST = struct.Struct("<IIQQIIIHH")
REPLY = struct.Struct("<IiQ")
ATTRIBUTES = struct.Struct("<6Q3I7I")
BUFFER = 2**20
# What a slow file takes for a piece of at most as many bytes.
SLOW_S, PIECE = 0.25, 2**17


class Opcode(IntEnum):
    """What the kernel asks for; see linux/fuse.h."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    OPEN = 14
    READ = 15
    RELEASE = 18
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    INTERRUPT = 36
    BATCH_FORGET = 42


class Manner(Enum):
    """How a file behaves."""

    READABLE = auto()
    REFUSED = auto()
    FAILING = auto()
    STALLED = auto()
    SLOW = auto()


@dataclass(frozen=True)
class Shared:
    """A file of the share."""

    content: bytes
    manner: Manner = Manner.READABLE


class Share:
    """Answers the kernel's requests about a folder of files.

    Args:
        files: the files by name.
        listed: whether the folder can be listed; else that stalls.

    """

    def __init__(self, files: Mapping[str, Shared], *, listed: bool) -> None:
        self._listed = listed
        self._names = [os.fsencode(name) for name in files]
        self._files = list(files.values())

    def serve(self, device: int) -> None:
        """Answer until the share is unmounted."""
        while True:
            try:
                asked = os.read(device, BUFFER)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                continue
            _, opcode, unique, node, *_ = REQUEST.unpack_from(asked)
            answer = self._answer(opcode, node, asked[REQUEST.size :])
            if opcode == Opcode.INTERRUPT:
                # Who waits for this request was killed, and ends when it is answered.
                (unique,), answer = struct.unpack_from("<Q", asked, REQUEST.size), errno.EINTR
            if answer is None:
                continue
            failed, content = (answer, b"") if isinstance(answer, int) else (0, answer)
            reply = REPLY.pack(REPLY.size + len(content), -failed, unique) + content
            with suppress(OSError):  # who asked may have been killed
                os.write(device, reply)

    def _answer(  # noqa: C901, PLR0911, PLR0912  # a case for each request
        self, opcode: int, node: int, body: bytes
    ) -> bytes | int | None:
        """Return an answer, the number of an error, or nothing."""
        file = self._files[node - 2] if node > ROOT else None
        manner = file.manner if file else Manner.READABLE
        match opcode:
            case Opcode.INIT:
                return struct.pack("<4I2H2I2H8I", 7, 31, BUFFER, 0, 9, 9, 4096, 1, 1, *[0] * 9)
            case Opcode.LOOKUP:
                name = body.rstrip(b"\0")
                if name not in self._names:
                    return errno.ENOENT
                found = self._names.index(name) + 2
                return struct.pack("<4Q2I", found, 0, 60, 60, 0, 0) + self._attributes(found)
            case Opcode.GETATTR:
                return struct.pack("<QII", 60, 0, 0) + self._attributes(node)
            case Opcode.OPEN if manner is Manner.REFUSED:
                return errno.EACCES
            case Opcode.OPEN | Opcode.OPENDIR:
                return struct.pack("<QII", 0, 0, 0)
            case Opcode.READ if manner is Manner.FAILING:
                return errno.EIO
            case Opcode.READ if manner is Manner.STALLED:
                return None
            case Opcode.READ:
                _, offset, size = struct.unpack_from("<QQI", body)
                if manner is Manner.SLOW:
                    time.sleep(SLOW_S * size / PIECE)
                return file.content[offset : offset + size] if file else b""
            case Opcode.READDIR if not self._listed:
                return None
            case Opcode.READDIR:
                _, offset, _ = struct.unpack_from("<QQI", body)
                return self._listing() if offset == 0 else b""
            case Opcode.RELEASE | Opcode.RELEASEDIR | Opcode.FLUSH:
                return b""
            case Opcode.FORGET | Opcode.BATCH_FORGET | Opcode.INTERRUPT:
                return None
            case _:
                return errno.ENOSYS

    def _attributes(self, node: int) -> bytes:
        mode, size = stat.S_IFDIR | 0o755, 0
        if node > ROOT:
            mode, size = stat.S_IFREG | 0o644, len(self._files[node - 2].content)
        times = (1_700_000_000,) * 3
        return ATTRIBUTES.pack(node, size, 1, *times, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def _listing(self) -> bytes:
        entries = b""
        for number, name in enumerate(self._names, 2):
            # All in one answer: the place of each is after the last.
            entry = struct.pack("<QQII", number, len(self._names) + 1, len(name), 8) + name
            entries += entry.ljust(-len(entry) % 8 + len(entry), b"\0")
        return entries


@contextmanager
def mounted(folder: Path, files: Mapping[str, Shared], *, listed: bool = True) -> Iterator[None]:
    """Mount a share in a folder; at the end, whoever waits for it gets an error."""
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if libc.mount(b"share", os.fsencode(folder), b"fuse", 0, options):
        os.close(device)
        raise OSError(ctypes.get_errno(), "FUSE cannot be mounted here")
    server = threading.Thread(target=Share(files, listed=listed).serve, args=(device,), daemon=True)
    server.start()
    try:
        yield
    finally:
        libc.umount2(os.fsencode(folder), 1 | 2)  # by force, and whoever uses it
        server.join(timeout=10)
        os.close(device)
