"""Understand a phrase by the concepts whose definitions are nearest to it.

Source: Norouzi et al., Zero-Shot Learning by Convex Combination of Semantic Embeddings (2013).
"""

from typing import TYPE_CHECKING

import numpy as np

from vecsearch.search.questions.concepts import Unmatched, Word

if TYPE_CHECKING:
    from vecsearch.encoders.sentences.encoder import SentenceEncoder

# Concepts to mix, and how sharply the nearest of them weigh more.
CONCEPTS = 8
TEMPERATURE = 0.05
# Shares below this change nothing that can be seen.
LEAST_SHARE = 0.005
# Less than this of the nearest definition, a text means nothing that the concepts are about: words
# of no language, or of another, reach 0.30, and phrases for what pictures show 0.47 or more.
LEAST_SIMILARITY = 0.35
SENTENCES = (
    "A model of open_clip reads any sentence: ingest into a --collection with "
    "--model open_clip:ViT-B-32/laion2b_s34b_b79k (pip install 'vecsearch[clip]')"
)
HINT = (
    "To search by any phrase: pip install 'vecsearch[phrases]', or ingest into a --collection with "
    "--model open_clip:ViT-B-32/laion2b_s34b_b79k (pip install 'vecsearch[clip]')"
)


def nearest(phrase: Unmatched, encoder: "SentenceEncoder") -> list[tuple[int, float]]:
    """Return the concepts nearest to a phrase, with their shares, for `concepts.weighted`.

    Hold no connection meanwhile: the first phrase embeds every definition, which takes seconds.

    Raises:
        InvalidInput: the extra that it needs is not installed, or no concept is near the phrase.
        WeightsUnavailable, WeightsMismatch: the sentence encoder's files are not there, or others.
        EncoderError: the user chose OpenVINO, which cannot run it.

    """
    if not encoder.is_available:
        raise phrase.error(HINT)
    definitions = encoder.embed_kept([_definition(word) for word in phrase.words])
    similarities = definitions @ encoder.embed([phrase.text])[0]
    chosen = np.argsort(-similarities, kind="stable")[:CONCEPTS]
    if similarities[chosen[0]] < LEAST_SIMILARITY:
        raise phrase.error(SENTENCES)
    shares = np.exp((similarities[chosen] - similarities[chosen[0]]) / TEMPERATURE)
    shares /= shares.sum()
    kept = shares >= LEAST_SHARE
    shares = shares[kept] / shares[kept].sum()
    return [
        (phrase.words[index].number, float(share))
        for index, share in zip(chosen[kept], shares, strict=True)
    ]


def _definition(word: Word) -> str:
    return f"{', '.join([word.name, *word.synonyms])}: {word.definition}"
