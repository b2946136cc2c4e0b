// Hands on the map: mouse, touch, pen and keys become pan, zoom, click, hover and lasso.

const STILL = 5; // pixels a press may move and be a click

/** heard: {click(x, y), hover(px, py) or hover(null), lasso(polygon)}; `lassoing()` says what a drag means. */
export function follow(map, heard) {
  const { canvas } = map;
  const down = new Map(); // by pointer: where it is
  let far = 0, drawn = null;

  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    try { canvas.setPointerCapture(event.pointerId); } catch { /* a pointer that is gone already */ }
    down.set(event.pointerId, at(event));
    heard.hover(null);
    if (down.size === 1) {
      far = 0;
      drawn = heard.lassoing() ? [...map.toMap(...at(event))] : null;
    } else drawn = null;
  });

  canvas.addEventListener("pointermove", (event) => {
    const now = at(event), was = down.get(event.pointerId);
    if (!was) {
      if (event.pointerType !== "touch") heard.hover(...now);
      return;
    }
    far += Math.hypot(now[0] - was[0], now[1] - was[1]);
    if (down.size === 2) {
      const other = [...down.entries()].find(([id]) => id !== event.pointerId)[1];
      const spread = (p) => Math.max(10, Math.hypot(p[0] - other[0], p[1] - other[1]));
      map.pan((now[0] - was[0]) / 2, (now[1] - was[1]) / 2);
      map.zoom(spread(now) / spread(was), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else if (drawn) {
      drawn.push(...map.toMap(...now));
      map.lasso = drawn;
      map.redraw();
    } else if (far > STILL) {
      canvas.classList.add("held");
      map.pan(now[0] - was[0], now[1] - was[1]);
    }
    down.set(event.pointerId, now);
  });

  const up = (event) => {
    const there = down.get(event.pointerId);
    if (!there) return;
    const alone = down.size === 1;
    down.delete(event.pointerId);
    canvas.classList.remove("held");
    if (!alone || event.type === "pointercancel") { far = Infinity; return; }
    if (drawn && drawn.length >= 6) heard.lasso(drawn);
    else if (far <= STILL) heard.click(...map.toMap(...there), map.nearest(...there));
    drawn = null;
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("pointerleave", () => heard.hover(null));

  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 24 : 1;
    map.zoom(Math.exp(-Math.max(-300, Math.min(300, event.deltaY * lines)) * 0.0022), ...at(event));
  }, { passive: false });

  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = event.shiftKey ? 200 : 50;
    const does = {
      ArrowLeft: () => map.pan(step, 0), ArrowRight: () => map.pan(-step, 0),
      ArrowUp: () => map.pan(0, step), ArrowDown: () => map.pan(0, -step),
      "+": () => map.zoom(1.3), "=": () => map.zoom(1.3), "-": () => map.zoom(1 / 1.3), 0: () => map.fit(),
      Enter: () => heard.click(...map.centre, map.nearest(map.wide / 2, map.high / 2)),
    }[event.key];
    if (!does) return;
    event.preventDefault();
    does();
    map.crosshair = true;
    heard.hover(map.wide / 2, map.high / 2);
  });
  // The crosshair is for keys: a mouse has its own.
  canvas.addEventListener("focus", () => { map.crosshair = canvas.matches(":focus-visible"); map.redraw(); });
  canvas.addEventListener("blur", () => { map.crosshair = false; heard.hover(null); map.redraw(); });
}
