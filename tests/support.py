"""What tests make for themselves: weights, pictures. Nothing here is random without a seed.

`python tests/support.py FILE` saves the seeded ResNet50 to FILE.
"""

import io
import os
import sys
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import PIL.Image
import psycopg
import pytest
import sqlalchemy as sa
from pgvector import HalfVector
from typer.testing import CliRunner

from vecsearch.cli import app
from vecsearch.config import Runtime
from vecsearch.encoders.base import Encoder, Identity, LazyEncoder, Weights
from vecsearch.imaging import scan
from vecsearch.imaging.preprocessing import Preprocessing
from vecsearch.ingest.run import Ingest, Options
from vecsearch.ingest.summary import Progress, Summary
from vecsearch.library import Library
from vecsearch.postgres import catalog, database, schema, tables
from vecsearch.postgres.rows import image_id
from vecsearch.search import collections
from vecsearch.search.indexes import vectors as compact_vectors
from vecsearch.search.query import Hit
from vecsearch.vocabulary import MAX_INDEXED_DIMENSIONS

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


def save_weights(path: Path, model: str = "resnet50.tv_in1k", seed: int = 0) -> Path:
    """Save seeded weights of a timm model as safetensors, or as a state dict if so named."""
    import safetensors.torch
    import timm
    import torch

    torch.manual_seed(seed)
    # zero_init_last: otherwise every residual branch of a fresh ResNet is zero.
    options: dict[str, Any] = {"zero_init_last": False} if "resnet" in model else {}
    module = timm.create_model(model, pretrained=False, **options)
    if "inception" in model:
        # Its fresh weights multiply until they overflow; one batch teaches its norms the scale.
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 1.0
        with torch.no_grad():
            module.train()(torch.rand(2, 3, 299, 299))
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(module.state_dict(), path)
    else:
        torch.save(module.state_dict(), path)
    return path


def hub_cache(folder: Path, models: Iterable[str], seed: int = 0) -> Path:
    """Fill a folder as the model hub's client does, with seeded weights of timm models."""
    for model in models:
        repository = folder / f"models--timm--{model}"
        snapshot = repository / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True, exist_ok=True)
        save_weights(snapshot / "model.safetensors", model, seed)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / "main").write_text("0" * 40)
    return folder


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> PIL.Image.Image:
    """Draw a picture of coloured blocks that no other seed draws."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return PIL.Image.fromarray(blocks).resize(size, PIL.Image.Resampling.NEAREST)


def png(seed: int) -> bytes:
    """Return a picture as the bytes of a PNG file."""
    content = io.BytesIO()
    picture(seed).save(content, "PNG")
    return content.getvalue()


def never_loaded() -> LazyEncoder:
    """Return an encoder that fails the test if it is needed."""

    def load() -> NoReturn:
        raise AssertionError("the encoder was loaded")

    return LazyEncoder(load)


def draw_photos(folder: Path) -> Path:
    """Fill a folder with twelve pictures, six in each of two folders, and return it."""
    for number in range(12):
        file = folder / ("cats" if number % 2 else "dogs") / f"{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(file)
    return folder


# Encoders as torch runs them; nothing is kept.
ON_TORCH = Runtime("cpu", "torch", Path(os.devnull))

# For a test of servers, connections, migrations, the planner or SQL: it runs against every kind of
# server (tests/servers.py), where others run against one unless `--servers all` is given.
every_server = pytest.mark.every_server
# For a test whose outcome no kind of server changes: it runs against one, whatever is given.
once = pytest.mark.once
# For a test that runs on a cluster of Citus, too, if there is one.
citus = pytest.mark.citus
# For a test among those of triggers, of how Postgres plans alone, or with SQL that Citus refuses.
one_server = pytest.mark.one_server


def hit(rank: int, path: Path, **fields: Any) -> Hit:
    """Return a hit as a query answers with, at a distance of rank/100."""
    plain: dict[str, Any] = {
        "id": uuid.UUID(int=rank),
        "distance": rank / 100,
        "similarity": 1 - rank / 100,
        "label": path.parent.name,
        "width": 64,
        "height": 48,
        "format": "PNG",
        "file_size": 100,
        "modified_at": datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC),
        "taken_at": None,
        "latitude": None,
        "longitude": None,
        "metadata": {},
    }
    return Hit(rank=rank, path=str(path), **plain | fields)


def normalised(batch: "NDArray[np.uint8]", encoder: Encoder | None = None) -> "torch.Tensor":
    """Return prepared pictures as torchvision normalises them, shape (n, 3, height, width).

    Args:
        batch: shape (n, height, width, 3).
        encoder: whose mean and deviation count; None is ImageNet's.

    """
    import torch
    from torchvision.transforms.functional import normalize, to_tensor

    imagenet = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    stored = encoder.identity.preprocessing if encoder else imagenet
    return torch.stack([normalize(to_tensor(one), stored["mean"], stored["std"]) for one in batch])


class PixelEncoder:
    """An encoder whose embedding is the picture, four by four pixels of it; it keeps a tally."""

    dimensions = 48
    layer_shape: tuple[int, ...] = (3, 4, 4)
    preprocessing = Preprocessing(
        4, 4, 1.0, "squash", PIL.Image.Resampling.NEAREST, (0.0,) * 3, (1.0,) * 3
    )
    concurrency = 1
    identity = Identity("timm", "pixels", "pooled", "0" * 64, {"size": 4})
    weights = Weights(None, None)

    def __init__(self) -> None:
        self.embedded: list[bytes] = []

    def embed(self, batch: "NDArray[np.uint8]") -> "NDArray[np.float32]":
        self.embedded += [inputs.tobytes() for inputs in batch]
        return batch.reshape(len(batch), -1).astype(np.float32)

    def expected(self, file: Path) -> "NDArray[np.float32]":
        """Return the embedding that the row of this file must have."""
        with PIL.Image.open(file) as picture:
            pixels = self.preprocessing.prepare(picture.convert("RGB"))
        return pixels.reshape(-1).astype(np.float32)


def ingest(
    engine: sa.Engine,
    paths: Iterable[str | Path],
    encoder: Encoder,
    *,
    collection: str = "images",
    progress: list[Progress] | None = None,
    **options: Any,
) -> Summary:
    """Ingest with an encoder of the test's own; note the progress in a list if there is one.

    A prune is made unasked, unless the options say otherwise.
    """
    options.setdefault("confirm", lambda _: True)
    with database.session(engine) as connection:
        run = Ingest(connection, collection, scan.Walk(paths), encoder, Options(**options))
        for step in run:
            if progress is not None:
                progress.append(step)
        return run.summary


def counts(summary: Summary) -> dict[str, int]:
    """Return the counts that are not zero."""
    return {name: count for name, count in summary.counts().items() if count}


@dataclass(frozen=True)
class Corpus:
    """A collection of seeded vectors, and what is known of it without asking Postgres."""

    library: Library
    name: str
    ids: list[uuid.UUID]
    vectors: "NDArray[np.float64]"

    def __len__(self) -> int:
        return len(self.ids)

    def distances(
        self, query: "NDArray[np.float64]", metric: str = "cosine"
    ) -> "NDArray[np.float64]":
        """Return the distance of every row, in order of `ids`."""
        match metric:
            case "l2":
                distances = np.linalg.norm(self.vectors - query, axis=1)
            case "l1":
                distances = np.abs(self.vectors - query).sum(axis=1)
            case "chi2":
                distances = chi2(self.vectors, query)
            case "ip":
                distances = -(self.vectors @ query)
            case "cosine":
                norms = np.linalg.norm(self.vectors, axis=1) * np.linalg.norm(query)
                distances = 1 - (self.vectors @ query) / norms
            case _:
                raise ValueError(metric)
        return np.asarray(distances, dtype=np.float64)


def chi2(one: "NDArray[np.float64]", other: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Return chi-squared distances along the last axis, as the migration's comment has them."""
    distances = ((one - other) ** 2 / (one + other + 1e-10)).sum(axis=-1) / 2
    return np.asarray(distances, dtype=np.float64)


def clustered(rows: int, dimensions: int, seed: int) -> "NDArray[np.float64]":
    """Return vectors as pictures have them: in clusters, none negative, in half precision."""
    random = np.random.default_rng(seed)
    centres = random.gamma(0.5, 1.0, (max(rows // 50, 1), dimensions))
    vectors = random.choice(centres, rows) + random.normal(0, 0.3, (rows, dimensions))
    return np.maximum(vectors, 0.001).astype(np.float16).astype(np.float64)


def make_corpus(library: Library, name: str, vectors: "NDArray[np.float64]") -> Corpus:
    """Store vectors as images: the one at position 7 has width 7, and so on."""
    identity = Identity("timm", "seeded", "pooled", "0" * 64, {})
    with database.writing(library.engine) as connection:
        collections.create(connection, name, identity, Weights(None, None), vectors.shape[1])
        return stored_corpus(library, connection, name, vectors)


def stored_corpus(
    library: Library, connection: sa.Connection, name: str, vectors: "NDArray[np.float64]"
) -> Corpus:
    """Fill the table of a collection, and index it."""
    paths = [f"/corpus/{position * 7919 % len(vectors):05}.png" for position in range(len(vectors))]
    ids = [image_id(path) for path in paths]
    with (
        database.driver_connection(connection).cursor() as cursor,
        cursor.copy(
            f"COPY vecsearch.{name} (id, path, sha256, width, height, format, file_size,"
            " modified_at, label, metadata, embedding) FROM STDIN".encode()
        ) as copy,
    ):
        for position, (row_id, path, vector) in enumerate(zip(ids, paths, vectors, strict=True)):
            metadata = f'{{"price": {position}}}'
            fixed = (f"{position:064x}", position, 1, "PNG", 1, "2026-01-01 00:00:00+00")
            copy.write_row(
                (row_id, path, *fixed, f"c{position % 20}", metadata, str(vector.tolist()))
            )
    if vectors.shape[1] <= MAX_INDEXED_DIMENSIONS:
        index = f"CREATE INDEX {schema.hnsw_index(name)} ON vecsearch.{name}"
        connection.execute(sa.text(f"{index} USING hnsw (embedding halfvec_cosine_ops)"))
    connection.execute(sa.text(f"ANALYZE vecsearch.{name}"))
    return Corpus(library, name, ids, vectors)


def store_concepts(
    library: Library, names: Iterable[str], weights: "NDArray[np.float16]", biases: Iterable[float]
) -> None:
    """Store the concepts of the encoder that `PixelEncoder` and `make_corpus` name."""
    rows = [
        {
            "encoder": "0" * 64,
            "number": number,
            "name": name,
            "synonyms": [],
            "definition": f"a {name}",
            "embedding": HalfVector(vector),
            "bias": float(bias),
        }
        for number, (name, vector, bias) in enumerate(zip(names, weights, biases, strict=True))
    ]
    with database.writing(library.engine) as connection:
        connection.execute(sa.insert(tables.concepts), rows)


def run_command(library: Library, *words: object, **options: Any) -> tuple[int, str, str]:
    """Run a command on the library's database; return its exit status, stdout and stderr."""
    done = CliRunner().invoke(app, [*map(str, words), "--database-url", library.url], **options)
    return done.exit_code, done.stdout, done.stderr


def scalar(library: Library, statement: str) -> Any:
    """Return the one value of a statement."""
    with database.reading(library.engine) as connection:
        return connection.scalar(sa.text(statement))


def as_pasted(library: Library, script: str) -> list[Any]:
    """Return the first column of what `--show-sql` prints, run by another client."""
    url = library.engine.url.set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False)) as client:
        client.execute("SET search_path = vecsearch, public")
        rows = client.execute(script.removeprefix("BEGIN;").removesuffix("COMMIT;").encode())
        while rows.nextset():
            pass
        return [row[0] for row in rows.fetchall()]


def as_sqlglot_writes(script: str) -> str:
    """Return SQL as sqlglot writes it, which Superset and others then send."""
    import sqlglot

    return ";\n".join(sqlglot.transpile(script, read="postgres", write="postgres"))


def write(library: Library, statement: str, **values: Any) -> None:
    """Run a statement that changes something."""
    with database.writing(library.engine) as connection:
        connection.execute(sa.text(statement), values)


def versions(library: Library, name: str = "images") -> list[catalog.Compact]:
    """Return the versions of the collection's compact vectors."""
    with database.reading(library.engine) as connection:
        return catalog.compact_versions(connection, name)


def index_scans(connection: sa.Connection, version: catalog.Compact) -> int:
    """Return the scans of an HNSW index of compact vectors that the session has yet to report."""
    scans = sa.text("SELECT pg_stat_get_xact_numscans(CAST(:index AS regclass))")
    index = f"{version.table.schema}.{version.index}"
    return int(connection.scalar(scans, {"index": index}) or 0)


def alembic_upgrade(connection: sa.Connection, revision: str, folder: Path | None = None) -> None:
    """Upgrade the tables to a revision, by the migrations or those of another folder."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(folder or schema.MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def check_vectors(engine: sa.Engine, version: catalog.Compact, *, whole: bool = True) -> None:
    """Check that every image, or none but images, has the projection of its own embedding."""
    with database.reading(engine) as connection:
        table = catalog.get_collection(connection, version.collection).table
        fitted = compact_vectors.read_projection(connection, version)
        real = sa.ARRAY(sa.REAL)
        stored = connection.execute(sa.select(table.c.id, sa.cast(table.c.embedding, real))).all()
        made = connection.execute(
            sa.select(version.table.c.id, sa.cast(version.table.c.compact, real))
        ).all()
    embeddings = {row[0]: row[1] for row in stored}
    vectors = {row[0]: row[1] for row in made}
    assert vectors.keys() <= embeddings.keys()
    if whole:
        assert vectors.keys() == embeddings.keys()
    if vectors:
        expected = fitted.project(np.array([embeddings[id_] for id_ in vectors], np.float32))
        np.testing.assert_allclose(np.array(list(vectors.values())), expected, atol=2e-3)


if __name__ == "__main__":
    save_weights(Path(sys.argv[1]))
