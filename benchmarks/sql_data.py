"""The collections of sql_matrix.py: real and clustered vectors, each with every index method.

Conditions that hold for 50 %, 1 % and 0.1 % of the rows come in three kinds. Labels follow the
vectors, as folders do: each is some classes, so a question's nearest images mostly have another.
`metadata` and the token in a file's name do not depend on the vectors.
"""

import json
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psycopg
from common import say
from numpy.typing import NDArray
from vectors import CHUNK, CLASSES, Vectors

from vecsearch.library import Library

METHODS = ("none", "hnsw", "compact")
# The share of rows that each value selects.
SHARES = {"half": 0.5, "percent": 0.01, "permille": 0.001}
REST = "rest"
MODEL = "tf_efficientnet_lite0"
# The share of images that have a row in the table of sales.
SOLD = 0.3
SALES = "sales"

Texts = NDArray[np.str_]


@dataclass(frozen=True)
class DataSet:
    """Vectors of one kind; a collection of it is named after the index method and the set."""

    name: str
    rows: int
    dimensions: int | None = None

    def collection(self, method: str) -> str:
        """Return the name of the collection with an index method."""
        return f"{method}_{self.name}"


REAL = DataSet("3k", 3_000)
SETS = (REAL, DataSet("20k", 20_000, 512), DataSet("100k", 100_000, 256))


def build(library: Library, chosen: DataSet, pictures: Path | None, seed: int) -> None:
    """Create the collections of a data set that do not exist yet, and their table of sales.

    Args:
        library: where.
        chosen: the data set.
        pictures: a tar of pictures, of which the real set is made.
        seed: of everything random.

    """
    present = {one.name for one in library.collections()}
    missing = [method for method in METHODS if chosen.collection(method) not in present]
    if missing:
        with TemporaryDirectory() as temporary:
            folder = Path(temporary)
            if chosen is REAL:
                _ingest(library, chosen, pictures, folder, missing, seed)
            else:
                _import(library, chosen, folder, missing, seed)
    _sell(library, chosen, seed)


def _import(library: Library, chosen: DataSet, folder: Path, missing: list[str], seed: int) -> None:
    file = folder / "vectors.npz"
    _write(file, chosen, seed)
    for method in missing:
        say(f"importing {chosen.rows:,} vectors into {chosen.collection(method)}")
        library.collection(chosen.collection(method)).import_file(file, root="/made", index=method)


def _write(file: Path, chosen: DataSet, seed: int) -> None:
    """Write clustered vectors as an export of vecsearch, which can have labels and metadata."""
    source = Vectors(chosen.rows, seed, chosen.dimensions or 0)
    random = np.random.default_rng([seed, 3])
    vectors, classes = [], []
    for start in range(0, chosen.rows, CHUNK):
        count = min(CHUNK, chosen.rows - start)
        classes.append(random.integers(0, CLASSES, count))
        vectors.append(source.draw(random, count, classes[-1]).astype(np.float16))
    # Whole classes: 500, 10 and 1 of the thousand.
    labels = _shared(np.arange(CLASSES) / CLASSES)[random.permutation(CLASSES)]
    found = labels[np.concatenate(classes)]
    rows = zip(found.tolist(), _random(chosen.rows, random).tolist(), strict=True)
    tokens = _random(chosen.rows, random)
    paths = [f"{token}-{row:09}.png" for row, token in enumerate(tokens)]
    np.savez(file, paths=np.array(paths), embeddings=np.concatenate(vectors))
    described: dict[str, Any] = {
        "name": chosen.name,
        "identity": {
            "backend": "unknown",
            "model": "clustered",
            "layer": "pooled",
            "weights_sha256": None,
            "preprocessing": {},
        },
        "weights": {"source": None, "file_sha256": None},
        "dimensions": chosen.dimensions,
        "default_metric": "cosine",
    }
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("collection.json", json.dumps(described))
        lines = (
            json.dumps({"label": label, "exif": {}, "metadata": {"share": share}})
            for label, share in rows
        )
        archive.writestr("rows.ndjson", "".join(f"{line}\n" for line in lines))


def _ingest(
    library: Library,
    chosen: DataSet,
    pictures: Path | None,
    folder: Path,
    missing: list[str],
    seed: int,
) -> None:
    """Ingest pictures from folders that are labels; other collections import the first's export."""
    if pictures is None:
        raise SystemExit("Give the pictures: --pictures FILE.tar")
    root = folder / "photos"
    metadata = folder / "metadata.csv"
    random = np.random.default_rng([seed, 4])
    with tarfile.open(pictures) as tar:
        members = sorted((one for one in tar if one.isfile()), key=lambda one: one.name)
        members = members[: chosen.rows]
        # Sorted by class: half are the first classes, the percent and the permille within the next.
        labels = _shared(np.arange(len(members)) / len(members))
        tokens, shares = _random(len(members), random), _random(len(members), random)
        lines = ["file,share"]
        for number, (member, label, token, share) in enumerate(
            zip(members, labels, tokens, shares, strict=True)
        ):
            name = f"{token}-{number:09}{Path(member.name).suffix}"
            (root / label).mkdir(parents=True, exist_ok=True)
            if (content := tar.extractfile(member)) is not None:
                with (root / label / name).open("wb") as out:
                    shutil.copyfileobj(content, out)
            lines.append(f"{name},{share}")
    metadata.write_text("\n".join(lines) + "\n")
    first = chosen.collection(missing[0])
    say(f"ingesting {len(members):,} pictures into {first}")
    library.collection(first).ingest([root], model=MODEL, metadata=metadata, index=missing[0])
    exported = folder / "photos.npz"
    library.collection(first).export_file(exported)
    for method in missing[1:]:
        name = chosen.collection(method)
        say(f"importing them into {name}")
        library.collection(name).import_file(exported, model=MODEL, index=method)


def _random(rows: int, random: np.random.Generator) -> Texts:
    """Return values that select the shares, in random order."""
    return _shared(random.permutation(rows) / rows)


def _shared(places: NDArray[np.float64]) -> Texts:
    """Return the value for each place between 0 and 1."""
    values, end = np.full(len(places), REST, dtype="U10"), 0.0
    for value, share in SHARES.items():
        values[(places >= end) & (places < end + share)] = value
        end += share
    return values


def _sell(library: Library, chosen: DataSet, seed: int) -> None:
    """Create a table of sales, as an analyst has one, in the schema public."""
    with connect(library) as connection:
        for method in METHODS:
            name = chosen.collection(method)
            connection.execute(f"DROP TABLE IF EXISTS public.{SALES}_{name} CASCADE")
            connection.execute(f"""
                CREATE TABLE public.{SALES}_{name} AS
                SELECT path, abs(hashtext(path || '{seed + 1}')) % 1000 AS amount
                FROM vecsearch.{name}
                WHERE abs(hashtext(path || '{seed}')) % 1000 < {1000 * SOLD:.0f}""")
            connection.execute(f"ALTER TABLE public.{SALES}_{name} ADD PRIMARY KEY (path)")
            connection.execute(f"ANALYZE public.{SALES}_{name}")


def connect(library: Library) -> "psycopg.Connection[tuple[Any, ...]]":
    """Return a new connection, as a client makes it from the URL."""
    return psycopg.connect(plain_url(library), autocommit=True)


def plain_url(library: Library) -> str:
    """Return the URL of the database for libpq."""
    return library.url.replace("postgresql+psycopg:", "postgresql:")


def everything(sets: tuple[DataSet, ...]) -> Iterator[tuple[DataSet, str]]:
    """Yield each data set with each index method."""
    for one in sets:
        for method in METHODS:
            yield one, method
