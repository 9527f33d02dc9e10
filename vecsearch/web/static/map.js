// Draws the map on its canvas. The list beside it leads to the same images without this script.

const frame = document.querySelector(".atlas");
if (frame) start();

async function start() {
  const canvas = frame.querySelector("canvas");
  const pen = canvas.getContext("2d");
  const tools = frame.querySelector(".tools");
  const peek = frame.querySelector(".peek");
  const isPlace = "place" in frame.dataset;

  const COLOURS = 10;
  const MARGIN = 40; // pixels around the whole map
  const SLIP = 5; // a click may move by so many pixels
  const REACH = { mouse: 10, touch: 22 }; // from a point, in pixels
  const MOST_THUMBNAILS = 90; // in view at once
  const NEAR = 1.5; // thumbnails are shown from this magnification
  const MOST_KEPT = 1500;
  const MOST_LOADING = 8;
  const STEPS = [90, 45, 30, 15, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001];

  let points;
  try {
    const answer = await fetch(frame.dataset.points);
    points = await answer.json();
    if (!answer.ok) throw new Error(points.detail);
  } catch (error) {
    const failed = frame.querySelector(".failed");
    failed.textContent = `The map cannot be shown. ${error.message}`;
    failed.hidden = false;
    return;
  }
  const { ids, x: xs, y: ys, group } = points;
  const names = new Map(
    [...document.querySelectorAll("[data-name]")].map((each) => [Number(each.dataset.name), each.textContent.trim()]),
  );

  // The view: the place in its middle, and pixels for a unit of x and y.
  const view = { x: 0, y: 0, scale: 1 };
  let size = { width: 1, height: 1 };
  let whole = 1; // the scale at which everything is in view
  let isWhole = true;
  let only = null; // the one group to show
  let chosen = -1; // the point that the pointer, or the keyboard, is at
  let thumbnails = []; // drawn: { point, x, y, half }
  let colours = [];

  function fit() {
    const [left, right] = extent(xs);
    const [bottom, top] = extent(ys);
    // One place, or one image, is not enlarged without end.
    const least = isPlace ? 0.02 : 1e-3;
    const across = Math.max(right - left, least);
    const up = Math.max(top - bottom, least);
    whole = Math.min((size.width - 2 * MARGIN) / across, (size.height - 2 * MARGIN) / up);
    if (!isWhole) return;
    Object.assign(view, { x: (left + right) / 2, y: (bottom + top) / 2, scale: whole });
  }

  function extent(values) {
    let [least, most] = [Infinity, -Infinity];
    for (const value of values) {
      if (value < least) least = value;
      if (value > most) most = value;
    }
    return [least, most];
  }

  function onScreen(point) {
    return [
      (xs[point] - view.x) * view.scale + size.width / 2,
      (view.y - ys[point]) * view.scale + size.height / 2,
    ];
  }

  function move(right, down) {
    view.x -= right / view.scale;
    view.y += down / view.scale;
    isWhole = false;
    redraw();
  }

  // The place at these pixels stays where it is.
  function zoom(factor, atX = size.width / 2, atY = size.height / 2) {
    const scale = Math.min(Math.max(view.scale * factor, whole / 2), whole * 5000);
    const change = 1 / view.scale - 1 / scale;
    view.x += (atX - size.width / 2) * change;
    view.y -= (atY - size.height / 2) * change;
    view.scale = scale;
    isWhole = false;
    redraw();
  }

  function showAll() {
    isWhole = true;
    fit();
    redraw();
  }

  // Drawing, once a frame.

  let isDue = false;

  function redraw() {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(() => {
      isDue = false;
      draw();
    });
  }

  function draw() {
    pen.clearRect(0, 0, size.width, size.height);
    const degrees = isPlace ? drawGraticule() : [];
    const inView = [];
    for (let point = 0; point < ids.length; point++) {
      const [x, y] = onScreen(point);
      if (x > -40 && y > -40 && x < size.width + 40 && y < size.height + 40) inView.push({ point, x, y });
    }
    const radius = radiusOf(ids.length) * Math.min(2, (view.scale / whole) ** 0.25);
    for (const isMeant of [false, true]) {
      if (only === null && !isMeant) continue;
      pen.globalAlpha = isMeant ? 0.85 : 0.15;
      const meant = inView.filter((each) => isShown(each.point) === isMeant);
      // Those without a colour of their own lie below.
      for (const [colour, dots] of [...byColour(meant)].sort(([one], [other]) => other - one)) {
        pen.fillStyle = colours[colour];
        if (radius <= 2) {
          // So small, a square looks like a disc, and tens of thousands are drawn in time.
          for (const { x, y } of dots) pen.fillRect(x - radius, y - radius, 2 * radius, 2 * radius);
          continue;
        }
        pen.beginPath();
        for (const { x, y } of dots) {
          pen.moveTo(x + radius, y);
          pen.arc(x, y, radius, 0, 2 * Math.PI);
        }
        pen.fill();
      }
    }
    pen.globalAlpha = 1;
    drawThumbnails(inView);
    pen.font = "12px system-ui, sans-serif";
    pen.lineWidth = 4;
    pen.lineJoin = "round";
    [pen.strokeStyle, pen.fillStyle] = [colours.mount, colours.soft];
    for (const [text, x, y] of degrees) {
      pen.strokeText(text, x, y);
      pen.fillText(text, x, y);
    }
    if (chosen >= 0) drawChosen(radius);
    place(peek);
    frame.dataset.drawn = inView.length;
  }

  function byColour(dots) {
    const found = new Map();
    for (const dot of dots) {
      const colour = colourOf(dot.point);
      if (!found.has(colour)) found.set(colour, []);
      found.get(colour).push(dot);
    }
    return found;
  }

  function radiusOf(count) {
    const radius = count > 20000 ? 1.5 : count > 5000 ? 2 : count > 1000 ? 3 : 4;
    return size.width < 500 ? Math.max(radius - 1, 1.5) : radius;
  }

  function colourOf(point) {
    const number = group[point];
    return number < 0 || number >= COLOURS ? COLOURS : number;
  }

  function isShown(point) {
    return only === null || group[point] === only;
  }

  // Thumbnails take the room that there is: the first points in order, where none is yet. The whole
  // map shows its groups instead, unless it has few images.
  function drawThumbnails(inView) {
    thumbnails = [];
    const shown = inView.filter((each) => isShown(each.point));
    const isNear = view.scale >= NEAR * whole && shown.length <= 12 * MOST_THUMBNAILS;
    if (!isNear && shown.length > MOST_THUMBNAILS) return;
    const side = shown.length > MOST_THUMBNAILS ? 44 : shown.length > 24 ? 64 : 96;
    const taken = new Map();
    for (const { point, x, y } of shown) {
      if (thumbnails.length >= MOST_THUMBNAILS) break;
      const [column, row] = [Math.floor(x / side), Math.floor(y / side)];
      let isFree = true;
      for (let near = 0; near < 9 && isFree; near++) {
        const other = taken.get(`${column + (near % 3) - 1} ${row + Math.floor(near / 3) - 1}`);
        isFree = !other || Math.abs(other.x - x) >= side || Math.abs(other.y - y) >= side;
      }
      if (!isFree) continue;
      const image = thumbnail(point);
      if (image === null) continue;
      taken.set(`${column} ${row}`, { x, y });
      thumbnails.push({ point, x, y, half: side / 2 });
      if (image.complete && image.naturalWidth) drawThumbnail(image, colourOf(point), x, y, side - 6);
    }
  }

  function drawThumbnail(image, colour, x, y, side) {
    const ratio = side / Math.max(image.naturalWidth, image.naturalHeight);
    const [width, height] = [image.naturalWidth * ratio, image.naturalHeight * ratio];
    pen.fillStyle = colours[colour];
    pen.beginPath();
    pen.roundRect(x - width / 2 - 2.5, y - height / 2 - 2.5, width + 5, height + 5, 4);
    pen.fill();
    pen.drawImage(image, x - width / 2, y - height / 2, width, height);
  }

  const kept = new Map();
  let loading = 0;

  // Null: it cannot be had, or not yet.
  function thumbnail(point) {
    const known = kept.get(point);
    if (known !== undefined) return known;
    if (loading >= MOST_LOADING) return null;
    const image = new Image();
    kept.set(point, image);
    loading++;
    const done = () => {
      loading--;
      redraw();
    };
    image.addEventListener("load", done);
    image.addEventListener("error", () => {
      kept.set(point, null);
      done();
    });
    image.src = `${frame.dataset.images}${ids[point]}/thumbnail`;
    if (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value);
    return image;
  }

  function drawChosen(radius) {
    const [x, y] = onScreen(chosen);
    pen.strokeStyle = colours.ink;
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(x, y, radius + 4, 0, 2 * Math.PI);
    pen.stroke();
  }

  // Draws the lines of a graticule, and returns the texts to write over the images.
  function drawGraticule() {
    const step = STEPS.findLast((each) => each * view.scale >= 90) ?? STEPS[0];
    const decimals = Math.max(0, Math.ceil(-Math.log10(step)));
    pen.lineWidth = 1;
    const texts = [];
    const degrees = (value, [positive, negative]) =>
      `${Math.abs(value).toFixed(decimals)}°${value === 0 ? "" : value > 0 ? ` ${positive}` : ` ${negative}`}`;
    const half = [size.width / 2 / view.scale, size.height / 2 / view.scale];
    const [west, east] = [Math.max(view.x - half[0], -180), Math.min(view.x + half[0], 180)];
    const [south, north] = [Math.max(view.y - half[1], -90), Math.min(view.y + half[1], 90)];
    const toX = (longitude) => (longitude - view.x) * view.scale + size.width / 2;
    const toY = (latitude) => (view.y - latitude) * view.scale + size.height / 2;
    const line = (value, fromX, fromY, untilX, untilY) => {
      pen.strokeStyle = value === 0 ? colours.soft : colours.line;
      pen.beginPath();
      pen.moveTo(fromX, fromY);
      pen.lineTo(untilX, untilY);
      pen.stroke();
    };
    for (let number = Math.ceil(west / step); number * step <= east; number++) {
      const [longitude, x] = [number * step, toX(number * step)];
      line(longitude, x, toY(north), x, toY(south));
      texts.push([degrees(longitude, "EW"), x + 4, Math.min(toY(south), size.height) - 6]);
    }
    for (let number = Math.ceil(south / step); number * step <= north; number++) {
      const [latitude, y] = [number * step, toY(number * step)];
      line(latitude, toX(west), y, toX(east), y);
      texts.push([degrees(latitude, "NS"), Math.max(toX(west), 0) + 6, y - 4]);
    }
    return texts;
  }

  function readColours() {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(`--${name}`).trim();
    colours = Array.from({ length: COLOURS }, (_, number) => read(`c${number}`));
    colours.push(read("rest"));
    for (const name of ["ink", "soft", "line", "mount"]) colours[name] = read(name);
    redraw();
  }

  function resize() {
    const { width, height } = canvas.getBoundingClientRect();
    const dense = window.devicePixelRatio || 1;
    size = { width, height };
    canvas.width = Math.round(width * dense);
    canvas.height = Math.round(height * dense);
    pen.setTransform(dense, 0, 0, dense, 0, 0);
    fit();
    redraw();
  }

  // What is under the pointer.

  function nearest(x, y, reach) {
    for (const each of [...thumbnails].reverse()) {
      if (Math.abs(each.x - x) <= each.half && Math.abs(each.y - y) <= each.half) return each.point;
    }
    let [found, least] = [-1, reach ** 2];
    for (let point = 0; point < ids.length; point++) {
      if (!isShown(point)) continue;
      const [ownX, ownY] = onScreen(point);
      const distance = (ownX - x) ** 2 + (ownY - y) ** 2;
      if (distance <= least) [found, least] = [point, distance];
    }
    return found;
  }

  function nameOf(point) {
    return names.get(group[point]) ?? "";
  }

  function choose(point) {
    canvas.classList.toggle("over", point >= 0);
    if (point === chosen) return;
    chosen = point;
    peek.hidden = point < 0;
    if (point >= 0) {
      const image = peek.querySelector("img");
      image.hidden = false;
      image.src = `${frame.dataset.images}${ids[point]}/thumbnail`;
      peek.querySelector("span").textContent = nameOf(point);
    }
    redraw();
  }

  peek.querySelector("img").addEventListener("error", (event) => {
    event.target.hidden = true;
  });

  function place(box) {
    if (box.hidden) return;
    const [x, y] = onScreen(chosen);
    const within = (number, most) => Math.max(6, Math.min(number, most - 6));
    const isLeft = x + 16 + box.offsetWidth > size.width;
    const left = isLeft ? x - 16 - box.offsetWidth : x + 16;
    const top = within(y - box.offsetHeight / 2, size.height - box.offsetHeight);
    box.style.transform = `translate(${within(left, size.width - box.offsetWidth)}px, ${top}px)`;
  }

  function open(point, inNewTab) {
    const address = `${frame.dataset.search}${ids[point]}`;
    if (inNewTab) {
      window.open(address, "_blank");
      return;
    }
    // Whoever comes back finds the map as it was left.
    history.replaceState({ view: isWhole ? null : view }, "");
    location.assign(address);
  }

  // Pointers: one drags, two pinch.

  const held = new Map();
  let travelled = 0;

  function at(event) {
    const { left, top } = canvas.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    if (held.size === 0) travelled = 0;
    held.set(event.pointerId, at(event));
    canvas.setPointerCapture(event.pointerId);
  });

  canvas.addEventListener("pointermove", (event) => {
    const now = at(event);
    const before = held.get(event.pointerId);
    if (!before) {
      if (event.pointerType === "mouse") choose(nearest(now.x, now.y, REACH.mouse));
      return;
    }
    const others = [...held].filter(([id]) => id !== event.pointerId).map(([, other]) => other);
    held.set(event.pointerId, now);
    travelled += Math.hypot(now.x - before.x, now.y - before.y);
    if (travelled <= SLIP) return;
    choose(-1);
    canvas.classList.add("moving");
    if (others.length === 0) {
      move(now.x - before.x, now.y - before.y);
      return;
    }
    const [other] = others;
    const apart = (one) => Math.hypot(one.x - other.x, one.y - other.y);
    move((now.x - before.x) / 2, (now.y - before.y) / 2);
    zoom(apart(now) / Math.max(apart(before), 1), (now.x + other.x) / 2, (now.y + other.y) / 2);
  });

  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => {
      if (!held.delete(event.pointerId)) return;
      if (held.size) return;
      canvas.classList.remove("moving");
      if (end === "pointercancel" || travelled > SLIP) return;
      const { x, y } = at(event);
      const point = nearest(x, y, event.pointerType === "mouse" ? REACH.mouse : REACH.touch);
      if (point >= 0) open(point, event.ctrlKey || event.metaKey);
    });
  }

  canvas.addEventListener("pointerleave", () => {
    if (!held.size) choose(-1);
  });

  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const pixels = event.deltaY * (event.deltaMode === 0 ? 1 : 30);
      const { x, y } = at(event);
      zoom(Math.exp(-pixels * (event.ctrlKey ? 0.01 : 0.002)), x, y);
    },
    { passive: false },
  );

  // The keyboard, whose pointer is the middle.

  const KEYS = {
    ArrowLeft: () => move(80, 0),
    ArrowRight: () => move(-80, 0),
    ArrowUp: () => move(0, 80),
    ArrowDown: () => move(0, -80),
    "+": () => zoom(1.5),
    "=": () => zoom(1.5),
    "-": () => zoom(1 / 1.5),
    0: showAll,
  };

  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter") {
      const point = chosen >= 0 ? chosen : middle();
      if (point >= 0) open(point, false);
    } else if (KEYS[event.key]) {
      KEYS[event.key]();
      thumbnails = []; // those of the last view
      choose(middle());
      if (chosen >= 0) window.say(`${nameOf(chosen)} in the middle`);
    } else return;
    event.preventDefault();
  });

  function middle() {
    return nearest(size.width / 2, size.height / 2, Infinity);
  }

  canvas.addEventListener("blur", () => choose(-1));

  // The buttons, and the list.

  tools.addEventListener("click", (event) => {
    const button = event.target.closest("[data-zoom]");
    if (!button) return;
    if (Number(button.dataset.zoom)) zoom(Number(button.dataset.zoom));
    else showAll();
  });
  tools.hidden = false;

  const swatches = [...document.querySelectorAll("[data-group]")];
  for (const swatch of swatches) {
    swatch.hidden = false;
    swatch.addEventListener("click", () => {
      const number = Number(swatch.dataset.group);
      only = only === number ? null : number;
      for (const each of swatches) {
        each.setAttribute("aria-pressed", String(only === Number(each.dataset.group)));
      }
      redraw();
    });
  }

  const left = history.state?.view;
  if (left) {
    Object.assign(view, left);
    isWhole = false;
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", readColours);
  new ResizeObserver(resize).observe(canvas);
  resize();
  readColours();
}
