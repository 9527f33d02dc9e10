// The forms and links work without this script. It adds dropping and pasting of pictures, answers
// without a reload, and a cut-off that shows which hits it will leave out.
"use strict";

const root = document.documentElement;
root.classList.add("scripted");

// Of the questions on their way, the last one counts.
let latest = 0;
let shown = withoutFragment(location);

function element(id) {
  return document.getElementById(id);
}

function say(text) {
  element("status").textContent = text.replace(/\s+/g, " ").trim();
}

// Uploads.

function refuse(sentence) {
  const place = element("upload-error");
  if (place) {
    place.textContent = sentence;
    place.hidden = false;
  }
}

// The server leads to the answer, or sends a page with the reason why there is none.
async function send(form) {
  const turn = ++latest;
  root.classList.add("busy");
  say("Searching");
  try {
    const answer = await fetch(form.action, {
      method: "POST",
      body: new FormData(form),
      headers: { Accept: "text/html" },
    });
    const page = await answer.text();
    if (turn !== latest) return;
    if (answer.redirected) {
      put(page, answer.url, { push: true });
      scrollTo(0, 0);
      return;
    }
    const next = new DOMParser().parseFromString(page, "text/html");
    const said = next.querySelector("#upload-error:not([hidden])") ?? next.querySelector("[data-status]");
    refuse(said ? said.textContent : `The server answered ${answer.status}. Try again.`);
  } catch {
    refuse("The server did not take it. Try again.");
  } finally {
    form.elements.image.value = "";
    root.classList.remove("busy");
  }
}

function upload(file) {
  const form = element("upload");
  if (!form || !file) return;
  const limit = Number(form.dataset.maxBytes);
  if (file.size > limit) {
    refuse(`The file has ${Math.ceil(file.size / 2 ** 20)} MB; the limit is ${limit / 2 ** 20} MB. Choose a smaller picture.`);
    return;
  }
  const files = new DataTransfer();
  files.items.add(file);
  form.elements.image.files = files.files;
  send(form);
}

document.addEventListener("change", (event) => {
  if (event.target.id === "picture") upload(event.target.files[0]);
  if (event.target.name === "part") nameButton();
});

// The button says what it will do.
function nameButton() {
  const way = document.querySelector("[name=part]:checked");
  const button = element("go");
  if (button) button.textContent = way && way.value !== "new" ? way.labels[0].textContent : "Search";
}

document.addEventListener("dragover", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  root.classList.add("dragging");
});

document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) root.classList.remove("dragging");
});

document.addEventListener("drop", (event) => {
  root.classList.remove("dragging");
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  upload(event.dataTransfer.files[0]);
});

document.addEventListener("paste", (event) => {
  const file = event.clipboardData.files[0];
  if (!file) return;
  event.preventDefault();
  upload(file);
});

// After going back, the browser may show the page as it was left.
window.addEventListener("pageshow", () => root.classList.remove("busy"));

// Answers without a reload: the server sends the same page, and <main> is replaced.


function withoutFragment(address) {
  return address.href.split("#")[0];
}

async function show(address, { push }) {
  const turn = ++latest;
  document.dispatchEvent(new Event("asked"));
  let page;
  try {
    page = await (await fetch(address, { headers: { Accept: "text/html" } })).text();
  } catch {
    location.assign(address);
    return;
  }
  if (turn === latest) put(page, address, { push });
}

// Show the page that the server has sent for an address.
function put(page, address, { push }) {
  const next = new DOMParser().parseFromString(page, "text/html");
  const focused = document.activeElement && document.activeElement.id;
  const open = new Set([...document.querySelectorAll("main details[open][id]")].map((d) => d.id));
  const [main, top] = [next.querySelector("main"), next.querySelector(".top")];
  if (!main || !top) {
    location.assign(address); // not a page of this server, but the error of a proxy
    return;
  }
  document.title = next.title;
  document.querySelector("main").replaceWith(main);
  document.querySelector(".top").replaceWith(top);
  for (const id of open) element(id)?.setAttribute("open", "");
  if (push) history.pushState(null, "", address);
  shown = withoutFragment(location);
  if (focused) element(focused)?.focus({ preventScroll: true });
  const status = document.querySelector("[data-status]");
  if (status) say(status.textContent);
  prepare();
}

// The form has a field called `id`, which hides `form.id`.
function isQuestion(form) {
  return form instanceof HTMLFormElement && form.matches("#question");
}

function addressOf(form) {
  const values = new URLSearchParams();
  for (const [name, value] of new FormData(form)) {
    const range = form.elements[name];
    const isWhole = range.type === "range" && Number(value) >= Number(range.max);
    if (value !== "" && !isWhole) values.append(name, value);
  }
  return `${form.getAttribute("action")}?${values}`;
}

function ask(form, changed) {
  const address = new URL(addressOf(form), location);
  // A cut-off belongs to one metric and one question.
  if (["metric", "collection", "crop", "expand", "ranking"].includes(changed)) {
    address.searchParams.delete("max_distance");
  }
  if (changed === "collection") address.searchParams.delete("label");
  show(address, { push: address.href !== withoutFragment(location) });
}

// A date that is being typed passes through other valid dates: wait until it is complete.
let typed = null;

document.addEventListener("keydown", (event) => {
  if (event.target.type === "date") typed = event.target;
});

document.addEventListener("focusout", (event) => {
  if (event.target !== typed) return;
  typed = null;
  if (event.target.value !== event.target.defaultValue) ask(event.target.form, event.target.name);
});

document.addEventListener("change", (event) => {
  const form = event.target.form;
  if (isQuestion(form) && event.target !== typed) ask(form, event.target.name);
});

document.addEventListener("submit", (event) => {
  if (event.target.id === "upload") {
    event.preventDefault();
    const text = element("text");
    if (text.value.trim() || element("picture").files.length) send(event.target);
    else text.focus();
    return;
  }
  if (!isQuestion(event.target)) return;
  event.preventDefault();
  typed = null;
  ask(event.target, document.activeElement && document.activeElement.name);
});

window.addEventListener("popstate", () => {
  if (withoutFragment(location) !== shown) show(location.href, { push: false });
});

// The cut-off, while it is being moved.

document.addEventListener("input", (event) => {
  if (event.target.type !== "range") return;
  const { value, max } = event.target;
  const isWhole = Number(value) >= Number(max);
  const output = element("cut-off");
  const shown = (number) => number.toFixed(Number(output.dataset.decimals));
  const similarity = "similarity" in output.dataset ? `, similarity ${shown(1 - value)}` : "";
  const distances = event.target.dataset.distances.split(" ").map(Number);
  const within = distances.filter((distance) => distance <= Number(value)).length;
  output.textContent = isWhole
    ? "none"
    : `${shown(Number(value))}${similarity}: ${within} of ${distances.length}`;
  for (const item of document.querySelectorAll("[data-distance]")) {
    item.classList.toggle("beyond", !isWhole && Number(item.dataset.distance) > Number(value));
  }
});

// A rectangle that is dragged on the query picture is the part to search by.

let drag = null;
// A pointer that moves by more pixels does not click.
const CLICK = 3;

// The frame's own units are the pixels of the original.
function pixel(event, frame, fromScreen) {
  const { width, height } = frame.viewBox.baseVal;
  const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(fromScreen);
  const within = (number, most) => Math.max(0, Math.min(Math.round(number), most));
  return [within(x, width), within(y, height)];
}

function draw(frame, [x, y, width, height]) {
  const whole = frame.viewBox.baseVal;
  frame.querySelector("path").setAttribute(
    "d",
    `M0 0H${whole.width}V${whole.height}H0ZM${x} ${y}h${width}v${height}h${-width}Z`,
  );
  const values = { x, y, width, height };
  for (const name in values) frame.querySelector("rect").setAttribute(name, values[name]);
  frame.toggleAttribute("hidden", width === 0 || height === 0);
}

document.addEventListener("pointerdown", (event) => {
  const tile = event.target.closest(".query .tile");
  const frame = tile?.querySelector(".frame");
  drag = null;
  // A finger scrolls, unless the picture is shown large for this.
  const isMeant = event.pointerType === "mouse" || element("part")?.open;
  if (!frame || event.button !== 0 || !isMeant) return;
  frame.removeAttribute("hidden"); // it has no place on the screen before
  const fromScreen = frame.getScreenCTM().inverse();
  const [x, y] = [event.clientX, event.clientY];
  drag = { frame, fromScreen, x, y, start: pixel(event, frame, fromScreen), crop: null };
  tile.setPointerCapture(event.pointerId);
  draw(frame, cropOf(element("crop").value));
});

document.addEventListener("pointermove", (event) => {
  if (!drag) return;
  drag.isMoved ||= Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > CLICK;
  const end = pixel(event, drag.frame, drag.fromScreen);
  const [x, y] = end.map((number, axis) => Math.min(number, drag.start[axis]));
  const [width, height] = end.map((number, axis) => Math.abs(number - drag.start[axis]));
  drag.crop = width && height ? [x, y, width, height] : null;
  if (drag.crop) draw(drag.frame, drag.crop);
});

document.addEventListener("pointerup", () => {
  if (!drag?.crop) return;
  const field = element("crop");
  field.value = drag.crop.join(",");
  ask(field.form, "crop");
});

document.addEventListener("pointercancel", () => {
  if (drag) draw(drag.frame, cropOf(element("crop").value));
  drag = null;
});

// The end of a drag is no click on the picture, which is a link.
document.addEventListener("click", (event) => {
  if (drag?.isMoved && event.detail && event.target.closest(".query .tile")) event.preventDefault();
});

function cropOf(text) {
  const numbers = text.split(",").map(Number);
  return numbers.length === 4 && numbers.every(Number.isFinite) ? numbers : [0, 0, 0, 0];
}

document.addEventListener("input", (event) => {
  const frame = document.querySelector(".query .frame");
  if (event.target.id === "crop") draw(frame, cropOf(event.target.value));
});

// Labels are fetched when their field is first focused.

document.addEventListener("focusin", async (event) => {
  const list = element("labels");
  if (event.target.id !== "label" || "asked" in list.dataset) return;
  list.dataset.asked = "";
  try {
    const labels = await (await fetch(event.target.dataset.labels)).json();
    list.replaceChildren(...labels.map(({ label, images }) => new Option(`${images} images`, label)));
  } catch {
    delete list.dataset.asked; // the next focus tries again
  }
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = element(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
    say("Copied");
  } catch {
    // Browsers offer no clipboard over plain HTTP from another machine; Ctrl-C still works.
    getSelection().selectAllChildren(source);
    button.textContent = "Selected: copy it";
  }
});

document.addEventListener(
  "error",
  (event) => {
    if (event.target.closest) event.target.closest(".tile")?.classList.add("missing");
  },
  true,
);

// Tiles of a row have one height, and each the width that its picture needs; see page.css.
const LEAST_RATIO = 0.6;
const MOST_RATIO = 2.4;

function justify(item) {
  const image = item.querySelector(".tile img");
  if (!image) return;
  const ratio = image.getAttribute("width") / image.getAttribute("height");
  item.style.setProperty("--ratio", Math.min(Math.max(ratio, LEAST_RATIO), MOST_RATIO));
}

// A link to a closed part of the page opens it.
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  const part = link && element(link.hash.slice(1));
  if (part instanceof HTMLDetailsElement) part.open = true;
});

function prepare() {
  nameButton();
  document.querySelectorAll(".rows > li").forEach(justify);
  const cutOff = element("max_distance");
  if (cutOff?.dataset.max) {
    const { min, max, step, value } = cutOff.dataset;
    Object.assign(cutOff, { type: "range", min, max, step, value });
  }
  for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;
  for (const image of document.querySelectorAll(".tile img")) {
    if (image.complete && image.naturalWidth === 0) image.closest(".tile").classList.add("missing");
  }
  // For the scripts of single pages.
  document.dispatchEvent(new Event("shown"));
}

prepare();
