"""The explorer's page in a headless browser, feature by feature."""

import json
import re
import shutil
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
if CHROMIUM is None:
    pytest.skip("needs chromium", allow_module_level=True)

from page_stub import HOSTILE, make_app, serving  # noqa: E402

expect = sync_api.expect
DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
A, B = "the old man sees the river", "nobody paints an open window again"


@pytest.fixture(scope="module")
def service_url():
    with serving(make_app(2000)) as url:
        yield url


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser):
    """A page at an address. At the end: it asked nobody but the service for anything, and nothing
    was said in the console that wasn't expected."""
    contexts, strangers, complaints, allowed = [], [], [], []

    def opened(url, allow=(), service=None, **settings):
        context = browser.new_context(
            **{"viewport": DESKTOP, "reduced_motion": "reduce"} | settings
        )
        contexts.append(context)
        context.set_default_timeout(15_000)
        page = context.new_page()
        allowed.extend(allow)
        origin = re.match(r"\w+://[^/]+", service or url)[0]

        def watched(request):
            if not request.url.startswith((origin, "data:", "blob:", "about:")):
                strangers.append(request.url)

        context.on("request", watched)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None,
        )
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert strangers == []
    assert [c for c in complaints if not any(part in c for part in allowed)] == []


@pytest.fixture
def page(visit, service_url):
    page = visit(service_url)
    expect(page.locator("#legend button").first).to_be_visible()
    return page


def answer_to(page, path, act):
    with page.expect_response(lambda r: r.url.endswith(path) and r.ok) as waited:
        act()
    return waited.value.json()


def centre(page):
    box = page.locator("#map").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def click_map(page, dx=0, dy=0):
    x, y = centre(page)
    return answer_to(page, "/v1/map/point", lambda: page.mouse.click(x + dx, y + dy))


def picture(page):
    page.evaluate(
        "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )
    return page.evaluate("() => document.querySelector('#map').toDataURL()")


def address(page, part):
    """Waits for the address to say something: it is written a moment later."""
    expect(page).to_have_url(re.compile(part))
    return page.url


def drag(page, start, *stops):
    page.mouse.move(*start)
    page.mouse.down()
    for stop in stops:
        page.mouse.move(*stop, steps=4)
    page.mouse.up()


# The map


def test_the_map_is_coloured_by_each_of_its_kinds(page):
    titles = {
        "label": "Label",
        "cluster": "Cluster",
        "length": "Length",
        "nll": "NLL",
        "z3": "Dimension 3",
        "held": "Where from",
    }
    seen = set()
    for value, title in titles.items():
        page.select_option("#colour", value)
        expect(page.locator("#legend")).to_contain_text(title)
        seen.add(picture(page))
    assert len(seen) == len(titles)


def test_the_map_is_dragged_zoomed_and_shown_whole(page):
    x, y = centre(page)
    before = picture(page)
    drag(page, (x, y), (x + 120, y + 40))
    address(page, "centre=")
    assert picture(page) != before
    page.mouse.wheel(0, -400)
    zoomed = address(page, r"scale=1\.[5-9]")
    page.click("#reset")
    expect(page).not_to_have_url(zoomed)
    address(page, r"scale=1(&|$)")


def test_another_view(page):
    before = picture(page)
    answered = page.expect_response("**/v1/map/view/umap")
    with answered:
        page.select_option("#view", "umap")
    address(page, "view=umap")
    assert picture(page) != before
    asked = page.expect_request("**/v1/map/point")
    with asked as request:
        page.mouse.click(*centre(page))
    assert request.value.post_data_json["view"] == "umap"


def test_density_is_drawn_as_lines(page):
    before = picture(page)
    page.click("#density")
    expect(page.locator("#density")).to_have_attribute("aria-pressed", "true")
    page.mouse.move(5, 5)
    assert picture(page) != before


def test_search_lights_up_and_lists_what_it_finds(page):
    page.fill("#search", "RIVER")
    page.press("#search", "Enter")
    rows = page.locator("#chosen-list li")
    expect(rows.first).to_contain_text("river")
    expect(page.locator("#chosen-about")).to_contain_text("of 2,000 sentences")
    answer_to(page, "/v1/map/point", lambda: rows.first.locator("button.plain").click())
    expect(page.locator("#point-written .quote")).to_be_visible()


def lasso(page):
    x, y = centre(page)
    page.click("#lasso")
    drag(page, (x - 200, y - 200), (x + 200, y - 200), (x + 200, y + 200), (x - 200, y + 200))
    expect(page.locator("#chosen-about")).to_contain_text("inside the lasso")


def test_lasso_and_its_export_as_jsonl(page):
    lasso(page)
    said = page.locator("#chosen-about").text_content()
    count = int(said.split(" of ")[0].replace(",", ""))
    assert 10 < count < 2000
    with page.expect_download() as waited:
        page.click("#chosen-save")
    rows = [json.loads(row) for row in Path(waited.value.path()).read_text("utf-8").splitlines()]
    assert len(rows) == count
    assert {"row", "text", "label", "x", "y", "cluster", "tokens"} <= set(rows[0])
    assert "nll" not in rows[0]  # nobody has asked for it


def test_the_legend_selects_a_category(page):
    page.locator("#legend button").first.click()
    page.click("#tab-chosen")
    expect(page.locator("#chosen-about")).to_contain_text("label plain")


def hovered(page):
    """Moves over the map until a sentence shows."""
    x, y = centre(page)
    for k in range(400):
        page.mouse.move(x - 200 + 20 * (k % 20), y - 200 + 20 * (k // 20))
        if page.locator("#hover").is_visible():
            return page.locator("#hover")
    raise AssertionError("no point was met")


def test_hover_shows_the_sentence(page):
    box = hovered(page)
    expect(box.locator(".quote")).not_to_be_empty()
    expect(box.locator("small")).to_contain_text("tokens")
    expect(box).to_have_attribute("aria-live", "off")


def test_bookmarks_are_kept_and_lead_back(page):
    click_map(page, 30, 30)
    page.click("#tab-read")
    page.click("#marks")
    page.fill("#marks-name", "here <b>")
    page.press("#marks-name", "Enter")
    expect(page.locator("#marks-list")).to_contain_text("here <b>")
    page.reload()
    page.click("#tab-palette")
    page.click("#marks")
    page.locator("#marks-list button.plain").click()
    expect(page.locator("#tab-read")).to_have_attribute("aria-selected", "true")
    page.click("#marks")
    page.get_by_label("Remove here <b>").click()
    expect(page.locator("#marks-list")).to_contain_text("None yet")


# A point


def test_a_click_writes_what_is_there(page):
    with page.expect_response("**/v1/decode") as drawn:
        told = click_map(page)
    expect(page.locator("#point-written .quote")).to_have_text(told["written"]["text"])
    samples = page.locator("#point-samples li .quote")
    expect(samples).to_have_text([one["text"] for one in drawn.value.json()["written"]])
    expect(samples).to_have_count(4)
    near = [one["text"] for one in told["neighbours"]]
    expect(page.locator("#point-near li .quote")).to_have_text(near)


def test_an_answer_about_a_place_that_was_left_is_dropped(page):
    held = []
    page.route("**/v1/map/point", lambda route: held.append(route))
    page.mouse.click(*centre(page))
    address(page, "x=")
    page.select_option("#view", "umap")
    expect(page).not_to_have_url(re.compile("[#&]x="))
    with page.expect_response("**/v1/map/point") as answer:
        held[0].continue_()
    answer.value.finished()
    picture(page)
    expect(page.locator("#point-written")).to_be_empty()


def test_samples_by_temperature_seed_and_number(page):
    told = click_map(page)
    expect(page.locator("#point-samples li")).to_have_count(4)
    with page.expect_request("**/v1/decode") as asked:
        page.fill("#seed", "7")
    assert asked.value.post_data_json["seed"] == 7
    page.fill("#count", "2")
    expect(page.locator("#point-samples li")).to_have_count(2)
    with page.expect_request("**/v1/decode") as asked:
        page.locator("#temperature").press("ArrowRight")
    assert asked.value.post_data_json["z"] == [told["z"]] * 2
    assert asked.value.post_data_json["how"] == {"temperature": 1.05}


def test_far_from_the_data_is_said(page):
    page.focus("#map")
    for _ in range(12):
        page.keyboard.press("Shift+ArrowLeft")
    told = answer_to(page, "/v1/map/point", lambda: page.keyboard.press("Enter"))
    assert told["written"]["far"]
    expect(page.locator("#point-written .far")).to_contain_text("Far from the data: farther than")
    expect(page.locator("#point-written .far")).to_contain_text("means little")


# Tools


def go_from_a_to_b(page):
    page.click("#tab-path")
    page.fill("#path-a", A)
    page.fill("#path-b", B)
    page.click("#path-form .main")
    expect(page.locator("#path-chart svg")).to_be_visible()


def test_from_a_to_b(page):
    go_from_a_to_b(page)
    expect(page.locator("#path-list li")).to_have_count(8)
    expect(page.locator("#path-chart")).to_contain_text("nats a token")
    expect(page.locator("#path-chart circle.dot")).to_have_count(8)
    expect(page.locator("#path-here")).to_contain_text("nats a token")  # before anything is chosen
    assert page.locator("#path-list ins").count() > 0
    line = page.locator("#path-list ins").first.evaluate(
        "(n) => getComputedStyle(n).textDecorationLine"
    )
    assert line == "underline"
    page.locator("#path-slider").press("ArrowRight")
    second = page.locator("#path-list li").nth(1)
    expect(second).to_have_class(re.compile("now"))
    expect(page.locator("#path-here .quote")).to_have_text(second.locator(".quote").text_content())
    expect(page.locator("#path-here")).to_contain_text("nats a token")


def test_sentences_are_picked_on_the_map_and_taken_from_lists(page):
    page.click("#tab-path")
    page.click("[data-pick=path-a]")
    box = hovered(page)
    text = box.locator(".quote").text_content()
    page.mouse.down()
    page.mouse.up()
    expect(page.locator("#path-a")).to_have_value(text)
    click_map(page)
    other = page.locator("#point-near li").first
    said = other.locator(".quote").text_content()
    answer_to(page, "/v1/interpolate", lambda: other.get_by_label("Use as B").click())
    expect(page.locator("#path-b")).to_have_value(said)


def test_palette_by_mouse_and_by_keys(page, service_url):
    page.click("#tab-palette")
    for k, text in enumerate([A, B, "a dog finds a letter", "the moon follows the river"]):
        page.fill(f"#corner-{k}", text)
    answer_to(page, "/v1/decode", lambda: page.click("#palette-form .main"))
    box = page.locator("#square").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    answer_to(page, "/v1/decode", lambda: drag(page, middle, (box["x"] - 9, box["y"] - 9)))
    expect(page.locator("#handle")).to_have_attribute("aria-valuetext", "0 % across, 0 % down")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#handle")).to_have_attribute("aria-valuetext", "5 % across, 0 % down")
    left, right = page.request.post(f"{service_url}/v1/encode", data={"texts": [A, B]}).json()["z"]
    z = [0.95 * a + 0.05 * b for a, b in zip(left, right, strict=True)]
    wanted = page.request.post(f"{service_url}/v1/decode", data={"z": [z]}).json()
    expect(page.locator("#palette-written .quote")).to_have_text(wanted["written"][0]["text"])
    address(page, "u=0.05")


def test_dragging_has_one_request_in_flight_and_ends_with_the_newest(page, service_url):
    page.click("#tab-palette")
    answer_to(page, "/v1/decode", lambda: page.click("#palette-random"))
    page.evaluate("""() => {
      const real = window.fetch;
      window.flying = 0; window.most = 0; window.sent = 0;
      window.fetch = async (...asked) => {
        window.sent++; window.most = Math.max(window.most, ++window.flying);
        await new Promise((go) => setTimeout(go, 60));
        try { return await real(...asked); } finally { window.flying--; }
      };
    }""")
    box = page.locator("#square").bounding_box()
    page.mouse.move(box["x"] + 10, box["y"] + 10)
    page.mouse.down()
    # Beyond the corner: the hand may leave the square, the handle stays in it.
    page.mouse.move(box["x"] + box["width"] + 20, box["y"] + box["height"] + 20, steps=40)
    page.mouse.up()
    expect(page.locator("#handle")).to_have_attribute("aria-valuetext", "100 % across, 100 % down")
    last = page.locator("#corner-3").input_value()
    post = page.request.post
    z = post(f"{service_url}/v1/encode", data={"texts": [last]}).json()["z"]
    wanted = post(f"{service_url}/v1/decode", data={"z": z}).json()
    expect(page.locator("#palette-written .quote")).to_have_text(wanted["written"][0]["text"])
    assert page.evaluate("() => window.most") == 1
    assert page.evaluate("() => window.sent") < 30


def test_sliders_begin_at_the_place_and_move_it(page):
    here = click_map(page)
    page.click("#tab-sliders")
    expect(page.locator("#sliders-from")).to_contain_text(here["written"]["text"])
    slider = page.get_by_label("Dimension 0", exact=True)
    with page.expect_request("**/v1/decode") as asked:
        slider.press("ArrowRight")
    moved = asked.value.post_data_json["z"][0]
    differs = [
        d for d, (p, q) in enumerate(zip(moved, here["z"], strict=True)) if abs(p - q) > 1e-9
    ]
    assert differs == [0]
    expect(page.locator("#sliders-written .quote")).to_be_visible()


def test_directions_by_name(page):
    page.click("#tab-sliders")
    expect(page.locator("#direction")).to_contain_text("question")
    told = answer_to(page, "/v1/edit", lambda: page.locator("#strength").press("ArrowRight"))
    expect(page.locator("#direction-written .quote")).to_have_text(told["written"]["text"])
    page.get_by_text("New direction").click()
    page.fill("#direction-name", "shorter")
    page.fill("#direction-from", f"{A}\n{B}")
    page.fill("#direction-to", "the moon\na dog")
    page.click("#direction-form .main")
    expect(page.locator("#direction")).to_have_value("shorter")


def test_a_minus_b_plus_c(page):
    page.click("#tab-sliders")
    for name, text in zip("abc", (A, B, "a dog finds a letter"), strict=True):
        page.fill(f"#sum-{name}", text)
    with page.expect_request("**/v1/analogy") as asked:
        page.click("#sum-form .main")
    assert asked.value.post_data_json == {"a": B, "b": A, "c": "a dog finds a letter"}
    expect(page.locator("#sum-written .quote")).to_be_visible()


def read(page, text):
    page.click("#tab-read")
    page.fill("#read-text", text)
    return answer_to(page, "/v1/read", lambda: page.press("#read-text", "Enter"))


def read_refused(page, error):
    page.route("**/v1/read", lambda route: route.fulfill(status=422, json={"error": error}))
    page.click("#tab-read")
    page.fill("#read-text", A)
    page.press("#read-text", "Enter")
    expect(page.locator("#status")).to_contain_text(error)


def test_a_sentence_is_read(page):
    told = read(page, A)
    expect(page.locator("#read-written .quote")).to_have_text(told["reconstruction"]["text"])
    tokens = page.locator("#read-tokens .token")
    expect(tokens).to_have_count(len(told["tokens"]))
    expect(tokens.nth(1)).to_have_attribute("title", f"{told['tokens'][1]['nll']:.2f} nats")
    shades = tokens.evaluate_all("(all) => all.map((n) => getComputedStyle(n).backgroundColor)")
    assert len(set(shades)) > 2
    expect(page.locator(".bars tr").first).to_contain_text(f"{max(told['kl']):.2f}")
    page.click("#tab-sliders")
    expect(page.locator("#sliders-from")).to_contain_text(A)


# What is kept and taken away


def test_a_link_restores_the_view(page, visit):
    page.select_option("#colour", "length")
    page.click("#density")
    page.fill("#search", "river")
    page.mouse.move(*centre(page))
    page.mouse.wheel(0, -300)
    go_from_a_to_b(page)
    page.locator("#path-slider").press("ArrowRight")
    page.locator("#path-slider").press("ArrowRight")
    address(page, "step=2")
    told = click_map(page, -100, 50)
    page.click("#tab-path")
    page.click("#link")
    expect(page.locator("#status")).to_contain_text("link")
    other = visit(address(page, "tab=path"))
    expect(other.locator("#path-list li").nth(2)).to_have_class(re.compile("now"))
    expect(other.locator("#colour")).to_have_value("length")
    expect(other.locator("#density")).to_have_attribute("aria-pressed", "true")
    expect(other.locator("#search")).to_have_value("river")
    expect(other.locator("#path-a")).to_have_value(A)
    other.click("#tab-point")
    expect(other.locator("#point-written .quote")).to_have_text(told["written"]["text"])
    places = [re.findall(r"(?:centre|scale|x|y)=[^&]*", p.url) for p in (page, other)]
    assert places[0] == places[1]


def test_a_broken_link_opens_the_page(visit, service_url):
    page = visit(
        f"{service_url}/#tab=nothing&centre=a,b&x=&scale=-3&colour=z999&z=1,2&lasso=1&view=no"
        "&constructor=1&__proto__=1&count=2.5&steps=1000&step=-1&seed=1e99&strength=99&u=7&label=no"
    )
    expect(page.locator("#legend button").first).to_be_visible()
    expect(page.locator("#tab-point")).to_have_attribute("aria-selected", "true")
    for name, value in (("#count", "4"), ("#seed", "0"), ("#path-steps", "8"), ("#strength", "0")):
        expect(page.locator(name)).to_have_value(value)
    with page.expect_request("**/v1/map/point") as asked:
        page.mouse.click(*centre(page))
    assert "label" not in asked.value.post_data_json


def test_exports(page):
    for button, name in (
        ("#save-png", "map.png"),
        ("#save-projector", "projector.zip"),
        ("#save-atlas", "atlas.csv"),
    ):
        page.click("#export")
        with page.expect_download() as waited:
            page.click(button)
        assert waited.value.suggested_filename == name
        if name == "map.png":
            assert Path(waited.value.path()).read_bytes()[:4] == b"\x89PNG"
        page.keyboard.press("Escape")


# Training


def test_a_training_is_watched(visit):
    with serving(make_app(400, training=True)) as url:
        page = visit(url)
        with (
            page.expect_response("**/v1/map", timeout=8000),
            page.expect_response("**/v1/watch?after=6"),
        ):
            page.click("#tab-watch")
        expect(page.locator("#watch-charts svg")).to_have_count(4)
        expect(page.locator("#watch-charts")).to_contain_text("ELBO")
        expect(page.locator("#watch-samples li")).to_have_count(4)
        expect(page.locator("#watch-about")).to_contain_text("step")
        page.goto(address(page, "tab=watch"))
        page.reload()
        expect(page.locator("#tab-watch")).to_have_attribute("aria-selected", "true")
        expect(page.locator("#watch-charts svg")).to_have_count(4)
        page.close()


def test_no_training_no_tab(page):
    expect(page.locator("#tab-watch")).to_be_hidden()


def test_a_training_is_watched_from_before_there_is_a_model(visit):
    with serving(make_app(400, training=True)) as url:
        page = visit("about:blank", allow=("404",), service=url)
        bare = {"name": "new", "latent": 0, "training": True}
        bare |= {name: [] for name in ("labels", "active", "loc", "scale", "directions")}
        page.route("**/v1/model", lambda route: route.fulfill(json=bare), times=1)
        missing = {"error": "there is a map after the first validation"}
        page.route("**/v1/map", lambda route: route.fulfill(status=404, json=missing), times=1)
        page.goto(url)
        expect(page.locator("#legend button").first).to_be_visible(timeout=8000)
        expect(page.locator("#empty")).to_be_hidden()
        expect(page.locator("#about")).to_contain_text("24 dimensions")
        click_map(page)
        page.click("#tab-sliders")
        expect(page.locator("#sliders-list input")).to_have_count(12)
        page.close()


def test_a_training_is_waited_for(visit):
    """Before it begins, between a stop and a resume, and when it begins anew."""
    with serving(make_app(400, training=True)) as url:
        page = visit("about:blank", service=url)
        page.clock.install()
        idle = {"records": [], "running": False, "samples": []}

        def once(after, held):
            answer = idle | {"next": held}
            address = f"{url}/v1/watch?after={after}"
            page.route(
                lambda asked: asked == address, lambda route: route.fulfill(json=answer), times=1
            )

        for after, held in ((0, 0), (6, 6), (12, 3)):
            once(after, held)
        about = page.locator("#watch-about")

        def ten_seconds_later(text):
            for _ in range(10):
                page.clock.fast_forward(10_000)
                page.wait_for_timeout(500)
                if text in about.text_content():
                    return
            raise AssertionError(about.text_content())

        page.goto(f"{url}/#tab=watch")
        expect(about).to_contain_text("Nothing is being trained here yet")
        ten_seconds_later("Training: step 150")
        expect(about).to_contain_text("Not training now: step 150")
        with page.expect_request(lambda r: r.url == f"{url}/v1/watch?after=0"):
            ten_seconds_later("Training: step 300")
        page.close()


def test_what_the_last_model_said_goes_with_it(visit):
    with serving(make_app(400, training=True)) as url:
        page = visit(url)
        expect(page.locator("#legend button").first).to_be_visible()
        click_map(page)
        address(page, "x=")
        read(page, A)
        go_from_a_to_b(page)
        page.click("#tab-sliders")
        expect(page.locator("#sliders-from")).not_to_contain_text("centre of the data")

        def renewed(route):
            told = route.fetch()
            route.fulfill(response=told, json=told.json() | {"weights": "1" * 64})

        page.route("**/v1/model", renewed)
        expect(page.locator("#sliders-from")).to_contain_text("centre of the data", timeout=8000)
        expect(page.locator("#point-written")).to_be_empty()
        for name in ("#path-found", "#read-found"):
            expect(page.locator(name)).to_have_attribute("hidden", "")
        expect(page).not_to_have_url(re.compile("[#&]x="))
        page.close()


# For everyone, everywhere


def test_all_of_it_by_keyboard(page):
    page.locator("#map").focus()
    before = picture(page)
    for key in ("ArrowLeft", "ArrowUp", "+", "+", "-"):
        page.keyboard.press(key)
    answer_to(page, "/v1/map/point", lambda: page.keyboard.press("Enter"))
    assert picture(page) != before
    expect(page.locator("#hover")).to_have_attribute("aria-live", "polite")
    page.keyboard.press("/")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.type("river")
    page.keyboard.press("Enter")
    expect(page.locator("#chosen-list li").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#chosen-list li")).to_have_count(0)
    page.keyboard.press("?")
    expect(page.locator("#help-box")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#help-box")).to_be_hidden()
    page.keyboard.press("2")
    expect(page.locator("#path")).to_be_visible()
    page.locator("#tab-path").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tab-palette")).to_be_focused()
    expect(page.locator("#palette")).to_be_visible()


def test_it_works_offline(visit, service_url):
    """With no network but the service's own address, and nothing else is even tried."""
    page = visit("about:blank", service=service_url)
    tried = []

    def guard(route):
        if route.request.url.startswith((service_url, "data:", "blob:")):
            return route.fallback()
        tried.append(route.request.url)
        return route.abort()

    page.context.route("**/*", guard)
    page.goto(service_url)
    expect(page.locator("#legend button").first).to_be_visible()
    click_map(page)
    read(page, A)
    for tab in page.get_by_role("tab").all():
        tab.click()
    assert tried == []


def test_every_control_has_a_name(page):
    click_map(page)
    nameless = page.locator("button, input, select, textarea, canvas").evaluate_all("""(all) => all
      .filter((n) => !(n.getAttribute('aria-label') || n.labels?.length || n.textContent.trim()))
      .map((n) => n.outerHTML)""")
    assert nameless == []


@pytest.mark.parametrize("tab", ["point", "path", "palette", "sliders", "read", "chosen"])
def test_at_phone_width_nothing_sticks_out(visit, service_url, tab):
    page = visit(
        f"{service_url}/#tab={tab}&x=0&y=0&query=e&a={A}&b={B}&read={A}&c0={A}&c1={B}&c2=a&c3=b",
        viewport=PHONE,
        has_touch=True,
        is_mobile=True,
    )
    written = {
        "path": "#path-here",
        "palette": "#palette-written",
        "read": "#read-written",
        "chosen": "#chosen-list",
    }
    expect(
        page.locator(f"{written.get(tab, f'#{tab}')} .quote, #sliders-list input").first
    ).to_be_attached()
    wide = page.evaluate("() => [document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1] == PHONE["width"]


def test_fingers_pan_and_pinch(visit, service_url):
    page = visit(service_url, viewport=PHONE, has_touch=True, is_mobile=True)
    expect(page.locator("#legend button").first).to_be_visible()
    told = answer_to(page, "/v1/map/point", lambda: page.touchscreen.tap(200, 300))
    expect(page.locator("#point-written .quote")).to_have_text(told["written"]["text"])
    hand = page.context.new_cdp_session(page)

    def touch(kind, *points):
        fingers = [{"x": x, "y": 300, "id": i} for i, x in enumerate(points)]
        hand.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    touch("touchStart", 180, 220)
    touch("touchMove", 120, 280)
    touch("touchMove", 80, 320)
    touch("touchEnd")
    address(page, r"scale=[2-9]")


def test_dark_mode(visit, service_url):
    def looks(scheme):
        page = visit(service_url, color_scheme=scheme)
        expect(page.locator("#legend button").first).to_be_visible()
        ground = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        corner = page.evaluate(
            """() => [...document.querySelector('#map').getContext('2d')
            .getImageData(2, 2, 1, 1).data]"""
        )
        return sum(map(int, re.findall(r"\d+", ground)[:3])), sum(corner[:3])

    assert all(value > 600 for value in looks("light"))
    assert all(value < 150 for value in looks("dark"))


def test_without_a_corpus_the_tools_work_and_the_map_says_why(visit):
    with serving(make_app(300, corpus=False)) as url:
        page = visit(url, allow=("404",))
        expect(page.locator("#empty")).to_contain_text("This run has no corpus to make a map of")
        expect(page.locator("#empty")).to_contain_text("A − B + C need them")
        read(page, A)
        expect(page.locator("#path-way option[value=density]")).to_be_disabled()
        go_from_a_to_b(page)
        # A link from where there is a corpus may ask for a way that there is none for here.
        page.evaluate("location.hash = '#tab=path&a=a&b=b&steps=5&way=density'")
        expect(page.locator("#path-list li")).to_have_count(5)
        expect(page.locator("#path-way")).to_have_value("linear")
        page.goto("about:blank")
        page.goto(url)
        page.click("#tab-sliders")
        expect(page.locator("#sliders-title")).to_have_text("Dimensions")
        expect(page.locator("#sliders-list input")).to_have_count(12)
        page.click("#sliders-more")
        expect(page.locator("#sliders-list input")).to_have_count(24)
        slider = page.get_by_label("Dimension 23", exact=True)
        with page.expect_request("**/v1/decode") as asked:
            slider.press("ArrowRight")
        assert asked.value.post_data_json["z"] == [[0] * 23 + [0.15]]
        page.close()


def test_a_language_model_is_told_apart_from_no_model(visit):
    with serving(make_app(300, corpus=False)) as url:
        page = visit("about:blank", allow=("404",), service=url)

        def plain(route):
            told = route.fetch()
            none = {"latent": 0, "active": [], "loc": [], "scale": []}
            route.fulfill(response=told, json=told.json() | none)

        page.route("**/v1/model", plain)
        page.goto(url)
        expect(page.locator("#about")).to_contain_text("a language model")
        expect(page.locator("#empty")).not_to_contain_text("still works")
        page.close()


def test_a_service_that_went_away_is_said_and_tried_again(visit, service_url):
    page = visit(service_url, allow=("ERR_FAILED",))
    expect(page.locator("#legend button").first).to_be_visible()
    page.route("**/v1/map/point", lambda route: route.abort())
    page.mouse.click(*centre(page))
    expect(page.locator("#status")).to_contain_text("The service does not answer")
    page.unroute("**/v1/map/point")
    told = answer_to(page, "/v1/map/point", lambda: page.click("#status button"))
    expect(page.locator("#point-written .quote")).to_have_text(told["written"]["text"])
    expect(page.locator("#status")).not_to_have_class(re.compile("shown"))


def test_a_service_that_is_not_there_yet_is_tried_again(visit, service_url):
    page = visit("about:blank", allow=("ERR_FAILED",), service=service_url)
    page.route("**/v1/model", lambda route: route.abort(), times=1)
    page.goto(service_url)
    expect(page.locator("#status")).to_contain_text("The service does not answer")
    page.click("#status button")
    expect(page.locator("#legend button").first).to_be_visible()
    click_map(page)


def test_a_label_is_sent_along_where_the_model_has_some(visit, service_url):
    page = visit("about:blank", service=service_url)

    def labelled(route):
        told = route.fetch()
        route.fulfill(response=told, json=told.json() | {"labels": ["calm", "<b>loud"]})

    page.route("**/v1/model", labelled)
    page.goto(service_url)
    expect(page.locator("#legend button").first).to_be_visible()
    click_map(page)
    expect(page.locator("#label option").first).to_have_text("no label")
    with page.expect_request("**/v1/map/point") as asked:
        page.select_option("#label", "<b>loud")
    assert asked.value.post_data_json["label"] == "<b>loud"


def test_an_error_is_shown_as_the_service_says_it(visit, service_url):
    page = visit(service_url, allow=("422",))
    read_refused(page, "the sentence <b>is</b> too long")


# Text is text

WRITTEN = {"z": [0.0] * 24, "beyond": 0.5, "far": False, "t": 0.0}


def shown(locator):
    return locator.evaluate_all("(all) => all.map((n) => n.textContent)")


def unharmed(page):
    assert page.evaluate("() => window.broken") is None
    assert (
        page.locator(
            "#panel img, #panel script, #panel iframe, #panel b, #panel style, #hover img"
        ).count()
        == 0
    )
    assert (
        page.evaluate("() => getComputedStyle(document.querySelector('#panel')).display") == "block"
    )


def test_hostile_sentences_of_a_corpus_are_text(page):
    assert len(HOSTILE) == 30
    for text in HOSTILE:
        page.fill("#search", text[:200])
        page.press("#search", "Enter")
        found = page.locator("#chosen-list .quote")
        expect(found.first).to_be_visible()
        assert text in shown(found)
        unharmed(page)


def test_hostile_writing_is_text(page):
    written = [WRITTEN | {"text": text} for text in HOSTILE]
    near = [{"text": text, "distance": 1.0, "label": text[:50]} for text in HOSTILE]
    page.route(
        "**/v1/map/point",
        lambda route: route.fulfill(
            json={"z": [0.0] * 24, "written": written[0], "samples": [], "neighbours": near}
        ),
    )
    page.route("**/v1/decode", lambda route: route.fulfill(json={"written": written}))
    click_map(page)
    expect(page.locator("#point-samples li")).to_have_count(30)
    assert shown(page.locator("#point-samples .quote")) == HOSTILE
    assert shown(page.locator("#point-near .quote")) == HOSTILE
    unharmed(page)
    page.route(
        "**/v1/interpolate",
        lambda route: route.fulfill(json={"written": written, "nll": [1.0] * 30}),
    )
    go_from_a_to_b(page)
    assert shown(page.locator("#path-list .quote")) == HOSTILE
    tokens = [{"token": text, "nll": 1.0} for text in HOSTILE]
    page.route(
        "**/v1/read",
        lambda route: route.fulfill(
            json={
                "mean": [0.0] * 24,
                "variance": [1.0] * 24,
                "kl": [0.1] * 24,
                "tokens": tokens,
                "nll": 30.0,
                "reconstruction": written[1],
                "x": 0.0,
                "y": 0.0,
                "neighbours": near,
            }
        ),
    )
    read(page, HOSTILE[0])
    expect(page.locator("#read-tokens .token")).to_have_count(30)
    assert shown(page.locator("#read-tokens .token")) == HOSTILE
    unharmed(page)


def test_an_override_ends_with_its_sentence(page):
    """What follows a sentence with a right-to-left override still reads from left to right."""
    page.fill("#search", "\u202eright")
    page.press("#search", "Enter")
    quote = page.locator("#chosen-list .quote").first
    assert quote.evaluate("(n) => getComputedStyle(n).unicodeBidi") == "isolate"
    assert quote.evaluate("(n) => n.tagName") == "BDI"
