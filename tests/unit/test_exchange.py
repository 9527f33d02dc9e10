"""Files of embeddings: what is read, what is refused, and that nothing is lost on the way."""

import io
import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vecsearch.errors import InvalidInput
from vecsearch.ingest import formats
from vecsearch.ingest.formats.base import Block
from vecsearch.postgres.columns import CARRIED, names

FORMATS = ["csv", "npz", "parquet"]
ROWS = [("a.png", [1.0, 0.5, 2.0]), ("b, c.png", [0.0, 3.0, 0.1]), ('"ü".png', [4.0, 0.0, 1e-5])]
PATHS = [path for path, _ in ROWS]
VECTORS = np.array([vector for _, vector in ROWS], dtype=np.float32)


def read(file: Path) -> tuple[list[str], NDArray[np.float32]]:
    with formats.format_of(file).opened(file) as contents:  # in this process, which is faster
        blocks = list(contents.blocks)
    paths = [path for block in blocks for path in block.paths]
    return paths, np.concatenate([block.embeddings for block in blocks])


def refused(file: Path, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        read(file)
    assert str(file) in str(caught.value)


def csv_file(folder: Path, text: str | bytes) -> Path:
    file = folder / "e.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def npz_file(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "e.npz", **arrays)
    return folder / "e.npz"


def parquet_file(folder: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), folder / "e.parquet")
    return folder / "e.parquet"


class Rows:
    """A source of rows with every column, as a collection is one."""

    def __init__(self, paths: list[str], embeddings: NDArray[np.float16]) -> None:
        self.collection = {"name": "images", "note": "é"}
        self.rows, self.dimensions = embeddings.shape
        self.longest_path = max(map(len, paths), default=0)
        self._paths = paths
        self._embeddings = embeddings

    def blocks(self, *, embeddings: bool, columns: bool) -> Iterator[Block]:
        for start in range(0, self.rows, 7):
            paths = self._paths[start : start + 7]
            numbers = list(range(start + 1, start + len(paths) + 1))
            vectors = self._embeddings[start : start + 7].astype(np.float32)
            values: dict[str, list[Any]] = {name: [None] * len(paths) for name in names(CARRIED)}
            values["width"] = list(numbers)
            values["exif"] = values["metadata"] = [{"n": number, "ü": None} for number in numbers]
            yield Block(
                numbers,
                paths,
                vectors if embeddings else np.empty((len(paths), 0), np.float32),
                values if columns else {},
            )


class TestCsv:
    @pytest.mark.parametrize(
        "header",
        [
            "",
            "path,e0,e1,e2\n",
            "file,0,1,2\n",
            "id,1,2,3\n",
            ",0,1,2\n",
            "\ufeffpath,a,b,c\n",
            "\n\nx,y,z,w\n",
        ],
    )
    def test_a_line_is_a_path_and_its_numbers_with_a_header_or_without(
        self, tmp_path: Path, header: str
    ) -> None:
        lines = 'a.png,1,0.5,2e0\n"b, c.png",0,3,.1\n"""ü"".png",4,0,1e-5\n'
        paths, vectors = read(csv_file(tmp_path, header + lines))
        assert paths == PATHS
        np.testing.assert_array_equal(vectors, VECTORS)

    def test_one_number_a_line_is_no_header(self, tmp_path: Path) -> None:
        paths, vectors = read(csv_file(tmp_path, "a,1\nb,2\n"))
        assert (paths, vectors.tolist()) == (["a", "b"], [[1.0], [2.0]])

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a,1,2\nb,1\n", r"line 2: expected 2 dimensions, found 1"),
            ("a,1,2\n\nb,1,2,3\n", r"line 3: expected 2 dimensions, found 3"),
            ("a,1,2\nb\n", r"line 2: nothing follows the path"),
            ("a;1;2\nb;1;2\n", r"line 1: nothing follows the path. Separate .* with commas"),
            ("p,e,f\na\nb,1,2\n", r"line 2: nothing follows the path"),
            ("a\nb,1,2\n", r"line 1: nothing follows the path"),
            ("a,oops,2\nb,1,2\n", r"line 1: 'oops' is not a number"),
            ("a,,2\nb,1,2\n", r"line 1: '' is not a number"),
            ("a,1,2\nb,1,nan\n", r"line 2: number 2 is not a finite number \(nan, for b\)"),
            ("p,e,f\na,1,-inf\n", r"line 2: number 2 is not a finite number"),
            ("a,1,2\nb,1e300,1\n", r"line 2: number 1 is not a finite number"),
            ("a,1,2\nb,65520,1\n", r"line 2: number 1 is too large for half precision"),
            ("a,1,2\nb,0,1e-9\n", r"line 2: the embedding is all zeros"),
            ("a,1,2\nb,1,x2\n", r"line 2: 'x2' is not a number"),
            ("a,1,2\nb,1,\n", r"line 2: '' is not a number"),
            ("a,1,2\n,1,2\n", r"line 2: '' is not a path"),
            ('a,1,2\n"b,1,2\n', r"cannot be read: unexpected end of data"),
            (b"a,1,2\n\xff\xfe,1,2\n", r"cannot be read: 'utf-8' codec"),
            (pickle.dumps(["a", 1.0]), r"cannot be read: 'utf-8' codec"),
        ],
    )
    def test_a_bad_line_is_named(self, tmp_path: Path, text: str | bytes, message: str) -> None:
        refused(csv_file(tmp_path, text), message)


class TestNpz:
    @pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i8", "u1"])
    @pytest.mark.parametrize("compressed", [False, True])
    def test_any_plain_numbers_are_read(
        self, tmp_path: Path, dtype: str, *, compressed: bool
    ) -> None:
        numbers = (np.arange(12).reshape(3, 4) + 1).astype(dtype)
        save = np.savez_compressed if compressed else np.savez
        save(tmp_path / "e.npz", paths=np.array(PATHS), embeddings=numbers)
        paths, vectors = read(tmp_path / "e.npz")
        assert paths == PATHS
        np.testing.assert_array_equal(vectors, np.arange(12).reshape(3, 4) + 1)

    def test_paths_may_be_bytes(self, tmp_path: Path) -> None:
        names = np.array([path.encode() for path in PATHS])
        assert read(npz_file(tmp_path, paths=names, embeddings=VECTORS))[0] == PATHS

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"paths": PATHS}, r"no item named 'embeddings\.npy'"),
            ({"embeddings": VECTORS}, r"no item named 'paths\.npy'"),
            ({"paths": PATHS[:2], "embeddings": VECTORS}, "2 paths and 3 embeddings"),
            ({"paths": [PATHS], "embeddings": VECTORS}, "'paths' is not a list of texts"),
            ({"paths": [1, 2, 3], "embeddings": VECTORS}, "'paths' is not a list of texts"),
            ({"paths": PATHS, "embeddings": VECTORS[0]}, "'embeddings' is not rows of numbers"),
            ({"paths": PATHS, "embeddings": VECTORS > 1}, "'embeddings' is not rows of numbers"),
            ({"paths": PATHS, "embeddings": np.asfortranarray(VECTORS)}, "stored by column"),
            ({"paths": PATHS, "embeddings": VECTORS * np.nan}, r"row 1: number 1 is not a finite"),
            ({"paths": PATHS, "embeddings": VECTORS[:, :0]}, "0 dimensions"),
            (
                {"paths": PATHS, "embeddings": np.ones((3, 16_001))},
                "16,001 dimensions; pg",
            ),
        ],
    )
    def test_other_arrays_are_refused(
        self, tmp_path: Path, arrays: dict[str, Any], message: str
    ) -> None:
        refused(npz_file(tmp_path, **arrays), message)

    @pytest.mark.parametrize("name", ["paths", "embeddings"])
    def test_a_pickle_inside_is_refused_and_what_it_would_do_is_not_done(
        self, tmp_path: Path, name: str
    ) -> None:
        proof = tmp_path / "proof"

        class Bomb:
            def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
                return Path.touch, (proof,)

        arrays: dict[str, Any] = {"paths": np.array(PATHS), "embeddings": VECTORS}
        arrays[name] = np.array([Bomb()], dtype=object)
        refused(npz_file(tmp_path, **arrays), f"'{name}' holds pickled objects")
        assert not proof.exists()

    @pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
    def test_a_truncated_file_is_refused(self, tmp_path: Path, share: float) -> None:
        file = npz_file(tmp_path, paths=PATHS * 50, embeddings=np.tile(VECTORS, (50, 9)))
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * share)])
        refused(file, "cannot be read as NPZ")

    def test_an_array_that_is_shorter_than_it_says_is_refused(self, tmp_path: Path) -> None:
        whole = io.BytesIO()
        np.save(whole, VECTORS)
        names = io.BytesIO()
        np.save(names, np.array(PATHS))
        with zipfile.ZipFile(tmp_path / "e.npz", "w") as archive:
            archive.writestr("paths.npy", names.getvalue())
            archive.writestr("embeddings.npy", whole.getvalue()[:-4])
        refused(tmp_path / "e.npz", "ends in the middle of an array")

    def test_what_we_write_numpy_reads(self, tmp_path: Path) -> None:
        formats.write_file(tmp_path / "e.npz", Rows(PATHS, VECTORS.astype("f2")), lambda _: None)
        with np.load(tmp_path / "e.npz", allow_pickle=False) as arrays:
            assert arrays["paths"].tolist() == PATHS
            np.testing.assert_array_equal(arrays["embeddings"], VECTORS.astype("f2"))


class TestParquet:
    @pytest.mark.parametrize(
        "type_",
        [
            pa.list_(pa.float32()),
            pa.list_(pa.float64()),
            pa.list_(pa.float16()),
            pa.large_list(pa.float32()),
            pa.list_(pa.float32(), 3),
            pa.list_(pa.int32()),
        ],
        ids=str,
    )
    def test_any_list_of_numbers_is_read(self, tmp_path: Path, type_: pa.DataType) -> None:
        numbers = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
        if pa.types.is_float16(getattr(type_, "value_type", None)):
            numbers = [list(np.array(row, "f2")) for row in numbers]
        paths, vectors = read(
            parquet_file(tmp_path, file=PATHS, year=[1, 2, 3], vector=pa.array(numbers, type_))
        )
        assert paths == PATHS
        np.testing.assert_array_equal(vectors, [[1, 2, 3], [4, 5, 6], [7, 8, 9]])

    @pytest.mark.parametrize(
        "type_", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str
    )
    def test_any_column_of_texts_holds_the_paths(self, tmp_path: Path, type_: pa.DataType) -> None:
        ids = pa.array(PATHS).cast(type_)
        paths, _ = read(parquet_file(tmp_path, path=[1, 2, 3], id=ids, e=VECTORS.tolist()))
        assert paths == PATHS

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"name": PATHS, "embedding": VECTORS.tolist()}, "has the columns name, embedding"),
            ({"path": PATHS, "embedding": [1.0, 2.0, 3.0]}, "has the columns path, embedding"),
            ({"id": [1, 2, 3], "e": VECTORS.tolist()}, "has the columns id, e. Give a column path"),
            ({"path": [b"a", b"b", b"c"], "e": VECTORS.tolist()}, "has the columns path, e"),
            ({"path": PATHS, "a": VECTORS.tolist(), "b": VECTORS.tolist()}, "the columns path, a"),
            (
                {"path": PATHS, "e": [[1.0], [1.0], [1.0, 2.0]]},
                "expected 1 dimensions, found 2",
            ),
            ({"path": PATHS, "e": [[1.0], None, [1.0]]}, "row 2: expected 1 dimensions"),
            ({"path": PATHS, "e": [[1.0], [None], [1.0]]}, "row 2: number 1 is not a finite"),
            ({"path": ["a", None, "c"], "e": [[1.0]] * 3}, "row 2: '' is not a path"),
        ],
    )
    def test_other_columns_are_refused(
        self, tmp_path: Path, columns: dict[str, Any], message: str
    ) -> None:
        refused(parquet_file(tmp_path, **columns), message)

    @pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
    def test_a_truncated_file_is_refused(self, tmp_path: Path, share: float) -> None:
        file = parquet_file(tmp_path, path=PATHS, e=VECTORS.tolist())
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * share)])
        refused(file, "cannot be read as Parquet")

    def test_without_pyarrow_the_extra_is_named(self) -> None:
        program = (
            "import sys; sys.modules['pyarrow'] = None\n"
            "from pathlib import Path\n"
            "from vecsearch.ingest import formats\n"
            "formats.require_file(Path('e.parquet'))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], check=False, capture_output=True, text=True
        )
        assert "pip install 'vecsearch[parquet]'" in done.stderr


def test_a_block_holds_few_rows_of_many_dimensions(tmp_path: Path) -> None:
    vectors, paths = np.ones((260, 16_000), np.float32), list(map(str, range(260)))
    lists = pa.FixedSizeListArray.from_arrays(vectors.ravel(), 16_000)
    npz = npz_file(tmp_path, paths=paths, embeddings=vectors)
    parquet = parquet_file(tmp_path, path=paths, embedding=lists)
    for file in (npz, parquet):
        with formats.open_file(file) as contents:
            assert [len(block.paths) for block in contents.blocks] == [250, 10]


@pytest.mark.parametrize("name", ["e.pkl", "e.PICKLE", "e.npy", "e.pt"])
def test_a_file_that_may_run_a_program_is_refused_unopened(tmp_path: Path, name: str) -> None:
    refused(tmp_path / name, "can run any program")


@pytest.mark.parametrize("name", ["e", "e.txt", "e.csv.gz"])
def test_a_suffix_that_names_no_format_is_refused(tmp_path: Path, name: str) -> None:
    refused(tmp_path / name, r"Use \.csv, \.npz or \.parquet")


@pytest.mark.parametrize("format_", FORMATS)
def test_a_file_that_is_not_there_is_refused(tmp_path: Path, format_: str) -> None:
    refused(tmp_path / f"e.{format_}", "No such file")


@pytest.mark.parametrize("format_", FORMATS)
@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    paths=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
        min_size=1,
        max_size=20,
    ),
    data=st.data(),
)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, format_: str, paths: list[str], data: st.DataObject
) -> None:
    dimensions = data.draw(st.integers(2, 5))
    numbers = st.floats(-65_504, 65_504, width=16).filter(bool)
    vectors = np.array(
        [data.draw(st.lists(numbers, min_size=dimensions, max_size=dimensions)) for _ in paths],
        dtype=np.float16,
    )
    # NPZ, like numpy's texts in general, does not keep NULs at the end; none are drawn.
    file = tmp_path_factory.mktemp("round") / f"e.{format_}"
    formats.write_file(file, Rows(paths, vectors), lambda _: None)
    found, embeddings = read(file)
    assert found == paths
    np.testing.assert_array_equal(embeddings.astype(np.float16), vectors)


@pytest.mark.parametrize("format_", ["npz", "parquet"])
def test_every_column_and_the_encoder_travel_along(tmp_path: Path, format_: str) -> None:
    file = tmp_path / f"e.{format_}"
    rows = Rows([f"{number}.png" for number in range(20)], np.ones((20, 3), np.float16))
    seen: list[int] = []
    formats.write_file(file, rows, seen.append)
    assert seen == [7, 14, 20]
    with formats.open_file(file) as contents:
        assert (contents.unit, contents.rows) == ("row", 20)
        assert contents.collection == rows.collection
        (block,) = contents.blocks
    assert block.numbers == list(range(1, 21))
    assert block.columns["width"] == list(range(1, 21))
    assert block.columns["metadata"][4] == {"n": 5, "ü": None}
    assert block.columns["sha256"] == [None] * 20


@pytest.mark.parametrize("format_", ["npz", "parquet"])
def test_an_export_from_before_a_column_was_added_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_: str
) -> None:
    file = tmp_path / f"e.{format_}"
    with monkeypatch.context() as older:
        fewer = tuple(column for column in CARRIED if column.name != "latitude")
        older.setattr(f"vecsearch.ingest.formats.{format_}_files.CARRIED", fewer)
        formats.write_file(file, Rows(PATHS, VECTORS.astype("f2")), lambda _: None)
    with formats.open_file(file) as contents:
        (block,) = contents.blocks
    assert [*block.columns] == names(CARRIED)
    assert block.columns["latitude"] == [None] * 3
    assert block.columns["width"] == [1, 2, 3]


@pytest.mark.parametrize("format_", FORMATS)
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, format_: str) -> None:
    file = tmp_path / f"e.{format_}"
    file.write_text("old")

    class Broken(Rows):
        def blocks(self, *, embeddings: bool, columns: bool) -> Iterator[Block]:
            yield next(super().blocks(embeddings=embeddings, columns=columns))
            raise OSError(28, "No space left on device")

    with pytest.raises(InvalidInput, match="cannot be written: No space left on device"):
        formats.write_file(file, Broken(PATHS, VECTORS.astype("f2")), lambda _: None)
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    formats.write_file(file, Rows(PATHS, VECTORS.astype("f2")), lambda _: None)
    assert read(file)[0] == PATHS


def test_a_parquet_s_word_on_its_encoder_is_json(tmp_path: Path) -> None:
    file = tmp_path / "e.parquet"
    formats.write_file(file, Rows(PATHS, VECTORS.astype("f2")), lambda _: None)
    metadata = pq.read_schema(file).metadata
    assert json.loads(metadata[b"vecsearch"]) == {"name": "images", "note": "é"}
