"""The page and the real service together: what the browser shows is what Python says."""

import pytest

pytest.importorskip("fastapi", reason="needs the extra web")
pytest.importorskip("playwright.sync_api", reason="needs playwright")

from midsentence import TextVAE
from midsentence.space import Space
from midsentence.web import explorer, service
from midsentence.web.atlas import Atlas
from midsentence.web.card import Card
from page_stub import HOSTILE
from served import started
from test_cli import LINES, SMALL, call
from test_explorer import answer_to, browser, click_map, expect, visit

assert browser
assert visit


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    (folder / "text.txt").write_text("\n".join(LINES * 6) + "\n", "utf-8")
    done = call(f"train {folder}/text.txt --out {folder}/run --max-steps 40 --seed 1 {SMALL}")
    assert done.returncode == 0, done.stderr
    return Space.open(folder / "run", model=TextVAE.from_pretrained(folder / "run"))


@pytest.fixture(scope="module")
def url(space, tmp_path_factory):
    folder = tmp_path_factory.mktemp("empty")
    more = explorer.routes(Atlas.of(space, [line for line in HOSTILE if line.strip()]))
    app = service.create(space.model, space, Card.of(folder, space.model, space), more=more)
    server, thread, client = started(app)
    yield f"http://localhost:{client.port}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def page(visit, url):
    page = visit(f"{url}/")
    expect(page.locator("#legend button").first).to_be_visible()
    return page


def test_a_click_shows_what_python_writes_there(page, space):
    found = click_map(page)
    z = space.cloud.mean.new_tensor(found["z"])
    expect(page.locator("#point .quote").first).to_have_text(space.written(z[None])[0].text)
    near = [n.text for n in space.neighbours(z, 5)]
    expect(page.locator("#point-near .quote")).to_have_text(near)


def test_from_one_sentence_to_another(page, space):
    page.click("#tab-path")
    page.fill("#path-a", LINES[0])
    page.fill("#path-b", LINES[7])
    page.locator("#path-way").select_option("linear")
    page.fill("#path-steps", "6")
    found = answer_to(page, "/v1/interpolate", lambda: page.locator("#path-b").press("Enter"))
    wanted = [w.text for w in space.interpolate(LINES[0], LINES[7], 6, path="linear")]
    assert [w["text"] for w in found["written"]] == wanted
    expect(page.locator("#path-list .quote")).to_have_text(wanted)


def test_a_sentence_is_read(page, space):
    page.click("#tab-read")
    page.fill("#read-text", LINES[3])
    found = answer_to(page, "/v1/read", lambda: page.locator("#read-text").press("Enter"))
    assert len(found["tokens"]) == len(LINES[3].split()) + 1
    wanted = space.model.reconstruct([LINES[3]])[0]
    expect(page.locator("#read-written .quote").first).to_have_text(wanted)


def test_sliders_and_palette_write(page):
    click_map(page)
    page.click("#tab-sliders")
    slider = page.locator("#sliders-list input[type=range]").first
    answer_to(page, "/v1/decode", lambda: slider.press("ArrowRight"))
    expect(page.locator("#sliders-written .quote")).to_be_visible()
    page.click("#tab-palette")
    for corner in range(4):
        page.fill(f"#corner-{corner}", LINES[corner])
    answer_to(page, "/v1/decode", lambda: page.locator("#corner-3").press("Enter"))
    expect(page.locator("#palette-written .quote")).to_be_visible()


def test_a_dimension_and_the_nll_colour_the_map(page):
    for kind, title in (("z1", "Dimension 1"), ("nll", "NLL"), ("held", "Where from")):
        page.locator("#colour").select_option(kind)
        expect(page.locator("#legend")).to_contain_text(title)


def test_hostile_sentences_of_a_corpus_are_text(page):
    assert page.evaluate("() => window.broken") is None
    page.fill("#search", "onerror")
    page.locator("#search").press("Enter")
    page.click("#tab-chosen")
    expect(page.locator("#chosen-list .quote").first).to_contain_text("onerror")
    assert page.locator("#panel img, #panel script").count() == 0
