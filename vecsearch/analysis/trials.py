"""Try rankings on questions whose right answers are known, and choose one; numpy only."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from vecsearch.analysis import ranking
from vecsearch.search.indexes import projection
from vecsearch.vocabulary import Metric, Ranking

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# With the most dimensions, little is left of compact but its centring.
DIMS = (16, 32, 64, 128, 256)
EXPANSIONS = (0, 5, 10, 20)
# Embeddings that a projection is fitted to, as for an index.
FITTED = 10_000
# Scores that differ by less, in standard errors of the mean difference, are a tie.
NOISE = 2.0
# Numbers to convert to double precision at once.
BLOCK = 10_000_000


@dataclass(frozen=True)
class Setting:
    """A way to rank.

    Attributes:
        ranking: what orders the hits.
        dims: dimensions of a compact vector; None for `Ranking.full`.
        expansion: number of nearest images by which a query is expanded; see
            `vecsearch.analysis.ranking.expanded`.

    """

    ranking: Ranking = Ranking.full
    dims: int | None = None
    expansion: int = 0

    @property
    def effort(self) -> tuple[bool, int, int]:
        """How much it takes, and how much of the embedding it ignores: less is simpler."""
        return self.ranking is not Ranking.full, self.expansion, -(self.dims or 0)


UNCHANGED = Setting()


@dataclass(frozen=True)
class Questions:
    """Queries with known right answers.

    A right answer is a row with the query's class. Choosing must not see the answers that are kept
    for reporting, so it has rows of its own, too.

    Attributes:
        vectors: embeddings of the queries, shape (q, d).
        own: position of the row that is the query itself, shape (q,); -1 if there is none.
        classes: class of each query, shape (q,).
        choosing: whether a query is for choosing, shape (q,); the others are for reporting.
        row_classes: class of each row, shape (n,); -1 leaves the row out of all answers.
        row_choosing: whether a row is in the answers that choose, shape (n,).

    """

    vectors: "NDArray[np.float32]"
    own: "NDArray[np.int64]"
    classes: "NDArray[np.int64]"
    choosing: "NDArray[np.bool_]"
    row_classes: "NDArray[np.int64]"
    row_choosing: "NDArray[np.bool_]"


@dataclass(frozen=True)
class Score:
    """How good answers are.

    Attributes:
        precision: mean share of the k nearest images that are right.
        map: mean average precision, of the queries that have a right answer.

    """

    precision: float
    map: float


@dataclass(frozen=True)
class Trial:
    """A setting and its scores.

    Attributes:
        choosing: score of the choosing queries, among the choosing rows.
        reporting: score of the other queries, among all rows.
        overall: score of all queries, among all rows.

    """

    setting: Setting
    choosing: Score
    reporting: Score
    overall: Score


@dataclass(frozen=True)
class Measured:
    """A setting with a score for each query, shape (q,); average precision is nan if undefined.

    Those to choose by are nan for queries that are for reporting.
    """

    setting: Setting
    choosing: "tuple[Floats, Floats]"
    everywhere: "tuple[Floats, Floats]"


def run(
    embeddings: "NDArray[Any]",
    questions: Questions,
    *,
    k: int,
    now: Setting = UNCHANGED,
    on_trial: Callable[[int, int], None] = lambda *_: None,
) -> tuple[list[Trial], Setting] | None:
    """Return all trials, and the setting to use; None if too few queries have a right answer.

    Args:
        embeddings: shape (n, d).
        questions: what to ask. The embeddings of all rows may expand a query and fit a projection,
            since that needs no class.
        k: for `Score.precision`.
        now: the setting in use, which is tried too and kept unless another is better.
        on_trial: called with the number of trials done, and of all.

    """
    settings = _settings(embeddings, now)
    measured: list[Measured] = []
    for each in _measure(embeddings, questions, settings, k):
        if not _can_choose(each, questions.choosing):
            return None
        measured.append(each)
        on_trial(len(measured), len(settings))
    return [_trial(each, questions.choosing) for each in measured], choose(measured, now)


def _can_choose(measured: "Measured", choosing: "NDArray[np.bool_]") -> bool:
    """Return whether queries of both halves have a right answer, and enough to tell a spread."""
    to_choose, to_report = measured.choosing[1], measured.everywhere[1][~choosing]
    return bool(np.isfinite(to_choose).sum() > 1 and np.isfinite(to_report).any())


def _settings(embeddings: "NDArray[Any]", now: Setting) -> list[Setting]:
    """Return the settings to try, the simplest first; each space's are neighbours."""
    most = min(embeddings.shape[1], len(embeddings) - 1)
    spaces = [(Ranking.full, None), *((Ranking.compact, dims) for dims in DIMS if dims <= most)]
    tried = {Setting(*space, expansion) for space in spaces for expansion in EXPANSIONS} | {now}
    return sorted(tried, key=lambda each: (each.dims or 0, each.expansion))


def _measure(
    embeddings: "NDArray[Any]", questions: Questions, settings: Sequence[Setting], k: int
) -> Iterator[Measured]:
    projected = _Compact(embeddings, max(setting.dims or 0 for setting in settings))
    for dims, alike in groupby(settings, lambda setting: setting.dims):
        rows, queries = projected.take(embeddings, questions.vectors, dims)
        yield from _measure_space(rows, queries, questions, list(alike), k)


def _measure_space(
    rows: "NDArray[Any]",
    queries: "NDArray[Any]",
    questions: Questions,
    settings: Sequence[Setting],
    k: int,
) -> Iterator[Measured]:
    distances = _distances(queries, rows)
    most = max(setting.expansion for setting in settings)
    near = [
        ranking.nearest_first(row, int(own))[:most].copy()  # a view would keep the whole order
        for row, own in zip(distances, questions.own, strict=True)
    ]
    for setting in settings:
        if setting.expansion:
            asked = [
                ranking.averaged(query, rows[places[: setting.expansion]])
                for query, places in zip(queries, near, strict=True)
            ]
            distances = _distances(np.stack(asked), rows)
        yield Measured(setting, *_scores(distances, questions, k))


class _Compact:
    """Compact vectors, fitted once: with fewer dimensions, they are the first of these."""

    def __init__(self, embeddings: "NDArray[Any]", dims: int) -> None:
        some = np.random.default_rng(0).permutation(len(embeddings))[:FITTED]
        self._projection = projection.fit(embeddings[np.sort(some)].astype(np.float32), dims)
        self._rows = np.concatenate(
            [self._project(embeddings[block]) for block in _blocks(embeddings)]
        )

    def _project(self, embeddings: "NDArray[Any]") -> "NDArray[np.float32]":
        return self._projection.project(embeddings.astype(np.float32))

    def take(
        self, embeddings: "NDArray[Any]", queries: "NDArray[Any]", dims: int | None
    ) -> "tuple[NDArray[Any], NDArray[Any]]":
        """Return rows and queries in a space: compact, or with dims None, as they are."""
        if dims is None:
            return embeddings, queries
        return self._rows[:, :dims], self._project(queries)[:, :dims]


def _blocks(rows: "NDArray[Any]") -> list[slice]:
    step = max(1, BLOCK // rows.shape[1])
    return [slice(start, start + step) for start in range(0, len(rows), step)]


def _distances(queries: "NDArray[Any]", rows: "NDArray[Any]") -> "Floats":
    # A vector without a direction has no distance, and comes last in every answer.
    found = np.empty((len(queries), len(rows)))
    with np.errstate(invalid="ignore", divide="ignore"):
        for block in _blocks(rows):
            found[:, block] = ranking.distances(queries, rows[block], Metric.cosine)
    return found


def _scores(
    distances: "Floats", questions: Questions, k: int
) -> "tuple[tuple[Floats, Floats], tuple[Floats, Floats]]":
    """Return precision and average precision of each query: among choosing rows, among all."""
    found = np.full((2, 2, len(distances)), np.nan)
    judged = questions.row_classes >= 0
    visible = judged & questions.row_choosing
    for query, row in enumerate(distances):
        order = ranking.nearest_first(row, int(questions.own[query]))
        relevant = questions.row_classes[order] == questions.classes[query]
        for place, mask in enumerate((visible, judged)):
            if place == 0 and not questions.choosing[query]:
                continue
            answer = relevant[mask[order]]
            if len(answer):
                average = ranking.average_precision(answer)
                found[place, 0, query] = ranking.precision_at(answer, k)
                found[place, 1, query] = np.nan if average is None else average
    return (found[0, 0], found[0, 1]), (found[1, 0], found[1, 1])


def _trial(measured: Measured, choosing: "NDArray[np.bool_]") -> Trial:
    precision, average = measured.everywhere
    return Trial(
        measured.setting,
        choosing=_score(*measured.choosing),
        reporting=_score(precision[~choosing], average[~choosing]),
        overall=_score(precision, average),
    )


def _score(precision: "Floats", average: "Floats") -> Score:
    return Score(float(np.nanmean(precision)), float(np.nanmean(average)))


def choose(measured: Sequence[Measured], now: Setting) -> Setting:
    """Return the simplest setting that ties with the best; the one in use is the simplest.

    The best has the highest mean average precision, of those with no lower precision than now:
    finding more images further down must not spoil the first page. This is the one-standard-error
    rule (Breiman et al., Classification and Regression Trees, 1984, section 3.4.3), with the errors
    of paired differences, as all settings answer the same queries.
    """
    (current,) = (each for each in measured if each.setting == now)
    harmless = [each for each in measured if _tie(current.choosing[0], each.choosing[0])]
    best = max(harmless, key=lambda each: float(np.nanmean(each.choosing[1])))
    ties = [each.setting for each in harmless if _tie(best.choosing[1], each.choosing[1])]
    return min(ties, key=lambda each: (each != now, each.effort))


def _tie(best: "Floats", other: "Floats") -> bool:
    """Return whether `other` is not clearly worse; both have a score for each query, or nan."""
    loss = (best - other)[np.isfinite(best)]
    return bool(loss.mean() <= NOISE * loss.std(ddof=1) / np.sqrt(len(loss)))
