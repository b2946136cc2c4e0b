"""The report is whole with any data, harmless with any text, and needs nothing but itself."""

import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from midsentence import report as module
from midsentence.charts import POINTS, Line, curves, ranked_bars, smoothed, thin, tick_labels, ticks
from midsentence.report import Report, differences, repeated, verdict

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)> \" ' & {{ 7 * 7 }}"
HEADINGS = [
    "How good is the model?",
    "What does the latent carry?",
    "Evaluation",
    "Reconstructions",
    "Samples",
    "Interpolation",
    "How did training run?",
    "Settings",
]
CHARTS = [
    *("Bound, −ELBO", "Reconstruction", "Perplexity, at most", "KL and MI", "Active units"),
    *("KL per dimension", "KL weight β", "Learning rate", "Gradient norm"),
]


def records(count: int, **changed: float) -> list[dict[str, object]]:
    """A run of `count` records with every key that training and validation write."""
    made = []
    for i in range(1, count + 1):
        kl, log_px = 6.0 + 5 / i, -100.0 - 60 / i
        figures = {"elbo": log_px - kl, "log_px": log_px, "kl": kl, "mi": 5.0, "mi_cap": 7.6}
        other = {"beta": min(1.0, i / 50), "lr": 1e-3 / i, "grad_norm": 4.0, "ppl_bound": 90.0}
        place = {"kind": "any", "step": 25 * i, "seconds": 3.0 * i, "active_units": 29}
        made.append(place | figures | other | changed)
    return made


def table(**changed: float) -> dict[str, float]:
    figures = dict.fromkeys(module.FIGURES, 1.5)
    whole = {"sentences": 4901, "tokens": 112345, "bytes": 398231, "samples": 500, "latent": 32}
    return figures | whole | {"nll": 101.25, "kl": 6.25, "mi": 4.8, "active_units": 29} | changed


def full(**changed: object) -> Report:
    given: dict[str, object] = {
        "title": "a run",
        "summary": {"corpus": "builtin:icd10", "trained": "4 min, 2,100 steps"},
        "settings": {"seed": 0, "decoder": {"kind": "lstm", "inject": ["state", "input"]}},
        "train": records(200),
        "valid": records(8),
        "table": {"valid": table(), "test": table(nll=99.875)},
        "kl_per_dimension": [0.5 / (i + 1) ** 2 for i in range(32)],
        "samples": ["春眠不觉晓", "السوق ارتفع", ""],
        "reconstructions": [("the dollar fell", "the yen fell"), ("the same", "the same")],
        "interpolation": ["the start", "the start", "the start", "midway", "the end"],
    }
    return Report(**(given | changed))  # type: ignore[arg-type]


EMPTY: dict[str, object] = {
    **{name: {} for name in ("summary", "settings", "table")},
    **{name: [] for name in ("train", "valid", "kl_per_dimension")},
    **{name: [] for name in ("samples", "reconstructions", "interpolation")},
}


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, and text outside style and script."""

    VOID = ("meta", "br", "img")

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == [], "every tag is closed"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text += data


def test_every_section_is_there():
    page = Page(full().html())
    for heading in [*HEADINGS, *CHARTS]:
        assert heading in page.text, heading
    for text in ("Healthy: KL 6.25 nats, 29 of 32 units active", "99.88", "春眠不觉晓", "(empty)"):
        assert text in page.text
    for name, _, explanation in module.FIGURES.values():
        assert name in page.text and explanation in page.text
    assert "decoder.inject" in page.text and "state, input" in page.text


def test_needs_nothing_from_elsewhere():
    html = full().html()
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"(?m)^//.*$", "", html))
    assert "@import" not in html and "url(" not in html.replace('"url(#', "")
    page = Page(html)
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base")
        assert not {"src", "href", "srcset", "action"} & attributes.keys()
        assert not any(name.startswith("on") for name in attributes)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) == len(CHARTS)


def test_hostile_text_stays_text():
    plain = Page(full().html())
    report = full(
        title=HOSTILE,
        summary={HOSTILE: HOSTILE},
        settings={HOSTILE: {HOSTILE: HOSTILE}},
        table={HOSTILE: table() | {HOSTILE: 1.0}},
        samples=[HOSTILE],
        reconstructions=[(HOSTILE, HOSTILE + " more")],
        interpolation=[HOSTILE, HOSTILE],
    )
    page = Page(report.html())
    # title element and heading, summary, settings, table (and tile), samples, pair, interpolation
    assert page.text.count("<script>alert('x')</script>") >= 12
    assert "{{ 7 * 7 }}" in page.text
    kinds = [{tag for tag, _ in p.tags} for p in (plain, page)]
    assert kinds[1] <= kinds[0]
    assert [tag for tag, _ in page.tags].count("script") == 1


@pytest.mark.parametrize("name", EMPTY)
def test_what_is_empty_is_left_out(name):
    section = {
        "table": "Evaluation",
        "kl_per_dimension": "KL per dimension",
        "samples": "Samples",
        "reconstructions": "Reconstructions",
        "interpolation": "Interpolation",
        "settings": "Settings",
        "train": "Gradient norm",
        "valid": "Perplexity, at most",
    }.get(name, "4 min, 2,100 steps")
    headings = re.findall(
        r"<(?:h2|h3|summary|dd)[^>]*>([^<]*)<", full(**{name: EMPTY[name]}).html()
    )
    assert section not in headings


def test_with_nothing_at_all_there_is_still_a_page():
    page = Page(full(**EMPTY).html())
    assert "a run" in page.text
    assert not any(heading in page.text for heading in [*HEADINGS, *CHARTS])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_left_out(bad):
    figures = dict.fromkeys(("elbo", "log_px", "kl", "mi", "active_units", "grad_norm", "lr"), bad)
    page = Page(full(train=records(60, **figures), valid=records(3, **figures), table={}).html())
    assert "Training diverged" in page.text
    assert "Bound, −ELBO\n" not in page.text and "KL weight β" in page.text
    broken = dict.fromkeys(table(), bad)
    html = full(table={"test": broken}, kl_per_dimension=[bad, bad]).html()
    assert not re.search(r"\b(nan|inf)\b", Page(html).text)
    assert not re.search(r'="[^"]*\b(nan|inf)\b', html)
    assert "KL per dimension" not in Page(html).text


def test_missing_keys_and_nulls():
    Page(full(train=[{"step": 1}, {"step": 2, "elbo": None}], valid=[{"step": 2}]).html())
    Page(full(train=[{}], valid=[{"elbo": None, "kl": 3.0}], table={"test": {}}).html())


def test_a_language_model_has_no_latent_section():
    none = {"kl": 0.0, "mi": 0.0, "active_units": 0}
    for tables in ({"test": table(latent=0, **none)}, {}):
        report = full(valid=records(3, **none), table=tables, kl_per_dimension=[])
        page = Page(report.html())
        assert "Language model (no latent)" in page.text
        assert "What does the latent carry?" not in page.text
        assert "KL weight" not in page.text and "Mutual information" not in page.text


NAN = math.nan


@pytest.mark.parametrize(
    "kl, mi, active, latent, headline",
    [
        (0.0, 0.0, 0, 0, "Language model"),
        (0.49, NAN, 3, 32, "Posterior collapsed"),
        (4.3, 2.0, 0, 32, "Posterior collapsed"),
        (4.3, 0.01, 3, 32, "Posterior collapsed"),
        (1.9, NAN, 20, 32, "Nearly collapsed"),
        (6.0, 5.0, 4, 32, "Nearly collapsed"),
        (6.0, 5.0, 2, 2, "Healthy: KL 6.00 nats, 2 of 2 units active"),
        (6.0, NAN, NAN, NAN, "Healthy: KL 6.00 nats"),
        (2.0, 2.0, 5, 32, "Healthy"),
    ],
)
def test_verdict(kl, mi, active, latent, headline):
    found = verdict(kl, mi, active, latent)
    assert found is not None and found.headline.startswith(headline)
    assert "nan" not in found.headline + found.detail


def test_no_figures_no_verdict():
    assert verdict(NAN, NAN, NAN, NAN) is None
    diverged = verdict(NAN, NAN, NAN, 32, elbo=NAN)
    assert diverged is not None and diverged.level == "bad"


def test_judged_by_the_test_set_else_by_the_largest_split():
    tables = {"quick": table(sentences=1000), "valid": table(sentences=4901)}
    assert full(table=tables).headline()[0] == "valid"
    assert full(table=tables | {"test": table(sentences=10)}).headline()[0] == "test"


def test_repeated_neighbours_are_one_row():
    rows = repeated(["a", "a", "a", "b", "a"])
    assert [(row["text"], row["count"]) for row in rows] == [("a", 3), ("b", 1), ("a", 1)]
    assert [row["t"] for row in rows] == [(0, 0.5), (0.75, 0.75), (1, 1)]
    assert repeated(["only"])[0]["t"] == (0, 0) and repeated([]) == []
    page = Page(full().html())
    assert page.text.count("the start") == 1 and "× 3" in page.text


def test_differences():
    words = differences("the dollar fell", "the yen fell")
    assert words == [("the ", False), ("yen", True), (" fell", False)]
    assert differences("两岸猿声", "两岸歌声") == [("两岸", False), ("歌", True), ("声", False)]
    assert differences("same", "same") == [("same", False)] and differences("gone", "") == []
    assert differences("", "new") == [("new", True)]


def test_long_and_broken_text(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    long = "word " * 100_000
    full(samples=[long, "\ud800"], reconstructions=[(long, long)]).write(path)
    assert path.stat().st_size < 300_000
    assert "<h1" in path.read_text("utf-8")
    assert [f.name for f in tmp_path.iterdir()] == ["report.html"]


def test_a_failed_report_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")
    monkeypatch.setattr(module.Path, "replace", lambda *_: (_ for _ in ()).throw(OSError()))
    with pytest.raises(OSError):
        full().write(path)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_long_run_stays_small():
    html = full(train=records(20_000), valid=records(500), kl_per_dimension=[0.1] * 4096).html()
    assert len(html.encode()) < 300_000


@pytest.mark.parametrize(
    "low, high, expected, labels",
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1], ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (98, 133, [100, 110, 120, 130], ["100", "110", "120", "130"]),
        (0, 10_925, [0, 5000, 10_000], ["0", "5k", "10k"]),
        (0, 1500, [0, 500, 1000, 1500], ["0", "0.5k", "1.0k", "1.5k"]),
        (-3, 7, [-2, 0, 2, 4, 6], ["−2", "0", "2", "4", "6"]),
        (0, 3e-5, [0, 1e-5, 2e-5, 3e-5], ["0", "1e-5", "2e-5", "3e-5"]),
        (5, 5, [5], ["5"]),
    ],
)
def test_ticks(low, high, expected, labels):
    assert ticks(low, high) == pytest.approx(expected)
    assert tick_labels(ticks(low, high)) == labels


def test_whole_ticks():
    assert ticks(0, 2, whole=True) == [0, 1, 2]


def test_thinning_keeps_ends_and_spikes():
    ys = np.sin(np.arange(10_000) / 500)
    ys[4321], ys[7000] = 50, -50
    keep = thin(ys)
    assert len(keep) <= POINTS and {0, 4321, 7000, 9999} <= set(keep.tolist())
    assert len(thin(np.full(1000, math.nan))) <= POINTS


def test_smoothing_is_named_and_short_runs_are_not_smoothed():
    xs = np.arange(100.0)
    raw, mean = smoothed("training", xs, xs)
    assert raw.label == "each record" and mean.label == "training, mean of 5 records"
    assert mean.ys[50] == pytest.approx(50)
    assert [line.label for line in smoothed("training", xs[:10], xs[:10])] == ["training"]


def test_a_gap_breaks_the_line():
    ys = np.array([1.0, 2.0, math.nan, 3.0, 4.0])
    chart = curves("a", "b", [Line("c", "train", np.arange(5.0), ys)])
    assert chart is not None and chart.lines[0].path.count("M") == 2
    assert chart.note == "1 record not finite and left out."
    assert curves("a", "b", []) is None and ranked_bars("a", "b", [NAN], 0.01, "c") is None


def test_values_far_outside_the_frame_are_read_as_they_are():
    ys = np.array([1.25e7, math.nan, *[1.0, 2.0] * 30])
    chart = curves("a", "b", [Line("c", "valid", np.arange(62.0), ys)], settle=True)
    assert chart is not None and chart.y.high < 3
    assert chart.lines[0].values.split()[:3] == ["1.25e+07", "1", "2"]
    assert chart.lines[0].path.count(" ") == len(chart.lines[0].values.split())  # one a point


def test_flat_and_single_points_have_a_frame():
    for ys in ([3.0], [0.0, 0.0], [-2.0, -2.0], [1e300, -1e300]):
        line = Line("a", "valid", np.arange(float(len(ys))), np.array(ys))
        chart = curves("a", "b", [line])
        assert chart is not None and chart.y.low < chart.y.high and chart.lines[0].path


def test_ticks_are_never_rounded_to_one_another():
    labels = ["0", "5.0e-5", "1.0e-4", "1.5e-4", "2.0e-4"]
    assert tick_labels([0, 5e-5, 1e-4, 1.5e-4, 2e-4]) == labels
    assert tick_labels([0, 1e-4, 2e-4]) == ["0", "1e-4", "2e-4"]
