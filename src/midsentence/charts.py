"""Curves and bars as geometry: numbers in, SVG paths and tick labels out. The template draws them.

Nothing here knows HTML, so nothing here can forget to escape. Points are thinned by keeping each
stretch's lowest and highest, so that a spike survives; only `smoothed` averages, and says so.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

POINTS = 300
"""At most so many points a drawn line: about one a pixel."""

LEFT, TOP, RIGHT, BOTTOM = 40, 8, 352, 172  # the frame in a picture of 360 x 200
SETTLING = 0.05  # the first part of a run, which may fall outside a frame fitted to the rest
NOISY = 40  # records from which on a line is drawn faint, with its average over it


def ticks(low: float, high: float, most: int = 5, whole: bool = False) -> list[float]:
    """At most `most` + 1 round numbers (1, 2 or 5 times a power of ten) within [low, high]."""
    if not low < high:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * (1 - 1e-9))
    step = max(1.0, step) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step)))
    return [round(i * step, digits) + 0.0 for i in range(first, last + 1)]


def plain(text: str) -> str:
    """Nothing is 0 in any unit, and a minus is not a hyphen."""
    return "0" if not text.strip("0.kMe") else re.sub("^-", "−", text)


def tick_labels(at: Sequence[float]) -> list[str]:
    """One way of writing for all ticks of an axis: 0.25, 40, 15k, 2e-4."""
    step = min((b - a for a, b in pairwise(at)), default=abs(at[0]) if at else 1.0) or 1.0
    largest = max((abs(value) for value in at), default=0.0)
    if largest < 0.001 or largest >= 1e9:
        short = [f"{v:.0e}" for v in at]
        if any(not math.isclose(float(text), v) for text, v in zip(short, at, strict=True)):
            short = [f"{v:.1e}" for v in at]
        return [plain(text.replace("e-0", "e-").replace("e+", "e")) for text in short]
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if largest >= 10 * size or (largest >= size and step >= size / 10):
            digits = max(0, -math.floor(math.log10(step / size) + 1e-9))
            return [plain(f"{v / size:.{digits}f}{suffix}") for v in at]
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [plain(f"{v:.{digits}f}") for v in at]


@dataclass
class Line:
    """A named curve. style is a CSS class: train, raw, valid, second or limit."""

    label: str
    style: str
    xs: np.ndarray
    ys: np.ndarray
    path: str = ""
    values: str = ""
    dots: str = ""
    last: float = math.nan


def smoothed(label: str, xs: np.ndarray, ys: np.ndarray) -> list[Line]:
    """A training curve: as it is if short, else every record faint under a moving average."""
    if len(ys) < NOISY:
        return [Line(label, "train", xs, ys)]
    half = max(2, len(ys) // 40)
    at = np.unique(np.linspace(0, len(ys) - 1, POINTS).astype(int))
    mean = np.full(len(at), math.nan)
    for row, i in enumerate(at):
        window = ys[max(0, i - half) : i + half + 1]
        window = window[np.isfinite(window)]
        if len(window) and math.isfinite(ys[i]):
            mean[row] = window.mean()
    named = f"{label}, mean of {2 * half + 1} records"
    return [Line("each record", "raw", xs, ys), Line(named, "train", xs[at], mean)]


def thin(ys: np.ndarray, most: int = POINTS) -> np.ndarray:
    """Indices of at most `most` points: both ends, and each stretch's lowest and highest."""
    if len(ys) <= most:
        return np.arange(len(ys))
    edges = np.linspace(0, len(ys), (most - 2) // 2 + 1).astype(int)
    keep = {0, len(ys) - 1}
    for a, b in pairwise(edges):
        part, finite = ys[a:b], np.isfinite(ys[a:b])
        keep |= {a + int(np.where(finite, part, math.inf).argmin())}
        keep |= {a + int(np.where(finite, part, -math.inf).argmax())}
    return np.array(sorted(keep))


@dataclass
class Axis:
    """Maps [low, high] onto pixels [start, stop], with ticks as (pixel, label)."""

    low: float
    high: float
    start: float
    stop: float
    most: int = 5
    whole: bool = False

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        # A far outlier stays a short number; the frame clips it all the same.
        return round(self.start + min(9.0, max(-9.0, share)) * (self.stop - self.start), 2)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        at = ticks(self.low, self.high, self.most, self.whole)
        return list(zip(map(self, at), tick_labels(at), strict=True))


@dataclass
class Chart:
    title: str
    unit: str
    x: Axis
    y: Axis
    lines: list[Line]
    note: str = ""
    bars: dict[str, str] | None = None  # style -> path
    threshold: float | None = None  # pixels
    x_label: str = "step"


def span(values: np.ndarray, zero: bool, top: float = math.nan) -> tuple[float, float]:
    """A frame for the values with a little air; never empty."""
    low, high = float(values.min()), float(values.max())
    if math.isfinite(top):
        high = max(high, top)
    if zero and low >= 0:
        return 0.0, high * 1.06 or 1.0
    air = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - air, high + air


def curves(
    title: str,
    unit: str,
    lines: Sequence[Line],
    *,
    note: str = "",
    zero: bool = False,
    settle: bool = False,
    whole: bool = False,
    top: float = math.nan,
    longest: float = 0.0,
) -> Chart | None:
    """A chart of the lines that hold a finite number, or None if none does.

    zero: start the frame at 0. settle: fit it to what follows the first 5 % of the run. top: a
    value the frame must reach. longest: the last x of the run, so that all its charts align.
    """
    lines = [line for line in lines if np.isfinite(line.ys).any()]
    fitted = [line for line in lines if line.style != "raw"]
    if not fitted:
        return None
    end = max(longest, *(float(line.xs.max()) for line in lines)) or 1.0
    xs, ys = (np.concatenate([getattr(line, k) for line in fitted]) for k in ("xs", "ys"))
    finite = np.isfinite(ys)
    late = finite & (xs >= SETTLING * end) if settle else finite
    x = Axis(0, end, LEFT, RIGHT, most=6)
    y = Axis(*span(ys[late if late.any() else finite], zero, top), BOTTOM, TOP, whole=whole)
    notes = [note] if note else []
    if ys[finite].max() > y.high:
        notes.append(f"The first steps, from {float(ys[finite].max()):.4g}, lie above the frame.")
    raw = [line for line in lines if line.style == "raw"]
    if any((np.abs(line.ys - (y.low + y.high) / 2) > (y.high - y.low) / 2).any() for line in raw):
        notes.append("Single records may reach beyond the frame.")
    measured = [line for line in lines if not (raw and line.style == "train")]
    missing = sum(int((~np.isfinite(line.ys)).sum()) for line in measured)
    if missing:
        notes.append(f"{missing} record{'s' * (missing > 1)} not finite and left out.")
    for line in lines:
        draw(line, x, y)
    return Chart(title, unit, x, y, list(lines), " ".join(notes))


def draw(line: Line, x: Axis, y: Axis) -> None:
    """Fill in the line's path, broken where it is not finite, the value of each of its points,
    which those far outside the frame do not show, and its dots if it has few."""
    keep = thin(line.ys)
    xs, ys, pen = line.xs[keep], line.ys[keep], "M"
    path, values = [], []
    for a, b in zip(xs.tolist(), ys.tolist(), strict=True):
        if math.isfinite(b):
            path.append(f"{pen}{x(a):g} {y(b):g}")
            values.append(f"{b:.4g}")
        pen = "L" if math.isfinite(b) else "M"
    line.path, line.values = "".join(path), " ".join(values)
    if len(path) == 1 or (len(path) <= 40 and line.style in ("valid", "second")):
        line.dots = "".join(f"M{part[1:]}h0" for part in path)
    line.last = float(line.ys[np.isfinite(line.ys)][-1])


def ranked_bars(
    title: str, unit: str, values: Sequence[float], threshold: float, x_label: str, note: str = ""
) -> Chart | None:
    """Bars from largest to smallest, those under the threshold in a quieter style."""
    found = np.array([v for v in values if math.isfinite(v)])
    if not len(found):
        return None
    found = np.sort(found)[::-1]
    x = Axis(0, len(found), LEFT, RIGHT, whole=True)
    y = Axis(*span(found, zero=True, top=2 * threshold), BOTTOM, TOP)
    gap = 0.2 if len(found) <= 100 else 0.0
    base = y(0)
    paths = {"active": "", "idle": ""}
    for i in np.unique(np.linspace(0, len(found) - 1, POINTS).astype(int)).tolist():
        left, wide = x(i + gap / 2), x(i + 1 - gap / 2) - x(i + gap / 2)
        # Even a bar of nothing is drawn, half a pixel high: the dimension exists.
        tip = min(y(found[i]), base - 0.5) if found[i] >= 0 else y(found[i])
        style = "active" if found[i] >= threshold else "idle"
        paths[style] += f"M{left:g} {base:g}V{tip:g}h{wide:.2f}V{base:g}z"
    return Chart(title, unit, x, y, [], note, paths, y(threshold), x_label)
