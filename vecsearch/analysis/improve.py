"""Find the ranking that suits a collection: try several on its own images, and compare."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa

from vecsearch.analysis import labels, sampling, trials, variants
from vecsearch.analysis.sampling import FOLDERS, Labelling
from vecsearch.analysis.trials import Questions, Score, Setting, Trial
from vecsearch.encoders.base import unusable
from vecsearch.errors import InvalidInput
from vecsearch.imaging import decode
from vecsearch.ingest import staging
from vecsearch.postgres import thumbnails
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.search.indexes.build import OnProgress, quiet
from vecsearch.search.query import Query, require_k
from vecsearch.vocabulary import DEFAULT_K, Metric, Ranking

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image as Picture

    Embed = Callable[[Sequence[Picture]], NDArray[np.float32]]

# Limits on embeddings (50,000 images of 1,280 numbers) and on distances, which keep all trials to a
# few minutes and about a gigabyte.
MAXIMUM_NUMBERS = 64_000_000
MAXIMUM_DISTANCES = 20_000_000
# Images that are altered to be looked for.
ORIGINALS = 100
# A thumbnail has fewer.
MAXIMUM_PIXELS = 1_000_000


class JudgedBy(StrEnum):
    """What right answers are: images of the query's label, or the original of an altered copy."""

    labels = "labels"
    variants = "variants"


@dataclass(frozen=True)
class Judging:
    """How rankings are judged.

    Labels judge, if folders tell images apart or another source was named. Otherwise altered copies
    of stored thumbnails are looked for.

    Attributes:
        k: number of nearest images whose precision counts, if labels judge.
        metric: must be cosine; None uses the collection's default, which then must be.
        labelling: where labels come from; None: no labels, but altered copies.
        seed: seed for choosing queries and halves.
        on_progress: called with the current step, the number of units done, and their total.

    """

    k: int = DEFAULT_K
    metric: str | None = None
    labelling: Labelling | None = FOLDERS
    seed: int = 0
    on_progress: OnProgress = quiet


@dataclass(frozen=True)
class Improvement:
    """The scores of several rankings of a collection.

    Attributes:
        judged_by: what right answers are.
        k: for precision; 1 if there is one right answer.
        images: number of images searched.
        left_out: number of other images of the collection, left out to save time and memory.
        unlabelled: number of images searched that have no label, and are in no answer.
        choosing, reporting: number of queries of each half.
        trials: settings with their scores.
        now: the setting in use.
        best: the setting to use; `now`, unless another is clearly better.

    """

    collection: str
    model: str
    judged_by: JudgedBy
    k: int
    images: int
    left_out: int
    unlabelled: int
    choosing: int
    reporting: int
    trials: list[Trial]
    now: Setting
    best: Setting

    def trial(self, setting: Setting) -> Trial:
        """Return the trial of a setting."""
        (found,) = (each for each in self.trials if each.setting == setting)
        return found

    def choice(self, trial: Trial) -> str | None:
        """Return "now" or "best" for the trial of one of these settings."""
        return {self.best: "best", self.now: "now"}.get(trial.setting)

    def rows(self) -> list[dict[str, Any]]:
        """Return the trials as flat rows."""
        return [
            {
                **asdict(each.setting),
                **self._named("choosing", each.choosing),
                **self._named("reporting", each.reporting),
                **self._named("all", each.overall),
                "choice": self.choice(each),
            }
            for each in self.trials
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON, with its key names."""
        return {
            "collection": self.collection,
            "model": self.model,
            "judged_by": self.judged_by,
            "k": self.k,
            "images": self.images,
            "left_out": self.left_out,
            "unlabelled": self.unlabelled,
            "queries": {"choosing": self.choosing, "reporting": self.reporting},
            "trials": self.rows(),
            "now": asdict(self.now),
            "best": asdict(self.best),
        }

    def _named(self, part: str, score: Score) -> dict[str, float]:
        return {f"{part}_precision@{self.k}": score.precision, f"{part}_map": score.map}


def improve(
    connection: sa.Connection, collection: StoredCollection, embed: "Embed", judging: Judging
) -> Improvement:
    """Score rankings of a collection, and say which to use; changes nothing.

    Args:
        connection: in a transaction.
        collection: the collection.
        embed: returns the embeddings (n, d) of pictures of mode RGB, by the collection's encoder.
        judging: how to judge.

    Raises:
        InvalidInput: the metric is not cosine, or there is nothing to judge by.

    """
    require_k(judging.k)
    ranked_by = Query(metric=judging.metric).ranked_by(collection.default_metric)
    if ranked_by is not Metric.cosine:
        raise InvalidInput(
            f"Rankings apply to searches by cosine, not by {ranked_by}. Add --metric cosine."
        )
    # Not the seed alone: `choose_queries` draws with that, and halves must not depend on it.
    random = np.random.default_rng([judging.seed, 1])
    labelling, on_progress = judging.labelling, judging.on_progress
    key = labelling.key if labelling else None
    images = labels.read_images(connection, collection.table, key)
    found = labelling.read(images) if labelling else [None] * len(images)
    taken = _some(np.arange(len(images)), MAXIMUM_NUMBERS // collection.dimensions, random)
    embeddings = _read(connection, collection, taken, on_progress)
    left_out = len(images) - len(taken)
    images, found = [images[place] for place in taken], [found[place] for place in taken]
    limit = min(sampling.MAXIMUM_QUERIES, MAXIMUM_DISTANCES // max(len(images), 1))
    if labelling is not None and (len(set(found) - {None}) > 1 or labelling != FOLDERS):
        judged_by, k = JudgedBy.labels, judging.k
        own = sampling.choose_queries(found, limit, judging.seed)
        questions = _by_labels(embeddings, found, own, random)
    else:
        judged_by, k = JudgedBy.variants, 1
        originals = _originals(connection, collection, images, limit, random)
        questions = _by_variants(len(images), originals, embed, on_progress)
    if questions is None:
        raise _too_few(collection, judged_by)
    now = current(collection)
    tried = trials.run(
        embeddings,
        questions,
        k=k,
        now=now,
        on_trial=lambda done, total: on_progress("Trying rankings", done, total),
    )
    if tried is None:
        raise _too_few(collection, judged_by)
    choosing = int(questions.choosing.sum())
    return Improvement(
        collection=collection.name,
        model=collection.identity.name,
        judged_by=judged_by,
        k=k,
        images=len(images),
        left_out=left_out,
        unlabelled=found.count(None) if judged_by is JudgedBy.labels else 0,
        choosing=choosing,
        reporting=len(questions.choosing) - choosing,
        trials=tried[0],
        now=now,
        best=tried[1],
    )


def current(collection: StoredCollection) -> Setting:
    """Return the setting that searches of a collection use."""
    ranks = collection.ranking is Ranking.compact and collection.compact is not None
    dims = collection.compact.dimensions if ranks and collection.compact else None
    return Setting(collection.ranking, dims, collection.expansion)


def _some(
    places: "NDArray[np.int64]", most: int, random: np.random.Generator
) -> "NDArray[np.int64]":
    """Return all places, or `most` of them, ascending."""
    return places if len(places) <= most else np.sort(random.choice(places, most, replace=False))


def _read(
    connection: sa.Connection,
    collection: StoredCollection,
    taken: "NDArray[np.int64]",
    on_progress: OnProgress,
) -> "NDArray[np.float16]":
    """Return the embeddings of the images at these places, as they are stored."""
    embeddings = np.empty((len(taken), collection.dimensions), np.float16)
    passed = done = 0
    for block in staging.read_blocks(connection, collection.table, embeddings=True, columns=False):
        first = taken[done:]
        some = first[first < passed + len(block.paths)] - passed
        embeddings[done : done + len(some)] = block.embeddings[some]
        passed, done = passed + len(block.paths), done + len(some)
        on_progress(f"Reading {collection.name}", done, len(taken))
    return embeddings


def _by_labels(
    embeddings: "NDArray[np.float16]",
    found: Sequence[str | None],
    own: "NDArray[np.int64]",
    random: np.random.Generator,
) -> Questions | None:
    """Return the images at these places as questions, halved without a look at the labels."""
    labelled = np.flatnonzero([label is not None for label in found])
    row_choosing = np.zeros(len(found), np.bool_)
    row_choosing[random.permutation(labelled)[: len(labelled) // 2]] = True
    number_of = {label: number for number, label in enumerate(sorted({*found} - {None}, key=str))}
    row_classes = np.array([number_of.get(label, -1) for label in found])
    if not len(own):
        return None
    return Questions(
        vectors=embeddings[own].astype(np.float32),
        own=own,
        classes=row_classes[own],
        choosing=row_choosing[own],
        row_classes=row_classes,
        row_choosing=row_choosing,
    )


def _originals(
    connection: sa.Connection,
    collection: StoredCollection,
    images: Sequence[labels.Image],
    limit: int,
    random: np.random.Generator,
) -> dict[int, bytes]:
    """Return the thumbnails of some images by their position, in random order."""
    places = random.permutation(len(images))[: min(ORIGINALS, limit // len(variants.KINDS))]
    ids = {images[place].id: int(place) for place in places}
    found = thumbnails.find(connection, collection.table, ids)
    return {place: found[id_] for id_, place in ids.items() if id_ in found}


def _by_variants(
    images: int,
    originals: Mapping[int, bytes],
    embed: "Embed",
    on_progress: OnProgress,
) -> Questions | None:
    """Return altered copies as questions; those of half of the originals are for choosing."""
    vectors, answers, choosing = [], [], []
    for done, (place, thumbnail) in enumerate(originals.items()):
        image = decode.decode(thumbnail, "thumbnail", max_pixels=MAXIMUM_PIXELS)
        if isinstance(image, decode.Image):
            made = embed(variants.make(image.pixels))
            usable = [vector for vector in made if unusable(vector) is None]
            vectors += usable
            answers += [place] * len(usable)
            choosing += [done % 2 == 0] * len(usable)
        on_progress("Altering images", done + 1, len(originals))
    if not vectors:
        return None
    return Questions(
        vectors=np.stack(vectors),
        own=np.full(len(vectors), -1),
        classes=np.array(answers),
        choosing=np.array(choosing),
        row_classes=np.arange(images),
        row_choosing=np.ones(images, np.bool_),
    )


def _too_few(collection: StoredCollection, judged_by: JudgedBy) -> InvalidInput:
    if judged_by is JudgedBy.labels:
        return InvalidInput(
            f"Too few images of {collection.name} share a label. Choose another source of labels "
            "with --label or --label-regex, or none with --label none."
        )
    return InvalidInput(
        f"Too few images of {collection.name} have a label or a thumbnail to judge by. Ingest "
        "more, or name a source of labels with --label or --label-regex."
    )
