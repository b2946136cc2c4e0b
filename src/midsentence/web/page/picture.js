// The map as PNG, with its legend: colours without their names say nothing elsewhere.

import { ramp } from "./colour.js";
import { save } from "./dom.js";

const LINE = 20, MARGIN = 14;

/** found: what the points are coloured by, from `coloured`. */
export function picture(map, found) {
  map.draw(); // what was drawn last may be a frame old
  const canvas = document.createElement("canvas");
  canvas.width = map.canvas.width;
  canvas.height = map.canvas.height;
  const pen = canvas.getContext("2d");
  pen.drawImage(map.canvas, 0, 0);
  pen.scale(map.ratio, map.ratio);
  pen.font = "13px system-ui, sans-serif";
  pen.textBaseline = "middle";
  if (found) legend(pen, map, found);
  canvas.toBlob((made) => save("map.png", made), "image/png");
}

function legend(pen, map, found) {
  const { shown } = found;
  const title = [found.title, found.unit].filter(Boolean).join(", ");
  const names = shown ? shown.map(({ value }) => found.name(value)) : [];
  if (found.left > 0) names.push(`and ${found.left} more`);
  const wide = Math.max(150, pen.measureText(title).width, ...names.map((name) => pen.measureText(name).width + LINE)) + 2 * MARGIN;
  const rows = shown ? names.length + 1 : 3;
  const top = map.high - rows * LINE - 2 * MARGIN;
  const [r, g, b] = map.theme.ground;
  pen.fillStyle = `rgb(${r} ${g} ${b} / 88%)`;
  pen.fillRect(0, top, wide, map.high - top);
  const say = (text, row, x = MARGIN) => {
    pen.fillStyle = map.theme.ink;
    pen.fillText(text, x, top + MARGIN + (row + 0.5) * LINE);
  };
  say(title, 0);
  if (shown) {
    names.forEach((name, i) => {
      say(name, i + 1, MARGIN + LINE);
      if (i >= shown.length) return;
      pen.fillStyle = shown[i].colour;
      pen.beginPath();
      pen.arc(MARGIN + 6, top + MARGIN + (i + 1.5) * LINE, 5.5, 0, 2 * Math.PI);
      pen.fill();
    });
    return;
  }
  for (let x = 0; x < 150; x++) {
    pen.fillStyle = `rgb(${ramp(x / 149).join(" ")})`;
    pen.fillRect(MARGIN + x, top + MARGIN + LINE + 4, 1.5, 12);
  }
  say(found.ends[0], 2);
  pen.textAlign = "right";
  say(found.ends[1], 2, MARGIN + 150);
}
