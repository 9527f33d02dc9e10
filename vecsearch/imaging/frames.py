"""Key frames of videos, by FFmpeg; in a worker process alone."""

import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from time import monotonic
from typing import IO, TYPE_CHECKING, Any, Self

from vecsearch.errors import first_line

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from PIL.Image import Exif
    from PIL.Image import Image as Picture

# Of a list of key frames, two are this many milliseconds apart, at least.
APART_MS = 1_000
# Pixels of the largest frame: that of 8K has 33 million.
MOST_PIXELS = 36_000_000
# Seconds for reading one video.
MOST_S = 1_800.0
# What FFmpeg may open: files of cameras and of the web, and no playlists, which name other files.
_FORMATS = (
    *("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "mpegts", "mpeg", "flv", "asf", "ogg"),
)
# Those whose index lists each key frame, and by which time: what is between two is not read.
_INDEXED = {_FORMATS[0]: "dts", _FORMATS[1]: "pts"}
_CODECS = (
    *(
        "h264",
        "hevc",
        "libdav1d",
        "av1",
        "vp8",
        "vp9",
        "mpeg4",
        "mpeg1video",
        "mpeg2video",
        "mjpeg",
        "prores",
    ),
    *("dnxhd", "theora", "vc1", "wmv1", "wmv2", "wmv3", "msmpeg4", "msmpeg4v2", "h263", "flv"),
)
_OPTIONS = {
    "format_whitelist": ",".join(_FORMATS),
    "codec_whitelist": ",".join(_CODECS),
    "protocol_whitelist": "none",
}
# Milliseconds before a key frame, where that of a transport stream is found.
_GUESS_MS = 5_000
# Where videos say when recording began: in the camera's local time, and in UTC.
_CREATED = ("com.apple.quicktime.creationdate", "creation_time")
_MAKE, _MODEL = "com.apple.quicktime.make", "com.apple.quicktime.model"
_PLACES = ("com.apple.quicktime.location.ISO6709", "location")
_PLACE = re.compile(r"([+-]\d{1,2}(?:\.\d{1,12})?)([+-]\d{1,3}(?:\.\d{1,12})?)(?![\d.])")
# Clocks that were never set begin there.
_UNSET = 1971
_MOST_STRETCH = 4
Progress = Callable[[], None]


class UnreadableVideo(Exception):
    """A video, or a frame of it, cannot be read; the message is a sentence."""


def key_frames(path: str, on_progress: Progress) -> list[tuple[int, int]]:
    """Return the key frames of a video that become pictures: milliseconds from its start, bytes.

    Nothing is decoded. Of frames without a time, only the first one is listed.

    Args:
        path: the file.
        on_progress: called now and then.

    Raises:
        UnreadableVideo: it cannot be read.

    """
    found: list[tuple[int, int]] = []
    last: int | None = None
    with _opened(path, on_progress) as (container, stream):
        indexed_by = _INDEXED.get(container.format.name, "")
        for ms, packet in _key_packets(container, stream, on_progress):
            if not found or ms >= found[-1][0] + APART_MS:
                found.append((ms, packet.size))
            time: int | None = getattr(packet, indexed_by, None)
            if time is not None and (last is None or time > last):
                last = time
                _seek(container, stream, time + 1, backward=False)
    if not found:
        raise UnreadableVideo("It has no key frame.")
    return found


def frame(path: str, ms: int, on_progress: Progress) -> bytes:
    """Return a key frame as an image file: an upright TIFF without compression.

    The bytes are the same each time: FFmpeg converts without shortcuts of a processor, and the TIFF
    has nothing but the pixels and what the video says: when that frame was taken, where, by what.

    Args:
        path: the file.
        ms: when, as `key_frames` says.
        on_progress: called now and then.

    Raises:
        UnreadableVideo: it cannot be read, or has no such key frame.

    """
    # What is not found by way of the video's index, or of a guess at bytes, is read from its start.
    for start in dict.fromkeys(max(0, ms - earlier) for earlier in (1, _GUESS_MS, ms)):
        with _opened(path, on_progress) as (container, stream):
            if start and stream.time_base:
                ticks = int(start / 1_000 / stream.time_base)
                _seek(container, stream, (stream.start_time or 0) + ticks)
            for found, packet in _key_packets(container, stream, on_progress):
                if found == ms:
                    picture = _decoded(stream, packet)
                    told = _told({**stream.metadata, **container.metadata}, ms)
                    content = io.BytesIO()
                    picture.save(content, "TIFF", exif=told.tobytes())
                    return content.getvalue()
                if start and found > ms:
                    break
    raise UnreadableVideo("It has no such key frame.")


def _decoded(stream: "VideoStream", packet: "Packet[VideoStream]") -> "Picture":
    codec = stream.codec_context
    # FFmpeg may know no decoder at all, which PyAV's types do not say.
    name = getattr(codec, "name", "unknown")
    if name not in _CODECS:
        raise UnreadableVideo(f"Its codec, {name}, is not supported. Convert it to MP4.")
    _require_size(codec.width, codec.height)
    codec.thread_count = 1
    found = next(iter([*codec.decode(packet), *codec.decode(None)]), None)
    if found is None:
        raise UnreadableVideo("The frame is damaged.")
    _require_size(found.width, found.height)
    return _upright(found, stream.sample_aspect_ratio)


def _seek(
    container: "InputContainer", stream: "VideoStream", time: int, *, backward: bool = True
) -> None:
    """Go to the last key frame up to a time, or to the first one from there; if it fails, stay."""
    import av

    with suppress(av.FFmpegError):
        container.seek(time, backward=backward, stream=stream)


def _key_packets(
    container: "InputContainer", stream: "VideoStream", on_progress: Progress
) -> "Iterator[tuple[int, Packet[VideoStream]]]":
    """Yield key frames that are still encoded, with their milliseconds from the video's start."""
    is_first = True
    for packet in container.demux(stream):
        on_progress()
        if not packet.is_keyframe or not packet.size:
            continue
        time = packet.dts if packet.pts is None else packet.pts
        if time is not None and stream.time_base:
            yield max(0, int((time - (stream.start_time or 0)) * stream.time_base * 1_000)), packet
        elif is_first:
            yield 0, packet
        is_first = False


@contextmanager
def _opened(path: str, on_progress: Progress) -> "Iterator[tuple[InputContainer, VideoStream]]":
    """Open a video for its picture track; whatever FFmpeg raises meanwhile is a sentence."""
    try:
        import av
    except ImportError as error:
        raise UnreadableVideo(str(error)) from error
    av.logging.set_level(None)
    try:
        with (
            _File(path, on_progress) as file,
            # Tags are in any encoding.
            av.open(file, "r", options=_OPTIONS, metadata_errors="replace") as container,
        ):
            yield container, _track(container)
    except (MemoryError, UnreadableVideo):
        raise
    except OSError as error:
        raise UnreadableVideo(f"{error.strerror or first_line(error)}.") from error
    except Exception as error:  # of FFmpeg and the file system, and what PyAV raises on odd files
        reason = "It is damaged, or no video that can be read"
        why = getattr(error, "strerror", None) or first_line(error)
        raise UnreadableVideo(f"{reason}: {why}.") from error


def _track(container: "InputContainer") -> "VideoStream":
    """Return the first track of pictures, and leave out all others."""
    from av.stream import Discard, Disposition

    tracks = [
        track
        for track in container.streams.video
        # Of music, it is the cover.
        if not track.disposition & Disposition.attached_pic
    ]
    if not tracks:
        raise UnreadableVideo("It has no pictures, only sound.")
    for stream in container.streams:
        if stream is not tracks[0]:
            stream.discard = Discard.all
    return tracks[0]


class _File:
    """A regular file, whose reading makes progress.

    It is opened here, and not by FFmpeg, which takes some names for addresses.
    """

    def __init__(self, path: str, on_progress: Progress) -> None:
        self._on_progress = on_progress
        self._begun = monotonic()
        # What was a file when it was found may be a pipe now, whose writer never comes.
        self._file: IO[bytes] = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 - below
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            self._file.close()
            raise UnreadableVideo("It is not a regular file.")
        self.seek, self.tell = self._file.seek, self._file.tell

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        if monotonic() > self._begun + MOST_S:
            raise UnreadableVideo(f"Reading it takes more than {MOST_S / 60:.0f} minutes.")
        self._on_progress()
        return self._file.read(size)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _require_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise UnreadableVideo(
            f"Its frames have {width * height / 1e6:.0f} million pixels; the limit for videos is "
            f"{MOST_PIXELS / 1e6:.0f} million."
        )


def _upright(decoded: "VideoFrame", stretch: Any) -> "Picture":
    """Return a frame as a player shows it: its pixels square, and turned."""
    import PIL.Image
    from av.video.reformatter import Interpolation
    from PIL.Image import Transpose

    exact = (
        Interpolation.BICUBIC
        | Interpolation.FULL_CHR_H_INT
        | Interpolation.ACCURATE_RND
        | Interpolation.BITEXACT
    )
    picture = PIL.Image.fromarray(decoded.to_ndarray(format="rgb24", interpolation=int(exact)))
    wide = float(stretch or 1)
    if wide != 1 and 1 / _MOST_STRETCH <= wide <= _MOST_STRETCH:
        picture = picture.resize((max(1, round(picture.width * wide)), picture.height))
    turns = {90: Transpose.ROTATE_90, 180: Transpose.ROTATE_180, 270: Transpose.ROTATE_270}
    turn = turns.get(decoded.rotation % 360)
    return picture if turn is None else picture.transpose(turn)


def _told(metadata: dict[str, str], ms: int) -> "Exif":
    """Return EXIF data of a frame, from what its video says."""
    import PIL.Image
    from PIL.ExifTags import GPS, IFD, Base

    told = PIL.Image.Exif()
    for tag, name in ((Base.Make, _MAKE), (Base.Model, _MODEL)):
        if metadata.get(name):
            told[tag] = metadata[name]
    created = next((text for name in _CREATED if (text := metadata.get(name))), "")
    with suppress(ValueError, OverflowError):
        at = datetime.fromisoformat(created) + timedelta(milliseconds=ms)
        if at.year >= _UNSET:
            told.get_ifd(IFD.Exif)[Base.DateTimeOriginal] = at.strftime("%Y:%m:%d %H:%M:%S")
    place = next((found for name in _PLACES if (found := _PLACE.match(metadata.get(name, "")))), "")
    if place:
        latitude, longitude = float(place[1]), float(place[2])
        directory = told.get_ifd(IFD.GPSInfo)
        directory[GPS.GPSLatitudeRef] = "S" if latitude < 0 else "N"
        directory[GPS.GPSLatitude] = (abs(latitude), 0.0, 0.0)
        directory[GPS.GPSLongitudeRef] = "W" if longitude < 0 else "E"
        directory[GPS.GPSLongitude] = (abs(longitude), 0.0, 0.0)
    return told
