"""Which ranking is chosen, and that it is chosen by half of the labels."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from vecsearch.analysis import trials
from vecsearch.analysis.trials import UNCHANGED, Measured, Questions, Setting
from vecsearch.vocabulary import Ranking

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

CLASSES, EACH = 8, 20


@pytest.fixture
def embeddings() -> "NDArray[np.float32]":
    """Classes that few directions tell apart, below noise in many and what all have in common."""
    random = np.random.default_rng(0)
    centres = np.zeros((CLASSES, 100))
    centres[:, :10] = random.normal(0, 1, (CLASSES, 10))
    vectors = np.repeat(centres, EACH, axis=0) + random.normal(0, 0.45, (CLASSES * EACH, 100))
    vectors[:, 50] += 10
    return vectors.astype(np.float32)


@pytest.fixture
def questions(embeddings: "NDArray[np.float32]") -> Questions:
    rows = np.arange(len(embeddings))
    half = np.random.default_rng(1).permutation(rows) % 2 == 0
    return Questions(embeddings, rows, rows // EACH, half, rows // EACH, half)


def test_a_clearly_better_ranking_is_chosen(
    embeddings: "NDArray[np.float32]", questions: Questions
) -> None:
    ran = trials.run(embeddings, questions, k=5)
    assert ran is not None
    tried, best = ran
    scores = {trial.setting: trial for trial in tried}
    assert (best.ranking, best.dims) == (Ranking.compact, 16)
    assert scores[best].reporting.map > scores[UNCHANGED].reporting.map + 0.1
    # No more dimensions are tried than the embeddings have.
    assert {trial.setting.dims for trial in tried} == {None, 16, 32, 64}
    halves = scores[best].reporting.map, _precise(tried, best, questions, embeddings)
    assert min(halves) < scores[best].overall.map < max(halves)


def _precise(
    tried: list[trials.Trial],
    best: Setting,
    questions: Questions,
    embeddings: "NDArray[np.float32]",
) -> float:
    """Return what the choosing half would report."""
    swapped = trials.run(embeddings, replace(questions, choosing=~questions.choosing), k=5)
    assert swapped is not None
    assert [trial.setting for trial in swapped[0]] == [trial.setting for trial in tried]
    return next(trial.reporting.map for trial in swapped[0] if trial.setting == best)


def test_the_labels_that_report_have_no_part_in_the_choice(
    embeddings: "NDArray[np.float32]", questions: Questions
) -> None:
    classes = questions.row_classes.copy()
    hidden = ~questions.row_choosing
    classes[hidden] = np.random.default_rng(2).permutation(classes[hidden])
    shuffled = replace(questions, classes=classes, row_classes=classes)
    first, second = (trials.run(embeddings, each, k=5) for each in (questions, shuffled))
    assert first is not None
    assert second is not None
    assert first[1] == second[1]
    for one, other in zip(first[0], second[0], strict=True):
        assert one.choosing == other.choosing
        assert one.reporting.map > other.reporting.map + 0.1


def test_the_setting_in_use_is_tried_whatever_it_is(
    embeddings: "NDArray[np.float32]", questions: Questions
) -> None:
    now = Setting(Ranking.compact, 24, 7)
    ran = trials.run(embeddings, questions, k=5, now=now)
    assert ran is not None
    assert now in {trial.setting for trial in ran[0]}


@pytest.mark.parametrize("classes", [np.arange(CLASSES * EACH), np.full(CLASSES * EACH, -1)])
def test_nothing_is_chosen_where_nothing_is_right(
    embeddings: "NDArray[np.float32]", questions: Questions, classes: "NDArray[np.int64]"
) -> None:
    alone = replace(questions, classes=classes, row_classes=classes)
    assert trials.run(embeddings, alone, k=5) is None


def _measured(setting: Setting, average: "Floats", precision: "Floats | None" = None) -> Measured:
    scores = (np.full(len(average), 0.5) if precision is None else precision, average)
    return Measured(setting, scores, scores)


FEW, MANY = Setting(Ranking.compact, 16, 0), Setting(Ranking.compact, 64, 0)
EXPANDED = Setting(Ranking.compact, 64, 10)
# Of 40 queries; the last is for reporting.
NOISE = np.append(np.random.default_rng(0).normal(0, 0.1, 40), np.nan)


def test_a_gain_within_the_noise_changes_nothing() -> None:
    base = np.append(np.linspace(0.2, 0.8, 40), np.nan)
    gain = NOISE - np.nanmean(NOISE)
    for raised, chosen in ((0.02, UNCHANGED), (0.05, FEW)):
        measured = [_measured(UNCHANGED, base), _measured(FEW, base + gain + raised)]
        assert trials.choose(measured, UNCHANGED) == chosen
    assert trials.choose([_measured(UNCHANGED, base), _measured(FEW, base)], FEW) == FEW


def test_of_better_ones_that_tie_the_simplest_is_chosen() -> None:
    base = np.append(np.linspace(0.2, 0.8, 40), np.nan)
    better = base + 0.1
    measured = [
        _measured(UNCHANGED, base),
        _measured(FEW, better),
        _measured(MANY, better),
        _measured(EXPANDED, better + NOISE - np.nanmean(NOISE) + 0.01),
    ]
    # More dimensions ignore less of the embeddings.
    assert trials.choose(measured, UNCHANGED) == MANY


def test_a_ranking_that_spoils_the_first_page_is_not_chosen() -> None:
    base = np.append(np.linspace(0.2, 0.8, 40), np.nan)
    measured = [
        _measured(UNCHANGED, base),
        _measured(FEW, base + 0.2, np.full(41, 0.4)),
        _measured(MANY, base + 0.1),
    ]
    assert trials.choose(measured, UNCHANGED) == MANY
