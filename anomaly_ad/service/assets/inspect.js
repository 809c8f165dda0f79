"use strict";

const KEPT = 96; // results with their images in this page's memory
const TRIES = 5; // where the queue of the service is full
const AGAIN = 3000; // milliseconds until a service that did not answer is asked again
const THUMBNAIL = 240; // pixels

const $ = (id) => document.getElementById(id);
const models = new Map(); // digest of a model -> its facts: a replaced model's results stay right
const queue = []; // chosen and not yet inspected, the next one first
const items = []; // those in the gallery, newest first: the one under way and results
const tally = []; // name, model and scores of every image that has a verdict, also without a card
const failed = []; // those without a card that have no verdict
let token = "";
let standard = LIMIT_SCORE; // the threshold that the service uses by itself
let threshold = null; // the one in use: exact, where the slider knows steps; null until it is known
let current = null;
let following = true; // whether a new result is shown at once
let working = false;
let held = null; // the timer of the next try, while the service does not answer

// ---------------------------------------------------------------------------- the service

class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status; // 0 where there was no answer
  }
  get unavailable() { return [0, 401, 502, 503, 504].includes(this.status); }
  get passing() { return this.unavailable || [404, 408, 500].includes(this.status); }
}

async function ask(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  for (let tries = 1; ; tries += 1) {
    let answer;
    let body;
    try {
      answer = await fetch(path, { ...options, headers });
      body = await answer.text();
    } catch {
      throw new Refused("The service does not answer.", 0);
    }
    if (answer.status === 503 && tries < TRIES) {
      await pause(1000 * (Number(answer.headers.get("Retry-After")) || 1));
      continue;
    }
    if (answer.status === 401) {
      $("login").hidden = false;
      throw new Refused(token ? "The token is wrong." : "The service needs a token.", 401);
    }
    const found = parsed(body);
    if (answer.ok && found) return found;
    // Without JSON something between us and the service has answered.
    throw new Refused(found?.error || `Status ${answer.status}.`, answer.ok ? 502 : answer.status);
  }
}

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

function parsed(body) {
  try {
    return JSON.parse(body);
  } catch {
    return null;
  }
}

async function loadModels() {
  const found = await ask("/models");
  for (const facts of found.models) models.set(facts.digest, facts);
  const names = found.models.map((facts) => facts.name);
  const chosen = $("model").value;
  $("model").replaceChildren(...names.map((name) => new Option(name)));
  if (names.includes(chosen)) $("model").value = chosen;
  $("model-label").hidden = names.length < 2;
  $("about").textContent = `anomaly_ad · ${found.models.map((m) => `${m.name} (${m.method})`).join(", ")}`;
  $("login").hidden = true;
  const moved = threshold !== null && threshold !== standard;
  standard = found.threshold;
  $("reset").textContent = `Back to ${standard}`;
  setThreshold(moved ? threshold : standard);
}

async function predict(item) {
  const form = new FormData();
  form.append("image", item.file, item.name);
  const query = new URLSearchParams({ anomaly_map: true, thresh: threshold });
  if (item.model) query.set("model", item.model);
  try {
    return await ask(`/predict?${query}`, { method: "POST", body: form });
  } catch (error) {
    // A browser says the same of a service that is not there and of a file that is not.
    if (error.status === 0 && !(await isReadable(item.file))) {
      throw new Refused("The file cannot be read any more. Choose it again.", 422);
    }
    throw error;
  }
}

const isReadable = (file) => file.slice(0, 1).arrayBuffer().then(() => true, () => false);

// ------------------------------------------------------------------------------ verdicts

const factsOf = (item) => models.get(item.answer.digest);
const exceeds = ({ digest, raw_score }) => raw_score > rawThreshold(models.get(digest), threshold);
const isAnomalous = (item) => exceeds(item.answer);
const word = (item) => (!item.answer ? "Not inspected" : isAnomalous(item) ? "Anomalous" : "Good");

function setThreshold(value) {
  threshold = value;
  $("limit").value = value; // it stands at the nearest step
  $("limit").setAttribute("aria-valuetext", value);
  if (current) draw();
  items.forEach(paint);
  count();
  drawHeatScale($("heat-scale"), value);
}

// -------------------------------------------------------------------------------- images

function take(files) {
  const model = $("model").value;
  enqueue([...files].map((file) => ({ file, name: file.name || "image.png", model })));
}

function enqueue(fresh) {
  if (!fresh.length) return;
  say("");
  following = true;
  queue.push(...fresh);
  work();
}

// One after the other. What is not inspected stays in the queue while the service does not answer.
async function work() {
  clearTimeout(held);
  held = null;
  if (working) return;
  working = true;
  while (queue.length) {
    const item = queue[0];
    try {
      if (threshold === null) await loadModels();
    } catch (error) {
      hold(error); // whatever it is: without the models nothing can be said of an image
      break;
    }
    try {
      if (!item.card) addCard(item);
      count();
      const asked = item.model;
      const answer = await predict(item);
      if (queue[0] !== item || item.model !== asked) continue; // cleared, or another model was chosen
      await adopt(item, answer);
    } catch (error) {
      if (queue[0] !== item) continue;
      if (error.unavailable) {
        hold(error);
        break;
      }
      if (error.status === 404) await loadModels().catch(() => {});
      item.error = error;
    }
    if (queue[0] !== item) continue;
    queue.shift();
    finish(item);
  }
  working = false;
  count();
}

function hold(error) {
  const waiting = queue.length === 1 ? "1 image waits" : `${queue.length} images wait`;
  const then = error.status === 401 ? "for the token" : "and will be sent as soon as it answers";
  say(`${error.message} ${waiting} ${then}.`, true);
  if (error.status !== 401) held = setTimeout(work, AGAIN);
}

// An answer of a model that is not known yet is worth nothing: what its scores mean hangs on it.
async function adopt(item, answer) {
  if (!models.has(answer.digest)) await loadModels();
  if (!models.has(answer.digest)) throw new Refused("The model is being replaced.", 503);
  item.answer = answer;
  item.map = answer.anomaly_map ? await heatLevels(`data:image/png;base64,${answer.anomaly_map}`) : null;
  answer.anomaly_map = null; // it is not needed twice
  if (!item.record) tally.push(item.record = {});
  const { digest, raw_score, score, model } = answer;
  Object.assign(item.record, { digest, raw_score, score, model, name: item.name });
}

function addCard(item) {
  item.url = URL.createObjectURL(item.file);
  item.card = card(item);
  items.unshift(item);
  $("gallery").prepend(item.card);
  if (items.length > KEPT) {
    const old = leastTelling();
    if (old.error) failed.push({ file: old.file, name: old.name, model: old.model, error: old.error });
    drop(old);
  }
}

function finish(item) {
  paint(item);
  if (item.error && !following) say(complaint(item)); // otherwise it is shown with the image
  else if (isHeld()) say("");
  if (following || item.isWanted) {
    show(item);
    speak(item);
  }
}

// Of those that are finished the oldest good one, else the oldest; never the one that is looked at.
function leastTelling() {
  const old = items.filter((item) => item !== current && (item.answer || item.error)).reverse();
  return old.find((item) => item.answer && !isAnomalous(item)) ?? old[0];
}

function drop(item) {
  items.splice(items.indexOf(item), 1);
  if (item.card === document.activeElement) (item.card.nextSibling ?? item.card.previousSibling).focus();
  item.card.remove();
  URL.revokeObjectURL(item.url);
}

function tryAgain() {
  const shown = items.filter(isPassing).reverse();
  const again = [...failed.filter(isPassing), ...shown];
  shown.forEach(drop);
  failed.splice(0, failed.length, ...failed.filter((item) => !isPassing(item)));
  const served = [...$("model").options].map((option) => option.value);
  enqueue(again.map(({ file, name, model }) => (
    { file, name, model: served.includes(model) ? model : $("model").value }
  )));
}

const isPassing = (item) => Boolean(item.error?.passing);

// Another model was chosen: what is shown is inspected again, and counted once.
function inspectAgain() {
  const model = $("model").value;
  for (const item of queue) item.model = model;
  const again = items.filter((item) => item.answer || item.error).reverse();
  if (!again.length) return;
  const chosen = current;
  $("result").hidden = true;
  again.forEach(drop);
  const fresh = again.map(({ file, name, record }) => ({ file, name, model, record }));
  enqueue(fresh);
  following = false;
  current = null;
  const next = fresh[again.indexOf(chosen)] ?? fresh[fresh.length - 1];
  next.isWanted = true;
}

function clear() {
  queue.length = failed.length = tally.length = 0;
  for (const item of [...items]) drop(item);
  current = null;
  following = true;
  $("result").hidden = true;
  say("");
  count();
  $("choose").focus();
}

// ------------------------------------------------------------------------------- drawing

function say(text, held = false) {
  $("message").textContent = text;
  $("message").hidden = !text;
  $("message").classList.toggle("held", held);
}

function complaint({ name, error: { message } }) {
  return message.includes(name) ? message : `${name}: ${message}`;
}

const isHeld = () => $("message").classList.contains("held");

function speak(item) {
  $("spoken").textContent = item.answer ? `${item.name}: ${word(item)}, score ${shown(item.answer.score)}` : complaint(item);
}

function show(item) {
  const before = current;
  current = item;
  if (item.answer) picture(item);
  $("result").hidden = false;
  draw();
  if (before) paint(before);
  paint(item);
}

function picture(item) {
  const [height, width] = item.answer.image_size;
  $("picture").style.aspectRatio = `${width} / ${height}`;
  $("picture").style.maxWidth = `calc(74vh * ${width / height})`;
  $("photo").onerror = () => say(`${item.name} was inspected, but this browser cannot show its format: only the marks are seen.`);
  $("photo").src = item.url;
  $("photo").alt = `The inspected image ${item.name}`;
  $("boxes").setAttribute("viewBox", `0 0 ${width} ${height}`);
  $("heat").hidden = !item.map;
}

function draw() {
  const { answer, name } = current;
  $("verdict").textContent = word(current);
  $("result").classList.toggle("failed", !answer);
  $("reason").hidden = Boolean(answer);
  if (!answer) {
    $("result").classList.add("bad");
    $("name").textContent = name;
    $("reason").textContent = complaint(current);
    return;
  }
  const bad = isAnomalous(current);
  const facts = factsOf(current);
  const raw = rawThreshold(facts, threshold);
  $("result").classList.toggle("bad", bad);
  $("name").textContent = $("model-label").hidden ? name : `${name} · ${answer.model}`;
  $("score").textContent = shown(answer.score);
  const against = `score, ${bad ? "above" : "not above"} ${threshold}`;
  $("against").textContent = answer.reason ? `${against}: ${answer.reason}` : against;
  $("limit-value").textContent = threshold;
  $("raw").textContent = `Raw score ${digits(answer.raw_score)}, threshold ${digits(raw)}.`;
  $("reset").disabled = threshold === standard;
  $("set-it").hidden = threshold === LIMIT_SCORE || !Number.isFinite(raw) || raw <= facts.median;
  $("command").textContent = `anomaly-ad calibrate ${quoted(answer.model)} --limit ${raw}`;
  mark(current, bad);
  $("no-map").hidden = facts.has_map;
  $("heat-setting").hidden = $("map-settings").hidden = !facts.has_map;
}

const quoted = (text) => (/^[\w./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

// Marks follow the threshold: an anomalous image has some, a good one none.
function mark({ map, answer }, bad) {
  $("picture").classList.toggle("framed", bad && !map);
  if (!map) return drawBoxes([]);
  const marks = heatMarks(map, threshold, bad);
  paintHeat($("heat"), map, marks, threshold, $("raw-map").checked);
  const [height, width] = answer.image_size;
  const across = width / map.width, down = height / map.height;
  drawBoxes(heatRegions(map, marks).map(({ x1, y1, x2, y2 }) => [x1 * across, y1 * down, x2 * across, y2 * down]));
}

// Cut, not rounded: no score is 1, and none looks as if it were above the threshold.
const shown = (score) => (Math.floor(score * 1000) / 1000).toFixed(3);
const digits = (value) => (Number.isFinite(value) ? value.toPrecision(5) : "none");

function drawBoxes(boxes) {
  $("boxes").replaceChildren(...boxes.map(([x1, y1, x2, y2]) => {
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const sides = { x: x1, y: y1, width: x2 - x1, height: y2 - y1 };
    for (const [key, value] of Object.entries(sides)) rect.setAttribute(key, value);
    return rect;
  }));
  $("box-count").textContent = boxes.length;
}

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...children);
  return made;
}

function card(item) {
  const picture = element("canvas", "");
  picture.width = picture.height = 0;
  drawThumbnail(picture, item.file);
  item.words = [element("span", ""), element("span", "")];
  const verdict = element("span", "verdict number", ...item.words);
  const words = element("span", "words", element("span", "file", item.name), verdict);
  const made = element("button", "card waiting", element("span", "frame", picture), words);
  made.type = "button";
  made.title = item.name;
  item.words[0].textContent = "…";
  made.addEventListener("click", () => choose(item));
  return made;
}

// Once, and small: as many photographs as there are cards would not fit into memory.
async function drawThumbnail(canvas, file) {
  const whole = await createImageBitmap(file).catch(() => null); // no image: the card says so
  if (!whole) return;
  const side = Math.min(whole.width, whole.height);
  const [x, y] = [(whole.width - side) / 2, (whole.height - side) / 2];
  canvas.width = canvas.height = THUMBNAIL;
  canvas.getContext("2d").drawImage(whole, x, y, side, side, 0, 0, THUMBNAIL, THUMBNAIL);
  whole.close();
}

function paint(item) {
  if (!item.answer && !item.error) return;
  const bad = !item.answer || isAnomalous(item);
  item.words[0].textContent = word(item);
  item.words[1].textContent = item.answer ? shown(item.answer.score) : "";
  item.card.title = item.error ? complaint(item) : item.name;
  item.card.classList.remove("waiting");
  item.card.classList.toggle("bad", bad);
  item.card.setAttribute("aria-current", item === current);
}

function choose(item) {
  following = false;
  if (!item.answer && !item.error) return;
  show(item);
  speak(item);
  const { top, bottom } = $("verdict").getBoundingClientRect();
  if (top < 0 || bottom > innerHeight) $("result").scrollIntoView();
}

function count() {
  const errors = failed.length + items.filter((item) => item.error).length;
  const said = [];
  if (tally.length) said.push(`${tally.filter(exceeds).length} of ${tally.length} anomalous`);
  if (errors) said.push(`${errors} not inspected`);
  if (queue.length) said.push(`${queue.length} waiting`);
  $("counts").textContent = said.join(" · ");
  const gone = tally.length + errors - items.filter((item) => item.answer || item.error).length;
  $("gone").textContent = `${gone} earlier results are counted but no longer shown; good ones are dropped first.`;
  $("gone").hidden = !gone;
  $("recent").hidden = !items.length;
  $("again").hidden = ![...failed, ...items].some(isPassing);
}

function step(by) {
  const done = items.filter((item) => item.answer || item.error);
  const next = done[done.indexOf(current) + by];
  if (next) choose(next);
}

// -------------------------------------------------------------------------------- export

// A spreadsheet takes what begins like a formula for one.
const cell = (value) => `"${String(value).replace(/^[=+\-@\t\r]/, "'$&").replaceAll('"', '""')}"`;

function exportTable() {
  const lines = [["name", "model", "verdict", "score", "raw_score", "threshold", "digest", "error"]];
  for (const record of tally) {
    const { name, model, score, raw_score, digest } = record;
    lines.push([name, model, exceeds(record) ? "anomalous" : "good", score, raw_score, threshold, digest, ""]);
  }
  for (const item of [...failed, ...items.filter((one) => one.error)]) {
    lines.push([item.name, item.model, "not inspected", "", "", "", "", item.error.message]);
  }
  const text = lines.map((line) => line.map((value) => (typeof value === "number" ? value : cell(value))).join(",")).join("\r\n");
  download(new Blob([`\ufeff${text}\r\n`], { type: "text/csv" }), "inspection.csv");
}

// What is seen, at the photograph's size.
async function savePicture() {
  const { answer, name } = current;
  const [height, width] = answer.image_size;
  const out = Object.assign(document.createElement("canvas"), { width, height });
  const context = out.getContext("2d");
  context.drawImage($("photo"), 0, 0, width, height);
  if (!$("original").checked) {
    if (!$("heat").hidden) {
      context.globalAlpha = $("opacity").value / 100;
      context.drawImage($("heat"), 0, 0, width, height);
      context.globalAlpha = 1;
    }
    context.strokeStyle = "#ff1f1f";
    context.lineWidth = Math.max(1, Math.round(Math.min(width, height) / 200));
    if ($("picture").classList.contains("framed")) context.strokeRect(0, 0, width, height);
    for (const box of $("show-boxes").checked ? $("boxes").children : []) {
      context.strokeRect(...["x", "y", "width", "height"].map((key) => Number(box.getAttribute(key))));
    }
  }
  const blob = await new Promise((done) => out.toBlob(done, "image/png"));
  download(blob, `${name.replace(/\.[^.]*$/, "").replace(/[\\/]/g, "_")}-inspected.png`);
}

// -------------------------------------------------------------------------------- camera

let stream = null;

async function toggleCamera() {
  if (stream) {
    for (const track of stream.getTracks()) track.stop();
    stream = null;
  } else {
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        video: { facingMode: "environment", width: { ideal: 1920 } },
      });
      $("video").srcObject = stream;
      await $("video").play();
    } catch (error) {
      say(`The camera cannot be used: ${error.message}`);
    }
  }
  $("live-view").hidden = !stream;
  $("camera").setAttribute("aria-expanded", Boolean(stream));
  $("camera").textContent = stream ? "Camera off" : "Camera";
}

async function shoot() {
  const canvas = document.createElement("canvas");
  canvas.width = $("video").videoWidth;
  canvas.height = $("video").videoHeight;
  canvas.getContext("2d").drawImage($("video"), 0, 0);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.95));
  take([new File([blob], `camera ${new Date().toLocaleTimeString()}.jpg`, { type: blob.type })]);
}

// -------------------------------------------------------------------------------- events

$("choose").addEventListener("click", () => $("files").click());
$("files").addEventListener("change", () => {
  take($("files").files);
  $("files").value = ""; // the same file can be chosen again
});
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return; // text goes where it was meant to
    event.preventDefault(); // anywhere: a file dropped elsewhere would replace the page
    $("drop").classList.toggle("over", kind.endsWith("over") || kind.endsWith("enter"));
    if (kind === "drop") take(event.dataTransfer.files);
  });
}
document.addEventListener("paste", (event) => take(event.clipboardData.files));
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input:not([type=checkbox]), select, textarea");
  if (typing || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
  if (event.key.toLowerCase() === "o") $("original").click();
});
$("limit").addEventListener("input", () => setThreshold(Number($("limit").value)));
$("limit").addEventListener("change", () => current && speak(current));
$("reset").addEventListener("click", () => setThreshold(standard));
$("again").addEventListener("click", tryAgain);
$("opacity").addEventListener("input", () => {
  $("picture").style.setProperty("--heat", $("opacity").value / 100);
  $("opacity-value").textContent = `${$("opacity").value} %`;
});
$("model").addEventListener("change", inspectAgain);
$("raw-map").addEventListener("change", () => current && draw());
$("original").addEventListener("change", () => {
  $("picture").classList.toggle("only-original", $("original").checked);
});
$("save").addEventListener("click", savePicture);
$("export").addEventListener("click", exportTable);
$("clear").addEventListener("click", clear);
copyOnClick($("copy"), $("command"));
$("show-boxes").addEventListener("change", () => {
  $("result").classList.toggle("no-boxes", !$("show-boxes").checked);
});
$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  begin();
});
$("camera").addEventListener("click", toggleCamera);
$("shoot").addEventListener("click", shoot);

async function begin() {
  say("");
  try {
    await loadModels();
    work();
  } catch (error) {
    say(error.message);
  }
}

// Browsers give a camera to pages of this machine and to encrypted ones only.
$("camera").hidden = !navigator.mediaDevices;
$("opacity").dispatchEvent(new Event("input"));
begin();
