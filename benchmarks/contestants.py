"""The alternatives to vecsearch, with settings as equal as they allow.

Graphs have 16 links per node and are built with 64 candidates (pgvector's defaults), by all cores;
queries run in one thread.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import K
from vectors import Array

LINKS = 16
EF_CONSTRUCTION = 64
BREADTHS = (10, 20, 40, 60, 80, 100, 120, 150, 200, 250, 300, 400, 600, 800)
BLOCK = 1_000
THREADS = os.cpu_count() or 1


@dataclass(frozen=True)
class Mode:
    """A way to query a contestant.

    Attributes:
        name: name in the table.
        ask: returns the nearest rows for a vector and a setting, called breadth.
        breadths: settings to try, such as values of ef_search; (None,) uses the default.

    """

    name: str
    ask: Callable[[Array, Any], Sequence[int]]
    breadths: Sequence[int | None] = BREADTHS

    def at(self, breadth: int | None) -> Callable[[Array], Sequence[int]]:
        """Return what asks for one vector at this setting."""
        return lambda vector: self.ask(vector, breadth)


class Contestant(ABC):
    """A library or database to measure: load, then build, then query.

    Attributes:
        name: name on the command line.
        loads: whether loading is a separate step from building.
        holds_vectors: whether the index's size includes the vectors.

    """

    name = ""
    loads = True
    holds_vectors = True

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder = folder / self.name
        self.folder.mkdir(parents=True)
        self.rows = rows

    @abstractmethod
    def load(self, vectors: Array) -> None:
        """Load vectors, shape (rows, DIMENSIONS)."""

    @abstractmethod
    def build(self) -> None:
        """Build the index."""

    @abstractmethod
    def megabytes(self) -> float:
        """Return the size of the index."""

    @abstractmethod
    def modes(self) -> list[Mode]:
        """Return the ways to query it."""


class Hnswlib(Contestant):
    """hnswlib, in this process, single precision."""

    name = "hnswlib"
    loads = False

    def load(self, vectors: Array) -> None:
        self._vectors = vectors

    def build(self) -> None:
        import hnswlib

        self._index = hnswlib.Index(space="cosine", dim=self._vectors.shape[1])
        self._index.init_index(self.rows, ef_construction=EF_CONSTRUCTION, M=LINKS, random_seed=1)
        self._index.add_items(self._vectors, num_threads=THREADS)

    def megabytes(self) -> float:
        return float(self._index.index_file_size()) / 1e6

    def modes(self) -> list[Mode]:
        return [Mode(self.name, self._ask)]

    def _ask(self, vector: Array, breadth: int) -> Sequence[int]:
        self._index.set_ef(breadth)
        rows, _ = self._index.knn_query(vector, k=K, num_threads=1)
        return list(rows[0].tolist())


class Faiss(Contestant):
    """faiss' HNSW on the vectors, in this process, single precision."""

    name = "faiss"
    loads = False

    def load(self, vectors: Array) -> None:
        self._vectors = vectors

    def build(self) -> None:
        import faiss

        faiss.omp_set_num_threads(THREADS)
        dimensions = self._vectors.shape[1]
        self._index = faiss.IndexHNSWFlat(dimensions, LINKS, faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = EF_CONSTRUCTION
        for start in range(0, self.rows, 10 * BLOCK):
            self._index.add(_normalised(self._vectors[start : start + 10 * BLOCK]))

    def megabytes(self) -> float:
        import faiss

        file = self.folder / "index"
        faiss.write_index(self._index, str(file))
        size = file.stat().st_size / 1e6
        file.unlink()
        return size

    def modes(self) -> list[Mode]:
        import faiss

        # This applies to the whole process, so set it after every index is built.
        faiss.omp_set_num_threads(1)
        return [Mode("faiss HNSW", self._ask)]

    def _ask(self, vector: Array, breadth: int) -> Sequence[int]:
        self._index.hnsw.efSearch = breadth
        _, rows = self._index.search(_normalised(vector[np.newaxis]), K)
        return list(rows[0].tolist())


class Usearch(Contestant):
    """usearch, in this process, half precision."""

    name = "usearch"
    loads = False

    def load(self, vectors: Array) -> None:
        self._vectors = vectors

    def build(self) -> None:
        from usearch.index import Index

        self._index = Index(
            ndim=self._vectors.shape[1],
            metric="cos",
            dtype="f16",
            connectivity=LINKS,
            expansion_add=EF_CONSTRUCTION,
        )
        self._index.add(np.arange(self.rows), self._vectors, threads=THREADS)

    def megabytes(self) -> float:
        return float(self._index.serialized_length) / 1e6

    def modes(self) -> list[Mode]:
        return [Mode("usearch, f16", self._ask)]

    def _ask(self, vector: Array, breadth: int) -> Sequence[int]:
        self._index.expansion_search = breadth
        return list(self._index.search(vector, K, threads=1).keys.tolist())


class Chroma(Contestant):
    """Chroma, with files on disk, in this process; it builds its index while loading."""

    name = "chroma"
    loads = False

    def load(self, vectors: Array) -> None:
        self._vectors = vectors

    def build(self) -> None:
        hnsw: Any = {
            "space": "cosine",
            "ef_construction": EF_CONSTRUCTION,
            "max_neighbors": LINKS,
            "num_threads": THREADS,
        }
        self._client = self._open()
        self._collection = self._client.create_collection(
            "vectors", configuration={"hnsw": hnsw}, embedding_function=None
        )
        for start in range(0, self.rows, BLOCK):
            block = self._vectors[start : start + BLOCK]
            names = [str(row) for row in range(start, start + len(block))]
            self._collection.add(ids=names, embeddings=block)
        self._breadth = 0

    def _open(self) -> Any:
        import chromadb

        settings = chromadb.Settings(anonymized_telemetry=False)
        return chromadb.PersistentClient(str(self.folder), settings)

    def megabytes(self) -> float:
        return _size(*(path for path in self.folder.iterdir() if path.is_dir()))

    def modes(self) -> list[Mode]:
        return [Mode("Chroma", self._ask)]

    def _ask(self, vector: Array, breadth: int) -> Sequence[int]:
        if breadth != self._breadth:
            self._collection.modify(configuration={"hnsw": {"ef_search": breadth}})
            # An open index keeps the ef_search that it was opened with.
            self._client.clear_system_cache()
            self._client = self._open()
            self._collection = self._client.get_collection("vectors", embedding_function=None)
            self._breadth = breadth
        found = self._collection.query(query_embeddings=vector, n_results=K, include=[])
        return [int(name) for name in found["ids"][0]]


class LanceDB(Contestant):
    """LanceDB, with files on disk, in this process, with its default index, IVF_PQ.

    With refining, it re-ranks several times as many candidates as requested by their vectors.
    """

    name = "lancedb"
    holds_vectors = False

    def load(self, vectors: Array) -> None:
        import lancedb
        import pyarrow as pa

        dimensions = vectors.shape[1]
        columns = {"row": pa.int64(), "vector": pa.list_(pa.float32(), dimensions)}

        def batches() -> Any:
            for start in range(0, self.rows, 10 * BLOCK):
                block = vectors[start : start + 10 * BLOCK]
                flat = pa.array(block.reshape(-1))
                rows = pa.array(np.arange(start, start + len(block)))
                lists = pa.FixedSizeListArray.from_arrays(flat, dimensions)
                yield pa.record_batch([rows, lists], schema=pa.schema(columns))

        reader = pa.RecordBatchReader.from_batches(pa.schema(columns), batches())
        self._table = lancedb.connect(self.folder).create_table("vectors", reader)

    def build(self) -> None:
        self._table.create_index(metric="cosine", vector_column_name="vector")

    def megabytes(self) -> float:
        return _size(*self.folder.rglob("_indices"))

    def modes(self) -> list[Mode]:
        return [
            Mode("LanceDB, default", self._ask, (None,)),
            Mode("LanceDB, refined", self._ask, (5, 10, 20, 40, 80)),
        ]

    def _ask(self, vector: Array, breadth: int | None) -> Sequence[int]:
        query = self._table.search(vector, vector_column_name="vector").distance_type("cosine")
        if breadth is not None:
            # Its default is 20 partitions.
            query = query.refine_factor(breadth).nprobes(max(20, 2 * breadth))
        return list(query.limit(K).select(["row", "_distance"]).to_arrow()["row"].to_pylist())


def _normalised(vectors: Array) -> Array:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def _size(*folders: Path) -> float:
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6
