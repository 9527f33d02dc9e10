// Selecting near-duplicates, by the mouse and by the keyboard, and saying what may be done to them.
// The forms and links of these pages work without this script.

const root = document.documentElement;

function element(id) {
  return document.getElementById(id);
}

function boxesOf(group) {
  return [...group.querySelectorAll("[name=gone]")];
}

// What the keys do to the image that has the focus, or to the first one.

const KEYS = {
  n: (item) => focusGroup(item, 1),
  p: (item) => focusGroup(item, -1),
  ArrowRight: (item) => focusTile(item?.nextElementSibling),
  ArrowLeft: (item) => focusTile(item?.previousElementSibling),
  s: (item) => item?.querySelector("[name=gone]").click(),
  k: (item) => {
    for (const box of item ? boxesOf(item.closest(".group")) : []) box.checked = !item.contains(box);
    count();
  },
  d: (item) => item?.querySelector("[name=image]").click(),
};

function focusTile(item, options) {
  item?.querySelector(".tile").focus(options);
}

function groups() {
  return [...document.querySelectorAll(".group")];
}

function firstOf(number, options) {
  const all = groups();
  focusTile(all[Math.max(0, Math.min(number, all.length - 1))]?.querySelector("li"), options);
}

function focusGroup(item, step) {
  firstOf(item ? groups().indexOf(item.closest(".group")) + step : 0);
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") element("acting")?.querySelector(".more").removeAttribute("open");
  const act = KEYS[event.key];
  const isTyped = event.target.closest("input:not([type=checkbox]), select, textarea");
  if (!act || !element("acting") || isTyped || isBusy()) return;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  act(event.target.closest(".group li"));
});

// One image of each group stays.

document.addEventListener("click", (event) => {
  const box = event.target;
  if (box.name === "gone" && box.checked && boxesOf(box.closest(".group")).every((each) => each.checked)) {
    event.preventDefault();
    const why = box.closest(".group").querySelector(".stay");
    why.hidden = false;
    window.say(why.textContent);
  }
  const menu = document.querySelector(".more[open]");
  if (menu && !menu.contains(event.target)) menu.removeAttribute("open");
});

document.addEventListener("change", (event) => {
  if (event.target.name === "gone") count();
});

function count() {
  const output = element("selected");
  if (!output) return;
  let [selected, same] = [0, 0];
  for (const group of groups()) {
    const boxes = boxesOf(group);
    const left = boxes.filter((box) => !box.checked);
    const gone = boxes.filter((box) => box.checked);
    selected += gone.length;
    // The first one that is not selected stays; only a file of its bytes can be a link to it.
    const bytes = left[0]?.dataset.bytes;
    if (bytes) same += gone.filter((box) => box.dataset.bytes === bytes).length;
    for (const box of boxes) {
      const isLast = left.length === 1 && box === left[0];
      const item = box.closest("li");
      item.classList.toggle("stays", isLast);
      item.querySelector(".verb").textContent = isLast ? "Stays" : "Select";
      box.setAttribute("aria-disabled", String(isLast));
    }
    if (left.length > 1) group.querySelector(".stay").hidden = true;
  }
  output.textContent = selected ? `${selected.toLocaleString("en")} selected` : "None selected";
  for (const button of document.querySelectorAll(".bar button")) {
    button.disabled = !("links" in button.dataset ? same : selected);
  }
  element("unlinked").textContent = whyUnlinked(selected, same);
}

function whyUnlinked(selected, same) {
  if (!selected) return "Select files first.";
  if (!same) return "No selected file has the same bytes as the image that stays in its group.";
  if (same === selected) return "";
  return `${same} of the ${selected} selected files can be links. The others have other bytes, and are left alone.`;
}

// While the server works.

function isBusy() {
  return root.classList.contains("busy") || root.classList.contains("asking");
}

document.addEventListener("asked", () => {
  root.classList.add("asking");
  element("results").inert = true;
  const sentence = "Looking for near-duplicates…";
  document.querySelector(".summary").textContent = sentence;
  window.say(sentence);
});

document.addEventListener("submit", (event) => {
  if (event.target.method !== "post") return;
  if (isBusy()) {
    event.preventDefault();
    return;
  }
  root.classList.add("busy");
  const output = element("selected");
  if (output) output.textContent = "Working…";
  window.say("Working");
  if (!event.target.matches(".apart")) return;
  // The page comes back without an image, at its place.
  const number = groups().findIndex((group) => group.querySelector(`[form="${event.target.id}"]`));
  sessionStorage.setItem("place", JSON.stringify({ number, top: scrollY }));
});

function returnToPlace() {
  const place = JSON.parse(sessionStorage.getItem("place"));
  sessionStorage.removeItem("place");
  if (!place || location.hash !== "#done") return;
  firstOf(place.number, { preventScroll: true });
  scrollTo({ top: place.top, behavior: "instant" });
}

// Going back keeps what was selected.
document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-back]") || event.ctrlKey || event.metaKey) return;
  if (!document.referrer || new URL(document.referrer).pathname !== "/duplicates") return;
  event.preventDefault();
  history.back();
});

function localTimes() {
  for (const each of document.querySelectorAll("time")) {
    const at = new Date(each.dateTime);
    const isToday = at.toDateString() === new Date().toDateString();
    each.textContent = isToday
      ? at.toLocaleTimeString([], { timeStyle: "short" })
      : at.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  }
}

function prepare() {
  root.classList.remove("asking");
  localTimes();
  count();
}

document.addEventListener("shown", prepare);
window.addEventListener("pageshow", () => {
  // The browser may have restored what was selected, or shown the page as it was left.
  prepare();
  returnToPlace();
});
prepare();
