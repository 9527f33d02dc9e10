"""The demo: pictures drawn on the spot, ingested, queried, shown. Needs no network."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg import sql

from vecsearch.encoders.base import DEFAULT_MODEL
from vecsearch.errors import WeightsUnavailable
from vecsearch.ingest.summary import Progress
from vecsearch.library import Library
from vecsearch.render import saving, sheets

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageDraw import ImageDraw

COLLECTION = "demo"
SIZE = 256
PER_FAMILY = 24
NEIGHBOURS = 10
SEED = 7
EPOCHS = 60
# A quarter of their size: it tells the families apart as well, and trains faster.
IMAGE_SIZE = 64

Colour = tuple[int, int, int]


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
        same_family, of: totals over all queries.
        by_chance: the expected `same_family` of random neighbours.
        sheet: the contact sheet's path.
        example: a picture to query next.

    """

    queries: list[DemoQuery]
    same_family: int
    of: int
    by_chance: float
    sheet: Path
    example: Path


def run(
    library: Library,
    folder: Path,
    *,
    weights: Path | None,
    say: Callable[[str], None],
    on_progress: Callable[[Progress], None],
) -> DemoResult:
    """Draw, ingest, query one picture of each family, and draw the contact sheet.

    Args:
        library: an open one.
        folder: for pictures, encoder and sheet.
        weights: a file of ResNet50's weights; None tries the model hub.
        say: called with each message.
        on_progress: see `Collection.ingest`.

    """
    pictures = folder / "pictures"
    say(f"Drawing {len(FAMILIES)} families of {PER_FAMILY} pictures in {pictures}")
    draw_pictures(pictures)
    collection = library.collection(COLLECTION)
    if COLLECTION in library.collection_names():
        model = collection.status().model
        say(f"Using the existing collection {COLLECTION!r}, encoded by {model}")
        collection.ingest([pictures], on_progress=on_progress)
    else:
        _ingest_first_time(library, folder, weights, say, on_progress)
    # An earlier demo may have drawn the same pictures in another folder.
    prefix = sql.Literal(f"{pictures.absolute()}/").as_string()
    only_these = f"starts_with(path, {prefix})"
    answers = {
        family: collection.query(
            pictures / family / "00.png", k=NEIGHBOURS, exclude_self=True, where=only_these
        )
        for family in FAMILIES
    }
    queries = [
        DemoQuery(
            f"{family}/00.png", family, sum(hit.label == family for hit in answer), len(answer.hits)
        )
        for family, answer in answers.items()
    ]
    first, answer = next(iter(answers.items()))
    example = pictures / first / "00.png"
    sheet = sheets.contact_sheet(
        example,
        answer.hits,
        title=f"The nearest to {first}/00.png of {len(FAMILIES) * PER_FAMILY} pictures",
        metric=answer.metric,
        max_pixels=library.settings.max_pixels,
    )
    sheet_file = folder / "contact-sheet.png"
    saving.save_picture(sheet, sheet_file)
    total = sum(item.of for item in queries)
    return DemoResult(
        queries=queries,
        same_family=sum(item.same_family for item in queries),
        of=total,
        by_chance=total * (PER_FAMILY - 1) / (len(FAMILIES) * PER_FAMILY - 1),
        sheet=sheet_file.absolute(),
        example=example,
    )


def _ingest_first_time(
    library: Library,
    folder: Path,
    weights: Path | None,
    say: Callable[[str], None],
    on_progress: Callable[[Progress], None],
) -> None:
    pictures = folder / "pictures"
    try:
        library.collection(COLLECTION).ingest([pictures], weights=weights, on_progress=on_progress)
    except WeightsUnavailable as error:
        if weights is not None:
            raise
        from vecsearch.encoders.autoencoder.checkpoint import checkpoint_file

        say(str(error))
        say(f"Training an autoencoder instead of {DEFAULT_MODEL}: less than a minute")
        model = (folder / "autoencoder.safetensors").absolute()
        # An earlier demo may have left them: on another database, or interrupted.
        model.unlink(missing_ok=True)
        checkpoint_file(model).unlink(missing_ok=True)
        for epoch in Library.train_autoencoder(
            [pictures],
            model,
            settings=library.settings,
            epochs=EPOCHS,
            image_size=IMAGE_SIZE,
            seed=SEED,
        ):
            if epoch.epoch % 10 == 0:
                say(f"  epoch {epoch.epoch} of {EPOCHS}: loss {epoch.validation_loss:.4f}")
        library.collection(COLLECTION).ingest([pictures], model=str(model), on_progress=on_progress)


def draw_pictures(folder: Path) -> None:
    """Draw every family into a folder of its name; the pictures are always the same."""
    import PIL.Image
    from PIL import ImageDraw

    for family, draw in FAMILIES.items():
        (folder / family).mkdir(parents=True, exist_ok=True)
        for number in range(PER_FAMILY):
            file = folder / family / f"{number:02}.png"
            if file.exists():
                continue
            random_ = random.Random(f"{SEED}/{family}/{number}")  # noqa: S311 - a seeded drawing
            light, dark = _colours(random_)
            picture: Picture = PIL.Image.new("RGB", (SIZE, SIZE), light)
            draw(ImageDraw.Draw(picture), random_, dark)
            partial = file.with_suffix(".partial")
            picture.save(partial, format="PNG")
            partial.replace(file)


def _colours(random_: random.Random) -> tuple[Colour, Colour]:
    """Return a light background and a dark ink, so that only shape tells families apart."""
    light = tuple(random_.randint(200, 250) for _ in range(3))
    dark = tuple(random_.randint(10, 110) for _ in range(3))
    return (light[0], light[1], light[2]), (dark[0], dark[1], dark[2])


def _disc(draw: "ImageDraw", random_: random.Random, ink: Colour) -> None:
    radius = random_.randint(60, 85)
    x, y = random_.randint(110, 146), random_.randint(110, 146)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)


def _ring(draw: "ImageDraw", random_: random.Random, ink: Colour) -> None:
    radius = random_.randint(85, 110)
    x, y = random_.randint(118, 138), random_.randint(118, 138)
    box = (x - radius, y - radius, x + radius, y + radius)
    draw.ellipse(box, outline=ink, width=random_.randint(22, 34))


def _cross(draw: "ImageDraw", random_: random.Random, ink: Colour) -> None:
    half = random_.randint(20, 30)
    x, y = random_.randint(110, 146), random_.randint(110, 146)
    draw.rectangle((x - half, 0, x + half, SIZE), fill=ink)
    draw.rectangle((0, y - half, SIZE, y + half), fill=ink)


def _diagonal(draw: "ImageDraw", random_: random.Random, ink: Colour) -> None:
    shift = random_.randint(-30, 30)
    draw.line((shift, 0, SIZE + shift, SIZE), fill=ink, width=random_.randint(50, 70))


def _frame(draw: "ImageDraw", random_: random.Random, ink: Colour) -> None:
    draw.rectangle((0, 0, SIZE - 1, SIZE - 1), outline=ink, width=random_.randint(35, 55))


def _horizon(draw: "ImageDraw", random_: random.Random, ink: Colour) -> None:
    draw.rectangle((0, random_.randint(118, 150), SIZE, SIZE), fill=ink)


def _curtain(draw: "ImageDraw", random_: random.Random, ink: Colour) -> None:
    draw.rectangle((0, 0, random_.randint(106, 140), SIZE), fill=ink)


def _mountain(draw: "ImageDraw", random_: random.Random, ink: Colour) -> None:
    peak = (random_.randint(105, 151), random_.randint(15, 50))
    draw.polygon([(0, SIZE), peak, (SIZE, SIZE)], fill=ink)


def _diamond(draw: "ImageDraw", random_: random.Random, ink: Colour) -> None:
    reach = random_.randint(100, 120)
    middle = SIZE // 2
    points = [(0, -reach), (reach, 0), (0, reach), (-reach, 0)]
    draw.polygon([(middle + x, middle + y) for x, y in points], fill=ink)


def _bars(draw: "ImageDraw", random_: random.Random, ink: Colour) -> None:
    shift = random_.randint(-8, 8)
    for left in range(20, SIZE, 96):
        draw.rectangle((left + shift, 0, left + shift + 40, SIZE), fill=ink)


def _star(draw: "ImageDraw", random_: random.Random, ink: Colour) -> None:
    turn = random_.uniform(-0.1, 0.1)
    middle = SIZE / 2
    points = []
    for corner in range(10):
        reach = 125 if corner % 2 == 0 else 45
        angle = math.pi * corner / 5 + turn
        points.append((middle + reach * math.sin(angle), middle - reach * math.cos(angle)))
    draw.polygon(points, fill=ink)


FAMILIES: dict[str, Callable[["ImageDraw", random.Random, Colour], None]] = {
    "ring": _ring,
    "disc": _disc,
    "cross": _cross,
    "diagonal": _diagonal,
    "frame": _frame,
    "horizon": _horizon,
    "curtain": _curtain,
    "mountain": _mountain,
    "diamond": _diamond,
    "bars": _bars,
    "star": _star,
}
