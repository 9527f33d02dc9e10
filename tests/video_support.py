"""Videos of our own making: plain colours, each frame a key frame unless said otherwise."""

import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import PIL.Image
from av.video.frame import PictureType
from av.video.stream import VideoStream

SIZE = (160, 96)
RED, GREEN, BLUE, WHITE = (230, 20, 20), (20, 200, 20), (20, 20, 230), (240, 240, 240)
CREATED = "2024-05-06T07:08:09.000000Z"
Colour = tuple[int, int, int]


def plain(colour: Colour, size: tuple[int, int] = SIZE) -> PIL.Image.Image:
    """Return a picture of one colour with a white upper left quarter."""
    drawn = PIL.Image.new("RGB", size, colour)
    drawn.paste(WHITE, (0, 0, size[0] // 2, size[1] // 2))
    return drawn


def film(
    path: Path,
    frames: Iterable[tuple[int, PIL.Image.Image]],
    *,
    codec: str = "libx264",
    between: int = 0,
    metadata: dict[str, str] | None = None,
    stretch: Fraction | None = None,
    sound: bool = False,
) -> Path:
    """Write a video.

    Args:
        path: its suffix says of which container.
        frames: milliseconds, and what each key frame shows.
        codec: FFmpeg's name of an encoder.
        between: frames after each key frame that are none.
        metadata: of the container.
        stretch: how much wider its pixels are than high.
        sound: whether it has a sound track, first.

    """
    with av.open(str(path), "w") as made:
        made.metadata.update(metadata or {})
        audio = made.add_stream("aac", rate=44_100) if sound else None
        stream = None
        for ms, drawn in frames:
            if stream is None:
                stream = cast("VideoStream", made.add_stream(codec, rate=100))
                stream.width, stream.height = drawn.size
                stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
                stream.codec_context.time_base = Fraction(1, 1_000)
                stream.codec_context.gop_size = 1 + between
                if stretch is not None:
                    stream.codec_context.sample_aspect_ratio = stretch
                if codec == "libx264":
                    stream.codec_context.options = {"x264-params": "keyint=1000:scenecut=0"}
            for number in range(1 + between):
                frame = av.VideoFrame.from_ndarray(np.asarray(drawn))
                frame.pts, frame.time_base = ms + 10 * number, Fraction(1, 1_000)
                frame.pict_type = PictureType.P if number else PictureType.I
                made.mux(stream.encode(frame))
        if stream is not None:
            made.mux(stream.encode(None))
        if audio is not None:
            silence = av.AudioFrame(format="fltp", layout="stereo", samples=1_024)
            for plane in silence.planes:
                plane.update(bytes(plane.buffer_size))
            silence.rate = 44_100
            made.mux(audio.encode(silence))
            made.mux(audio.encode(None))
    return path


def seconds(colours: Sequence[Colour]) -> list[tuple[int, PIL.Image.Image]]:
    """Return a frame of each colour, one a second."""
    return [(1_000 * number, plain(colour)) for number, colour in enumerate(colours)]


def turned(path: Path) -> Path:
    """Make an mp4 say that it is to be turned by a quarter, clockwise."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44
    one = 1 << 16
    content[start : start + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path
