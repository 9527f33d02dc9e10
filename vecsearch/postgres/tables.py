"""The tables that collections share; analysts read those of `SCHEMA`, so they are public.

`migrations/` creates them. A change here needs a migration.
"""

from typing import Any

import sqlalchemy as sa
from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB

from vecsearch.encoders.registry import FAMILIES
from vecsearch.vocabulary import (
    Derived,
    FileAction,
    IndexMethod,
    Metric,
    Precision,
    Ranking,
    build_options,
    choices,
)

SCHEMA = "vecsearch"
# Tables that are not for analysts, those of compact vectors too: BI tools list what is in `SCHEMA`.
# Who reads collections needs rights on both schemas; see docs/sql.md.
INTERNAL = "vecsearch_internal"
SCHEMAS = (SCHEMA, INTERNAL)

FAMILY_NAMES = choices(family.backend for family in reversed(FAMILIES))
OPTIONS = ", ".join(option.name for option in build_options())

metadata = sa.MetaData(schema=SCHEMA)


def _needed(name: str, kind: Any, comment: str, **options: Any) -> "sa.Column[Any]":
    """Return a column that always has a value."""
    return sa.Column(name, kind, nullable=False, comment=comment, **options)


def _time(name: str, comment: str) -> "sa.Column[Any]":
    kind = sa.DateTime(timezone=True)
    return _needed(name, kind, comment, server_default=sa.func.now())


collections = sa.Table(
    "collections",
    metadata,
    sa.Column("name", sa.Text, primary_key=True, comment="Name of the collection and of its table"),
    _needed("model", sa.Text, "timm model with its tag, open_clip: and a model, or autoencoder"),
    _needed("layer", sa.Text, "Layer whose output is the embedding"),
    sa.Column(
        "weights_sha256",
        sa.Text,
        comment="SHA-256 of the loaded tensors, whatever file format they came in; "
        "NULL: imported vectors whose weights are not known",
    ),
    _needed(
        "preprocessing",
        JSONB,
        "How a picture becomes the encoder's input: size, crop, interpolation, mean, std",
    ),
    sa.Column(
        "weights_source",
        sa.Text,
        comment="File the weights were read from; package:NAME: a Python package; "
        "NULL: the model hub",
    ),
    sa.Column("weights_file_sha256", sa.Text, comment="SHA-256 of that file when it was read"),
    _needed("dimensions", sa.Integer, "Numbers in one embedding"),
    _needed(
        "default_metric",
        sa.Text,
        f"Metric of a query that names none: {choices(Metric)}",
        server_default=Metric.cosine,
    ),
    _time("created_at", "When the collection was made"),
    _needed(
        "index_method",
        sa.Text,
        f"Index that is wanted: {choices(IndexMethod)}",
        server_default=IndexMethod.hnsw,
    ),
    _needed(
        "index_options",
        JSONB,
        f"What the index is built with: {OPTIONS}; missing: the default",
        server_default="{}",
    ),
    sa.Column(
        "projection",
        sa.Integer,
        comment="Version of the projection whose table NAME_compact_VERSION searches use; "
        "NULL: none",
    ),
    _needed(
        "breadths",
        JSONB,
        "By metric, how broadly the index is searched, as `index tune` found it: "
        "hnsw.ef_search, or the number of candidates where those are re-ranked",
        server_default="{}",
    ),
    _needed(
        "precision",
        sa.Text,
        "Of the encoder's numbers: fp32, or int8-HASH, which names its quantized_models",
        server_default=Precision.fp32,
    ),
    _needed(
        "backend",
        sa.Text,
        f"Encoder family: {FAMILY_NAMES}; unknown: imported vectors whose weights are not known",
    ),
    _needed(
        "ranking",
        sa.Text,
        "What orders the hits of a search by cosine: full, the embeddings; compact, "
        "their compact vectors",
        server_default=Ranking.full,
    ),
    _needed(
        "expansion",
        sa.Integer,
        "Nearest images by which a search by cosine expands its question; 0: none",
        server_default="0",
    ),
    comment="One row per collection: a table of images made by one encoder",
)

quantized_models = sa.Table(
    "quantized_models",
    metadata,
    sa.Column(
        "precision",
        sa.Text,
        primary_key=True,
        comment="int8- and how the SHA-256 of model and tensors begins, in hex",
    ),
    _needed("model", sa.LargeBinary, "OpenVINO's graph, XML"),
    _needed("tensors", sa.LargeBinary, "Its weights"),
    _needed("dimensions", sa.Integer, "Numbers in one embedding"),
    _needed(
        "layer_shape",
        postgresql.ARRAY(sa.Integer),
        "The layer's output for one picture, before it is averaged",
    ),
    _time("made_at", "When it was calibrated"),
    schema=INTERNAL,
    comment="Encoders in eight-bit integers, each calibrated on its collection's own pictures",
)

concepts = sa.Table(
    "concepts",
    metadata,
    sa.Column(
        "encoder",
        sa.Text,
        primary_key=True,
        comment="Encoder in whose space the embedding is: weights_sha256 of its collections",
    ),
    sa.Column("number", sa.Integer, primary_key=True, comment="Class of the classifier, from 0"),
    _needed("name", sa.Text, "The word"),
    _needed("synonyms", postgresql.ARRAY(sa.Text), "Other words for it"),
    _needed("definition", sa.Text, "What it means"),
    _needed(
        "embedding",
        HALFVEC(),
        "The class's weights: images that show it have a small cosine distance to them",
    ),
    _needed("bias", sa.REAL, "With the inner product of image and embedding, the class's logit"),
    comment="Words by which images can be searched: the classes of each encoder's classifier",
)

tags = sa.Table(
    "tags",
    metadata,
    sa.Column("collection", sa.Text, primary_key=True, comment="Collection of the image"),
    sa.Column("id", sa.Uuid, primary_key=True, comment="Id of the image"),
    sa.Column("rank", sa.SmallInteger, primary_key=True, comment="From 1, the most probable first"),
    _needed("name", sa.Text, "The concept's name"),
    _needed("number", sa.SmallInteger, "Its number in concepts"),
    _needed("probability", sa.REAL, "Among all concepts, from 0 to 1"),
    sa.Index("tags_name", "collection", "name", "probability"),
    schema=INTERNAL,
    comment="The most probable concepts of each image; the view NAME_tags has one collection's",
)

ingest_errors = sa.Table(
    "ingest_errors",
    metadata,
    sa.Column("collection", sa.Text, primary_key=True, comment="Collection it was meant for"),
    _needed("path", sa.Text, "File or folder that could not be read"),
    _needed("error", sa.Text, "Why"),
    _time("at", "When it was last tried"),
    # A path may be longer than an entry of an index.
    sa.Column("id", sa.Uuid, primary_key=True, comment="Id that the image has, or would have"),
    comment="Files that could not be ingested, until they can be or are gone",
)

not_duplicates = sa.Table(
    "not_duplicates",
    metadata,
    sa.Column("collection", sa.Text, primary_key=True, comment="Collection of both images"),
    sa.Column("image", sa.Uuid, primary_key=True, comment="Id of the one, the smaller id"),
    sa.Column("other", sa.Uuid, primary_key=True, comment="Id of the other"),
    _time("at", "When that was said"),
    sa.CheckConstraint("image < other", name="not_duplicates_ordered"),
    comment="Pairs of images that are no near-duplicates, however near they are",
)

file_actions = sa.Table(
    "file_actions",
    metadata,
    sa.Column("collection", sa.Text, primary_key=True, comment="Collection of the image"),
    sa.Column(
        "run", sa.Integer, primary_key=True, comment="Run in the collection, from 1: undo RUN"
    ),
    sa.Column("number", sa.Integer, primary_key=True, comment="File in the run, from 1"),
    _needed("action", sa.Text, choices(FileAction)),
    _needed("state", sa.Text, "planned, acting, done, left (alone), undoing or undone"),
    _needed("id", sa.Uuid, "Id of the image"),
    _needed("path", sa.Text, "Its file"),
    _needed("sha256", sa.Text, "SHA-256 of the file, in hex"),
    _needed("kept", sa.Uuid, "Id of the image that is kept"),
    _needed("kept_path", sa.Text, "Its file"),
    sa.Column(
        "target",
        sa.Text,
        comment="Where the file was moved to, or is while a link takes its place; NULL: the trash",
    ),
    _needed("facts", JSONB, "The file's size, modification time in nanoseconds, and mode"),
    sa.Column("stored", JSONB, comment="Rows of the image that were deleted, by table"),
    sa.Column("given", JSONB, comment="Metadata that the kept image's row was given"),
    sa.Column("reason", sa.Text, comment="Why it was left alone, or not brought back"),
    _time("at", "When the run began"),
    schema=INTERNAL,
    comment="What was done to the files of duplicates, and what it takes to undo it",
)

thumbnails = sa.Table(
    "thumbnails",
    metadata,
    sa.Column(
        "sha256",
        sa.Text,
        primary_key=True,
        comment="SHA-256 of the file that it was made of, in hex, as in the collections",
    ),
    _needed("width", sa.Integer, "Pixels of the thumbnail"),
    _needed("height", sa.Integer, "Pixels of the thumbnail"),
    _needed(
        "image", sa.LargeBinary, "JPEG, or WebP as it once was, at most 320 x 320 pixels, upright"
    ),
    schema=INTERNAL,
    comment="One small picture per file content, whichever collections hold it",
)

projections = sa.Table(
    "projections",
    metadata,
    sa.Column("collection", sa.Text, primary_key=True, comment="Collection it was fitted to"),
    sa.Column(
        "version",
        sa.Integer,
        sa.Identity(),
        primary_key=True,
        comment="Higher for later ones, whichever their collection; its table is "
        "NAME_compact_VERSION",
    ),
    _needed("dimensions", sa.Integer, "Numbers in a compact vector"),
    _needed("mean", VECTOR(), "Of the sample's normalised embeddings"),
    _needed(
        "components",
        postgresql.ARRAY(VECTOR()),
        "Principal components of the sample, one for each number of a compact vector",
    ),
    _needed("sample", sa.Integer, "Images it was fitted to"),
    _needed(
        "variance_kept",
        sa.Double,
        "Share of the sample's variance that compact vectors keep, from 0 to 1",
    ),
    _needed(
        "fitted_at",
        sa.DateTime(timezone=True),
        "When it was fitted",
        server_default=sa.func.clock_timestamp(),
    ),
    _needed(
        "metric",
        sa.Text,
        "Metric by which the compact vectors are indexed: l2, or cosine if they rank",
        server_default=Metric.l2,
    ),
    schema=INTERNAL,
    comment="Principal components by which embeddings are made compact; of a collection at "
    "most one that is in use and one that is being built",
)


def _internal(name: str, comment: str, *columns: sa.schema.SchemaItem) -> sa.Table:
    """Return a table for analysts, who see one collection's rows in the view NAME_…."""
    of = sa.Column("collection", sa.Text, primary_key=True, comment="Collection of the rows")
    return sa.Table(name, metadata, of, *columns, schema=INTERNAL, comment=comment)


def _derived(name: Derived, comment: str, *columns: sa.schema.SchemaItem) -> sa.Table:
    image = sa.Column("id", sa.Uuid, primary_key=True, comment="Id of the image")
    return _internal(name, f"{comment}; see the views NAME_{name}", image, *columns)


changes = _internal(
    "changes",
    "Images added, changed and deleted; see the views NAME_changes",
    sa.Column(
        "position",
        sa.BigInteger,
        primary_key=True,
        comment="Place in the feed; the changes of a transaction share one",
    ),
    sa.Column(
        "number",
        sa.BigInteger,
        sa.Identity(),
        primary_key=True,
        comment="Order within a transaction",
    ),
    _needed("transaction", sa.BigInteger, "Number of its transaction"),
    _needed(
        "kind",
        sa.Text,
        "added, updated (another embedding), deleted; reset: any image may have changed",
    ),
    sa.Column("id", sa.Uuid, comment="Id of the image; NULL: reset"),
    _time("at", "When its transaction began"),
)

refreshes = _internal(
    "refreshes",
    "When each derived table was last refreshed, and how",
    sa.Column("derived", sa.Text, primary_key=True, comment=choices(Derived)),
    _needed("position", sa.BigInteger, "Place in the feed up to which it follows the collection"),
    _needed("options", JSONB, "What it was made with"),
    _time("refreshed_at", "When"),
)

neighbours = _derived(
    Derived.neighbours,
    "The nearest images of each image",
    sa.Column("rank", sa.SmallInteger, primary_key=True, comment="From 1, the nearest first"),
    _needed("neighbour", sa.Uuid, "Id of the near image"),
    _needed("distance", sa.Double, "Cosine distance of the two"),
    sa.Index("neighbours_neighbour", "collection", "neighbour"),
)

duplicates = _derived(
    Derived.duplicates,
    "Groups of near-duplicates",
    _needed("group_number", sa.Integer, "Group, from 1"),
    _needed("first", sa.Uuid, "Id of the group's oldest image"),
    _needed("distance", sa.Double, "Cosine distance to that image"),
    sa.Column("difference", sa.Double, comment="Of their thumbnails, 0 to 2; NULL: one is missing"),
)

clusters = _derived(
    Derived.clusters,
    "Clusters of similar images",
    _needed("cluster", sa.Integer, "Cluster, from 1, the largest"),
    _needed("distance", sa.Double, "Cosine distance to its centre"),
    sa.Column(
        "name", sa.Text, comment="Concept nearest to its centre; NULL: its encoder has no concepts"
    ),
)

maps = _derived(
    Derived.map,
    "Places of images on a map, where similar ones are near each other",
    _needed("x", sa.REAL, "To the right; only distances mean anything"),
    _needed("y", sa.REAL, "Upwards"),
)

# By `Derived`; whoever dumps or copies a collection takes them all.
derived = {name: metadata.tables[f"{INTERNAL}.{name}"] for name in Derived}
