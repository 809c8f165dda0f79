// Heatmaps in a page, of maps that inspection/pages.py has packed: which pixels deviate as in
// regions.py, their colours as in pictures.py. HEAT holds what both have to agree on.

const heatScore = (level) => (level - HEAT.zero) / (255 - HEAT.zero); // below the median: negative
const standing = (score) => rawThreshold({ median: 0, limit: 1 }, score);

// The gray levels of a packed map.
async function heatLevels(source) {
  const image = new Image();
  image.src = source;
  await image.decode();
  const [width, height] = [image.naturalWidth, image.naturalHeight];
  const context = Object.assign(document.createElement("canvas"), { width, height })
    .getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, width, height).data;
  return { width, height, levels: Uint8Array.from({ length: width * height }, (_, n) => pixels[4 * n]) };
}

// 1 where a pixel is marked.
function heatMarks({ levels }, threshold, isAnomalous) {
  const marks = new Uint8Array(levels.length);
  if (!isAnomalous) return marks;
  let peak = 0;
  for (const level of levels) peak = Math.max(peak, level);
  let least = HEAT.zero + (255 - HEAT.zero) * threshold;
  if (peak <= least) { // the verdict has another limit than the map: what comes near the peak
    const near = Math.max(heatScore(peak), 0) * HEAT.near;
    least = Math.min(HEAT.zero + (255 - HEAT.zero) * near, peak) - 0.5;
  }
  for (let n = 0; n < levels.length; n += 1) marks[n] = levels[n] > least ? 1 : 0;
  return marks;
}

// Connected marks: box (x2 and y2 exclusive) and area in pixels of the map, score of the peak.
function heatRegions({ width, height, levels }, marks) {
  const seen = new Uint8Array(marks.length), found = [];
  for (let start = 0; start < marks.length; start += 1) {
    if (!marks[start] || seen[start]) continue;
    const region = { x1: width, y1: height, x2: 0, y2: 0, area: 0, level: 0 };
    const stack = [start];
    seen[start] = 1;
    while (stack.length) {
      const at = stack.pop(), x = at % width, y = (at - x) / width;
      region.x1 = Math.min(region.x1, x);
      region.y1 = Math.min(region.y1, y);
      region.x2 = Math.max(region.x2, x + 1);
      region.y2 = Math.max(region.y2, y + 1);
      region.area += 1;
      region.level = Math.max(region.level, levels[at]);
      for (let v = Math.max(y - 1, 0); v <= Math.min(y + 1, height - 1); v += 1) {
        for (let u = Math.max(x - 1, 0); u <= Math.min(x + 1, width - 1); u += 1) {
          const next = v * width + u;
          if (marks[next] && !seen[next]) {
            seen[next] = 1;
            stack.push(next);
          }
        }
      }
    }
    found.push(region);
  }
  return found
    .map((region) => ({ ...region, score: Math.max(heatScore(region.level), 0) }))
    .sort((a, b) => b.level - a.level);
}

function between(stops, values, at) {
  for (let n = 1; n < stops.length; n += 1) {
    if (at <= stops[n]) {
      const share = (at - stops[n - 1]) / (stops[n] - stops[n - 1]);
      return values[n - 1] + share * (values[n] - values[n - 1]);
    }
  }
  return values[values.length - 1];
}

// [red, green, blue, opacity], each up to 255, of a place on the scale: 0 is the threshold, 1 the end.
function heatColour(at) {
  const place = Math.min(Math.max(at, 0), 1);
  const colour = [0, 1, 2].map((c) => between(HEAT.stops, HEAT.scale.map((rgb) => rgb[c]), place));
  return [...colour, 255 * between([0, 1], HEAT.opacity, place)];
}

function heatPlace(score, threshold) {
  const begin = Math.max(standing(threshold), HEAT.least);
  return Number.isFinite(begin) ? (standing(score) / begin - 1) / (HEAT.last - 1) : 0;
}

const heatTables = new Map(); // of the thresholds that were used last
function heatTable(threshold) {
  if (!heatTables.has(threshold)) {
    if (heatTables.size > 32) heatTables.clear();
    heatTables.set(threshold, Array.from({ length: 256 }, (_, level) => (
      heatColour(heatPlace(Math.min(Math.max(heatScore(level), 0), 0.9999), threshold)))));
  }
  return heatTables.get(threshold);
}

// Colours what is marked, with an edge around it; or, raw, the whole map in its own range.
function paintHeat(canvas, map, marks, threshold, isRaw) {
  const { width, height, levels } = map;
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const image = context.createImageData(width, height);
  const put = (n, [red, green, blue, opacity]) => image.data.set([red, green, blue, opacity], 4 * n);
  if (isRaw) {
    let [low, high] = [255, 0];
    for (const level of levels) [low, high] = [Math.min(low, level), Math.max(high, level)];
    for (let n = 0; n < levels.length; n += 1) {
      const at = (levels[n] - low) / Math.max(high - low, 1);
      put(n, [...[[20, 30, 250], [30, 150, 230], [90, 140, 50]].map((c) => between([0, 0.5, 1], c, at)), 225]);
    }
  } else {
    const table = heatTable(threshold);
    for (let n = 0; n < levels.length; n += 1) {
      if (!marks[n]) continue;
      const x = n % width;
      const isInner = n >= width && n + width < marks.length && x > 0 && x < width - 1
        && marks[n - 1] && marks[n + 1] && marks[n - width] && marks[n + width];
      const colour = table[levels[n]];
      put(n, isInner ? colour : [...colour.slice(0, 3), 255]);
    }
  }
  context.putImageData(image, 0, 0);
}

// The scale for a threshold, into an element: a bar of colours with scores below it.
function drawHeatScale(home, threshold) {
  const bar = home.querySelector(".heat-bar"), words = home.querySelector(".heat-words");
  const steps = Array.from({ length: 21 }, (_, n) => {
    const [red, green, blue, opacity] = heatColour(n / 20);
    return `rgb(${red.toFixed(0)} ${green.toFixed(0)} ${blue.toFixed(0)} / ${(opacity / 255).toFixed(3)})`;
  });
  bar.style.background = `linear-gradient(to right, ${steps.join(", ")}), linear-gradient(#888, #888)`;
  const t = standing(threshold) * HEAT.last;
  const end = Number.isFinite(t) ? (t <= 1 ? LIMIT_SCORE * t : 1 - (1 - LIMIT_SCORE) / (4 * t - 3)) : 1;
  words.replaceChildren(...[`${+threshold.toFixed(3)}, the threshold`, `${end.toFixed(3)} and more`].map((text) => (
    Object.assign(document.createElement("span"), { textContent: text }))));
}
