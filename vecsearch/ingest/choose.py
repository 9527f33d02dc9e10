"""Which encoder an ingest uses: the collection's own, or the one that a new collection gets."""

from pathlib import Path

from vecsearch.config import Runtime
from vecsearch.encoders import registry
from vecsearch.encoders.base import DEFAULT_MODEL, PACKAGED_MODEL, Encoder, LazyEncoder
from vecsearch.errors import EncoderMismatch, SchemaMissing, WeightsUnavailable
from vecsearch.imaging import scan
from vecsearch.postgres import catalog, database, migrate, quantized
from vecsearch.search.questions.embedder import collection_encoder
from vecsearch.search.store import Store
from vecsearch.vocabulary import Precision


def encoder(
    store: Store,
    name: str,
    walk: scan.Walk,
    *,
    model: str | None,
    weights: str | Path | None,
    precision: Precision | None,
    remember: bool,
) -> tuple[Encoder, list[str]]:
    """Return the encoder for an ingest, and notes for a user, complete once it is loaded.

    Args:
        store: the database, and how encoders run.
        name: the collection.
        walk: the files, on some of which int8 is calibrated.
        model: what the user says; see `vecsearch.collection.Collection.ingest`.
        weights: likewise.
        precision: likewise.
        remember: save where the weights are now, and a calibrated encoder.

    Raises:
        EncoderError: the collection was made by another encoder.

    """
    try:
        with migrate.reading_current(store.engine) as connection:
            stored = catalog.find_collection(connection, name)
    except SchemaMissing:
        stored = None
    runtime = store.settings.runtime
    if stored is None:
        notes: list[str] = []
        exact = LazyEncoder(lambda: _of_new(name, model, weights, runtime, notes))
        if precision is not Precision.int8 or not remember:
            return exact, notes
        from vecsearch.encoders.openvino import calibration

        made = calibration.calibrate(
            exact, scan.Walk(walk.roots), runtime, max_pixels=store.settings.max_pixels
        )
        with database.writing(store.engine) as connection:
            quantized.store(connection, made.encoder.identity.precision, made.exported)
        return made.encoder, [*notes, made.note]
    if precision is not None and precision is not stored.identity.computes_in:
        raise EncoderMismatch(
            f"Collection {name!r} was made in {stored.identity.precision}, and --precision "
            f"{precision} would not compare with it. Leave --precision out, or use a collection "
            "of its own: --collection NAME"
        )
    found = collection_encoder(stored, model, weights, runtime, store.find_quantized)
    named = registry.weights_file(model, weights)
    if remember and named is not None and stored.identity.weights_sha256 is not None:
        now = found.weights
        if now != stored.weights:
            with database.writing(store.engine) as connection:
                catalog.remember_weights(connection, name, now)
    return found, []


def _of_new(
    name: str,
    model: str | None,
    weights: str | Path | None,
    runtime: Runtime,
    notes: list[str],
) -> Encoder:
    """Load the encoder of a new collection: what is named, the default, or else the packaged one.

    Raises:
        EncoderError: what is named cannot be loaded.

    """
    try:
        return registry.quickest(model or DEFAULT_MODEL, weights, runtime)
    except WeightsUnavailable as error:
        if model is not None or weights is not None:
            raise
        encoder = registry.quickest(PACKAGED_MODEL, None, runtime)
        reason, _, _ = str(error).partition(". ")
        notes.append(
            f"{reason}, so collection {name!r} uses {encoder.identity.name}, whose weights are "
            f"installed. To use {DEFAULT_MODEL}, ingest into a new --collection with --model "
            f"{DEFAULT_MODEL}, online or with --weights FILE."
        )
        return encoder
