// The map: points written as pixels into one image, then lines over them by the canvas's own pen.
// Fifty thousand small discs as canvas paths would be a slide show without a GPU; as pixels they are
// a few milliseconds a frame.

import { pixel, theme } from "./colour.js";
import { Grid } from "./grid.js";

const PAD = 12; // pixels around the picture, so that discs at its edge need no clipping
const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** Offsets and opacities of a disc, or of a ring. */
function sprite(radius, ring, width) {
  const reach = Math.ceil(radius + 0.5), at = [], alpha = [];
  for (let dy = -reach; dy <= reach; dy++) {
    for (let dx = -reach; dx <= reach; dx++) {
      const away = Math.hypot(dx, dy);
      let cover = Math.min(1, Math.max(0, radius + 0.5 - away));
      if (ring) cover = Math.min(cover, Math.max(0, Math.min(1, away - (radius - 1.8))));
      if (cover > 0.04) { at.push(dy * width + dx); alpha.push(Math.round(cover * 256)); }
    }
  }
  return { at: Int32Array.from(at), alpha: Uint16Array.from(alpha) };
}

export class PlaneMap {
  x = new Float32Array(0);
  y = new Float32Array(0);
  colours = new Uint32Array(0);
  lit = null; // Uint8Array: the points that are chosen; the others are drawn faint
  ring = null; // Uint8Array: points that are drawn as rings
  contours = []; // [Path2D in the map's units]
  lasso = null; // flat [x, y, x, y ...] in the map's units
  marks = { here: null, way: [], hover: null };
  crosshair = false;
  centre = [0, 0];
  scale = 1; // pixels of the page a unit
  #asked = false;

  constructor(canvas) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
    this.moved = () => {};
    this.retheme();
    new ResizeObserver(() => this.#resize()).observe(canvas);
    this.#resize();
  }

  get count() { return this.x.length; }

  retheme() {
    this.theme = theme();
    this.redraw();
  }

  #resize() {
    this.ratio = Math.min(2, devicePixelRatio || 1); // beyond it the eye gains nothing, the frame rate pays
    this.wide = this.canvas.clientWidth;
    this.high = this.canvas.clientHeight;
    this.canvas.width = Math.max(1, Math.round(this.wide * this.ratio));
    this.canvas.height = Math.max(1, Math.round(this.high * this.ratio));
    this.image = new ImageData(this.canvas.width + 2 * PAD, this.canvas.height + 2 * PAD);
    this.pixels = new Uint32Array(this.image.data.buffer);
    // At once: a canvas whose size was set is blank until it is drawn.
    this.draw();
  }

  /** New places for the points. They walk there if they are the same ones as before. */
  place(x, y) {
    const from = this.count === x.length && this.count > 0 && !calm.matches ? [this.x, this.y] : null;
    this.grid = new Grid(x, y);
    this.x = Float32Array.from(x);
    this.y = Float32Array.from(y);
    if (!from) return this.redraw();
    const began = performance.now(), goal = [this.x, this.y];
    this.walk = () => {
      const share = Math.min(1, (performance.now() - began) / 450), ease = share * share * (3 - 2 * share);
      const between = (k) => goal[k].map((v, i) => from[k][i] + (v - from[k][i]) * ease);
      [this.x, this.y] = share < 1 ? [between(0), between(1)] : goal;
      if (share >= 1) this.walk = null;
      this.redraw();
    };
    this.redraw();
  }

  bounds() {
    return this.count ? this.grid.bounds : [-1, -1, 1, 1];
  }

  fitted() {
    const [x0, y0, x1, y1] = this.bounds();
    return 0.92 * Math.min(this.wide / (x1 - x0 || 1), this.high / (y1 - y0 || 1));
  }

  fit() {
    const [x0, y0, x1, y1] = this.bounds();
    this.look([(x0 + x1) / 2, (y0 + y1) / 2], this.fitted());
  }

  look(centre, scale) {
    const whole = this.fitted();
    this.centre = centre;
    this.scale = Math.min(whole * 400, Math.max(whole * 0.2, scale));
    this.moved();
    this.redraw();
  }

  /** In pixels of the page. */
  pan(dx, dy) {
    this.look([this.centre[0] - dx / this.scale, this.centre[1] + dy / this.scale], this.scale);
  }

  /** The place under (px, py) stays there. */
  zoom(factor, px = this.wide / 2, py = this.high / 2) {
    const [x, y] = this.toMap(px, py), before = this.scale;
    this.look(this.centre, this.scale * factor);
    const k = before / this.scale;
    this.look([x + (this.centre[0] - x) * k, y + (this.centre[1] - y) * k], this.scale);
  }

  toMap(px, py) {
    return [this.centre[0] + (px - this.wide / 2) / this.scale, this.centre[1] - (py - this.high / 2) / this.scale];
  }

  toPage(x, y) {
    return [this.wide / 2 + (x - this.centre[0]) * this.scale, this.high / 2 - (y - this.centre[1]) * this.scale];
  }

  /** The point within `reach` pixels, or -1. */
  nearest(px, py, reach = 9) {
    if (!this.count) return -1;
    const [x, y] = this.toMap(px, py);
    return this.grid.nearest(x, y, reach / this.scale);
  }

  get radius() {
    const few = Math.min(1.8, Math.max(0, 1.7 - Math.log10(Math.max(50, this.count) / 50) * 0.55));
    return Math.min(6, (1.35 + few) * Math.max(0.8, (this.scale / this.fitted()) ** 0.3));
  }

  redraw() {
    if (this.#asked) return;
    this.#asked = true;
    requestAnimationFrame(() => { this.#asked = false; this.draw(); });
  }

  draw() {
    this.walk?.();
    this.pixels.fill(pixel(this.theme.ground));
    const faint = pixel(this.theme.dim), { lit } = this;
    if (lit) {
      this.#points((i) => !lit[i], () => faint, 0.85);
      this.#points((i) => lit[i], (i) => this.colours[i], 1.25);
    } else this.#points(null, (i) => this.colours[i], 1);
    this.pen.setTransform(1, 0, 0, 1, 0, 0);
    this.pen.putImageData(this.image, -PAD, -PAD);
    this.#lines();
  }

  #points(which, colour, size) {
    const width = this.image.width, { pixels, x, y, ring } = this, radius = this.radius * this.ratio * size;
    const disc = sprite(radius, false, width), hoop = ring ? sprite(radius + 0.7, true, width) : null;
    const scale = this.scale * this.ratio;
    const left = this.canvas.width / 2 - this.centre[0] * scale + PAD;
    const top = this.canvas.height / 2 + this.centre[1] * scale + PAD;
    const reach = Math.ceil(radius + 2), right = width - reach, bottom = this.image.height - reach;
    for (let i = 0; i < x.length; i++) {
      const px = (left + x[i] * scale + 0.5) | 0, py = (top - y[i] * scale + 0.5) | 0;
      if (px < reach || px >= right || py < reach || py >= bottom || (which && !which(i))) continue;
      const { at, alpha } = ring && ring[i] ? hoop : disc;
      const own = colour(i), rb = own & 0xff00ff, g = own & 0xff00, start = py * width + px;
      for (let k = 0; k < at.length; k++) {
        const where = start + at[k], a = alpha[k];
        if (a >= 256) { pixels[where] = own; continue; }
        const was = pixels[where], b = 256 - a;
        pixels[where] = 0xff000000
          | (((rb * a + (was & 0xff00ff) * b) >>> 8) & 0xff00ff) | (((g * a + (was & 0xff00) * b) >>> 8) & 0xff00);
      }
    }
  }

  #inUnits() {
    const s = this.scale * this.ratio;
    this.pen.setTransform(s, 0, 0, -s, this.canvas.width / 2 - this.centre[0] * s, this.canvas.height / 2 + this.centre[1] * s);
  }

  #lines() {
    const { pen, ratio, theme: look } = this;
    if (this.contours.length) {
      this.#inUnits();
      pen.strokeStyle = look.line;
      this.contours.forEach((path, level) => {
        pen.lineWidth = (0.9 + 0.15 * level) / this.scale;
        pen.stroke(path);
      });
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.lineJoin = "round";
    const trace = (flat) => {
      pen.beginPath();
      for (let i = 0; i < flat.length; i += 2) pen.lineTo(...this.toPage(flat[i], flat[i + 1]));
    };
    if (this.lasso) {
      trace(this.lasso);
      pen.closePath();
      pen.setLineDash([5, 4]);
      pen.lineWidth = 1.5;
      pen.strokeStyle = look.ink;
      pen.stroke();
      pen.setLineDash([]);
    }
    const { here, way, hover } = this.marks;
    if (way.length) {
      trace(way.flat());
      this.#twice(2.5, look.accent);
      for (const [x, y] of way) this.#circle(x, y, 3.5, look.accent);
    }
    if (hover) this.#circle(...hover, this.radius + 3.5, look.ink);
    if (here) { this.#circle(...here, 9, look.accent); this.#circle(...here, 2, look.accent); }
    if (this.crosshair) {
      const cx = this.wide / 2, cy = this.high / 2;
      pen.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        pen.moveTo(cx + 5 * dx, cy + 5 * dy);
        pen.lineTo(cx + 14 * dx, cy + 14 * dy);
      }
      this.#twice(2, look.ink);
    }
  }

  /** A line with a rim of the ground's colour, so that it shows over points of any colour. */
  #twice(width, colour) {
    const { pen } = this, [r, g, b] = this.theme.ground;
    pen.lineWidth = width + 3;
    pen.strokeStyle = `rgb(${r} ${g} ${b})`;
    pen.stroke();
    pen.lineWidth = width;
    pen.strokeStyle = colour;
    pen.stroke();
  }

  #circle(x, y, radius, colour) {
    this.pen.beginPath();
    this.pen.arc(...this.toPage(x, y), radius, 0, 2 * Math.PI);
    this.#twice(2, colour);
  }
}
