"""Files of embeddings from strangers: read in a process of its own, and nothing takes it far."""

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib import format as npy

from vecsearch.errors import InvalidInput
from vecsearch.ingest import formats
from vecsearch.ingest.formats import base, registry
from vecsearch.ingest.formats.base import Block

PATHS = ["a.png", "ü, b.png", "c" * 300]
VECTORS = np.array([[1.0, 0.5], [0.25, -3.0], [2.0, 65504.0]], np.float32)


def whole(suffix: str, folder: Path) -> Path:
    """Write a good file."""
    file = folder / f"good.{suffix}"
    if suffix == "csv":
        rows = [[f'"{path}"', *map(str, row)] for path, row in zip(PATHS, VECTORS, strict=True)]
        file.write_text("\n".join(",".join(row) for row in rows))
    elif suffix == "npz":
        np.savez(file, paths=np.array(PATHS), embeddings=VECTORS)
    else:
        pq.write_table(pa.table({"path": PATHS, "embedding": VECTORS.tolist()}), file)
    return file


def read(file: Path) -> list[Block]:
    with formats.open_file(file) as contents:
        return list(contents.blocks)


def refused(file: Path, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        read(file)
    assert str(file) in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("suffix", ["csv", "npz", "parquet"])
def test_a_file_that_is_not_there_is_said_without_numbers(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"nowhere.{suffix}"
    refused(file, "No such file or directory. ")
    with pytest.raises(InvalidInput) as caught:
        read(file)
    assert "Errno" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["csv", "npz", "parquet"])
def test_the_worker_gives_what_the_file_has(suffix: str, tmp_path: Path) -> None:
    file = whole(suffix, tmp_path)
    with formats.open_file(file) as contents:
        assert contents.unit == ("line" if suffix == "csv" else "row")
        [block] = contents.blocks
    assert block.paths == PATHS
    assert block.numbers == [1, 2, 3]
    assert block.embeddings.tolist() == VECTORS.tolist()


def member(dtype: str, shape: tuple[int, ...], content: bytes = b"") -> bytes:
    out = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(out, header)
    return out.getvalue() + content


def archive(file: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in members.items():
            out.writestr(name.replace("__", "."), content)
    return file


def long_path(folder: Path) -> Path:
    paths = member("<U100000000", (1,), bytes(1000))
    vectors = member("<f4", (1, 2), bytes(8))
    return archive(folder / "e.npz", paths__npy=paths, embeddings__npy=vectors)


def wide(folder: Path) -> Path:
    paths = member("<U1", (1,), b"a\0\0\0")
    vectors = member("<f4", (1, 10**10))
    return archive(folder / "e.npz", paths__npy=paths, embeddings__npy=vectors)


def long_header(folder: Path) -> Path:
    paths = npy.MAGIC_PREFIX + b"\2\0" + struct.pack("<I", 2**32 - 1) + b" " * (1 << 24)
    return archive(folder / "e.npz", paths__npy=paths, embeddings__npy=paths)


def long_line(folder: Path) -> Path:
    file = folder / "e.csv"
    file.write_text("a,1,2\nb," + "1," * base.MOST_LINE)
    return file


def long_collection(folder: Path) -> Path:
    paths, vectors = member("<U1", (1,), b"a\0\0\0"), member("<f4", (1, 1), b"\0\0\x80\x3f")
    told = {"collection__json": b" " * 2 * base.MOST_LINE}
    return archive(folder / "e.npz", paths__npy=paths, embeddings__npy=vectors, **told)


def one_text_for_all(folder: Path) -> Path:
    """Write some kilobytes of Parquet that unpack to gigabytes: one path, said once."""
    file = folder / "e.parquet"
    numbers = pa.array([0] * 5000, pa.int32())
    paths = pa.DictionaryArray.from_arrays(numbers, pa.array(["x" * 1_000_000]))
    table = pa.table({"path": paths, "embedding": [[1.0]] * 5000})
    pq.write_table(table, file, compression="zstd", store_schema=False)
    assert file.stat().st_size < 20_000
    return file


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (long_path, "'paths': the longest path has more than 32,768 characters"),
        (wide, "10,000,000,000 dimensions"),
        (long_header, "cannot be read as NPZ|memory, its limit"),
        (long_line, "line 2: the line has more than 4,194,304 characters"),
        (long_collection, r"collection\.json: the line has more than"),
        (one_text_for_all, "memory, its limit"),
    ],
)
def test_what_unpacks_to_gigabytes_is_refused_in_little_memory(
    write: Callable[[Path], Path], words: str, tmp_path: Path
) -> None:
    refused(write(tmp_path), words)


@pytest.mark.parametrize("values", [[b"a", b"b"], [1, 2], [["a"], ["b"]], [None, None]], ids=str)
def test_paths_that_are_no_texts_are_refused(values: list[Any], tmp_path: Path) -> None:
    columns = [pa.array(values)]
    if isinstance(values[0], bytes):
        columns.append(pa.array(values).dictionary_encode())
    for column in columns:
        pq.write_table(pa.table({"path": column, "e": [[1.0], [2.0]]}), tmp_path / "e.parquet")
        refused(tmp_path / "e.parquet", "Give a column path of texts")


def test_columns_of_other_types_than_exports_have_are_refused(tmp_path: Path) -> None:
    names = {name: [b"x"] for name in ("sha256", "label", "width", "exif", "metadata")}
    table = pa.table({"path": ["a"], "embedding": [[1.0]], **names})
    table = table.replace_schema_metadata({b"vecsearch": json.dumps({}).encode()})
    pq.write_table(table, tmp_path / "e.parquet")
    refused(tmp_path / "e.parquet", "e.parquet")


@pytest.mark.parametrize("suffix", ["csv", "npz", "parquet"])
@settings(derandomize=True, deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), cuts=st.integers(0, 6))
def test_no_damage_raises_anything_but_a_refusal(
    suffix: str, seed: int, cuts: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = whole(suffix, tmp_path_factory.mktemp("damaged"))
    content = bytearray(file.read_bytes())
    random_ = random.Random(seed)
    for _ in range(cuts):
        content[random_.randrange(len(content))] = random_.choice([0, 1, 0x7F, 0xFF, 0x20])
    file.write_bytes(content[: random_.randrange(1, len(content) + 1) if seed % 2 else None])
    try:
        # In this process: what a worker would send as a refusal must be one.
        with registry.format_of(file).opened(file) as contents:
            for block in contents.blocks:
                assert len(block.paths) == len(block.embeddings) == len(block.numbers)
                assert np.isfinite(block.embeddings).all()
    except InvalidInput:
        pass
    finally:
        file.unlink()
