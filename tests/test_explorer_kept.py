"""What the page keeps and what it lets go: links, bookmarks, errors, and what it doesn't know."""

import re
import time

import pytest

pytest.importorskip("playwright.sync_api", reason="needs playwright")

from lasting import LASTING
from page_stub import make_app, serving
from test_explorer import (
    A,
    B,
    address,
    browser,
    click_map,
    expect,
    go_from_a_to_b,
    lasso,
    page,
    read,
    read_refused,
    service_url,
    visit,
)

assert browser
assert page
assert service_url
assert visit


def changed(route, **more):
    told = route.fetch()
    route.fulfill(response=told, json=told.json() | more)


# Links and bookmarks


@pytest.mark.parametrize("view", ["pca", pytest.param("umap", marks=LASTING)])
def test_a_link_restores_what_a_lasso_holds(page, visit, view):
    page.select_option("#view", view)
    address(page, "view=umap" if view == "umap" else "#|$")
    lasso(page)
    said = page.locator("#chosen-about").text_content()
    other = visit(address(page, "lasso="))
    for _ in range(2):
        expect(other.locator("#legend button").first).to_be_visible()
        expect(other.locator("#chosen-about")).to_have_text(said)
        assert re.search("lasso=[^&]*", other.url)[0] == re.search("lasso=[^&]*", page.url)[0]
        other.reload()


def test_the_link_to_the_tools_takes_nothing_away(page):
    go_from_a_to_b(page)
    page.focus(".skip")
    page.press(".skip", "Enter")
    page.wait_for_url("**#panel")
    page.wait_for_timeout(100)
    assert page.input_value("#path-a") == A
    expect(page.locator("#path-list li")).to_have_count(8)


def keep_mark(page, name):
    page.click("#marks")
    page.fill("#marks-name", name)
    page.press("#marks-name", "Enter")
    page.click("#marks")


def test_a_bookmark_without_a_point_leaves_none_standing(page):
    keep_mark(page, "empty")
    click_map(page)
    expect(page.locator("#point-near li").first).to_be_visible()
    page.click("#marks")
    page.locator("#marks-list button.plain").click()
    for part in ("written", "samples", "near"):
        expect(page.locator(f"#point-{part}")).to_be_empty()
    expect(page.locator("#point-hint")).to_be_visible()


def test_bookmarks_are_those_of_one_model(page):
    keep_mark(page, "mine")
    page.route("**/v1/model", lambda route: changed(route, weights="1" * 64))
    page.reload()
    page.click("#marks")
    expect(page.locator("#marks-list")).to_contain_text("None yet")
    page.unroute("**/v1/model")
    page.reload()
    page.click("#marks")
    expect(page.locator("#marks-list")).to_contain_text("mine")


def test_places_in_a_view_that_is_not_there_are_left_out(visit, service_url):
    page = visit("about:blank", service=service_url)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{service_url}/#view=none&x=1&y=1&centre=50,50&scale=9&lasso=0,0,9,0,9,9&query=")
    expect(page.locator("#legend button").first).to_be_visible()
    expect(page.locator("#view")).to_have_value("pca")
    expect(page.locator("#chosen-about")).to_contain_text("Nothing is selected")
    expect(page).not_to_have_url(re.compile("centre=|scale=|lasso=|[#&]x="))
    assert not any(url.endswith(("point", "none")) for url in asked)


# Labels


def test_another_label_writes_what_is_shown_again(visit, service_url):
    page = visit("about:blank", service=service_url)
    page.route("**/v1/model", lambda route: changed(route, labels=["calm", "loud"]))
    page.goto(service_url)
    expect(page.locator("#legend button").first).to_be_visible()
    go_from_a_to_b(page)
    with page.expect_request("**/v1/interpolate") as asked:
        page.select_option("#label", "loud")
    assert asked.value.post_data_json["label"] == "loud"
    page.click("#tab-palette")
    for corner, text in enumerate((A, B, A, B)):
        page.fill(f"#corner-{corner}", text)
    page.click("#palette-form .main")
    expect(page.locator("#palette-written .quote")).to_be_visible()
    with page.expect_request("**/v1/encode") as asked:
        page.select_option("#label", "calm")
    assert asked.value.post_data_json["label"] == "calm"
    expect(page.locator("#path-found")).to_have_attribute("hidden", "")


# What is not known


def test_what_has_no_likelihood_is_not_made_up(visit, service_url):
    page = visit(service_url)
    expect(page.locator("#legend button").first).to_be_visible()
    none = {"values": [None] * 2000, "done": 1.0}
    page.route("**/v1/map/nll", lambda route: route.fulfill(json=none))
    page.select_option("#colour", "nll")
    expect(page.locator("#legend .ends span")).to_have_text(["–", "–"])
    page.route("**/v1/read", lambda route: changed(route, kl=[None] * 24))
    read(page, A)
    expect(page.locator("#read-kl")).to_have_text("KL, – nats in all")
    expect(page.locator("#read-bars")).to_contain_text("no likelihood")
    expect(page.locator("#read-near li").first).to_be_visible()

    def unmeasured(route):
        changed(route, **({"nll": [None] * 8} if "nll" in route.request.post_data_json else {}))

    page.route("**/v1/interpolate", unmeasured)
    page.click("#tab-path")
    page.fill("#path-a", A)
    page.fill("#path-b", B)
    page.click("#path-form .main")
    expect(page.locator("#path-chart")).to_contain_text("Not available")


@LASTING
def test_the_nll_is_asked_for_once_until_it_is_time_again(visit):
    with serving(make_app(300)) as url:
        page = visit(url)
        expect(page.locator("#legend button").first).to_be_visible()
        asked = []
        page.on("request", lambda r: asked.append(r.url) if r.url.endswith("nll") else None)
        page.select_option("#colour", "nll")
        expect(page.locator("#legend")).to_contain_text("% measured")
        page.wait_for_timeout(500)
        assert len(asked) == 1
        page.select_option("#colour", "length")
        page.select_option("#colour", "nll")
        page.wait_for_timeout(300)
        assert len(asked) == 1
        with page.expect_request("**/v1/map/nll"):
            pass
        page.close()


# Errors


@LASTING
def test_what_goes_on_behind_does_not_clear_an_error_it_did_not_make(visit):
    with serving(make_app(400, training=True)) as url:
        page = visit(url, allow=("422",))
        expect(page.locator("#legend button").first).to_be_visible()  # it listens by now
        read_refused(page, "that is too long")
        for _ in range(2):
            with page.expect_response("**/v1/watch*") as answer:
                pass
            answer.value.finished()
        page.wait_for_timeout(300)
        expect(page.locator("#status")).to_contain_text("that is too long")
        click_map(page)
        expect(page.locator("#status")).not_to_have_class(re.compile("shown"))
        page.close()


@pytest.mark.parametrize("status", [500, pytest.param(429, marks=LASTING)])
def test_a_training_is_watched_on_after_an_error(visit, status):
    with serving(make_app(400, training=True)) as url:
        page = visit("about:blank", allow=(str(status),), service=url)
        page.clock.install()
        page.goto(f"{url}/#tab=watch")
        expect(page.locator("#legend button").first).to_be_visible()
        page.route(
            "**/v1/watch*",
            lambda route: route.fulfill(status=status, json={"error": "that went wrong"}),
            times=1,
        )
        expect(page.locator("#status")).to_contain_text("that went wrong")
        began = time.monotonic()
        before = page.locator("#watch-about").text_content()
        while before == page.locator("#watch-about").text_content():
            assert time.monotonic() - began < 10
            page.clock.fast_forward(10_000)
            page.wait_for_timeout(200)
        expect(page.locator("#status")).not_to_have_class(re.compile("shown"))
        page.close()


# Colours


def luminance(rgb):
    parts = [c / 255 for c in rgb]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(k * c for k, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", [pytest.param("light", marks=LASTING), "dark"])
def test_words_can_be_read_on_the_darkest_shading(visit, service_url, scheme):
    page = visit(service_url, color_scheme=scheme)
    expect(page.locator("#legend button").first).to_be_visible()
    tokens = [{"token": "strange", "nll": 20.0}, {"token": "</s>", "nll": 20.0}]
    page.route("**/v1/read", lambda route: changed(route, tokens=tokens))
    read(page, A)
    for word in page.locator("#read-tokens .token").all():
        ground, ink = word.evaluate("""(node) => {
          const canvas = document.createElement("canvas");
          const pen = canvas.getContext("2d", { willReadFrequently: true });
          const paint = (...colours) => {
            for (const colour of colours) { pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1); }
            return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
          };
          const surface = getComputedStyle(document.querySelector("#panel")).backgroundColor;
          const own = getComputedStyle(node);
          return [paint(surface, own.backgroundColor), paint(own.color)];
        }""")
        low, high = sorted(map(luminance, (ground, ink)))
        assert (high + 0.05) / (low + 0.05) >= 4.5
