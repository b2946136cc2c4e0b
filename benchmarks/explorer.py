"""The explorer's page, measured: python benchmarks/explorer.py [URL] [--points 50000] [--json]

Frames a second while the map is dragged about, and the time from a click on the map to the decoded
sentence on the page, in headless Chromium without a GPU. URL: a running `midsentence explore`;
without it a service that makes its answers up serves --points points, and the clicks say what the
page itself takes. --plotly FILE (the wheel's plotly.min.js) drags the same points in a scattergl.

Needs playwright and chromium.
"""

import argparse
import json
import shutil
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

SIZE = {"width": 1440, "height": 900}

# A hand that goes round and round for some seconds, one move a frame. A frame counts when the map
# was drawn in it, which is when it put its picture on the canvas.
DRAG = """async ({selector, seconds}) => {
  const target = document.querySelector(selector), box = target.getBoundingClientRect();
  const middle = [box.left + box.width / 2, box.top + box.height / 2];
  let drawn = 0;
  const real = CanvasRenderingContext2D.prototype.putImageData;
  CanvasRenderingContext2D.prototype.putImageData = function (...all) {
    drawn++;
    return real.apply(this, all);
  };
  const send = (kind, x, y) => {
    const at = {bubbles: true, cancelable: true, clientX: x, clientY: y, button: 0,
                buttons: kind === 'up' ? 0 : 1, view: window};
    const pointer = {...at, pointerId: 77, pointerType: 'mouse'};
    target.dispatchEvent(new PointerEvent('pointer' + kind, pointer));
    target.dispatchEvent(new MouseEvent('mouse' + kind, at));
  };
  const frame = () => new Promise((go) => requestAnimationFrame(go));
  send('down', ...middle);
  await frame();
  drawn = 0;
  const gaps = [], began = performance.now();
  let last = began;
  while (last - began < seconds * 1000) {
    const turn = (last - began) / 700;
    send('move', middle[0] + 220 * Math.sin(turn), middle[1] + 140 * Math.sin(1.7 * turn));
    await frame();
    const now = performance.now();
    gaps.push(now - last);
    last = now;
  }
  send('up', ...middle);
  CanvasRenderingContext2D.prototype.putImageData = real;
  return {gaps, drawn, seconds: (last - began) / 1000};
}"""

CLICK = """async ([x, y]) => {
  const map = document.querySelector('#map'), box = map.getBoundingClientRect();
  const written = document.querySelector('#point-written');
  const there = new Promise((go) => {
    const watcher = new MutationObserver(() => {
      watcher.disconnect();
      requestAnimationFrame(() => go(performance.now()));
    });
    watcher.observe(written, {childList: true});
  });
  const at = {bubbles: true, button: 0, pointerId: 78, pointerType: 'mouse',
              clientX: box.left + x * box.width, clientY: box.top + y * box.height};
  const began = performance.now();
  map.dispatchEvent(new PointerEvent('pointerdown', at));
  map.dispatchEvent(new PointerEvent('pointerup', at));
  return (await there) - began;
}"""


def frames(page: Page, selector: str, seconds: float) -> dict[str, Any]:
    found = page.evaluate(DRAG, {"selector": selector, "seconds": seconds})
    gaps = sorted(found["gaps"])
    return {
        "frames_per_second": round(len(gaps) / found["seconds"], 1),
        "drawn_per_second": round(found["drawn"] / found["seconds"], 1) or None,
        "median_gap_ms": round(statistics.median(gaps), 1),
        "p95_gap_ms": round(gaps[int(0.95 * (len(gaps) - 1))], 1),
    }


def clicks(page: Page, count: int) -> dict[str, Any]:
    # Places on a spiral around the middle: never the same one twice.
    places = [
        (0.5 + 0.28 * k / count * (-1) ** k, 0.5 + 0.3 * ((7 * k) % count / count - 0.5))
        for k in range(count)
    ]
    page.evaluate(CLICK, [0.5, 0.5])
    taken = sorted(page.evaluate(CLICK, list(place)) for place in places)
    return {
        "clicks": count,
        "median_ms": round(statistics.median(taken), 1),
        "p95_ms": round(taken[int(0.95 * (count - 1))], 1),
    }


def plotly(page: Page, script: Path, url: str, seconds: float) -> dict[str, Any]:
    """The points of the same map, in the library's own WebGL scatter."""
    points = page.request.get(f"{url}/v1/map").json()
    page.goto("about:blank")
    page.set_content("<div id=plot style='width:1000px;height:800px'></div>")
    page.add_script_tag(path=str(script))
    page.evaluate(
        """({x, y, colour}) => Plotly.newPlot('plot', [{type: 'scattergl', mode: 'markers', x, y,
        marker: {size: 3, color: colour}}], {dragmode: 'pan', hovermode: false})""",
        {"x": points["x"], "y": points["y"], "colour": points["cluster"]},
    )
    return frames(page, "#plot .nsewdrag", seconds)


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    with ExitStack() as open_now:
        url = asked.url
        if url is None:
            sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
            from page_stub import make_app, serving

            url = open_now.enter_context(serving(make_app(asked.points)))
        url = url.rstrip("/")
        playwright = open_now.enter_context(sync_playwright())
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu"]
            + ["--enable-unsafe-swiftshader"] * bool(asked.plotly),
        )
        open_now.callback(browser.close)
        page = browser.new_page(
            viewport=SIZE, device_scale_factor=asked.ratio, reduced_motion="reduce"
        )
        page.goto(url)
        page.locator("#legend button").first.wait_for(timeout=60_000)
        found: dict[str, Any] = {"points": page.request.get(f"{url}/v1/map").json()["count"]}
        found["pan"] = frames(page, "#map", asked.seconds)
        page.click("#density")
        found["pan, with density"] = frames(page, "#map", asked.seconds)
        page.locator("#legend button").first.click()
        found["pan, with a selection"] = frames(page, "#map", asked.seconds)
        page.click("#density")
        found["click to text"] = clicks(page, asked.clicks)
        if asked.plotly:
            found["plotly scattergl, pan"] = plotly(page, asked.plotly, url, asked.seconds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("url", nargs="?")
    parser.add_argument("--points", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each drag")
    parser.add_argument("--clicks", type=int, default=40)
    parser.add_argument(
        "--ratio", type=float, default=1.0, help="device pixels to a pixel of the page"
    )
    parser.add_argument("--plotly", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = measure(asked)
    if asked.json:
        print(json.dumps(found, indent=1))
        return
    for what, value in found.items():
        said = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        print(f"{what}: {said}")


if __name__ == "__main__":
    main()
