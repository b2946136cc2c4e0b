"""Models in the plane of rate and distortion, as one SVG.

Alemi et al. 2018, "Fixing a Broken ELBO". Rate is the KL, distortion -log p(x|z), both in nats a
sentence; their sum is -ELBO, so that models of one bound lie on one line. Rates are drawn by their
square root: most models crowd near none, and an autoencoder without a KL is far off.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from midsentence.charts import Axis, ticks

WIDTH, HEIGHT = 800, 560
LEFT, TOP, RIGHT, BOTTOM = 60, 16, 784, 500
LETTER, LINE = 6.3, 13
"""About the width and the height of a letter of 11 pixels."""

RATES = (0, 0.5, 1, 2, 5, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500)


@dataclass(frozen=True)
class Point:
    """A method: the mean over its runs, and `each` of them as (rate, distortion)."""

    label: str
    rate: float
    distortion: float
    each: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        return (
            self.left < other.right and other.left < self.right
            and self.top < other.bottom and other.top < self.bottom
        )  # fmt: skip


FRAME = Box(LEFT, TOP, RIGHT, BOTTOM)


def picture(points: Sequence[Point]) -> str:
    """The SVG; points that are not finite are left out."""
    points = [p for p in points if math.isfinite(p.rate) and math.isfinite(p.distortion)]
    shown = [pair for p in points for pair in (*p.each, (p.rate, p.distortion))]
    high = max([1.0, *(root(rate) for rate, _ in shown)])
    x = Axis(0, 1.06 * high, LEFT, RIGHT)
    low, top = min(d for _, d in shown), max(d for _, d in shown)
    air = 0.06 * (top - low) or 1.0
    y = Axis(low - air, top + air, BOTTOM, TOP)
    return "\n".join([*frame(x, y), *equal_bounds(x, y), *dots(points, x, y), "</svg>"]) + "\n"


def root(rate: float) -> float:
    """A KL estimated by samples may be a little below nothing."""
    return math.sqrt(max(0.0, rate))


def frame(x: Axis, y: Axis) -> Iterator[str]:
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-size="12" '
        f'font-family="sans-serif" fill="#333"><rect width="{WIDTH}" height="{HEIGHT}" '
        'fill="#fff"/>'
    )
    yield f'<path d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}" fill="none" stroke="#999"/>'
    held = [rate for rate in RATES if root(rate) <= x.high]
    last = -math.inf
    for rate in held:
        at = x(root(rate))
        if at - last >= 20:
            last = at
            yield f'<text x="{at}" y="{BOTTOM + 17}" text-anchor="middle">{rate:g}</text>'
    for at, label in y.ticks:
        yield f'<text x="{LEFT - 7}" y="{at + 4}" text-anchor="end">{escape(label)}</text>'
    middle = (LEFT + RIGHT) / 2
    yield (
        f'<text x="{middle}" y="{BOTTOM + 36}" text-anchor="middle">rate: KL, nats a sentence '
        "(square-root scale)</text>"
    )
    yield (
        f'<text x="{middle}" y="{BOTTOM + 53}" text-anchor="middle" fill="#888">along a grey line '
        "the ELBO is the same; where it meets the left axis is its −ELBO</text>"
    )
    yield (
        f'<text transform="translate(16 {(TOP + BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
        "distortion: −log p(x|z), nats a sentence</text>"
    )


def equal_bounds(x: Axis, y: Axis) -> Iterator[str]:
    """Lines rate + distortion = constant, one from each tick of the distortion and further on."""
    at = ticks(y.low, y.high, y.most)
    step = at[1] - at[0] if len(at) > 1 else y.high - y.low
    count = math.ceil((y.high + x.high**2 - at[0]) / step)
    for value in (at[0] + i * step for i in range(count)):
        # The part within the frame, from its top or left side to its bottom or right one.
        first, last = max(0.0, value - y.high), min(x.high**2, value - y.low)
        if not first < last:
            continue
        rates = [(math.sqrt(first) + i / 30 * (math.sqrt(last) - math.sqrt(first))) ** 2
                 for i in range(31)]  # fmt: skip
        path = "L".join(f"{x(math.sqrt(rate)):g} {y(value - rate):g}" for rate in rates)
        yield f'<path d="M{path}" fill="none" stroke="#ddd"/>'


def dots(points: Sequence[Point], x: Axis, y: Axis) -> Iterator[str]:
    """Every run small and faint, every method large, with its name where there is room."""
    places = [(x(root(p.rate)), y(p.distortion)) for p in points]
    for point in points:
        for rate, distortion in point.each if len(point.each) > 1 else ():
            yield circle(x(root(rate)), y(distortion), 2, "#9db9d8")
    boxes = labelled(places, [p.label for p in points])
    for (a, b), box in zip(places, boxes, strict=True):
        # A name that had to move away is tied to its point.
        c, d = min(max(a, box.left), box.right), (box.top + box.bottom) / 2
        if math.hypot(c - a, d - b) > 14:
            yield f'<path d="M{a:g} {b:g}L{c:g} {d:g}" stroke="#aaa" stroke-width="0.7"/>'
    for point, (a, b), box in zip(points, places, boxes, strict=True):
        yield circle(a, b, 4, "#2563a8")
        yield (
            f'<text x="{box.left:.1f}" y="{box.bottom - 3:.1f}" font-size="11" stroke="#fff" '
            'stroke-width="3" stroke-linejoin="round" paint-order="stroke">'
            f"{escape(point.label)}</text>"
        )


def circle(x: float, y: float, radius: float, fill: str) -> str:
    return f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{fill}"/>'


def labelled(places: Sequence[tuple[float, float]], labels: Sequence[str]) -> list[Box]:
    """A box for each label: the nearest one that meets no point and no label before it."""
    taken = [Box(a - 5, b - 5, a + 5, b + 5) for a, b in places]
    found = []
    for (a, b), label in zip(places, labels, strict=True):
        wide = LETTER * len(label)
        options = (box(a, b, wide, distance, turn) for distance in range(8, 400, 6)
                   for turn in TURNS)  # fmt: skip
        usual = box(a, b, wide, 8, 0)
        chosen = next((o for o in options if within(o) and not any(map(o.meets, taken))), usual)
        taken.append(chosen)
        found.append(chosen)
    return found


TURNS = (0, -30, 30, -60, 60, -90, 90, 180, -120, 120, -150, 150)
"""Degrees in which a name may stand from its point, to the right first."""


def box(a: float, b: float, wide: float, distance: float, turn: float) -> Box:
    """A text of this width, its near edge so far from (a, b)."""
    across, down = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    left = a + distance * across - wide * (1 - across) / 2
    middle = b + (distance + LINE / 2) * down
    return Box(left, middle - LINE / 2, left + wide, middle + LINE / 2)


def within(box: Box) -> bool:
    return (
        FRAME.left < box.left and box.right < FRAME.right
        and FRAME.top < box.top and box.bottom < FRAME.bottom
    )  # fmt: skip
