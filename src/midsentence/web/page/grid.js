// Points by cell of a coarse grid: which one is under the pointer, without looking at all of them.

const A_CELL = 4; // points in one, about

export class Grid {
  constructor(x, y) {
    this.x = x;
    this.y = y;
    let [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
    for (let i = 0; i < x.length; i++) {
      if (x[i] < x0) x0 = x[i];
      if (x[i] > x1) x1 = x[i];
      if (y[i] < y0) y0 = y[i];
      if (y[i] > y1) y1 = y[i];
    }
    this.bounds = [x0, y0, x1, y1];
    this.side = Math.max(1, Math.round(Math.sqrt(x.length / A_CELL)));
    this.dx = (x1 - x0) / this.side || 1;
    this.dy = (y1 - y0) / this.side || 1;
    // Counting sort: `order` from `start[c]` to `start[c + 1]` are the points of cell c.
    const cells = Int32Array.from(x, (v, i) => this.#row(y[i]) * this.side + this.#column(v));
    this.start = new Int32Array(this.side * this.side + 1);
    for (const c of cells) this.start[c + 1]++;
    for (let c = 0; c < this.side * this.side; c++) this.start[c + 1] += this.start[c];
    const next = this.start.slice();
    this.order = new Int32Array(x.length);
    cells.forEach((c, i) => { this.order[next[c]++] = i; });
  }

  #column(x) { return Math.min(this.side - 1, Math.max(0, Math.floor((x - this.bounds[0]) / this.dx))); }
  #row(y) { return Math.min(this.side - 1, Math.max(0, Math.floor((y - this.bounds[1]) / this.dy))); }

  nearest(x, y, reach) {
    let found = -1, best = reach * reach;
    for (let row = this.#row(y - reach); row <= this.#row(y + reach); row++) {
      for (let column = this.#column(x - reach); column <= this.#column(x + reach); column++) {
        const c = row * this.side + column;
        for (let k = this.start[c]; k < this.start[c + 1]; k++) {
          const i = this.order[k], away = (this.x[i] - x) ** 2 + (this.y[i] - y) ** 2;
          if (away <= best) { best = away; found = i; }
        }
      }
    }
    return found;
  }
}

/** Points inside a polygon, flat [x, y, x, y ...]: a ray to the right crosses it an odd number of times. */
export function inside(x, y, polygon) {
  let [low, high] = [Infinity, -Infinity];
  for (let k = 1; k < polygon.length; k += 2) {
    low = Math.min(low, polygon[k]);
    high = Math.max(high, polygon[k]);
  }
  const rows = [];
  for (let i = 0; i < x.length; i++) {
    if (y[i] < low || y[i] > high) continue;
    let odd = false;
    for (let k = 0, j = polygon.length - 2; k < polygon.length; j = k, k += 2) {
      const yk = polygon[k + 1], yj = polygon[j + 1];
      if (yk > y[i] !== yj > y[i]
        && x[i] < ((polygon[j] - polygon[k]) * (y[i] - yk)) / (yj - yk) + polygon[k]) odd = !odd;
    }
    if (odd) rows.push(i);
  }
  return rows;
}
