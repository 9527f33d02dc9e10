"""Names that the CLI, the web and the API share, each declared once. Imports nothing slow."""

import math
import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Self, TypeVar

from vecsearch.errors import InvalidInput


class Metric(StrEnum):
    """A distance between two embeddings; smaller is closer.

    A new member needs two implementations, which tests require: its SQL here (and a migration, if
    pgvector has no operator for it), and its numpy in `vecsearch.analysis.ranking`.

    Attributes:
        meaning: the distance's name in words.
        sql: pgvector's operator, or the name of a function in our schema.
        call: the function that our statements call, because SQL parsers of other tools (sqlglot:
            Superset, ibis, SQLMesh) change or refuse the operator; None if they keep `sql`.
        needs_non_negative: whether it is undefined for embeddings with negative numbers.
        is_reranked: whether it is too slow for every row of a large table; then, unless the search
            is exact, cosine chooses candidates and this metric re-ranks them.
        own_is_nearest: whether no other embedding is nearer than an equal one.

    """

    meaning: str
    sql: str
    call: str | None
    needs_non_negative: bool
    is_reranked: bool
    own_is_nearest: bool

    def __new__(
        cls,
        value: str,
        meaning: str,
        sql: str,
        call: str | None,
        needs_non_negative: bool = False,  # noqa: FBT001, FBT002 - enum members are positional
        is_reranked: bool = False,  # noqa: FBT001, FBT002 - likewise
        own_is_nearest: bool = True,  # noqa: FBT001, FBT002 - likewise
    ) -> Self:
        """Create a member whose value is its name."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        member.sql = sql
        member.call = call
        member.needs_non_negative = needs_non_negative
        member.is_reranked = is_reranked
        member.own_is_nearest = own_is_nearest
        return member

    # Postgres inlines it to the operator, so that an index serves it.
    cosine = "cosine", "cosine distance", "<=>", "vecsearch.embedding_distance"
    l2 = "l2", "Euclidean distance", "<->", None
    l1 = "l1", "Manhattan distance", "<+>", "l1_distance"
    ip = (
        "ip",
        "negative inner product",
        "<#>",
        "halfvec_negative_inner_product",
        False,
        False,
        False,
    )
    chi2 = "chi2", "chi-squared distance", "chi2_distance", "vecsearch.chi2_distance", True, True


@dataclass(frozen=True)
class BuildOption:
    """A numeric build option of an index: `--name` on the command line, `name` in the register.

    Attributes:
        least, most: its range.
        default: its default.
        help: one clause of help text.
        is_of_graph: whether it is an option of the HNSW index, rather than of its vectors.

    """

    name: str
    least: int
    most: int
    default: int
    help: str
    is_of_graph: bool = True

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return f"--{self.name.replace('_', '-')}"


# pgvector's limits: dimensions of a stored halfvec, and of one that HNSW can index.
MAX_DIMENSIONS = 16_000
MAX_INDEXED_DIMENSIONS = 4_000

M = BuildOption("m", 2, 100, 16, "Links per image in the graph")
EF_CONSTRUCTION = BuildOption(
    "ef_construction",
    4,
    1_000,
    64,
    "Candidates examined to link an image, at least twice --m; more for over a million images",
)
# Enough up to so many images; see `least_ef_construction`.
EF_CONSTRUCTION_IMAGES = 1_000_000
DIMS = BuildOption(
    "dims", 1, MAX_INDEXED_DIMENSIONS, 128, "Dimensions of a compact vector", is_of_graph=False
)


class IndexMethod(StrEnum):
    """A method of indexing a collection; `vecsearch.search.indexes` has a class for each.

    Attributes:
        help: one clause of help text.
        options: its build options.

    """

    help: str
    options: tuple[BuildOption, ...]

    def __new__(cls, value: str, text: str, *options: BuildOption) -> Self:
        """Create a member whose value is its name."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.help = text
        member.options = options
        return member

    hnsw = "hnsw", "indexes the embeddings", M, EF_CONSTRUCTION
    compact = (
        "compact",
        "indexes principal components, a tenth of the size, and re-ranks by the embeddings",
        DIMS,
        M,
        EF_CONSTRUCTION,
    )
    none = "none", "compares every image"


# pgvector's access methods that index methods build; the name of an index ends with its own.
ACCESS_METHODS = (IndexMethod.hnsw.value,)


class Ranking(StrEnum):
    """What orders the hits of a search by cosine: the embeddings, or their compact vectors.

    Compact vectors are centred, so they drop what all images of a collection have in common.
    """

    full = "full"
    compact = "compact"


class Precision(StrEnum):
    """Numeric precision of an encoder; an identity appends the quantised model's hash to `int8`."""

    fp32 = "fp32"
    int8 = "int8"


class Derived(StrEnum):
    """A table that `vecsearch refresh` makes of a collection."""

    neighbours = "neighbours"
    duplicates = "duplicates"
    clusters = "clusters"
    map = "map"


class Layout(StrEnum):
    """How `vecsearch refresh map` places images: by principal components, or by UMAP."""

    pca = "pca"
    umap = "umap"


class Axes(StrEnum):
    """What a map's two dimensions are: the table `map`, or longitude and latitude."""

    likeness = "likeness"
    place = "place"


class Colouring(StrEnum):
    """What images of the same colour on a map have in common."""

    label = "label"
    cluster = "cluster"


class KeepRule(StrEnum):
    """The rule for the first image of a group of near-duplicates."""

    oldest = "oldest"
    newest = "newest"
    largest = "largest"
    path = "path"


class FileAction(StrEnum):
    """What is done to the files of duplicates."""

    trash = "trash"
    move = "move"
    hardlink = "hardlink"
    symlink = "symlink"

    @property
    def links(self) -> bool:
        """Whether a link to the file that is kept takes the place of the duplicate."""
        return self in {FileAction.hardlink, FileAction.symlink}


class FileState(StrEnum):
    """How far an action on a file is; `acting` and `undoing` were interrupted, if nothing runs."""

    planned = "planned"
    acting = "acting"
    done = "done"
    left = "left"
    undoing = "undoing"
    undone = "undone"


# What `undo` can bring back, or must look for.
NOT_UNDONE = (FileState.acting, FileState.done, FileState.undoing)


class Engine(StrEnum):
    """The library that runs encoders: auto is OpenVINO on a CPU, torch on other devices."""

    auto = "auto"
    openvino = "openvino"
    torch = "torch"


Named = TypeVar("Named", bound=StrEnum)


def parse(kind: type[Named], name: str) -> Named:
    """Return the member with this name.

    Raises:
        InvalidInput: there is no such member.

    """
    try:
        return kind(name)
    except ValueError:
        noun = re.sub(r"(?<!^)(?=[A-Z])", " ", kind.__name__).lower()
        raise InvalidInput(f"Unknown {noun} {str(name)!r}. Use {choices(kind)}.") from None


def build_options() -> tuple[BuildOption, ...]:
    """Return the build options of all index methods, each once."""
    return tuple(dict.fromkeys(option for method in IndexMethod for option in method.options))


def choices(names: Iterable[str]) -> str:
    """Return the names as a phrase: "a, b or c"."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else str(last)


def ranked(ranking: Ranking, dims: int | None, expansion: int) -> str:
    """Return how hits are ranked, as a clause."""
    by = "the embeddings" if ranking is Ranking.full else f"{dims} principal components"
    expanded = f", for the question and its {expansion} nearest images" if expansion else ""
    return f"ranked by {by}{expanded}"


def require_expansion(expansion: int) -> None:
    """Check the number of neighbours by which a question is expanded.

    Raises:
        InvalidInput: it is out of range.

    """
    if not 0 <= expansion <= MAXIMUM_EXPANSION:
        raise InvalidInput(
            f"A question cannot be expanded by {expansion} images. Give a number from 0 to "
            f"{MAXIMUM_EXPANSION}."
        )


# The largest finite number in half precision.
MAX_HALF = 65_504.0

DEFAULT_COLLECTION = "images"
# Takes a sentence that says what will be deleted; returns whether to delete it.
Confirm = Callable[[str], bool]
# A prune asks before it deletes all rows under a root, more than a tenth and than these, or all
# of a folder below it, if these are more.
PRUNED_UNASKED = 10
# Seconds that a command waits in silence; then it says for whom or what.
SAY_AFTER_S = 2.0
# The smallest hnsw.ef_search that keeps recall high at small k, for words, too, which lie far from
# images: with pgvector's 40, 3 of 120 words lose the image that an exact search finds first.
MINIMUM_EF_SEARCH = 100
# Enough up to so many images; see `least_ef_search`.
EF_SEARCH_IMAGES = 100_000
# pgvector's maximum.
MAXIMUM_EF_SEARCH = 1_000
DEFAULT_K = 10
# Of each image, in the table that `refresh` makes.
DEFAULT_NEIGHBOURS = 10
# The share of the exact answer that an index is tuned to find.
RECALL = 0.99
# Of the body of a request, and of a picture that an assistant sends.
MAX_UPLOAD_MB = 32
# How long SQL that a user wrote may read.
READING_S = 300
# The largest difference of the thumbnails of near-duplicates. Among 799 photos, different ones
# differ by 0.2 or more, and 99 % of the variants of each kind by 0.12 or less.
MAX_DIFFERENCE = 0.15
# Names that `did_you_mean` names.
MOST_NEAR = 3
# Characters of a query by words.
LONGEST_TEXT = 200
# The most neighbours by which a question is expanded.
MAXIMUM_EXPANSION = 100
# Such a neighbour weighs its similarity to this power: near ones count, and those beyond hardly do.
EXPANSION_POWER = 3
# The largest weight of a part of a question.
MAXIMUM_WEIGHT = 1_000


def least_ef_search(images: float) -> int:
    """Return the hnsw.ef_search that finds 0.99 of the 10 nearest among so many images.

    It grows with their square root, by benchmarks/growth.py: a search that keeps too few nodes ends
    among images that are not the nearest, and the more there are, the more often.
    """
    grown = MINIMUM_EF_SEARCH * math.sqrt(max(1.0, images / EF_SEARCH_IMAGES))
    return min(round(grown), MAXIMUM_EF_SEARCH)


def least_ef_construction(images: int) -> int:
    """Return the hnsw ef_construction for so many images.

    It grows with their square root, as `least_ef_search` does: with pgvector's own, a graph of
    three million finds 0.98 of the 10 nearest, and hardly more with a larger ef_search.
    """
    grown = EF_CONSTRUCTION.default * math.sqrt(max(1.0, images / EF_CONSTRUCTION_IMAGES))
    return min(round(grown), EF_CONSTRUCTION.most)


def command_line(words: str, *operands: object, collection: str = DEFAULT_COLLECTION) -> str:
    """Return a command to paste into a shell.

    Args:
        words: the command and its options.
        operands: paths and the like, which are quoted.
        collection: the collection that the command is about; the default one is not named.

    """
    texts = map(str, operands)
    # What begins with a hyphen would be taken for an option.
    quoted = [shlex.quote(f"./{text}" if text.startswith("-") else text) for text in texts]
    flag = [] if collection == DEFAULT_COLLECTION else ["--collection", collection]
    return " ".join(["vecsearch", words, *quoted, *flag])


def nothing_in(collection: str) -> str:
    """Return what to say when there is nothing to search."""
    step = command_line("ingest", "FOLDER", collection=collection)
    return f"Collection {collection!r} is empty. Add images: {step}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question that names the known names nearest to one; empty if none is near."""
    import difflib

    spelled = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), spelled, n=MOST_NEAR)
    return f"Did you mean {' or '.join(repr(spelled[each]) for each in near)}?" if near else ""


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, in the plural if it is not one."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def refuse(_question: str) -> bool:
    """Confirm nothing."""
    return False
