"""Key frames of videos: which, when, upright, the same bytes each time; and what is refused."""

import io
import os
import random
import struct
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import PIL.Image
import pytest
from video_support import BLUE, CREATED, GREEN, RED, SIZE, WHITE, film, plain, seconds, turned

from vecsearch.imaging import decode, frames
from vecsearch.imaging.decode import Image
from vecsearch.imaging.frames import UnreadableVideo

WIDTH, HEIGHT = SIZE
CODECS = {
    "mp4": "libx264",
    "mov": "mjpeg",
    "mkv": "libx264",
    "webm": "libvpx-vp9",
    "avi": "mpeg4",
    "mts": "libx264",
    "flv": "libx264",
    "wmv": "wmv2",
}


def times(path: Path) -> list[int]:
    return [ms for ms, _ in frames.key_frames(str(path), lambda: None)]


def content(path: Path, ms: int) -> bytes:
    return frames.frame(str(path), ms, lambda: None)


def shown(path: Path, ms: int) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(content(path, ms)))


def colour(picture: PIL.Image.Image, x: int = -5, y: int = -5) -> tuple[int, ...]:
    """Return the colour of a pixel, by default near the lower right corner."""
    found = picture.getpixel((x % picture.width, y % picture.height))
    assert isinstance(found, tuple)
    return tuple(map(int, found))


def near(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return all(abs(a - b) <= 4 for a, b in zip(one, other, strict=True))


def refusal(path: Path, ms: int | None = None) -> str:
    with pytest.raises(UnreadableVideo) as error:
        times(path) if ms is None else content(path, ms)
    return str(error.value)


@pytest.mark.parametrize("suffix", CODECS)
def test_each_key_frame_is_a_picture(tmp_path: Path, suffix: str) -> None:
    colours = [RED, GREEN, BLUE]
    video = film(tmp_path / f"a.{suffix}", seconds(colours), codec=CODECS[suffix], between=3)
    assert times(video) == [0, 1_000, 2_000]
    for number, expected in enumerate(colours):
        picture = shown(video, 1_000 * number)
        assert (picture.size, picture.mode) == (SIZE, "RGB")
        assert near(colour(picture), expected)


@pytest.mark.parametrize("codec", ["libx265", "libsvtav1"])
def test_newer_codecs_are_read(tmp_path: Path, codec: str) -> None:
    video = film(tmp_path / "a.mkv", [(0, plain(GREEN, (320, 192)))], codec=codec)
    assert near(colour(shown(video, 0)), GREEN)


def test_there_is_one_a_second_at_most(tmp_path: Path) -> None:
    at = (0, 1, 400, 999, 1_000, 1_999, 2_500, 7_000)
    video = film(tmp_path / "a.mp4", [(ms, plain(RED)) for ms in at])
    assert times(video) == [0, 1_000, 2_500, 7_000]


def test_of_two_in_one_millisecond_the_first_one_is_read(tmp_path: Path) -> None:
    video = film(tmp_path / "a.mkv", [(0, plain(RED)), (1_000, plain(GREEN)), (2_000, plain(BLUE))])
    written = bytearray(video.read_bytes())
    # A cluster's block begins with its track and its time.
    second = written.index(struct.pack(">BhB", 0x81, 1_000, 0x80))
    written[second + 1 : second + 3] = struct.pack(">h", 0)
    video.write_bytes(written)
    assert times(video) == [0, 2_000]
    assert near(colour(shown(video, 0)), RED)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm"])
def test_an_index_finds_the_same_frames_as_reading_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    chance = random.Random(3)
    at, drawn = 0, []
    for number in range(30):
        drawn.append((at, plain((8 * number, 0, 255 - 8 * number))))
        at += chance.choice([100, 400, 1_500, 3_000])
    video = film(tmp_path / f"a.{suffix}", drawn, codec=CODECS[suffix], between=4)
    found = times(video)
    assert len(found) > 10
    expected = dict(drawn)
    for ms in found:
        assert near(colour(shown(video, ms)), colour(expected[ms]))
    monkeypatch.setattr(frames, "_INDEXED", {})
    assert times(video) == found


def test_a_frame_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    video = film(tmp_path / "a.mp4", seconds([RED, RED]), metadata={"creation_time": CREATED})
    assert content(video, 0) == content(video, 0)
    # When it was taken is part of them, so that equal frames have each their own time.
    assert content(video, 0) != content(video, 1_000)
    (tmp_path / "moved.mp4").write_bytes(video.read_bytes())
    assert content(tmp_path / "moved.mp4", 1_000) == content(video, 1_000)


def test_a_frame_tells_when_and_where_it_was_taken(tmp_path: Path) -> None:
    said = {"creation_time": CREATED, "location": "-33.5000+151.2000/"}
    video = film(tmp_path / "a.mp4", seconds([RED, BLUE]), metadata=said)
    image = decode.decode(content(video, 1_000), "x", max_pixels=10**6)
    assert isinstance(image, Image)
    assert image.facts.taken_at is not None
    assert image.facts.taken_at.isoformat() == "2024-05-06T07:08:10"
    assert (image.facts.latitude, image.facts.longitude) == (-33.5, 151.2)


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ({"creation_time": "1970-01-01T00:00:00.000000Z"}, None),
        ({"creation_time": "yesterday"}, None),
        ({"creation_time": "9999-12-31T23:59:59Z"}, None),
        ({frames._CREATED[0]: "2024-05-06T09:08:09+0200"}, "2024:05:06 09:08:10"),  # noqa: SLF001 - its table
        ({}, None),
    ],
)
def test_only_times_that_a_clock_can_show_count(said: dict[str, str], taken: str | None) -> None:
    told = frames._told({**said, "location": "+91+181x+3"}, 1_000)  # noqa: SLF001 - the smallest part
    assert told.get_ifd(0x8769).get(0x9003) == taken


def test_a_video_is_turned_and_stretched_as_players_do(tmp_path: Path) -> None:
    picture = shown(turned(film(tmp_path / "a.mp4", seconds([RED]))), 0)
    assert picture.size == (HEIGHT, WIDTH)
    # The white quarter was upper left.
    assert near(colour(picture, HEIGHT - 5, 5), WHITE)
    wide = film(tmp_path / "wide.mkv", seconds([RED]), stretch=Fraction(3, 2))
    assert shown(wide, 0).size == (WIDTH * 3 // 2, HEIGHT)


def test_without_times_the_first_frame_alone_is_known() -> None:
    packets = [SimpleNamespace(pts=None, dts=None, is_keyframe=True, size=9) for _ in range(3)]
    container: Any = SimpleNamespace(demux=lambda _: iter(packets))
    stream: Any = SimpleNamespace(time_base=Fraction(1, 1_000), start_time=None)
    found: list[Any] = [*frames._key_packets(container, stream, lambda: None)]  # noqa: SLF001 - likewise
    assert found == [(0, packets[0])]


def test_a_video_without_frames_is_said_to_be_so(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as made:
        made.add_stream("libx264", rate=25, width=160, height=96)
        made.start_encoding()
    assert refusal(tmp_path / "a.mkv").endswith("no video that can be read: End of file.")


def test_sound_is_left_out(tmp_path: Path) -> None:
    assert times(film(tmp_path / "a.mp4", seconds([RED, BLUE]), sound=True)) == [0, 1_000]
    only = film(tmp_path / "b.mp4", [], sound=True)
    assert refusal(only) == "It has no pictures, only sound."


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b"garbage" * 1_000,
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://%s\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile '%s'\n",
    ],
    ids=["empty", "garbage", "playlist", "concat"],
)
def test_what_is_no_video_opens_no_other_file(tmp_path: Path, written: bytes) -> None:
    film(tmp_path / "good.mkv", seconds([RED]))
    odd = tmp_path / "odd.mp4"
    odd.write_bytes(written.replace(b"%s", bytes(tmp_path / "good.mkv")))
    assert refusal(odd).startswith("It is damaged, or no video that can be read: ")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    assert refusal(tmp_path / "a.mp4") == "It is not a regular file."
    assert refusal(tmp_path / "b.mp4") == "No such file or directory."


def test_no_time_in_between_is_a_frame(tmp_path: Path) -> None:
    video = film(tmp_path / "a.mp4", seconds([RED, BLUE]), between=3)
    for ms in (1, 10, 999, 1_001, 5_000):
        assert refusal(video, ms) == "It has no such key frame."


def test_large_frames_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = film(tmp_path / "a.mp4", seconds([RED]))
    monkeypatch.setattr(frames, "MOST_PIXELS", WIDTH * HEIGHT - 1)
    assert refusal(video, 0).startswith("Its frames have 0 million pixels; the limit for videos")
    monkeypatch.setattr(frames, "MOST_PIXELS", WIDTH * HEIGHT)
    assert shown(video, 0).size == SIZE


def test_reading_for_too_long_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = film(tmp_path / "a.mp4", seconds([RED]))
    monkeypatch.setattr(frames, "MOST_S", 0.0)
    assert refusal(video) == "Reading it takes more than 0 minutes."


def test_another_codec_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = film(tmp_path / "a.mp4", seconds([RED]))
    monkeypatch.setattr(frames, "_CODECS", ("vp9",))
    assert refusal(video, 0) == "Its codec, h264, is not supported. Convert it to MP4."


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "mts"])
def test_damaged_videos_are_read_or_refused(tmp_path: Path, suffix: str) -> None:
    video = film(tmp_path / f"a.{suffix}", seconds([RED, BLUE]), codec=CODECS[suffix])
    good = video.read_bytes()
    chance = random.Random(7)
    refused = []
    for number in range(60):
        odd = bytearray(good)
        if number % 3 == 0:
            del odd[chance.randrange(len(odd)) :]
        for _ in range(chance.randint(1, 20) if odd else 0):
            odd[chance.randrange(len(odd))] = chance.randrange(256)
        video.write_bytes(odd)
        try:
            for ms in times(video):
                assert content(video, ms)
        except UnreadableVideo as error:
            refused.append(str(error))
    assert refused
    assert all(reason.endswith(".") for reason in refused)
