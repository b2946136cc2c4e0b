// Colours of points, in light and in dark, told apart by people who see few hues too.

const CATEGORIES = {
  // Okabe & Ito's eight, yellow and black bent to be seen on the ground; then four of other lightness.
  light: ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a600", "#555555",
    "#003f66", "#8a5f00", "#00573f", "#7d3a5c"],
  dark: ["#4aa3df", "#e69f00", "#1fbf92", "#e29cc3", "#8fd0f5", "#f07a2b", "#f0e442", "#bbbbbb",
    "#2f6fb5", "#b08a3c", "#5a9a7c", "#a8678a"],
};
export const MOST_CATEGORIES = 12;

const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

const dark = matchMedia("(prefers-color-scheme: dark)");
export const onTheme = (heard) => dark.addEventListener("change", heard);

const rgb = (hex) => [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16));
/** As a pixel of ImageData on a little-endian machine (all that browsers run on today). */
export const pixel = ([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;

export function theme() {
  const look = getComputedStyle(document.documentElement);
  const named = (name) => look.getPropertyValue(name).trim();
  return { ground: rgb(named("--map")), dim: rgb(named("--dim")), ink: named("--ink"),
    accent: named("--accent"), line: named("--contour"), warn: named("--warn") };
}

export const category = (index) => CATEGORIES[dark.matches ? "dark" : "light"][index];

/** share 0..1; the end of the ramp that would vanish in the ground is left out. */
export function ramp(share) {
  const [from, to] = dark.matches ? [0.18, 1] : [0, 0.9];
  const at = (from + (to - from) * Math.min(1, Math.max(0, share))) * (RAMP.length - 1);
  const i = Math.min(RAMP.length - 2, Math.floor(at));
  return RAMP[i].map((low, c) => Math.round(low + (RAMP[i + 1][c] - low) * (at - i)));
}

/** Numbers (NaN: none) -> pixels. The ends are the 2nd and 98th of a hundred, so that one strange
 * sentence doesn't take all colours. */
export function byNumber(values) {
  const known = values.filter((v) => !Number.isNaN(v)).sort();
  const low = known[Math.floor(known.length * 0.02)] ?? 0;
  const high = known[Math.floor((known.length - 1) * 0.98)] ?? 1;
  const table = Uint32Array.from({ length: 256 }, (_, i) => pixel(ramp(i / 255)));
  const none = pixel(theme().dim);
  const span = high - low || 1;
  const pixels = Uint32Array.from(values, (v) =>
    Number.isNaN(v) ? none : table[Math.max(0, Math.min(255, ((v - low) / span) * 255)) | 0]);
  const digits = Number.isInteger(low) && Number.isInteger(high) ? 0 : 2;
  const ends = known.length ? [low.toFixed(digits), high.toFixed(digits)] : ["–", "–"];
  return { pixels, low, high, ends };
}

/** Categories (negative: none) -> pixels, and which colour each of the most frequent ones has. */
export function byCategory(values) {
  const count = new Map();
  for (const v of values) if (v >= 0) count.set(v, (count.get(v) ?? 0) + 1);
  const often = [...count.keys()].sort((p, q) => count.get(q) - count.get(p));
  const shown = often.slice(0, MOST_CATEGORIES).sort((p, q) => p - q);
  const place = new Map(shown.map((v, i) => [v, i]));
  const table = shown.map((_, i) => pixel(rgb(category(i))));
  const none = pixel(theme().dim);
  const pixels = Uint32Array.from(values, (v) => (place.has(v) ? table[place.get(v)] : none));
  return { pixels, shown: shown.map((v, i) => ({ value: v, colour: category(i), count: count.get(v) })),
    left: often.length - shown.length };
}
