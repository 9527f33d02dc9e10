"""The worker process that reads and decodes pictures from outside.

`vecsearch.imaging.pictures` and `vecsearch.imaging.sources.videos` ask it.
"""

from time import monotonic
from typing import TYPE_CHECKING, Any

from vecsearch.imaging import decode, frames, reading
from vecsearch.imaging.processes import child
from vecsearch.imaging.scan import Unreadable
from vecsearch.imaging.stalls import STALL_S

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from vecsearch.imaging.preprocessing import Preprocessing
    from vecsearch.imaging.processes.channel import Channel, Message

# Bytes of memory for any picture, and for each pixel and each byte of a file: a decoder holds the
# file, what it unpacks, a picture of 4 bytes a pixel, and a copy of that.
MEMORY, MEMORY_PER_PIXEL, MEMORY_PER_BYTE = 256_000_000, 20, 2
# Seconds of a picture, and of each million pixels.
SECONDS, SECONDS_PER_MEGAPIXEL = 20, 0.5
# Larger pictures are decoded one at a time: three phones' photos, and not three panoramas.
LARGE = 36_000_000
# Questions for the parent.
MAY_BEGIN, PREPROCESSING = "pixels", "preprocessing"
# What it is told instead: that a file is still being read, and that it has been read.
READING, READ = "reading", "read"
# Seconds between two of the former.
REPORT_S = 1.0


def main() -> None:
    """Serve requests until the parent is gone."""
    child.serve(_do)


def seconds(pixels: int) -> float:
    """Return how long a picture of so many pixels may take."""
    return SECONDS + SECONDS_PER_MEGAPIXEL * pixels / 1e6


def _do(channel: "Channel", message: "Message") -> None:
    request, blobs = message
    content = blobs[0] if blobs else None
    child.bound_memory(MEMORY)
    child.bound_time(STALL_S)
    try:
        if request["do"] == "read":
            _read(channel, request)
        elif request["do"] == "size":
            path = request["path"]
            most = request["most"]
            found = content or reading.read(path, most=most, on_piece=_Reports(channel))
            size = None if isinstance(found, Unreadable) else decode.upright_size(found, path)
            channel.send({"size": size})
        elif request["do"] in {"frames", "frame"}:
            _read_video(channel, request)
        else:
            _Making(channel, request).make(content)
    except MemoryError:
        reason = f"Decoding it takes {child.out_of_memory()}."
        channel.send({"reason": reason, "is_last": True})


def _read(channel: "Channel", request: dict[str, Any]) -> None:
    child.bound_memory(MEMORY + request["keep"])
    found = reading.hashed(
        request["path"], keep=request["keep"], most=request["most"], on_piece=_Reports(channel)
    )
    if isinstance(found, Unreadable):
        channel.send({"reason": found.reason})
    else:
        blobs = [] if found.content is None else [found.content]
        channel.send({"sha256": found.sha256}, blobs)


def _read_video(channel: "Channel", request: dict[str, Any]) -> None:
    child.bound_memory(MEMORY + MEMORY_PER_PIXEL * frames.MOST_PIXELS)
    path, reports = request["path"], _Reports(channel)
    try:
        if request["do"] == "frames":
            channel.send({"frames": frames.key_frames(path, reports)})
        else:
            channel.send({}, [frames.frame(path, request["ms"], reports)])
    except frames.UnreadableVideo as error:
        channel.send({"reason": str(error)})


class _Reports:
    """Tells the parent, from time to time, that reading makes progress."""

    def __init__(self, channel: "Channel") -> None:
        self._channel = channel
        self._last = monotonic()

    def __call__(self) -> None:
        if monotonic() - self._last > REPORT_S:
            child.bound_time(STALL_S)
            child.ask(self._channel, {READING: True})
            self._last = monotonic()


class _Making:
    """What is made of one picture; see `vecsearch.imaging.pictures.Wanted`."""

    def __init__(self, channel: "Channel", request: dict[str, Any]) -> None:
        self._channel = channel
        self._request = request
        self._size = self._asked = 0
        self._preprocessing: Preprocessing | None = None

    def make(self, content: bytes | bytearray | None) -> None:
        """Read the file unless there is content, decode it, and reply."""
        request = self._request
        sha256 = request["sha256"]
        if content is None:
            child.bound_memory(MEMORY + MEMORY_PER_BYTE * request["most"])
            path, most = request["path"], request["most"]
            reports = _Reports(self._channel)
            found = reading.hashed(path, keep=most, most=most, on_piece=reports)
            if isinstance(found, reading.Source) and sha256 not in {None, found.sha256}:
                found = Unreadable(path, reading.CHANGED)
            if isinstance(found, Unreadable):
                self._channel.send({"reason": found.reason})
                return
            content, sha256 = found.content or b"", found.sha256
            child.bound_time(seconds(LARGE))
            child.ask(self._channel, {READ: True})
        self._size = len(content)
        child.bound_memory(MEMORY + MEMORY_PER_BYTE * self._size)
        image = decode.decode(
            content,
            request["path"],
            max_pixels=request["max_pixels"],
            sha256=sha256,
            needed=self._needed if request["may_shrink"] else None,
            on_header=self._begin,
        )
        if isinstance(image, Unreadable):
            self._channel.send({"reason": image.reason})
        else:
            self._reply(image)

    def _begin(self, pixels: int) -> None:
        child.bound_memory(MEMORY + MEMORY_PER_BYTE * self._size + MEMORY_PER_PIXEL * pixels)
        child.bound_time(seconds(pixels))
        if pixels > max(self._asked, LARGE):
            child.ask(self._channel, {MAY_BEGIN: pixels})
            self._asked = pixels

    def _needed(self) -> int:
        sides: list[int] = [*(self._request["fit"] or ())]
        if self._request["thumbnail"]:
            from vecsearch.imaging.thumbnails import SIDE

            sides.append(SIDE)
        preprocessing = self._prepared_by()
        if preprocessing is not None:
            sides += preprocessing.input_size
        return max(sides)

    def _prepared_by(self) -> "Preprocessing | None":
        """Return how to prepare the picture, which the parent may know only now."""
        from vecsearch.imaging.preprocessing import Preprocessing

        if self._preprocessing is None and self._request[PREPROCESSING] is not None:
            fields = self._request[PREPROCESSING] or child.ask(self._channel, {PREPROCESSING: True})
            self._preprocessing = Preprocessing.from_json(fields)
        return self._preprocessing

    def _reply(self, image: decode.Image) -> None:
        from vecsearch.imaging import thumbnails

        request, facts = self._request, image.facts
        taken_at = None if facts.taken_at is None else facts.taken_at.isoformat()
        fields: dict[str, Any] = {"facts": {**vars(facts), "taken_at": taken_at}}
        blobs: dict[str, bytes] = {}
        if request["thumbnail"]:
            blobs["thumbnail"] = thumbnails.Thumbnail.of(image).image
        pixels = image.pixels
        if request["crop"] is not None:
            left, top, right, bottom = request["crop"]
            if left >= right or top >= bottom or right > pixels.width or bottom > pixels.height:
                self._channel.send({"outside": pixels.size})
                return
            pixels = pixels.crop((left, top, right, bottom))
        drawn: dict[str, Picture] = {}
        preprocessing = self._prepared_by()
        if preprocessing is not None:
            drawn["inputs"] = preprocessing.drawn(pixels)
        if request["fit"]:
            drawn["fitted"] = thumbnails.fit(pixels, *request["fit"])
        for name, picture in drawn.items():
            fields[name] = picture.size
            blobs[name] = picture.tobytes()
        self._channel.send({**fields, "blobs": [*blobs]}, [*blobs.values()])
