"""The threads of an ingest: what is read, decoded and embedded, how much of it at once."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import PixelEncoder, picture

from vecsearch.encoders.base import BATCH_SIZE, LazyEncoder
from vecsearch.errors import EncoderError, WeightsMismatch
from vecsearch.imaging import decode, pictures
from vecsearch.imaging.reading import Source
from vecsearch.imaging.scan import Unreadable
from vecsearch.imaging.stalls import Devices
from vecsearch.imaging.thumbnails import SIDE
from vecsearch.ingest.stages import pipeline
from vecsearch.ingest.stages.pipeline import Encoded, Pipeline

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIMEOUT_S = 60
MAX_PIXELS = 10**7


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    found = []
    for number in range(5 * BATCH_SIZE):
        found.append(tmp_path / f"{number:02}.png")
        picture(number).save(found[-1])
    return found


def read(running: Pipeline, files: list[Path], *, keep: bool = True) -> list[Source]:
    sources = list(running.read(map(str, files), keep=keep))
    assert all(isinstance(source, Source) for source in sources)
    return [source for source in sources if isinstance(source, Source)]


def embedded(running: Pipeline, sources: list[Source]) -> Iterator[Encoded | Unreadable]:
    for batch in running.embed(sources):
        yield from batch.result(TIMEOUT_S)


@pytest.mark.parametrize("keep", [True, False])
def test_every_file_has_its_own_result_in_order(files: list[Path], keep: bool) -> None:
    files[3].write_text("no picture")
    encoder = PixelEncoder()
    with Pipeline(encoder, max_pixels=MAX_PIXELS, devices=Devices()) as running:
        sources = read(running, files, keep=keep)
        assert all((source.content is not None) == keep for source in sources)
        results = list(embedded(running, sources))
    for number, (file, source, result) in enumerate(zip(files, sources, results, strict=True)):
        if number == 3:
            assert isinstance(result, Unreadable)
        else:
            assert isinstance(result, Encoded)
            assert result.embedding.tolist() == encoder.expected(file).tolist()
            assert result.facts.sha256 == result.thumbnail.sha256 == source.sha256


def test_a_large_file_s_bytes_are_not_kept(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "KEPT_BYTES", files[0].stat().st_size - 1)
    with Pipeline(PixelEncoder(), max_pixels=MAX_PIXELS, devices=Devices()) as running:
        [source] = read(running, files[:1])
        assert source.content is None
        files[0].write_text("other bytes")
        [result] = embedded(running, [source])
    assert isinstance(result, Unreadable)
    assert result.reason == "It changed while it was being read; ingest it again."


@given(st.integers(0, 20 * BATCH_SIZE))
def test_batches_are_equal_and_lose_nothing(count: int) -> None:
    sources = [Source(str(number), "") for number in range(count)]
    found = pipeline.batches(sources)
    assert [source for batch in found for source in batch] == sources
    sizes = {len(batch) for batch in found}
    assert max(sizes, default=0) <= BATCH_SIZE
    assert max(sizes, default=0) - min(sizes, default=0) <= 1
    assert count < BATCH_SIZE or len(found) % 2 == 0


def test_as_many_batches_are_embedded_at_once_as_the_encoder_takes(files: list[Path]) -> None:
    class Meeting(PixelEncoder):
        concurrency = 2
        barrier = threading.Barrier(2)
        inside = 0
        most = 0

        def embed(self, batch: "NDArray[np.uint8]") -> "NDArray[np.float32]":
            Meeting.inside += 1
            Meeting.most = max(Meeting.most, Meeting.inside)
            self.barrier.wait(TIMEOUT_S)  # there are two, or this breaks
            Meeting.inside -= 1
            self.barrier.wait(TIMEOUT_S)
            return super().embed(batch)

    with Pipeline(Meeting(), max_pixels=MAX_PIXELS, devices=Devices()) as running:
        results = list(embedded(running, read(running, files[: 4 * BATCH_SIZE])))
    assert len(results) == 4 * BATCH_SIZE
    assert Meeting.most == 2


def test_batches_are_embedded_in_order(files: list[Path]) -> None:
    encoder = PixelEncoder()
    for _ in range(5):
        encoder.embedded.clear()
        with Pipeline(encoder, max_pixels=MAX_PIXELS, devices=Devices()) as running:
            list(embedded(running, read(running, files)))
        wanted = [encoder.expected(file).tolist() for file in files]
        found = [
            np.frombuffer(inputs, np.uint8).astype(float).tolist() for inputs in encoder.embedded
        ]
        assert found == wanted


def test_a_batch_waits_for_the_one_before_it(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    others = threading.Semaphore(0)
    encoder = PixelEncoder()
    make = pictures.make

    def slowly(source: Source, *arguments: Any, **options: Any) -> object:
        made = make(source, *arguments, **options)
        if source.path == str(files[0]):
            for _ in range(3 * BATCH_SIZE - 1):
                assert others.acquire(timeout=TIMEOUT_S)
            assert encoder.embedded == []
        others.release()
        return made

    monkeypatch.setattr(pictures, "make", slowly)
    with Pipeline(encoder, max_pixels=MAX_PIXELS, devices=Devices()) as running:
        results = list(embedded(running, read(running, files[: 3 * BATCH_SIZE])))
    assert len(results) == len(encoder.embedded) == 3 * BATCH_SIZE


def test_no_batch_is_waited_for_in_vain(files: list[Path]) -> None:
    begun, may_end = threading.Event(), threading.Event()

    class Gated(PixelEncoder):
        def embed(self, batch: "NDArray[np.uint8]") -> "NDArray[np.float32]":
            begun.set()
            assert may_end.wait(TIMEOUT_S)
            return super().embed(batch)

    with Pipeline(Gated(), max_pixels=MAX_PIXELS, devices=Devices()) as running:
        submitted = running.embed(read(running, files))
        submitted[-1].add_done_callback(lambda _: may_end.set())
        assert begun.wait(TIMEOUT_S)
    assert all(batch.done() for batch in submitted)
    assert not submitted[0].cancelled()
    assert submitted[-1].cancelled()


def test_an_encoder_that_fails_is_raised_and_nothing_waits_for_it(files: list[Path]) -> None:
    class Failing(PixelEncoder):
        def embed(self, batch: "NDArray[np.uint8]") -> "NDArray[np.float32]":
            raise EncoderError(f"Cannot embed {len(batch)}.")

    with (
        pytest.raises(EncoderError, match="Cannot embed"),
        Pipeline(Failing(), max_pixels=MAX_PIXELS, devices=Devices()) as running,
    ):
        list(embedded(running, read(running, files)))


def test_the_encoder_is_loaded_for_a_picture_alone(files: list[Path], tmp_path: Path) -> None:
    def load() -> PixelEncoder:
        raise AssertionError("the encoder was loaded")

    # Its header is as it was; what follows is not.
    files[0].write_bytes(files[0].read_bytes()[:60])
    for file in files[1:]:
        file.write_text(f"{file} is no picture")
    files.append(tmp_path / "large.jpg")
    PIL.Image.new("1", (MAX_PIXELS // 1000 + 1, 1000)).save(files[-1])
    with Pipeline(LazyEncoder(load), max_pixels=MAX_PIXELS, devices=Devices()) as running:
        results = list(embedded(running, read(running, files)))
    assert all(isinstance(result, Unreadable) for result in results)
    assert isinstance(results[0], Unreadable)
    assert "damaged" in results[0].reason
    assert isinstance(results[-1], Unreadable)
    assert "pixels" in results[-1].reason


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_what_the_encoder_refuses_is_no_damage_to_the_picture(tmp_path: Path, suffix: str) -> None:
    def load() -> PixelEncoder:
        raise WeightsMismatch("These are another model's weights.")

    file = tmp_path / f"good.{suffix}"
    picture(1).save(file)
    with (
        pytest.raises(WeightsMismatch),
        Pipeline(LazyEncoder(load), max_pixels=MAX_PIXELS, devices=Devices()) as running,
    ):
        list(embedded(running, read(running, [file])))


def test_a_large_jpeg_is_prepared_from_fewer_pixels_and_its_facts_stay(tmp_path: Path) -> None:
    file = tmp_path / "large.jpg"
    picture(1, (3600, 2400)).save(file)
    encoder = PixelEncoder()
    with Pipeline(encoder, max_pixels=MAX_PIXELS, devices=Devices()) as running:
        [result] = embedded(running, read(running, [file]))
    assert isinstance(result, Encoded)
    assert (result.facts.width, result.facts.height) == (3600, 2400)
    assert (result.thumbnail.width, result.thumbnail.height) == (320, 213)
    fewer = decode.decode(file.read_bytes(), "x", max_pixels=MAX_PIXELS, needed=lambda: SIDE)
    assert isinstance(fewer, decode.Image)
    # A quarter would be 600 pixels high, which is less than is kept.
    assert fewer.pixels.size == (1800, 1200)
    assert encoder.embedded == [encoder.preprocessing.prepare(fewer.pixels).tobytes()]
