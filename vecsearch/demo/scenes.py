"""The demo's pictures: scenes that a network trained on photographs can tell apart."""

import math
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image as Picture
    from PIL.ImageDraw import ImageDraw

SIZE = 320

Colour = tuple[int, int, int]
Point = tuple[float, float]

BLACK, WHITE = (20, 20, 20), (246, 246, 248)


def _shade(random: Random, colour: Colour, by: int = 18) -> Colour:
    """Return a colour near another one."""
    red, green, blue = (max(0, min(255, part + random.randint(-by, by))) for part in colour)
    return red, green, blue


def _scaled(colour: Colour, factor: float) -> Colour:
    """Return a lighter or darker colour."""
    red, green, blue = (min(255, round(part * factor)) for part in colour)
    return red, green, blue


def _gradient(random: Random, top: Colour, bottom: Colour) -> "tuple[Picture, ImageDraw]":
    """Return a picture whose rows run from one colour to another, and what draws on it."""
    import PIL.Image
    from PIL import ImageDraw

    top, bottom = _shade(random, top), _shade(random, bottom)
    column = PIL.Image.new("RGB", (1, 2))
    column.putpixel((0, 0), top)
    column.putpixel((0, 1), bottom)
    # Between the centres of the two pixels: outside them a resized picture is of one colour.
    box = (0, 0.5, 1, 1.5)
    picture = column.resize((SIZE, SIZE), PIL.Image.Resampling.BILINEAR, box=box)
    return picture, ImageDraw.Draw(picture)


def _disc(draw: "ImageDraw", x: float, y: float, radius: float, fill: Colour) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def _around(x: float, y: float, radius: float, turn: float) -> Point:
    """Return a point on a circle; `turn` is in whole turns, clockwise from the top."""
    angle = math.tau * turn
    return x + radius * math.sin(angle), y - radius * math.cos(angle)


def _sunset(random: Random) -> "Picture":
    picture, draw = _gradient(random, (60, 40, 110), (255, 150, 70))
    horizon = random.randint(180, 220)
    radius = random.randint(28, 44)
    x = random.randint(90, 230)
    _disc(draw, x, horizon - random.randint(0, 20), radius, _shade(random, (255, 230, 140)))
    draw.rectangle((0, horizon, SIZE, SIZE), fill=_shade(random, (40, 50, 90)))
    for _ in range(40):
        y = random.randint(horizon, SIZE)
        width = random.randint(6, 50) * (1.2 - (y - horizon) / (SIZE - horizon))
        middle = x + random.gauss(0, 30)
        colour = _shade(random, (255, 180, 100))
        draw.line((middle - width, y, middle + width, y), fill=colour, width=2)
    return picture


def _mountains(random: Random) -> "Picture":
    picture, draw = _gradient(random, (90, 150, 220), (210, 230, 250))
    layers = [((120, 140, 170), True), ((90, 105, 130), True), ((60, 80, 70), False)]
    for layer, (colour, is_snowy) in enumerate(layers):
        foot = 190 + 35 * layer
        rock = _shade(random, colour)
        left = -60.0
        while left < SIZE + 60:
            width = random.randint(90, 170)
            right, middle = left + width, left + width / 2
            top = foot + 30 * layer - random.randint(70, 140)
            slopes = [(left, foot), (middle, top), (right, foot)]
            draw.polygon([(left - 30, SIZE), *slopes, (right + 30, SIZE)], fill=rock)
            if is_snowy:
                drop = foot - top
                snow = [
                    (middle, top),
                    (middle - 0.15 * width, top + 0.3 * drop),
                    (middle - 4, top + 0.2 * drop),
                    (middle + 6, top + 0.33 * drop),
                    (middle + 0.15 * width, top + 0.3 * drop),
                ]
                draw.polygon(snow, fill=WHITE)
            left += 0.7 * width
    return picture


def _clock(random: Random) -> "Picture":
    from PIL import ImageFont

    wall = random.choice([(200, 190, 170), (120, 150, 160), (170, 90, 70), (90, 110, 90)])
    picture, draw = _gradient(random, wall, wall)
    x, y = SIZE / 2 + random.randint(-15, 15), SIZE / 2 + random.randint(-15, 15)
    radius = random.randint(105, 135)
    _disc(draw, x + 4, y + 7, radius + 11, _scaled(wall, 0.7))
    _disc(draw, x, y, radius, _shade(random, (50, 45, 40)))
    _disc(draw, x, y, radius - random.randint(8, 14), _shade(random, (245, 243, 235), 8))
    font = ImageFont.load_default(size=0.2 * radius)
    for hour in range(12):
        ends = (_around(x, y, 0.8 * radius, hour / 12), _around(x, y, 0.88 * radius, hour / 12))
        draw.line(ends, fill=BLACK, width=5)
        place = _around(x, y, 0.66 * radius, hour / 12)
        draw.text(place, str(hour or 12), fill=BLACK, font=font, anchor="mm")
    hands = [(0.45, 9, BLACK), (0.68, 6, BLACK), (0.72, 2, (200, 30, 30))]
    for length, width, colour in hands:
        turn = random.random()
        ends = (_around(x, y, -0.1 * radius, turn), _around(x, y, length * radius, turn))
        draw.line(ends, fill=colour, width=width)
    _disc(draw, x, y, 7, BLACK)
    return picture


def _traffic_light(random: Random) -> "Picture":
    picture, draw = _gradient(random, (120, 170, 220), (200, 215, 225))
    draw.rectangle((0, 260, SIZE, SIZE), fill=_shade(random, (90, 90, 90)))
    for _ in range(4):
        left = random.randint(-40, SIZE)
        house = (left, random.randint(120, 200), left + random.randint(50, 90), 260)
        draw.rectangle(house, fill=_shade(random, (150, 140, 140), 30))
    x, top = random.randint(110, 210), random.randint(30, 60)
    draw.rectangle((x - 6, top + 150, x + 6, 300), fill=(50, 50, 50))
    box = (x - 42, top, x + 42, top + 190)
    draw.rounded_rectangle(box, 18, fill=_shade(random, (35, 38, 35), 8))
    lit = random.randrange(3)
    for number, colour in enumerate([(230, 40, 30), (250, 200, 40), (40, 200, 80)]):
        y = top + 38 + 57 * number
        _disc(draw, x, y, 24, colour if number == lit else _scaled(colour, 0.25))
        if number == lit:
            draw.ellipse((x - 12, y - 16, x, y - 6), fill=_scaled(colour, 1.4))
    return picture


def _daisy(random: Random) -> "Picture":
    picture, draw = _gradient(random, (60, 120, 50), (30, 80, 30))
    for _ in range(60):
        x, y = random.randint(0, SIZE), random.randint(0, SIZE)
        blade = (x, y, x + random.randint(-15, 15), y - random.randint(20, 60))
        draw.line(blade, fill=_shade(random, (70, 140, 60), 25), width=3)
    small = [
        (random.randint(20, 300), random.randint(20, 300), random.randint(20, 35)) for _ in range(2)
    ]
    large = (random.randint(110, 210), random.randint(100, 190), random.randint(70, 100))
    for x, y, radius in [*small, large]:
        petals, turned = random.randint(14, 20), random.random()
        draw.line((x, y, x + random.randint(-20, 20), SIZE), fill=(50, 110, 40), width=7)
        for petal in range(petals):
            turn = (petal + turned) / petals
            tip = _around(x, y, radius * random.uniform(0.9, 1.05), turn)
            sides = [_around(x, y, 0.6 * radius, turn + side) for side in (-0.04, 0.04)]
            draw.polygon([(x, y), sides[0], tip, sides[1]], fill=_shade(random, WHITE, 8))
        _disc(draw, x, y, 0.3 * radius, _shade(random, (240, 190, 40)))
    return picture


def _balloons(random: Random) -> "Picture":
    picture, draw = _gradient(random, (80, 150, 230), (200, 225, 250))
    for _ in range(5):
        x, y = random.randint(0, SIZE), random.randint(150, 300)
        for puff in range(5):
            _disc(draw, x + 18 * puff, y + random.randint(-8, 8), 18, WHITE)
    colours = [(220, 40, 50), (240, 190, 30), (60, 90, 200), (50, 160, 80), (200, 70, 170)]
    for _ in range(random.randint(3, 6)):
        x, y = random.randint(50, 270), random.randint(40, 180)
        radius, colour = random.randint(26, 44), random.choice(colours)
        knot = y + 1.2 * radius
        draw.line((x, knot, x + random.randint(-20, 20), knot + 90), fill=(90, 90, 90), width=2)
        draw.ellipse((x - radius, y - 1.2 * radius, x + radius, knot), fill=colour)
        draw.polygon([(x - 6, knot + 8), (x + 6, knot + 8), (x, knot - 3)], fill=colour)
        shine = (x - 0.55 * radius, y - 0.8 * radius, x - 0.2 * radius, y - 0.35 * radius)
        draw.ellipse(shine, fill=_scaled(colour, 1.5))
    return picture


def _umbrella(random: Random) -> "Picture":
    picture, draw = _gradient(random, (150, 160, 175), (190, 195, 200))
    for _ in range(70):
        x, y = random.randint(0, SIZE), random.randint(0, SIZE)
        draw.line((x, y, x - 5, y + 16), fill=(205, 212, 222))
    pairs = [
        ((210, 40, 50), (250, 240, 230)),
        ((40, 70, 160), (240, 210, 60)),
        ((30, 120, 90), (230, 230, 220)),
        ((60, 60, 70), (90, 90, 100)),
    ]
    colours = random.choice(pairs)
    middle, foot = SIZE / 2 + random.randint(-20, 20), random.randint(150, 175)
    radius = random.randint(105, 130)
    top = (middle, foot - 0.95 * radius)
    for panel in range(8):
        rim = [
            (middle - radius * math.cos(angle), foot - 0.9 * radius * math.sin(angle))
            for angle in (math.pi * (panel + step / 6) / 8 for step in range(7))
        ]
        draw.polygon([top, *rim], fill=colours[panel % 2])
        left, right = (middle - radius * math.cos(math.pi * (panel + end) / 8) for end in (0, 1))
        draw.polygon([top, (left, foot), (right, foot)], fill=colours[panel % 2])
        draw.pieslice((left, foot - 14, right, foot + 14), 180, 360, fill=(172, 178, 188))
    draw.line((*top, middle, foot + 110), fill=(60, 50, 45), width=6)
    draw.arc((middle - 28, foot + 90, middle + 3, foot + 128), 0, 180, fill=(60, 50, 45), width=6)
    return picture


def _ladybug(random: Random) -> "Picture":
    import PIL.Image
    from PIL import ImageDraw

    picture, draw = _gradient(random, (110, 180, 70), (70, 140, 50))
    for _ in range(7):
        x = random.randint(0, SIZE)
        stalk = (x, 0, x + random.randint(-60, 60), SIZE)
        draw.line(stalk, fill=_shade(random, (130, 195, 90)), width=3)
    beetle = PIL.Image.new("RGBA", (SIZE, SIZE))
    draw = ImageDraw.Draw(beetle)
    radius, middle = random.randint(72, 95), SIZE / 2

    def at(x: float, y: float) -> Point:
        return middle + x * radius, middle + y * radius

    for side in (-1, 1):
        for leg in (-0.4, 0.0, 0.4):
            draw.line((at(0, leg), at(1.25 * side, 1.5 * leg)), fill=BLACK, width=6)
        draw.line((at(0.2 * side, -1.2), at(0.45 * side, -1.55)), fill=BLACK, width=4)
    draw.ellipse((at(-0.5, -1.3), at(0.5, -0.5)), fill=BLACK)
    draw.ellipse((at(-1, -0.95), at(1, 1.1)), fill=_shade(random, (215, 35, 25)))
    draw.line((at(0, -0.9), at(0, 1.1)), fill=BLACK, width=5)
    for side in (-1, 1):
        _disc(draw, *at(0.3 * side, -1.03), 0.12 * radius, WHITE)
        for aside, down, size in [(0.35, -0.5, 0.15), (0.6, 0.05, 0.18), (0.35, 0.55, 0.16)]:
            _disc(draw, *at(aside * side, down), size * radius, BLACK)
    _disc(draw, *at(-0.48, -0.62), 0.12 * radius, (255, 150, 140))
    moved = (random.randint(-25, 25), random.randint(-25, 25))
    turned = beetle.rotate(
        random.uniform(-50, 50), resample=PIL.Image.Resampling.BICUBIC, translate=moved
    )
    picture.paste(turned, (0, 0), turned)
    return picture


def _football(random: Random) -> "Picture":
    picture, draw = _gradient(random, (90, 160, 220), (190, 220, 240))
    draw.rectangle((0, 170, SIZE, SIZE), fill=_shade(random, (70, 150, 60)))
    for _ in range(200):
        x, y = random.randint(0, SIZE), random.randint(175, SIZE)
        draw.line((x, y, x + 2, y - 8), fill=_shade(random, (60, 135, 50), 20), width=2)
    radius = random.randint(62, 85)
    x, y = random.randint(110, 210), random.randint(150, 205)
    draw.ellipse((x - radius, y + 0.85 * radius, x + radius, y + 1.12 * radius), fill=(40, 95, 40))
    _disc(draw, x, y, radius + 2, (60, 60, 60))
    _disc(draw, x, y, radius, WHITE)
    turned = random.random()
    seams = [turned + corner / 5 for corner in range(5)]
    draw.polygon([_around(x, y, 0.32 * radius, seam) for seam in seams], fill=BLACK)
    for seam in seams:
        ends = (_around(x, y, 0.32 * radius, seam), _around(x, y, 0.68 * radius, seam))
        draw.line(ends, fill=(40, 40, 40), width=4)
        corners = [(0.95, -0.04), (0.66, -0.022), (0.66, 0.022), (0.95, 0.04)]
        patch = [_around(x, y, out * radius, seam + aside) for out, aside in corners]
        draw.polygon(patch, fill=BLACK)
        ends = (_around(x, y, 0.68 * radius, seam), _around(x, y, 0.62 * radius, seam + 0.1))
        draw.line(ends, fill=(60, 60, 60), width=3)
    return picture


def _lighthouse(random: Random) -> "Picture":
    picture, draw = _gradient(random, (110, 170, 225), (215, 230, 240))
    draw.rectangle((0, 235, SIZE, SIZE), fill=_shade(random, (45, 95, 145)))
    x, top, foot = random.randint(110, 210), random.randint(50, 80), 240
    draw.ellipse((x - 110, 225, x + 110, 330), fill=_shade(random, (95, 90, 80)))
    colour = random.choice([(205, 45, 45), (40, 70, 130), (30, 30, 30)])
    for band in range(6):
        above, below = (top + (foot - top) * part / 6 for part in (band, band + 1))
        wide, wider = (20 + 12 * part / 6 for part in (band, band + 1))
        wall = [(x - wide, above), (x + wide, above), (x + wider, below), (x - wider, below)]
        draw.polygon(wall, fill=WHITE if band % 2 else colour)
    draw.rectangle((x - 26, top - 5, x + 26, top + 2), fill=(40, 40, 40))
    lamp = (x - 13, top - 30, x + 13, top - 5)
    draw.rectangle(lamp, fill=(250, 235, 150), outline=(40, 40, 40), width=3)
    draw.polygon([(x - 18, top - 30), (x + 18, top - 30), (x, top - 50)], fill=colour)
    for _ in range(5):
        left, y = random.randint(0, SIZE), random.randint(250, 315)
        draw.line((left, y, left + 30, y), fill=(120, 165, 200), width=2)
    return picture


def _city(random: Random) -> "Picture":
    picture, draw = _gradient(random, (10, 12, 35), (60, 45, 90))
    for _ in range(60):
        draw.point((random.randint(0, SIZE), random.randint(0, 160)), fill=WHITE)
    left = -10
    while left < SIZE:
        width, top = random.randint(30, 60), SIZE - random.randint(90, 230)
        draw.rectangle((left, top, left + width, SIZE), fill=_shade(random, (25, 25, 45), 10))
        for y in range(top + 8, SIZE - 6, 14):
            for x in range(left + 6, left + width - 6, 11):
                if random.randrange(2):
                    draw.rectangle((x, y, x + 5, y + 7), fill=_shade(random, (250, 215, 120)))
        left += width + random.randint(0, 6)
    return picture


def _oranges(random: Random) -> "Picture":
    wall = random.choice([(225, 215, 195), (110, 80, 60), (180, 200, 210)])
    picture, draw = _gradient(random, wall, wall)
    draw.rectangle((0, 215, SIZE, SIZE), fill=_shade(random, (150, 110, 75)))
    for _ in range(random.randint(2, 4)):
        x, y = random.randint(80, 240), random.randint(140, 225)
        radius = random.randint(50, 70)
        for ring in range(20, 0, -1):
            inward = 1 - ring / 20
            colour = _scaled((240, 135, 25), 0.7 + 0.45 * inward)
            off = 0.35 * radius * inward
            _disc(draw, x - off, y - off, radius * ring / 20, colour)
        _disc(draw, x, y - 0.7 * radius, 5, (70, 110, 40))
    return picture


SCENES: "dict[str, Callable[[Random], Picture]]" = {
    "sunset": _sunset,
    "mountains": _mountains,
    "clock": _clock,
    "traffic light": _traffic_light,
    "daisy": _daisy,
    "balloons": _balloons,
    "umbrella": _umbrella,
    "ladybug": _ladybug,
    "football": _football,
    "lighthouse": _lighthouse,
    "city": _city,
    "oranges": _oranges,
}
