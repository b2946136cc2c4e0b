// Lines of equal density: points are counted in a grid, the counts are smoothed, and marching squares
// follow each level through it.

const CELLS = 120; // along the longer side
const LEVELS = [0.04, 0.12, 0.25, 0.42, 0.62, 0.82]; // of the highest density

function counted(x, y, [x0, y0, x1, y1]) {
  const cell = Math.max(x1 - x0, y1 - y0) / CELLS || 1;
  const edge = 8; // empty cells around, so that every line closes
  const wide = Math.ceil((x1 - x0) / cell) + 2 * edge, high = Math.ceil((y1 - y0) / cell) + 2 * edge;
  const grid = new Float32Array(wide * high);
  const origin = [x0 - edge * cell, y0 - edge * cell];
  for (let i = 0; i < x.length; i++) {
    const column = Math.floor((x[i] - origin[0]) / cell), row = Math.floor((y[i] - origin[1]) / cell);
    grid[row * wide + column]++;
  }
  return { grid, wide, high, cell, origin };
}

/** Three running means one after another are close to a Gaussian, at any width for the same price. */
function smoothed(grid, wide, high, reach) {
  const along = (source, count, length, step, jump) => {
    const made = new Float32Array(source.length);
    for (let line = 0; line < count; line++) {
      const base = line * jump;
      let sum = 0;
      for (let k = -reach; k < length; k++) {
        if (k + reach < length) sum += source[base + (k + reach) * step];
        if (k - reach - 1 >= 0) sum -= source[base + (k - reach - 1) * step];
        if (k >= 0) made[base + k * step] = sum / (2 * reach + 1);
      }
    }
    return made;
  };
  let found = grid;
  for (let pass = 0; pass < 3; pass++) {
    found = along(along(found, high, wide, 1, wide), wide, high, wide, 1);
  }
  return found;
}

function contour(grid, wide, high, level, toMap) {
  const path = new Path2D();
  const share = (a, b) => (level - a) / (b - a);
  for (let row = 0; row < high - 1; row++) {
    for (let column = 0; column < wide - 1; column++) {
      const at = row * wide + column;
      const a = grid[at], b = grid[at + 1], c = grid[at + wide + 1], d = grid[at + wide];
      const kind = (a > level) | ((b > level) << 1) | ((c > level) << 2) | ((d > level) << 3);
      if (kind === 0 || kind === 15) continue;
      const low = () => toMap(column + share(a, b), row), right = () => toMap(column + 1, row + share(b, c));
      const top = () => toMap(column + share(d, c), row + 1), left = () => toMap(column, row + share(a, d));
      const line = (from, to) => { path.moveTo(...from); path.lineTo(...to); };
      if (kind === 1 || kind === 14 || kind === 5) line(left(), low());
      if (kind === 2 || kind === 13 || kind === 10) line(low(), right());
      if (kind === 4 || kind === 11 || kind === 5) line(right(), top());
      if (kind === 8 || kind === 7 || kind === 10) line(top(), left());
      if (kind === 3 || kind === 12) line(left(), right());
      if (kind === 6 || kind === 9) line(low(), top());
    }
  }
  return path;
}

/** One path a level, in the map's units. */
export function contours(x, y, bounds) {
  if (x.length < 3) return [];
  const { grid, wide, high, cell, origin } = counted(x, y, bounds);
  const field = smoothed(grid, wide, high, 2);
  const most = field.reduce((p, q) => Math.max(p, q), 0);
  // A value of the grid stands for the middle of its cell.
  const toMap = (column, row) => [origin[0] + (column + 0.5) * cell, origin[1] + (row + 0.5) * cell];
  return LEVELS.map((share) => contour(field, wide, high, share * most, toMap));
}
