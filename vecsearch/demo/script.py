"""What the demo does, from drawing to the contact sheet."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from psycopg import sql

from vecsearch.demo.scenes import SCENES
from vecsearch.encoders.base import PACKAGED_MODEL
from vecsearch.files import written_whole
from vecsearch.ingest.summary import Progress
from vecsearch.library import Answer, Collection, Library
from vecsearch.render import saving, sheets

COLLECTION, TRAINED_COLLECTION = "demo", "demo_trained"
PER_FAMILY = 20
NEIGHBOURS = 10
SEED = 7
# A second file of a picture, as phones and chats make them: enlarged, as a JPEG.
COPIED, COPY = "05.png", "05 enlarged.jpg"
COPIES_OF = ("clock", "lighthouse")
# Words for some of the families, which an autoencoder does not know.
WORDS = {
    "analog clock": "clock",
    "traffic light": "traffic light",
    "lighthouse": "lighthouse",
    "umbrella": "umbrella",
    "daisy": "daisy",
}
EPOCHS = 60
# A fifth of their size: it tells the families apart as well, and trains faster.
IMAGE_SIZE = 64


@dataclass(frozen=True)
class DemoQuery:
    """One query of the demo, and how many of its nearest are in its own family."""

    query: str
    family: str
    same_family: int
    of: int


@dataclass(frozen=True)
class DemoResult:
    """The result of the demo.

    Attributes:
        collection: the collection that was searched.
        same_family, of: totals over all queries.
        by_chance: the expected `same_family` of random neighbours.
        words: queries by words; none for an autoencoder.
        duplicates: near-duplicates that were found: names of files, group by group.
        sheet: the contact sheet's path.
        example: a picture to query next.

    """

    collection: str
    queries: list[DemoQuery]
    same_family: int
    of: int
    by_chance: float
    words: list[DemoQuery]
    duplicates: list[list[str]]
    sheet: Path
    example: Path


def run(
    library: Library,
    folder: Path,
    *,
    train: bool,
    say: Callable[[str], None],
    on_progress: Callable[[Progress], None],
) -> DemoResult:
    """Draw, ingest, query one picture of each family, and draw the contact sheet.

    Args:
        library: an open one.
        folder: for pictures, encoder and sheet.
        train: train an autoencoder on the pictures instead of using the packaged network.
        say: called with each message.
        on_progress: see `Collection.ingest`.

    """
    pictures = folder / "pictures"
    say(f"Drawing {len(SCENES)} families of {PER_FAMILY} pictures in {pictures}")
    draw_pictures(pictures)
    collection = library.collection(TRAINED_COLLECTION if train else COLLECTION)
    if collection.name in library.collection_names():
        model = None
        encoder = collection.status().model
        say(f"Using the existing collection {collection.name!r}, encoded by {encoder}")
    else:
        model = _trained(library, folder, say) if train else PACKAGED_MODEL
    collection.ingest([pictures], model=model, on_progress=on_progress)
    # An earlier demo may have drawn the same pictures in another folder.
    prefix = sql.Literal(f"{pictures.absolute()}/").as_string()
    only_these = f"starts_with(path, {prefix})"
    answers = {
        family: collection.query(
            pictures / family / "00.png", k=NEIGHBOURS, exclude_self=True, where=only_these
        )
        for family in SCENES
    }
    queries = [_scored(f"{family}/00.png", family, answer) for family, answer in answers.items()]
    words = [
        _scored(text, family, collection.query(text=text, k=NEIGHBOURS, where=only_these))
        for text, family in (WORDS if collection.concepts() else {}).items()
    ]
    example = pictures / next(iter(SCENES)) / "00.png"
    answer = next(iter(answers.values()))
    sheet = sheets.contact_sheet(
        example,
        answer.hits,
        title=f"The nearest to {queries[0].query} of {len(SCENES) * PER_FAMILY} pictures",
        metric=answer.metric,
        max_pixels=library.settings.max_pixels,
    )
    sheet_file = folder / "contact-sheet.png"
    saving.save_picture(sheet, sheet_file)
    total = sum(item.of for item in queries)
    return DemoResult(
        collection=collection.name,
        queries=queries,
        same_family=sum(item.same_family for item in queries),
        of=total,
        by_chance=total * (PER_FAMILY - 1) / (len(SCENES) * PER_FAMILY - 1),
        words=words,
        duplicates=_duplicates(collection, pictures),
        sheet=sheet_file.absolute(),
        example=example,
    )


def _scored(query: str, family: str, answer: Answer) -> DemoQuery:
    same = sum(hit.label == family for hit in answer)
    return DemoQuery(query, family, same, len(answer.hits))


def _trained(library: Library, folder: Path, say: Callable[[str], None]) -> str:
    """Train an autoencoder on the pictures, and return its file."""
    from vecsearch.encoders.autoencoder.checkpoint import checkpoint_file

    say("Training an autoencoder")
    model = (folder / "autoencoder.safetensors").absolute()
    # An earlier demo may have left them: on another database, or interrupted.
    model.unlink(missing_ok=True)
    checkpoint_file(model).unlink(missing_ok=True)
    for epoch in Library.train_autoencoder(
        [folder / "pictures"],
        model,
        settings=library.settings,
        epochs=EPOCHS,
        image_size=IMAGE_SIZE,
        seed=SEED,
    ):
        if epoch.epoch % 10 == 0:
            say(f"  epoch {epoch.epoch} of {EPOCHS}: loss {epoch.validation_loss:.4f}")
    return str(model)


def _duplicates(collection: Collection, pictures: Path) -> list[list[str]]:
    """Return the near-duplicates among the pictures, as names within the folder."""
    groups: dict[int, list[str]] = {}
    for image in collection.duplicates().images:
        path = Path(image.path)
        if path.is_relative_to(pictures.absolute()):
            groups.setdefault(image.group, []).append(str(path.relative_to(pictures.absolute())))
    # The copies that a demo drew in another folder are not shown.
    return [names for names in groups.values() if len(names) > 1]


def draw_pictures(folder: Path) -> None:
    """Draw every family into a folder of its name; the pictures are always the same."""
    import PIL.Image

    for family, draw in SCENES.items():
        (folder / family).mkdir(parents=True, exist_ok=True)
        for number in range(PER_FAMILY):
            file = folder / family / f"{number:02}.png"
            if not file.exists():
                picture = draw(Random(f"{SEED}/{family}/{number}"))  # noqa: S311 - a seeded drawing
                with written_whole(file) as partial:
                    picture.save(partial, format="PNG")
    for family in COPIES_OF:
        with (
            PIL.Image.open(folder / family / COPIED) as picture,
            written_whole(folder / family / COPY) as partial,
        ):
            enlarged = picture.resize((2 * picture.width, 2 * picture.height))
            enlarged.save(partial, format="JPEG", quality=90)
