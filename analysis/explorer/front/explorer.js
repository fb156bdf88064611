/* The explorer of steerlens: what a prompt did to each token, and what a steering method did to it.

   One ES module without imports, so that a notebook widget (anywidget) and a single HTML file can
   both carry it. `mount(el, payload, live)` draws a payload of format 1 into `el`; `live` is null
   in a file, and in a notebook the two ends of the line to Python, `{send(message),
   listen(callback)}`.

   From top to bottom: numbers and colours, the page's elements, the readings, the state, the
   controls, the panels, the line to Python, and the two exported functions. Every panel is a
   function that builds its elements once and returns what redraws them; the state calls it only
   where something changed on which it depends. All text enters the page as text, never as HTML. */

/* ---------------------------------------------------------------- numbers and colours */

const DIVERGING = ["#2166ac", "#67a9cf", "#d1e5f0", "#f7f7f7", "#fddbc7", "#ef8a62", "#b2182b"];
// The same hues from bright ends to a middle as dark as the card: white zeros would glare.
const DIVERGING_DARK = [
  "#83c5f2",
  "#4b94ca",
  "#2d587b",
  "#31353b",
  "#7b4338",
  "#d3704f",
  "#ffa68a",
];
// Colours end at this quantile of |value|, so that no outlier pales the rest.
const NEARLY_ALL = 0.98;
const DASHES = {
  solid: "",
  dash: "7 4",
  dot: "2 3",
  dashdot: "7 3 2 3",
  longdash: "11 4",
  longdashdot: "11 3 2 3",
};
/** A dash as SVG has it: by plotly's name, or from its list of pixels, "8px,2px". */
const dashOf = (dash = "solid") =>
  DASHES[dash] ?? dash.replaceAll("px", "").replaceAll(",", " ");
const REFERENCE_LINES = {
  "equivalent prompts": "4 3",
  "neutral prompts": "6 3",
  "any instruction": "1.5 3",
};

const known = (value) => typeof value === "number" && Number.isFinite(value);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** A number as a reader wants it: about three digits, a real minus, "–" for not measured. */
function say(value, signed = false) {
  if (!known(value)) return "–";
  const size = Math.abs(value);
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 0.1 || size === 0 ? 2 : 3;
  const text =
    (size > 0 && size < 0.001) || size >= 1e5 ? size.toExponential(1) : size.toFixed(digits);
  const sign = value < 0 ? "−" : signed && value > 0 ? "+" : "";
  return sign + text.replace("e-", "e−").replace("e+", "e");
}

const plain = (value) => String(value).replace("-", "−");
const percent = (value) => (known(value) ? `${plain(Math.round(100 * value))} %` : "–");

/** The quantile of sorted numbers between its two neighbours, as numpy computes it. */
function quantile(sorted, share) {
  const place = share * (sorted.length - 1),
    below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (place - below);
}

const channels = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
const hex = (parts) =>
  "#" + parts.map((part) => Math.round(part).toString(16).padStart(2, "0")).join("");
const mixed = (first, second, share) => {
  const [a, b] = [channels(first), channels(second)];
  return hex(a.map((part, i) => part + (b[i] - part) * share));
};

const SCALES = { light: DIVERGING.map(channels), dark: DIVERGING_DARK.map(channels) };

/** The colour of a value on the scale from -limit to +limit. */
function colourOf(value, limit, dark) {
  const scale = dark ? SCALES.dark : SCALES.light;
  const place = ((clamp(value / limit, -1, 1) + 1) / 2) * (scale.length - 1);
  const low = Math.min(Math.floor(place), scale.length - 2);
  return hex(scale[low].map((part, i) => part + (scale[low + 1][i] - part) * (place - low)));
}

function luminance(colour) {
  const [r, g, b] = channels(colour).map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** Black or white, whichever reads better. */
const inkOn = (colour) => (luminance(colour) > 0.179 ? "#000000" : "#ffffff");

/** A method's colour, made lighter where it would sink into a dark card. */
function lineColour(colour, dark) {
  let shown = /^#[0-9a-f]{6}$/i.test(colour || "") ? colour : "#7f7f7f";
  while (dark && luminance(shown) < 0.22) shown = mixed(shown, "#ffffff", 0.15);
  return shown;
}

/** About `wanted` round numbers from low to high. */
function ticksOf(low, high, wanted) {
  const rough = (high - low) / wanted,
    power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-6); i * step <= high + step * 1e-6; i++) {
    ticks.push(Number((i * step).toPrecision(12)));
  }
  return ticks;
}

/* ---------------------------------------------------------------- the page's elements */

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes (`on...` are listeners, null and false are left out) and children. */
function h(tag, attributes = {}, ...children) {
  const svg = tag.startsWith("svg:");
  const element = svg ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const div = (name, ...children) => h("div", { class: name }, ...children);
const span = (name, ...children) => h("span", { class: name }, ...children);
const p = (name, ...children) => h("p", { class: name }, ...children);

/** A shown number with its full value, and the name under which the table has it. */
function number(value, key, text = say(value), attributes = {}) {
  const full = known(value) ? value : "";
  return h(
    "span",
    { class: "sle-number", "data-value": full, "data-key": key, ...attributes },
    text,
  );
}

function panel(name, title, wide) {
  const heading = h("h3", {}, title),
    note = p("sle-note"),
    body = div("sle-body");
  const element = h(
    "section",
    { class: `sle-panel sle-${name}`, "data-wide": wide, "aria-label": title },
    h("header", {}, heading, note),
    body,
  );
  return { element, heading, note, body };
}

/** A short piece of the line with which a method is drawn. */
function sample(colour, dash, band = false) {
  return h(
    "svg:svg",
    { class: "sle-sample", width: 22, height: 10, "aria-hidden": "true" },
    band ? h("svg:rect", { x: 0, y: 1, width: 22, height: 8, fill: colour, opacity: 0.22 }) : null,
    h("svg:line", {
      x1: 0,
      x2: 22,
      y1: 5,
      y2: 5,
      stroke: colour,
      "stroke-width": 2.25,
      "stroke-dasharray": dash,
    }),
  );
}

const quoted = (token) => `“${token ? token.text : ""}”`;

/** Scrolls a box, and nothing around it, until a child of it is seen. */
function reveal(box, child) {
  const outer = box.getBoundingClientRect(),
    inner = child.getBoundingClientRect();
  if (inner.top < outer.top) box.scrollTop -= outer.top - inner.top + 8;
  else if (inner.bottom > outer.bottom) box.scrollTop += inner.bottom - outer.bottom + 8;
}

/* ---------------------------------------------------------------- the readings */

/** The payload, and questions asked of it. A live explorer adds to it as Python answers. */
class Book {
  constructor(payload, live) {
    Object.assign(
      this,
      { curves: {}, effect: {}, vocabulary: {}, readings: {}, made: {} },
      payload,
    );
    // Live answers are written into these; the payload itself belongs to whoever gave it.
    for (const part of ["curves", "effect", "vocabulary", "readings"])
      this[part] = { ...this[part] };
    this.texts = [...payload.texts];
    this.isLive = Boolean(live);
    const steered = this.methods.filter((method) => method.name !== "prompt");
    this.choices = steered.length ? steered : this.methods;
  }

  method(name) {
    return this.methods.find((method) => method.name === name);
  }
  measure(name) {
    return this.measures.find((measure) => measure.name === name) || this.measures[0];
  }
  read(text) {
    return this.texts[text].tokens.filter(
      (token) => token.index !== null && token.index !== undefined,
    );
  }
  layerIndex(layer) {
    return Math.max(0, this.layers.indexOf(layer));
  }
  word(id) {
    return this.vocabulary[id] ?? `#${id}`;
  }
  promptKey(text) {
    return `${text}|prompt|0|1`;
  }
  keyOf(state) {
    if (state.method === "prompt") return this.promptKey(state.text);
    return `${state.text}|${state.method}|${state.place}|${state.strength}`;
  }

  /** Strengths that can be chosen: in a file only those that were measured. */
  strengths(text, name, place) {
    const all = this.method(name).strengths;
    const there = all.filter((strength) => this.readings[`${text}|${name}|${place}|${strength}`]);
    return this.isLive || !there.length ? all : there;
  }

  places(text, name) {
    const all = this.method(name).places.map((place, index) => ({ ...place, index }));
    const there = all.filter(({ index }) =>
      this.method(name).strengths.some((s) => this.readings[`${text}|${name}|${index}|${s}`]),
    );
    return this.isLive || !there.length ? all : there;
  }

  /** The reading of the method to subtract: the same strength and place where it has them. */
  minusKey(state) {
    const other = state.minus && this.method(state.minus);
    if (!other) return null;
    if (other.name === "prompt") return this.promptKey(state.text);
    const label = (this.method(state.method).places[state.place] || {}).label;
    const place = Math.max(
      0,
      other.places.findIndex((each) => each.label === label),
    );
    const strength = nearest(this.strengths(state.text, other.name, place), state.strength);
    return `${state.text}|${other.name}|${place}|${strength}`;
  }

  value(reading, view, measure, layer, token) {
    const value = reading?.cells?.[view]?.[measure]?.[layer]?.[token];
    return known(value) ? value : null;
  }
}

const nearest = (values, wanted) =>
  values.reduce(
    (best, value) => (Math.abs(value - wanted) < Math.abs(best - wanted) ? value : best),
    values[0] ?? 1,
  );

const strengthOf = (key) => key.slice(key.lastIndexOf("|") + 1);

/** All that the panels need of the present state: the readings shown, and their values. */
function present(book, state, before) {
  const key = book.keyOf(state),
    promptKey = book.promptKey(state.text);
  // While Python reads, the last reading of the same method stays, faded: a blank would flicker.
  const same = before && before.start === key.slice(0, key.lastIndexOf("|"));
  const shown = book.readings[key] || !same ? key : before.shown;
  const reading = book.readings[shown],
    prompt = book.readings[promptKey];
  const minusKey = book.minusKey(state),
    minus = minusKey && book.readings[minusKey];
  const at = (from) => (layer, token) => book.value(from, state.view, state.measure, layer, token);
  const [ofPrompt, ofMethod, ofMinus] = [at(prompt), at(reading), at(minus)];
  const difference = (layer, token) => {
    const [a, b] = [ofMethod(layer, token), ofMinus(layer, token)];
    return a === null || b === null ? null : a - b;
  };
  const now = {
    key,
    shown,
    reading,
    promptKey,
    prompt,
    minusKey,
    minus,
    measure: book.measure(state.measure),
    start: key.slice(0, key.lastIndexOf("|")),
    waits: !book.readings[key],
    alone: state.method === "prompt",
    ofPrompt,
    ofMethod: minusKey ? difference : ofMethod,
    cellKey: (of, layer, token) =>
      `${state.view}|${state.measure}|${of}|${book.layers[layer]}|${token}`,
    tokens: book.read(state.text),
    minusText: minusKey ? ` minus ${nameOf(book, minusKey, state)}` : "",
  };
  now.methodKey = minusKey ? `${shown}−${minusKey}` : shown;
  now.name = nameOf(book, shown, state);
  now.limit = limitOf(book, now);
  return now;
}

/** "CAA · layer 3 · strength 0.5", with what there is to say. */
function nameOf(book, key, state) {
  const [, name, place, strength] =
    key === book.promptKey(state.text) ? [0, "prompt"] : [0, ...partsOf(key)];
  if (name === "prompt") return "prompt";
  const label = (book.method(name)?.places[place] || {}).label;
  return [name, label, `strength ${plain(strength)}`].filter(Boolean).join(" · ");
}

/** Method, place and strength of a key; a method's name may itself hold a "|". */
function partsOf(key) {
  const parts = key.split("|");
  return [parts.slice(1, -2).join("|"), Number(parts.at(-2)), parts.at(-1)];
}

/** Where colours end: sinks do not count, they would pale everything else. */
function limitOf(book, now) {
  const sizes = [];
  for (const [at, reading] of [
    [now.ofPrompt, now.prompt],
    [now.ofMethod, now.reading],
  ]) {
    book.layers.forEach((_, layer) => {
      const sinks = new Set(reading?.sink?.[layer] || []);
      for (let token = 0; token < now.tokens.length; token++) {
        const value = sinks.has(token) ? null : at(layer, token);
        if (value !== null) sizes.push(Math.abs(value));
      }
    });
  }
  sizes.sort((a, b) => a - b);
  return (sizes.length && quantile(sizes, NEARLY_ALL)) || 1;
}

/* ---------------------------------------------------------------- the state */

/** Values that panels watch: `set` redraws those that depend on what has changed, and no other. */
function makeStore(first) {
  const watchers = [];
  const store = {
    state: first,
    watch(names, redraw) {
      watchers.push([names, redraw]);
    },
    set(changes) {
      const changed = Object.keys(changes).filter((name) => changes[name] !== store.state[name]);
      if (!changed.length) return;
      store.state = { ...store.state, ...changes };
      for (const [names, redraw] of watchers) {
        if (names.some((name) => changed.includes(name))) redraw(store.state);
      }
    },
    drawAll() {
      for (const [, redraw] of watchers) redraw(store.state);
    },
  };
  return store;
}

/** What says which reading is shown; `heard` counts the answers from Python. */
const WHICH = ["text", "method", "place", "strength", "minus", "heard", "theme"];
const CELLS = [...WHICH, "view", "measure"];
/** Where the eye is: the token and layer under the pointer, or else those chosen. */
const FOCUS = ["token", "layer", "overToken", "overLayer"];
const focusToken = (state) => state.overToken ?? state.token;
const focusLayer = (state) => state.overLayer ?? state.layer;

/** A state whose every part exists in the book. */
function settled(book, wanted) {
  const state = { text: 0, place: 0, strength: 1, token: 0, minus: null, ...wanted };
  state.text = book.texts[state.text] ? state.text : 0;
  if (!book.choices.some((method) => method.name === state.method))
    state.method = book.choices[0].name;
  const places = book.places(state.text, state.method).map((place) => place.index);
  if (!places.includes(state.place)) state.place = places[0] ?? 0;
  const strengths = book.strengths(state.text, state.method, state.place);
  if (!book.isLive || !known(state.strength))
    state.strength = nearest(strengths, state.strength ?? 1);
  if (!book.layers.includes(state.layer)) state.layer = book.layers[book.layers.length >> 1];
  if (!book.views.includes(state.view)) state.view = book.views[0];
  state.measure = book.measure(state.measure).name;
  if (state.minus === state.method || !book.method(state.minus)) state.minus = null;
  state.token = clamp(state.token ?? 0, 0, Math.max(0, book.read(state.text).length - 1));
  return state;
}

/** The part of the state that is kept and sent: not where the pointer is. */
function kept(state) {
  const { text, method, place, strength, layer, view, measure, minus, token } = state;
  return { text, method, place, strength, layer, view, measure, minus, token };
}

/* ---------------------------------------------------------------- the controls */

function field(label, ...children) {
  return div("sle-field", span("sle-label", label), ...children);
}

/** One of a few, as buttons beside each other (radio buttons, so that the arrow keys work). */
function segments(app, label, options, chosen, choose) {
  const name = `${app.uid}-${label}`;
  const inputs = options.map((option) =>
    h(
      "label",
      { class: "sle-segment", title: option.title || null },
      h("input", {
        type: "radio",
        name,
        value: option.value,
        checked: option.value === chosen,
        onchange: () => choose(option.value),
      }),
      option.mark || null,
      h("span", {}, option.text),
    ),
  );
  return h("div", { class: "sle-segments", role: "radiogroup", "aria-label": label }, inputs);
}

function dropdown(label, options, chosen, choose) {
  const items = options.map((option) =>
    h("option", { value: option.value, selected: option.value === chosen }, option.text),
  );
  return h(
    "select",
    { "aria-label": label, onchange: (event) => choose(options[event.target.selectedIndex].value) },
    items,
  );
}

/** Few short options are seen at once, many or long ones unfold. */
function choice(app, label, options, chosen, choose) {
  const letters = options.reduce((sum, option) => sum + option.text.length + 4, 0);
  const asSegments = options.length <= 6 && letters <= 56;
  return asSegments
    ? segments(app, label, options, chosen, choose)
    : dropdown(label, options, chosen, choose);
}

/** A slider over the values of a list; `words` are what is said of each. */
function stepper(label, values, words, chosen, choose) {
  const output = h("output", {}, words[Math.max(0, values.indexOf(chosen))]);
  const input = h("input", {
    type: "range",
    min: 0,
    max: Math.max(0, values.length - 1),
    step: 1,
    "aria-label": label,
    disabled: values.length < 2,
  });
  const show = (value) => {
    const index = Math.max(0, values.indexOf(value));
    input.value = index;
    input.setAttribute("aria-valuetext", words[index]);
    output.textContent = words[index];
    input.style.setProperty("--share", values.length < 2 ? 0 : index / (values.length - 1));
  };
  input.addEventListener("input", () => choose(values[Number(input.value)]));
  show(chosen);
  return { element: div("sle-slider", input, output), show };
}

/** A slider over all numbers around the suggested strengths, with a box for an exact one. */
function continuous(label, suggested, chosen, choose) {
  const low = Math.min(0, ...suggested),
    high = Math.max(1, ...suggested) * 1.25;
  const step = 10 ** Math.floor(Math.log10((high - low) / 60));
  const input = h("input", { type: "range", min: low, max: high, step, "aria-label": label });
  const box = h("input", {
    type: "number",
    step: "any",
    class: "sle-exact",
    "aria-label": `${label}, exact`,
  });
  const show = (value) => {
    input.value = value;
    if (box.getRootNode().activeElement !== box) box.value = value;
    input.style.setProperty("--share", clamp((value - low) / (high - low), 0, 1));
  };
  input.addEventListener("input", () => choose(Number(Number(input.value).toPrecision(6))));
  box.addEventListener("change", () => {
    if (box.value !== "" && known(Number(box.value))) choose(Number(box.value));
  });
  show(chosen);
  const marks = suggested.map((value) =>
    h("i", { style: `--share:${(value - low) / (high - low)}`, title: plain(value) }),
  );
  return {
    element: div(
      "sle-slider",
      div("sle-track", input, h("div", { class: "sle-marks", "aria-hidden": "true" }, marks)),
      box,
    ),
    show,
  };
}

function controls(app) {
  const { book, store } = app;
  const bar = h("div", { class: "sle-controls", role: "group", "aria-label": "What is shown" });
  let layer, strength;
  const build = (state) => {
    const held = focusedLabel(bar);
    strength = strengthSlider(app, state);
    layer = stepper(
      "Layer shown",
      book.layers,
      book.layers.map((each) => `layer ${each}`),
      state.layer,
      (value) => store.set({ layer: value }),
    );
    bar.replaceChildren(
      ...[
        methodField(app, state),
        placeField(app, state),
        field("Strength", strength.element),
        field("Layer shown", layer.element),
        viewField(app, state),
        measureField(app, state),
        minusField(app, state),
      ].filter(Boolean),
    );
    refocus(bar, held);
  };
  store.watch(["text", "method", "place", "view", "measure", "minus", "texts", "theme"], build);
  store.watch(["strength"], (state) => strength.show(state.strength));
  store.watch(["layer"], (state) => layer.show(state.layer));
  return bar;
}

/** The control that has the keyboard, by what it is called: rebuilding must not take it away. */
function focusedLabel(bar) {
  const active = bar.getRootNode().activeElement;
  if (!active || !bar.contains(active)) return null;
  return {
    label: active.getAttribute("aria-label"),
    value: active.type === "radio" ? active.value : null,
    name: active.name,
  };
}

function refocus(bar, held) {
  if (!held) return;
  const same = [...bar.querySelectorAll("input, select")].find((each) =>
    held.value === null
      ? each.getAttribute("aria-label") === held.label
      : each.name === held.name && each.value === held.value,
  );
  if (same) same.focus({ preventScroll: true });
}

function methodField(app, state) {
  const { book } = app,
    dark = state.theme === "dark";
  const options = book.choices.map((method) => ({
    value: method.name,
    text: method.name,
    mark: sample(lineColour(method.colour, dark), dashOf(method.dash)),
  }));
  return field(
    "Method",
    choice(app, "Method", options, state.method, (name) => app.chooseMethod(name)),
  );
}

function placeField(app, state) {
  const places = app.book.places(state.text, state.method);
  if (places.length < 2) {
    return places[0]?.label ? field("Steered at", span("sle-fixed", places[0].label)) : null;
  }
  const slider = stepper(
    "Steered at",
    places.map((place) => place.index),
    places.map((place) => place.label || `place ${place.index}`),
    state.place,
    (place) => app.choose({ place }),
  );
  return field("Steered at", slider.element);
}

function strengthSlider(app, state) {
  const values = app.book.strengths(state.text, state.method, state.place);
  const choose = (strength) => app.choose({ strength });
  if (app.book.isLive && state.method !== "prompt")
    return continuous("Strength", values, state.strength, choose);
  return stepper("Strength", values, values.map(plain), state.strength, choose);
}

function viewField(app, state) {
  const { book, store } = app;
  if (book.views.length < 2) return null;
  const titles = {
    accumulated: "all that was done to the token up to this layer",
    local: "what this layer adds",
  };
  const options = book.views.map((view) => ({ value: view, text: view, title: titles[view] }));
  return field(
    "View",
    choice(app, "View", options, state.view, (view) => store.set({ view })),
  );
}

function measureField(app, state) {
  const { book, store } = app;
  if (book.measures.length < 2) return null;
  const options = book.measures.map((measure) => ({ value: measure.name, text: measure.label }));
  return field(
    "Measure",
    dropdown("Measure", options, state.measure, (measure) => store.set({ measure })),
  );
}

function minusField(app, state) {
  const { book } = app;
  const others = book.methods.filter((method) => method.name !== state.method);
  if (!others.length) return null;
  const options = [
    { value: null, text: "nothing" },
    ...others.map(({ name }) => ({ value: name, text: name })),
  ];
  return field(
    "Minus",
    dropdown("Minus", options, state.minus, (minus) => app.choose({ minus })),
  );
}

/* ---------------------------------------------------------------- headline */

/** The four numbers that move as the sliders do. */
function headline(app) {
  const strip = div("sle-headline");
  app.store.watch([...CELLS, ...FOCUS], (state) => {
    strip.replaceChildren(
      ...[...overall(app, state), ofToken(app, state)].map(([label, value, note]) =>
        div("sle-figure", div("sle-label", label), div("sle-big", value), div("sle-note", note)),
      ),
    );
  });
  return strip;
}

/** What the method comes to on the whole text: label, number, and a note. */
function overall(app, { layer }) {
  const { reading, prompt, shown, promptKey } = app.now(),
    { recovered } = reading || {};
  const rmse = reading?.rmse?.[app.book.layerIndex(layer)];
  return [
    [
      `Distance to the prompt, layer ${layer}`,
      number(rmse, `rmse|${shown}|${layer}`),
      "0 is the prompt, 1 is doing nothing",
    ],
    [
      "Change of the predictions",
      number(reading?.kl, `kl|${shown}`),
      h("span", {}, "nats a token; prompt ", number(prompt?.kl, `kl|${promptKey}`)),
    ],
    [
      "Effect of the prompt recovered",
      number(recovered, `recovered|${shown}`, percent(recovered)),
      "share of its change of the predictions",
    ],
  ];
}

function ofToken(app, state) {
  const now = app.now(),
    token = focusToken(state),
    layer = app.book.layerIndex(focusLayer(state));
  const cell = (at, key) =>
    number(
      at(layer, token),
      now.cellKey(key, layer, token),
      say(at(layer, token), now.measure.signed),
    );
  const prompt = () => cell(now.ofPrompt, now.promptKey);
  return [
    `${quoted(now.tokens[token])}, layer ${focusLayer(state)}`,
    now.alone ? prompt() : cell(now.ofMethod, now.methodKey),
    h("span", {}, "prompt ", prompt(), ` · ${now.measure.name}`),
  ];
}

/* ---------------------------------------------------------------- 1: completions */

function completions(app) {
  const { book, store } = app,
    { element, note, body } = panel("completions", "What is written");
  note.textContent = "The text whose tokens were read can be pointed at.";
  const draw = (state) => {
    const now = app.now(),
      given = book.texts[state.text].completions || [];
    const cards = given.map(({ method, text }) => card(app, state, method, method, text, "done"));
    if (!now.alone) {
      const written = now.waits ? null : now.reading;
      cards.push(
        card(
          app,
          state,
          state.method,
          nameOf(book, now.key, state),
          written?.text,
          written?.text_state || "none",
        ),
      );
    }
    body.replaceChildren(...cards);
    element.hidden = !cards.length;
    note.hidden = !body.querySelector("[data-token]");
    light(state);
  };
  const light = (state) => lightTokens(body, state);
  store.watch([...WHICH, "written"], draw);
  store.watch(["token", "overToken"], light);
  return element;
}

function lightTokens(body, state) {
  const token = String(focusToken(state));
  for (const each of body.querySelectorAll("[data-token]")) {
    each.classList.toggle("sle-lit", each.dataset.token === token);
  }
}

function card(app, state, method, title, text, textState) {
  const style = app.book.method(method) || {};
  const colour = lineColour(style.colour, state.theme === "dark");
  const missing = textState === "none" || text === undefined || text === null;
  const words = missing
    ? app.book.isLive
      ? "not written yet"
      : "not written"
    : withTokens(app, state, text);
  return h(
    "article",
    { class: "sle-card", "data-method": method, style: `--method:${colour}` },
    h("h4", {}, sample(colour, dashOf(style.dash)), h("span", {}, title)),
    h(
      "p",
      { dir: "auto", class: missing ? "sle-missing" : null, tabindex: missing ? null : 0 },
      words,
      textState === "streaming"
        ? h("span", { class: "sle-caret", "aria-label": "being written" })
        : null,
    ),
  );
}

/** The text, its read tokens as elements where it begins with all of them; else as it is. */
function withTokens(app, state, text) {
  const tokens = app.book.read(state.text).map((token) => [token.index, token.raw ?? token.text]);
  if (!text || !tokens.length) return text || "(nothing)";
  const start = tokens.map(([, raw]) => raw).join("");
  const cut = text.startsWith(start) ? 0 : start.length - start.trimStart().length;
  if (!text.startsWith(start.slice(cut)) && !start.slice(cut).startsWith(text)) return text.trim();
  const pieces = [];
  let at = -cut; // where the next token begins in the text, which may lack the first spaces
  for (const [index, raw] of tokens) {
    const piece = text.slice(Math.max(0, at), Math.max(0, at + raw.length));
    at += raw.length;
    if (piece) pieces.push(h("span", { "data-token": index }, piece));
    // Of a character in several tokens the first has it all; the others light up around it.
    else if (!raw && pieces.length)
      pieces.push(h("span", { "data-token": index }, pieces.pop()));
  }
  return [...pieces, text.slice(Math.max(0, at))];
}

/* ---------------------------------------------------------------- 2: tokens */

function tokenPanel(app) {
  const { book, store } = app,
    { element, note, body } = panel("tokens", "Token by token");
  const views = [tokenText(app, "prompt"), tokenText(app, "method")];
  const key = div("sle-key");
  body.append(...views.map((view) => view.element), key);
  store.watch([...CELLS, "layer"], (state) => {
    const now = app.now();
    note.textContent = `Layer ${state.layer}, ${state.view}`;
    views[1].element.hidden = now.alone;
    key.style.setProperty("--method", methodLine(app, state.method, state, []).colour);
    key.replaceChildren(colourBar(app, state), ...tokenKey(now));
  });
  return element;
}

function tokenKey(now) {
  const entry = (name, text) => span("sle-entry", h("i", { class: `sle-is-${name}` }), text);
  const steered = now.reading?.steered?.length || now.prompt?.steered?.length;
  return [
    steered ? entry("steered", "steered") : null,
    span("sle-entry", "without colour: not read"),
  ].filter(Boolean);
}

/** The whole row of a text; tokens of the response carry the colour of their value. */
function tokenText(app, side) {
  const { book, store } = app,
    id = `${app.uid}-${side}`,
    heading = h("h4", {});
  const list = h("div", { class: "sle-row", role: "listbox", tabindex: 0, dir: "auto" });
  const element = h("div", { class: "sle-tokentext", "data-side": side }, heading, list);
  const row = { side, element, heading, list, spans: [] };
  let unfolded = false,
    built = null;
  const unfold = () => {
    unfolded = true;
    built = null;
    draw(store.state);
  };
  const draw = (state) => {
    if (built !== book.texts[state.text]) {
      built = book.texts[state.text];
      const parts = rowParts(built.tokens, unfolded, id, unfold);
      row.spans = parts.filter((part) => part.token);
      list.replaceChildren(
        ...parts.flatMap(({ breakable, element }) => (breakable ? [h("wbr"), element] : [element])),
      );
    }
    paintRow(app, state, row);
    lightRow(list, state);
  };
  app.steps(list);
  store.watch([...CELLS, "layer"], draw);
  store.watch(["token", "overToken"], (state) => lightRow(list, state));
  store.watch(["token"], (state) => {
    const chosen = list.querySelector(`[data-token="${state.token}"]`);
    if (chosen) reveal(list, chosen);
  });
  return { element };
}

function paintRow(app, state, { side, element, heading, list, spans }) {
  const now = app.now(),
    layer = app.book.layerIndex(state.layer),
    dark = state.theme === "dark";
  const [at, key, name, reading, method] =
    side === "prompt"
      ? [now.ofPrompt, now.promptKey, "prompt", now.prompt, "prompt"]
      : [now.ofMethod, now.methodKey, now.name + now.minusText, now.reading, state.method];
  heading.textContent = name;
  element.style.setProperty("--method", methodLine(app, method, state, []).colour);
  list.setAttribute(
    "aria-label",
    `Tokens, ${name}: left and right move the token, up and down the layer`,
  );
  const steered = new Set(reading?.steered || []),
    sinks = new Set(reading?.sink?.[layer] || []);
  for (const each of spans) paintToken(each, { at, key, layer, sinks, steered, now, dark });
  for (const fold of list.querySelectorAll(".sle-fold")) {
    const positions = fold.dataset.positions.split(" ").map(Number);
    fold.classList.toggle(
      "sle-steered",
      positions.some((position) => steered.has(position)),
    );
  }
}

function lightRow(list, state) {
  lightTokens(list, state);
  for (const each of list.querySelectorAll('[aria-selected="true"]'))
    each.setAttribute("aria-selected", "false");
  const chosen = list.querySelector(`[data-token="${state.token}"]`);
  list.setAttribute("aria-activedescendant", chosen ? chosen.id : "");
  if (chosen) chosen.setAttribute("aria-selected", "true");
}

/** Elements of a row: a token each, or a button for several tokens of the chat template. */
function rowParts(tokens, unfolded, id, unfold) {
  const parts = [];
  for (let i = 0; i < tokens.length; i++) {
    let end = i;
    while (end < tokens.length && tokens[end].template && !isRead(tokens[end])) end++;
    if (end - i > 1 && !unfolded) {
      const run = tokens.slice(i, end);
      parts.push({
        element: h(
          "button",
          {
            type: "button",
            class: "sle-fold",
            onclick: unfold,
            "data-positions": run.map((token) => token.position).join(" "),
            title: run.map((token) => token.text).join(""),
          },
          `⋯ ${run.length} template tokens`,
        ),
        breakable: true,
      });
      i = end - 1;
      continue;
    }
    const token = tokens[i],
      read = isRead(token);
    const element = h(
      "span",
      {
        class: read ? "sle-token" : "sle-token sle-plain",
        id: read ? `${id}-${token.index}` : null,
        role: read ? "option" : null,
        "aria-selected": read ? "false" : null,
        "data-token": read ? token.index : null,
        "data-position": token.position,
      },
      token.text,
    );
    parts.push({ token, element, breakable: token.text.startsWith("·") });
  }
  return parts;
}

const isRead = (token) => token.index !== null && token.index !== undefined;

function paintToken({ token, element }, { at, key, layer, sinks, steered, now, dark }) {
  element.classList.toggle("sle-steered", steered.has(token.position));
  if (!isRead(token)) {
    element.title = `position ${token.position}, not read`;
    return;
  }
  const value = at(layer, token.index),
    words = value === null ? "not measured" : say(value, now.measure.signed);
  const fill = value === null ? "" : colourOf(value, now.limit, dark);
  element.style.backgroundColor = fill;
  element.style.color = fill && inkOn(fill);
  element.classList.toggle("sle-unmeasured", value === null);
  element.classList.toggle("sle-sink", sinks.has(token.index));
  element.dataset.value = value === null ? "" : value;
  element.dataset.key = now.cellKey(key, layer, token.index);
  const marks =
    (steered.has(token.position) ? ", steered" : "") + (sinks.has(token.index) ? ", a sink" : "");
  element.title = `${quoted(token)}, position ${token.position}: ${words}${marks}`;
  element.setAttribute("aria-label", element.title);
}

/** The scale of colours with its two ends and its unit. */
function colourBar(app, state) {
  const now = app.now(),
    signed = now.measure.signed || Boolean(now.minusKey),
    limit = now.limit;
  const scale = state.theme === "dark" ? DIVERGING_DARK : DIVERGING;
  const colours = signed ? scale : scale.slice(3);
  const key = `limit|${state.view}|${state.measure}|${now.methodKey}`;
  return div(
    "sle-colourbar",
    signed ? number(-limit, key, say(-limit)) : span("sle-number", "0"),
    h("i", { style: `background:linear-gradient(90deg,${colours.join(",")})` }),
    number(limit, key, say(limit, signed)),
    span("sle-unit", now.measure.label),
  );
}

/* ---------------------------------------------------------------- 3: the map */

const GUTTER = 46,
  NARROWEST = 13,
  WIDEST = 46,
  SLANT = Math.PI / 3;

/** Tokens across, layers upwards, prompt above method; one canvas each, drawn only where seen. */
function mapPanel(app) {
  const { book, store } = app,
    { element, note, body } = panel("map", "Tokens and layers");
  const maps = ["prompt", "method"].map((side) => ({
    side,
    title: h("h4", {}),
    canvas: h("canvas", { "data-side": side }),
  }));
  const labels = h("canvas", { class: "sle-labels" });
  const inner = div("sle-inner", ...maps.flatMap(({ title, canvas }) => [title, canvas]), labels);
  const scroller = h("div", { class: "sle-scroller", tabindex: 0, role: "application" }, inner);
  const key = div("sle-key");
  body.append(scroller, key);
  const layout = { scroller, inner, maps, labels };
  const draw = (state) => drawMaps(app, layout, state);
  const describe = (state) => {
    const now = app.now();
    note.textContent =
      state.view === "local" ? "what each layer adds" : "all that was done up to each layer";
    maps[0].title.textContent = "prompt";
    maps[1].title.textContent = now.name + now.minusText;
    maps[1].title.hidden = maps[1].canvas.hidden = now.alone;
    key.replaceChildren(colourBar(app, state), ...mapKey(app, now));
  };
  app.steps(scroller);
  maps.forEach(({ canvas }) => pointAtCells(app, layout, canvas));
  scroller.addEventListener("scroll", () => draw(store.state));
  store.watch(CELLS, describe);
  store.watch([...CELLS, ...FOCUS, "width"], draw);
  store.watch(["token", "layer"], (state) => {
    const token = app.now().tokens[state.token];
    scroller.setAttribute(
      "aria-label",
      `Map of tokens and layers at ${quoted(token)}, layer ${state.layer}. ` +
        "Left and right move the token, up and down the layer.",
    );
  });
  store.watch(["token", "text"], (state) => showColumn(layout, state.token));
  return element;
}

function mapKey(app, now) {
  const entry = (mark, text) => span("sle-entry", h("i", { class: `sle-is-${mark}` }), text);
  const all = (test) =>
    [[now.ofPrompt, now.prompt], ...(now.alone ? [] : [[now.ofMethod, now.reading]])].some(
      ([at, reading]) =>
        app.book.layers.some((_, layer) =>
          now.tokens.some((_, token) => test(at(layer, token), reading, layer, token)),
        ),
    );
  return [
    all((v) => v !== null && Math.abs(v) > now.limit) ? entry("clipped", "beyond the scale") : null,
    now.prompt?.sink?.some((s) => s.length) || now.reading?.sink?.some((s) => s.length)
      ? entry("sink", "sink")
      : null,
    all((v) => v === null) ? entry("unmeasured", "not measured") : null,
  ].filter(Boolean);
}

/** Sizes in CSS pixels: of a cell, of what is seen, and of the whole. */
function measureMap(app, layout, tokens) {
  const seen = app.room(layout.scroller),
    across = seen - GUTTER - 2;
  const width = clamp(across / Math.max(1, tokens), NARROWEST, WIDEST);
  const height = clamp(Math.floor(230 / app.book.layers.length), 7, 24);
  return {
    seen,
    width,
    height,
    whole: Math.ceil(GUTTER + tokens * width + 2),
    tall: height * app.book.layers.length,
  };
}

function drawMaps(app, layout, state) {
  const now = app.now(),
    size = measureMap(app, layout, now.tokens.length);
  if (size.seen < 80) return; // not on the page yet
  layout.size = size;
  layout.inner.style.width = `${Math.max(size.whole, size.seen)}px`;
  if (layout.inkedFor !== state.theme) {
    Object.assign(layout, { inkedFor: state.theme, colours: inksOf(layout.scroller) });
  }
  const { colours } = layout;
  for (const { side, canvas, title } of layout.maps) {
    title.style.maxWidth = `${size.seen}px`;
    if (canvas.hidden) continue;
    const pen = penOn(canvas, size.seen, size.tall + 4);
    const at = side === "prompt" ? now.ofPrompt : now.ofMethod;
    drawCells(app, pen, { ...layout, side, at, colours, now, state });
    drawLayers(app, pen, { ...layout, side, colours, state });
    drawCross(app, pen, { ...layout, colours, state });
  }
  drawTokenLabels(app, layout, colours, state);
}

function inksOf(element) {
  const style = getComputedStyle(element),
    read = (name) => style.getPropertyValue(name).trim();
  return {
    ink: read("--ink"),
    soft: read("--soft"),
    line: read("--line"),
    card: read("--card"),
    empty: read("--empty"),
    font: style.fontFamily,
  };
}

/** A canvas of so many CSS pixels that is sharp on this screen. */
function penOn(canvas, width, height) {
  const ratio = globalThis.devicePixelRatio || 1;
  const [w, h_] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h_) Object.assign(canvas, { width: w, height: h_ });
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  return pen;
}

/** First and last column that are seen, and where a column begins. */
function columns(layout, tokens) {
  const { width, seen } = layout.size,
    left = layout.scroller.scrollLeft;
  const first = clamp(Math.floor(left / width), 0, tokens),
    last = clamp(Math.ceil((left + seen) / width), 0, tokens);
  return { first, last, x: (token) => GUTTER + token * width - left };
}

function drawCells(app, pen, { size, side, at, colours, now, state, ...layout }) {
  const { book } = app,
    { width, height, seen, tall } = size,
    dark = state.theme === "dark";
  const { first, last, x } = columns({ size, ...layout }, now.tokens.length);
  const gap = Math.min(width, height) >= 11 ? 1 : 0,
    reading = side === "prompt" ? now.prompt : now.reading;
  pen.save();
  pen.beginPath();
  pen.rect(GUTTER, 0, seen - GUTTER, tall + 4);
  pen.clip();
  book.layers.forEach((_, layer) => {
    const y = tall - (layer + 1) * height + 2,
      sinks = new Set(reading?.sink?.[layer] || []);
    for (let token = first; token < last; token++) {
      const value = at(layer, token),
        fill = value === null ? colours.empty : colourOf(value, now.limit, dark);
      pen.fillStyle = fill;
      // Whole pixels at both ends: half-covered edges would show as a grid of their own.
      const left = Math.round(x(token)),
        right = Math.round(x(token + 1));
      pen.fillRect(left, y, right - left - gap, height - gap);
      const [cx, cy] = [(left + right - gap) / 2, y + (height - gap) / 2];
      if (sinks.has(token))
        drawSink(pen, cx, cy, Math.min(width, height), value === null ? colours.ink : inkOn(fill));
      else if (value !== null && Math.abs(value) > now.limit)
        drawClipped(pen, cx, cy, Math.min(width, height), inkOn(fill));
    }
  });
  pen.restore();
}

function drawSink(pen, x, y, room, ink) {
  const r = clamp(room * 0.32, 2.5, 5);
  pen.strokeStyle = ink;
  pen.lineWidth = 1.2;
  pen.beginPath();
  pen.moveTo(x, y - r);
  pen.lineTo(x + r, y);
  pen.lineTo(x, y + r);
  pen.lineTo(x - r, y);
  pen.closePath();
  pen.stroke();
}

function drawClipped(pen, x, y, room, ink) {
  pen.fillStyle = ink;
  pen.beginPath();
  pen.arc(x, y, clamp(room * 0.1, 1, 2), 0, 2 * Math.PI);
  pen.fill();
}

/** Numbers of the layers, as many as have room, and a bar where the method steers. */
function drawLayers(app, pen, { size, side, colours, state }) {
  const { book } = app,
    { height, tall } = size,
    step = Math.ceil(13 / height);
  const method = book.method(state.method),
    here = book.layerIndex(state.layer);
  const steers = side === "method" ? method.places[state.place]?.layers || [] : [];
  pen.clearRect(0, 0, GUTTER - 1, tall + 4);
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  book.layers.forEach((number, layer) => {
    const y = tall - (layer + 0.5) * height + 2;
    if (steers.includes(number)) {
      pen.fillStyle = lineColour(method.colour, state.theme === "dark");
      pen.fillRect(GUTTER - 6, y - height / 2, 3, Math.max(3, height - 1));
    }
    const near = layer !== here && Math.abs(layer - here) < step;
    if (layer !== here && (layer % step || near)) return;
    pen.font = `${layer === here ? 600 : 400} 11px ${colours.font}`;
    pen.fillStyle = layer === here ? colours.ink : colours.soft;
    pen.fillText(String(number), GUTTER - 11, clamp(y, 6, tall - 2));
  });
}

/** The chosen layer as a row, the token as a column, and the cell where they meet. */
function drawCross(app, pen, { size, colours, state, ...layout }) {
  const { book } = app,
    { width, height, seen, tall } = size,
    count = app.now().tokens.length;
  const token = focusToken(state),
    layer = book.layerIndex(focusLayer(state));
  const { x } = columns({ size, ...layout }, count),
    y = tall - (layer + 1) * height + 2;
  pen.save();
  pen.beginPath();
  pen.rect(GUTTER - 2, 0, seen, tall + 4);
  pen.clip();
  pen.strokeStyle = colours.ink;
  pen.lineWidth = 1;
  pen.globalAlpha = 0.55;
  pen.strokeRect(x(0) - 0.5, y - 0.5, count * width, height);
  pen.strokeRect(x(token) - 0.5, 1.5, width, tall);
  pen.globalAlpha = 1;
  pen.lineWidth = 2;
  pen.strokeRect(x(token) - 0.5, y - 0.5, width, height);
  pen.restore();
}

/** The tokens below, slanted where they have no room to lie; steered ones have a bar over them. */
function drawTokenLabels(app, layout, colours, state) {
  const now = app.now(),
    { size, labels } = layout,
    pen = labels.getContext("2d");
  const font = (bold) => `${bold ? 600 : 400} 11px ${colours.font}`;
  pen.font = font(true);
  const fits = now.tokens.every((token) => pen.measureText(token.text).width <= size.width - 6);
  const names = now.tokens.map((token) => (fits ? token.text : shortened(pen, token.text, 84)));
  const longest = Math.max(0, ...names.map((name) => pen.measureText(name).width));
  const tall = fits ? 24 : Math.ceil(longest * Math.sin(SLANT)) + 22;
  const onto = penOn(labels, size.seen, tall),
    { first, last, x } = columns(layout, names.length);
  const steered = new Set(now.alone ? [] : now.reading?.steered || []);
  onto.beginPath();
  onto.rect(fits ? GUTTER : GUTTER - 30, 0, size.seen, tall);
  onto.clip();
  for (let token = first; token < Math.min(last + 1, names.length); token++) {
    const lit = token === focusToken(state),
      middle = x(token) + size.width / 2;
    if (steered.has(now.tokens[token].position)) {
      onto.fillStyle = lineColour(app.book.method(state.method).colour, state.theme === "dark");
      onto.fillRect(x(token) + 1, 0, size.width - 3, 3);
    }
    onto.save();
    onto.font = font(lit);
    onto.fillStyle = lit ? colours.ink : colours.soft;
    onto.translate(middle + (fits ? 0 : 3), fits ? 15 : 9);
    if (!fits) onto.rotate(-SLANT);
    onto.textAlign = fits ? "center" : "right";
    onto.textBaseline = "middle";
    onto.fillText(names[token], 0, 0);
    onto.restore();
  }
}

function shortened(pen, text, room) {
  if (pen.measureText(text).width <= room) return text;
  const letters = [...text];
  const wide = () => pen.measureText(letters.join("") + "…").width > room;
  while (letters.length > 1 && wide()) letters.pop();
  return letters.join("") + "…";
}

/** Token and layer under a pointer. */
function cellAt(app, layout, event) {
  const { width, height, tall } = layout.size,
    count = app.now().tokens.length;
  const token = Math.floor((event.offsetX - GUTTER + layout.scroller.scrollLeft) / width);
  const layer = Math.floor((tall + 2 - event.offsetY) / height);
  const there = event.offsetX >= GUTTER && token >= 0 && token < count;
  return {
    token: there ? token : null,
    layer: layer >= 0 ? (app.book.layers[layer] ?? null) : null,
  };
}

function pointAtCells(app, layout, canvas) {
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch" || !layout.size) return; // a finger taps, it does not hover
    const { token, layer } = cellAt(app, layout, event);
    app.store.set(
      token === null
        ? { overToken: null, overLayer: null }
        : { overToken: token, overLayer: layer },
    );
  });
  canvas.addEventListener("pointerleave", () =>
    app.store.set({ overToken: null, overLayer: null }),
  );
  canvas.addEventListener("click", (event) => {
    const { token, layer } = cellAt(app, layout, event);
    app.store.set({ token: token ?? app.store.state.token, layer: layer ?? app.store.state.layer });
  });
}

function showColumn(layout, token) {
  if (!layout.size) return;
  const { scroller, size } = layout,
    left = GUTTER + token * size.width;
  if (left - GUTTER < scroller.scrollLeft) scroller.scrollLeft = left - GUTTER - size.width;
  else if (left + size.width > scroller.scrollLeft + size.seen)
    scroller.scrollLeft = left + 2 * size.width - size.seen;
}

/* ---------------------------------------------------------------- charts */

/** A chart of lines as SVG. `places` are the x of each value, from 0 to 1; null breaks a line. */
function chart(spec) {
  const { width, height, places, names, lines, at, low, high, format, label, title, pick } = spec;
  const ticks = ticksOf(low, high, 4),
    widest = Math.max(...ticks.map((tick) => format(tick).length));
  const box = {
    left: 10 + widest * 6.6,
    right: width - 14,
    top: 10,
    bottom: height - (label ? 34 : 22),
  };
  const xs = places.map((place) => box.left + 6 + place * (box.right - box.left - 12));
  const y = (value) => box.bottom - ((value - low) / (high - low)) * (box.bottom - box.top);
  const viewBox = `0 0 ${width} ${height}`;
  const root = h("svg:svg", { width, height, viewBox, role: "img", "aria-label": title });
  for (const tick of ticks) {
    const name = { x: box.left - 6, y: y(tick) + 4, "text-anchor": "end" };
    root.append(across("sle-grid", box, y(tick)), h("svg:text", name, format(tick)));
  }
  for (const level of spec.levels || []) root.append(across("sle-level", box, y(level)));
  if (at !== null) {
    root.append(
      h("svg:line", { class: "sle-here", x1: xs[at], x2: xs[at], y1: box.top, y2: box.bottom }),
    );
  }
  axisNames(root, names, xs, box, at);
  const middle = { x: (box.left + box.right) / 2, y: height - 4, "text-anchor": "middle" };
  root.append(h("svg:text", middle, label));
  const inside = insideOf(box, width);
  root.append(inside);
  for (const line of lines) drawLine(inside, line, xs, y);
  for (const line of lines) drawPoints(root, line, xs, y, at, [low, high]);
  if (pick) root.append(pickArea(xs, box, pick));
  return root;
}

const across = (name, box, y) =>
  h("svg:line", { class: name, x1: box.left, x2: box.right, y1: y, y2: y });

/** The part of a chart beyond which no line is drawn; a little higher: lines are thick. */
function insideOf({ top, bottom }, width) {
  const [y, height] = [top - 4, bottom - top + 8];
  const viewBox = `0 ${y} ${width} ${height}`;
  return h("svg:svg", { class: "sle-inside", x: 0, y, width, height, viewBox });
}

/** Names below the axis, left out where they would touch; the present one is always there. */
function axisNames(root, names, xs, box, at) {
  const half = (name) => name.length * 3.4 + 4,
    taken = [];
  const close = Math.min(...xs.slice(1).map((x, i) => x - xs[i])),
    widest = Math.max(...names.map((name) => 2 * half(name)));
  const even = xs.length > 2 && xs.at(-1) - xs[0] - close * (xs.length - 1) < 1;
  // Layers get every second, third, ... name; strengths lie anywhere.
  const step = even ? Math.max(1, Math.ceil(widest / close)) : 1;
  const order = [...names.keys()].filter((i) => i % step === 0);
  if (at !== null) order.unshift(at);
  for (const i of order) {
    const [from, to] = [xs[i] - half(names[i]), xs[i] + half(names[i])];
    if (taken.some(([a, b]) => from < b && to > a)) continue;
    taken.push([from, to]);
    root.append(
      h(
        "svg:text",
        {
          class: i === at ? "sle-strong" : null,
          x: xs[i],
          y: box.bottom + 15,
          "text-anchor": "middle",
        },
        names[i],
      ),
    );
  }
}

function pathOf(values, xs, y) {
  let path = "",
    pen = false;
  values.forEach((value, i) => {
    if (!known(value)) {
      pen = false;
      return;
    }
    path += `${pen ? "L" : "M"}${xs[i].toFixed(1)} ${y(value).toFixed(1)}`;
    pen = true;
  });
  return path;
}

function drawLine(root, { values, low, high, colour, dash, thin }, xs, y) {
  if (low && high) {
    const there = xs.map((_, i) => i).filter((i) => known(low[i]) && known(high[i]));
    const points = [...there.map((i) => [i, high[i]]), ...there.reverse().map((i) => [i, low[i]])];
    const edge = points.map(([i, value]) => `${xs[i].toFixed(1)},${y(value).toFixed(1)}`).join(" ");
    if (edge) root.append(h("svg:polygon", { points: edge, fill: colour, opacity: 0.16 }));
  }
  root.append(
    h("svg:path", {
      class: "sle-line",
      d: pathOf(values, xs, y),
      stroke: colour,
      "stroke-width": thin ? 1.6 : 2.25,
      "stroke-dasharray": dash,
    }),
  );
}

/** The present point of a line, all points of `dots`, and those with no neighbour to join. */
function drawPoints(root, { values, colour, dots }, xs, y, at, [low, high]) {
  values.forEach((value, i) => {
    if (!known(value)) return;
    const single = !known(values[i - 1]) && !known(values[i + 1]);
    if (i !== at && !single && !dots) return;
    const beyond = value < low || value > high; // at the edge and hollow
    root.append(
      h("svg:circle", {
        class: beyond ? "sle-beyond" : i === at ? "sle-point" : null,
        cx: xs[i],
        cy: y(clamp(value, low, high)),
        r: i === at ? 5 : 3,
        fill: beyond ? null : colour,
        stroke: beyond ? colour : null,
      }),
    );
  });
}

/** A see-through area that tells which x is nearest to the pointer. */
function pickArea(xs, box, { over, choose }) {
  const index = (event) => {
    const at = event.clientX - event.currentTarget.getBoundingClientRect().left + box.left;
    return xs.reduce((best, x, i) => (Math.abs(x - at) < Math.abs(xs[best] - at) ? i : best), 0);
  };
  return h("svg:rect", {
    class: "sle-pick",
    x: box.left,
    y: box.top,
    width: Math.max(0, box.right - box.left),
    height: box.bottom - box.top,
    onpointermove: over && ((event) => event.pointerType !== "touch" && over(index(event))),
    onpointerleave: over && (() => over(null)),
    onclick: (event) => choose(index(event)),
  });
}

/** From a little below the smallest to a round number above the largest. */
function rangeOf(lines, include) {
  const values = [
    ...include,
    ...lines.flatMap((line) => [...line.values, ...(line.low || []), ...(line.high || [])]),
  ].filter(known);
  let low = Math.min(...values),
    high = Math.max(...values);
  if (low === high) [low, high] = low === 0 ? [0, 1] : [Math.min(0, low), Math.max(0, high)];
  const ticks = ticksOf(low, high, 4),
    step = ticks.length > 1 ? ticks[1] - ticks[0] : high - low;
  return [Math.floor(low / step + 1e-6) * step, Math.ceil(high / step - 1e-6) * step];
}

/** The lines of a chart with their values at the present place: key and read-out in one. */
function legend(entries) {
  return div(
    "sle-legend",
    entries.map(({ line, name, value, key, text }) =>
      span(
        "sle-entry",
        sample(line.colour, line.dash, Boolean(line.low)),
        h("span", { class: "sle-name", title: name }, name),
        key ? number(value, key, text ?? say(value)) : null,
      ),
    ),
  );
}

const spread = (count) =>
  Array.from({ length: count }, (_, i) => (count < 2 ? 0.5 : i / (count - 1)));

function methodLine(app, name, state, values) {
  const method = app.book.method(name) || {};
  return {
    values,
    colour: lineColour(method.colour, state.theme === "dark"),
    dash: dashOf(method.dash),
  };
}

/** The pointer and the click of a chart whose x are layers. */
function pickLayer(app) {
  return {
    over: (i) => app.store.set({ overLayer: i === null ? null : app.book.layers[i] }),
    choose: (i) => app.store.set({ layer: app.book.layers[i] }),
  };
}

/** A chart of values at each layer, its legend above it with the values at the present one. */
function layerChart(app, body, state, entries, { include, levels, format, title, signed }) {
  const { layers } = app.book,
    width = app.room(body),
    lines = entries.map(({ line }) => line);
  if (width < 80) return;
  if (!lines.some(({ values }) => values.some(known))) {
    empty(body, "Not measured.");
    return;
  }
  const at = app.book.layerIndex(focusLayer(state)),
    [low, high] = rangeOf(lines, include);
  for (const entry of entries) {
    const value = entry.line.values[at];
    Object.assign(entry, { value, key: entry.keyAt(layers[at]), text: say(value, signed) });
  }
  const sideways = { places: spread(layers.length), names: layers.map(String), at, label: "layer" };
  const upwards = { low, high, format, levels: levels.filter((level) => level > low) };
  body.replaceChildren(
    legend(entries),
    chart({ width, height: 256, ...sideways, ...upwards, lines, title, pick: pickLayer(app) }),
  );
}

const rounded = (tick) => plain(Number(tick.toPrecision(6)));

function empty(body, words) {
  body.replaceChildren(p("sle-missing", words));
}

/* ---------------------------------------------------------------- 4: distance to the prompt */

const REFERENCE_COLOURS = {
  "equivalent prompts": "#7f7f7f",
  "neutral prompts": "#b5a642",
  "any instruction": "#8a6d3b",
};

function distance(app) {
  const { store } = app,
    { element, note, body } = panel("distance", "Distance to the prompt", "4");
  note.textContent = "Relative RMSE: 0 is the prompt, 1 is doing nothing";
  store.watch([...WHICH, "layer", "overLayer", "width"], (state) =>
    layerChart(app, body, state, [...ownDistances(app, state), ...references(app, state)], {
      include: [0, 1.1],
      levels: [1],
      format: plain,
      title: "Relative RMSE to the prompt against layer",
    }),
  );
  return element;
}

/** The distance of the method, and of the one that is subtracted. */
function ownDistances(app, state) {
  const now = app.now();
  const own = [
    [state.method, now.shown, now.alone ? null : now.reading],
    [state.minus, now.minusKey, state.minus === "prompt" ? null : now.minus],
  ];
  return own
    .filter(([, , reading]) => reading?.rmse)
    .map(([name, key, reading]) => ({
      name,
      line: methodLine(app, name, state, reading.rmse),
      keyAt: (layer) => `rmse|${key}|${layer}`,
    }));
}

/** What other prompts come to: a distance that is as good as none, and that of any instruction. */
function references({ book }, { text, theme }) {
  return (book.curves[text] || []).map(({ name, rmse, low, high }) => {
    const colour = lineColour(REFERENCE_COLOURS[name], theme === "dark");
    const dash = REFERENCE_LINES[name] ?? "4 3";
    return {
      name,
      line: { values: rmse, low, high, thin: true, colour, dash },
      keyAt: (layer) => `curve|${text}|${name}|${layer}`,
    };
  });
}

/* ---------------------------------------------------------------- 5: next tokens */

function nextPanel(app) {
  const { store } = app,
    { element, note, body } = panel("next", "What comes next");
  const next = div("sle-words"),
    lens = div("sle-words");
  const heading = h("h4", { class: "sle-between" });
  body.append(next, heading, lens);
  store.watch([...WHICH, ...FOCUS], (state) => {
    const now = app.now(),
      token = focusToken(state),
      layer = app.book.layerIndex(focusLayer(state));
    const sides = [
      ["prompt", now.promptKey, now.prompt],
      ...(now.alone ? [] : [[state.method, now.shown, now.reading]]),
    ];
    note.textContent = `After ${quoted(now.tokens[token])}: change of log-probability, in nats`;
    heading.textContent = `Logit lens of the change, layer ${focusLayer(state)}`;
    wordLists(app, state, next, sides, 5, "next", (reading) => reading?.next?.[token], `${token}`);
    wordLists(
      app,
      state,
      lens,
      sides,
      3,
      "lens",
      (reading) => reading?.lens?.[layer]?.[token],
      `${app.book.layers[layer]}|${token}`,
    );
  });
  return element;
}

/** The words of the prompt and of the method beside each other, bars on one scale. */
function wordLists(app, state, box, sides, most, kind, find, where) {
  const found = sides.map(([, , reading]) => find(reading));
  const all = found.flatMap((each) => [
    ...(each?.up || []).slice(0, most),
    ...(each?.down || []).slice(0, most),
  ]);
  const longest = Math.max(1e-9, ...all.map(([, value]) => Math.abs(value ?? 0)));
  box.replaceChildren(
    ...sides.map(([method, key], i) => {
      const rows = ["up", "down"].flatMap((way) =>
        ranked(found[i]?.[way], most).map(({ id, value, rank }) =>
          wordRow(app.book.word(id), value, longest, way, `${kind}|${key}|${where}|${way}|${rank}`),
        ),
      );
      const style = app.book.method(method) || {},
        colour = lineColour(style.colour, state.theme === "dark");
      return h(
        "div",
        { class: "sle-wordlist", "data-method": method },
        h(
          "h5",
          {},
          sample(colour, dashOf(style.dash)),
          h("span", { class: "sle-name", title: method }, method),
        ),
        rows.length ? h("ul", {}, rows) : p("sle-missing", found[i] ? "no change" : "not measured"),
      );
    }),
  );
}

/** The first words of a list, largest change on top; `rank` is their place in the payload. */
const ranked = (words, most) =>
  (words || [])
    .slice(0, most)
    .map(([id, value], rank) => ({ id, value, rank }))
    .sort((a, b) => Math.abs(b.value) - Math.abs(a.value));

function wordRow(word, value, longest, way, key) {
  return h(
    "li",
    { class: `sle-${way}` },
    h("bdi", { class: "sle-word", title: word }, visible(word)),
    h("i", { style: `--share:${clamp(Math.abs(value ?? 0) / longest, 0, 1)}` }),
    number(value, key, say(value, true)),
  );
}

/** Spaces and line ends made seen, as the tokens of the text are. */
function visible(word) {
  return (
    word
      .replace(/^ +| +$/g, (spaces) => "·".repeat(spaces.length))
      .replaceAll("\n", "⏎")
      .replaceAll("\t", "⇥") || "∅"
  );
}

/* ---------------------------------------------------------------- 6: strength and effect */

function effectPanel(app) {
  const { book, store } = app,
    { element, note, body } = panel("effect", "Strength and effect", "4");
  store.watch([...WHICH, "width"], (state) => {
    const now = app.now(),
      width = app.room(body),
      rows = effectRows(book, state);
    note.textContent = "Broken line: the prompt. Click to take a strength.";
    if (width < 80) return;
    if (!rows.length)
      return empty(body, now.alone ? "The prompt has no strength." : "Not measured.");
    const strengths = rows.map((row) => row.strength),
      [from, to] = [Math.min(...strengths), Math.max(...strengths)];
    const at = strengths.includes(state.strength) ? strengths.indexOf(state.strength) : null;
    const common = {
      width,
      places: strengths.map((s) => (to === from ? 0.5 : (s - from) / (to - from))),
      names: strengths.map(plain),
      at,
      pick: { choose: (i) => app.choose({ strength: strengths[i] }) },
    };
    body.replaceChildren(
      ...effectChart(
        app,
        state,
        { ...common, height: 122, label: "" },
        rows,
        "kl",
        "KL, nats a token",
        say,
        now.prompt?.kl,
      ),
      ...effectChart(
        app,
        state,
        { ...common, height: 140, label: "strength" },
        rows,
        "recovered",
        "recovered of the prompt's effect",
        percent,
        1,
      ),
    );
  });
  return element;
}

const effectRows = (book, state) =>
  (book.effect[state.text] || [])
    .filter(
      (row) =>
        row.method === state.method && row.place === state.place && state.method !== "prompt",
    )
    .sort((a, b) => a.strength - b.strength);

function effectChart(app, state, common, rows, column, name, format, level) {
  const line = {
    ...methodLine(
      app,
      state.method,
      state,
      rows.map((row) => row[column]),
    ),
    dots: true,
  };
  const value = common.at === null ? null : rows[common.at][column];
  const key = `effect|${state.text}|${state.method}|${state.place}|${state.strength}|${column}`;
  // A method that overshoots recovers less than nothing, without end: below −100 % the line
  // leaves the chart.
  const floor = column === "recovered" ? -1 : 0,
    within = line.values.map((v) => (known(v) ? Math.max(v, floor) : v));
  const [low, high] = rangeOf([{ values: within }], [0, ...(known(level) ? [level] : [])]);
  const short = column === "recovered" ? percent : rounded;
  return [
    legend([{ line, name, value, key, text: format(value) }]),
    chart({
      ...common,
      lines: [line],
      levels: known(level) ? [level] : [],
      low,
      high,
      format: short,
      title: `${name} against strength`,
    }),
  ];
}

/* ---------------------------------------------------------------- 7: one token's way */

function wayPanel(app) {
  const { store } = app;
  const { element, heading, note, body } = panel("way", "One token through the layers", "4");
  store.watch([...CELLS, ...FOCUS, "width"], (state) => {
    const { measure, tokens } = app.now(),
      token = quoted(tokens[focusToken(state)]);
    heading.textContent = `${token} through the layers`;
    note.textContent = `${measure.label}, ${state.view}`;
    layerChart(app, body, state, ways(app, state), {
      include: [0],
      levels: [0],
      format: rounded,
      signed: measure.signed,
      title: `${measure.label} of ${token} against layer`,
    });
  });
  return element;
}

/** The token's value at each layer, of the prompt and of the method. */
function ways(app, state) {
  const now = app.now(),
    { book } = app,
    token = focusToken(state);
  const own = state.minus ? `${state.method} minus ${state.minus}` : state.method;
  const both = [
    ["prompt", "prompt", now.ofPrompt, now.promptKey],
    [own, state.method, now.ofMethod, now.methodKey],
  ];
  return both.slice(0, now.alone ? 1 : 2).map(([name, method, at, key]) => ({
    name,
    line: methodLine(
      app,
      method,
      state,
      book.layers.map((_, layer) => at(layer, token)),
    ),
    keyAt: (layer) => now.cellKey(key, book.layerIndex(layer), token),
  }));
}

/* ---------------------------------------------------------------- header, keep, how it was made */

function pageHeader(app) {
  const { book, store } = app,
    header = h("header", { class: "sle-header" });
  const words = div("sle-texts");
  header.append(div("sle-titles", h("h2", {}, book.title || "steerlens"), app.keep.button), words);
  store.watch(["text", "texts"], (state) => {
    const pick =
      book.texts.length < 2
        ? null
        : field(
            "Text",
            dropdown(
              "Text",
              book.texts.map((text, value) => ({
                value,
                text: `${value + 1}: ${text.question} (${text.instruction})`,
              })),
              state.text,
              (text) => app.choose({ text, token: 0, overToken: null }),
            ),
          );
    const { question, instruction } = book.texts[state.text];
    const both =
      app.live && book.live?.questions
        ? app.line.form(question, instruction)
        : div("sle-said", said("Question", question), said("Instruction", instruction));
    words.replaceChildren(...[pick, both].filter(Boolean));
  });
  return header;
}

const said = (label, text) =>
  div(
    "sle-field",
    span("sle-label", label),
    h("p", { class: "sle-quote", dir: "auto" }, text || "none"),
  );

/** The button, and what it makes: the state as JSON, and Python that makes the same. */
function keeper(app) {
  const python = h("pre", { tabindex: 0 }),
    json = h("pre", { tabindex: 0 });
  const close = h(
    "button",
    {
      type: "button",
      onclick: () => {
        box.hidden = true;
        button.focus();
      },
    },
    "Close",
  );
  const box = h(
    "section",
    { class: "sle-kept", hidden: true, "aria-label": "Kept" },
    div("sle-keptpart", h("h4", {}, "In Python", copyButton(python)), python),
    div("sle-keptpart", h("h4", {}, "As JSON", copyButton(json)), json),
    close,
  );
  const show = (lines, state) => {
    python.textContent = lines;
    json.textContent = state;
    box.hidden = false;
  };
  const button = h(
    "button",
    {
      type: "button",
      class: "sle-keep",
      onclick: () => {
        const state = kept(app.store.state);
        if (app.live) app.live.send({ type: "keep", state });
        else show(pythonOf(state), JSON.stringify(state, null, 1));
      },
    },
    "Keep this view",
  );
  return { button, box, show };
}

function copyButton(pre) {
  const button = h(
    "button",
    {
      type: "button",
      onclick: async () => {
        try {
          await navigator.clipboard.writeText(pre.textContent);
          button.textContent = "Copied";
        } catch {
          // A page from a disk may not write to the clipboard: the text is selected for Ctrl+C.
          getSelection().selectAllChildren(pre);
          button.textContent = "Selected";
        }
        setTimeout(() => {
          button.textContent = "Copy";
        }, 1500);
      },
    },
    "Copy",
  );
  return button;
}

/** Python that shows the same state anew, with the methods of whoever made the page. */
function pythonOf(state) {
  const float = (value) => (Number.isInteger(value) ? value.toFixed(1) : String(value));
  const written = (name, value) => (name === "strength" ? float(value) : JSON.stringify(value));
  const given = Object.entries(state).filter(([, value]) => value !== null);
  const fields = given.map(([name, value]) => `${name}=${written(name, value)}`).join(", ");
  return [
    "import steerlens as sl",
    "",
    "# model, steerings and pairs as they were given to sl.explore",
    "explorer = sl.explore(model, steerings=steerings, pairs=pairs)",
    `explorer = explorer.set(${fields})`,
  ].join("\n");
}

function footer(app) {
  const made = Object.entries(app.book.made || {});
  return h(
    "footer",
    { class: "sle-footer" },
    h(
      "span",
      {},
      "Point at a token, or use the arrow keys: left and right for tokens, up and down for layers.",
    ),
    made.length
      ? h(
          "details",
          {},
          h("summary", {}, "How this was made"),
          h(
            "dl",
            {},
            made.flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, String(text))]),
          ),
        )
      : null,
  );
}

/* ---------------------------------------------------------------- the line to Python */

const PATIENCE = 120; // ms that a slider must rest before Python is asked

/** Asks Python for what the book lacks, and writes its answers into the book. */
function lineToPython(app) {
  const { book, store, live } = app,
    { bar, alert, busy, complain } = newsOf(live);
  let last = 0,
    timer = null;
  const ask = (more = {}) => {
    clearTimeout(timer);
    complain(null);
    busy("Asking the model", null);
    const state = { ...kept(store.state), ...texts(book, store.state), ...more };
    live.send({ type: "ask", id: ++last, state });
  };
  const lacks = () => isIncomplete(book, store.state);
  const rested = () => {
    clearTimeout(timer);
    if (lacks()) timer = setTimeout(ask, PATIENCE);
  };
  const hear = (message) => {
    const isLast = message.id === undefined || message.id === last;
    answer({ ...app, busy, complain, isLast }, message);
    // The last reading has all parts; until it is there more is to come.
    if (isLast && (message.type === "reading" || message.type === "stream") && !lacks()) busy(null);
  };
  const form = (question, instruction) => questionForm(question, instruction, ask);
  const start = () => {
    store.watch(["text", "method", "place", "strength", "minus"], rested);
    busy(null);
    rested();
    return live.listen(hear);
  };
  return { bar, alert, form, start, stop: () => clearTimeout(timer) };
}

/** Where Python's progress and its errors are shown. */
function newsOf(live) {
  const text = h("span", {}),
    meter = h("progress", { max: 1, value: 0, "aria-label": "Progress" });
  const stop = h("button", { type: "button", onclick: () => live.send({ type: "stop" }) }, "Stop");
  // Always there, so that nothing jumps while a slider moves.
  const bar = h("div", { class: "sle-progress", role: "status" }, text, meter, stop);
  const alert = h("div", { class: "sle-alert", hidden: true, role: "alert" });
  const busy = (words, share) => {
    bar.classList.toggle("sle-idle", words === null);
    text.textContent = words ?? "All that is shown is read.";
    if (known(share)) meter.value = share;
    else meter.removeAttribute("value");
  };
  const complain = (words) => {
    alert.hidden = !words;
    alert.textContent = words || "";
  };
  return { bar, alert, busy, complain };
}

/** Whether Python has more to tell of this state: numbers, the text, or the logit lens. */
function isIncomplete(book, state) {
  const reading = book.readings[book.keyOf(state)],
    prompt = book.readings[book.promptKey(state.text)],
    minus = book.minusKey(state);
  if (!reading || (minus && !book.readings[minus])) return true;
  if (!reading.lens || !prompt?.lens) return true;
  return reading.text_state === "none" || reading.text_state === "streaming";
}

const texts = (book, state) => ({
  question: book.texts[state.text].question,
  instruction: book.texts[state.text].instruction,
});

function questionForm(question, instruction, run) {
  const [ask, say_] = [question, instruction].map((value, i) =>
    h("input", { type: "text", dir: "auto", value, "aria-label": i ? "Instruction" : "Question" }),
  );
  return h(
    "form",
    {
      class: "sle-form",
      onsubmit: (event) => {
        event.preventDefault();
        run({ question: ask.value, instruction: say_.value });
      },
    },
    field("Question", ask),
    field("Instruction", say_),
    h("button", { type: "submit", class: "sle-run" }, "Run"),
  );
}

/** One answer of Python. Readings of an older question are kept too: they are true as well. */
function answer(app, message) {
  const { book, store, busy, complain, isLast } = app;
  const heard = () => store.set({ heard: store.state.heard + 1 });
  const over = (words) => {
    if (!isLast) return;
    busy(null);
    complain(words);
    quiet(book);
    heard();
  };
  const answers = {
    progress: () => isLast && busy(message.text, message.share),
    vocabulary: () => {
      Object.assign(book.vocabulary, message.words);
      heard();
    },
    text: () => introduce(app, message),
    reading: () => {
      book.readings[message.key] = message.reading;
      if (message.effect) addEffect(book, message.key, message.effect);
      heard();
    },
    stream: () => write(app, message),
    stopped: () => over(null),
    kept: () => app.keep.show(message.python, message.json),
    error: () => over(message.text),
  };
  if (Object.hasOwn(answers, message.type)) answers[message.type]();
}

/** A text with its tokens and what the prompt did; it is shown if it is the one last asked for. */
function introduce({ book, store, isLast }, { index, text, curves, prompt }) {
  book.texts[index] = text;
  book.curves[index] = curves || [];
  book.readings[book.promptKey(index)] = prompt;
  const { state } = store,
    moves = isLast && state.text !== index;
  store.set({
    ...(moves ? { text: index, token: 0, overToken: null } : {}),
    texts: state.texts + 1,
    heard: state.heard + 1,
  });
}

/** What the method has written so far. */
function write({ book, store }, { key, text, done }) {
  const reading = book.readings[key];
  if (!reading) return;
  book.readings[key] = { ...reading, text, text_state: done ? "done" : "streaming" };
  store.set({ written: store.state.written + 1 });
}

/** After a stop nothing is being written any more. */
function quiet(book) {
  for (const [key, reading] of Object.entries(book.readings)) {
    if (reading.text_state === "streaming") book.readings[key] = { ...reading, text_state: "done" };
  }
}

function addEffect(book, key, effect) {
  const text = key.slice(0, key.indexOf("|"));
  const same = (row) =>
    row.method === effect.method && row.place === effect.place && row.strength === effect.strength;
  book.effect[text] = [...(book.effect[text] || []).filter((row) => !same(row)), effect];
}

/* ---------------------------------------------------------------- the theme */

/** Dark or light, as the notebook around says, or else the system. */
function themeNow() {
  const body = document.body,
    root = document.documentElement;
  if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "true" ? "light" : "dark";
  const said = [...body.classList, ...root.classList, body.dataset.theme, root.dataset.theme].join(
    " ",
  );
  if (/\b(vscode-)?(dark|high-contrast)\b/.test(said) && !/high-contrast-light/.test(said))
    return "dark";
  if (/\b(vscode-)?light\b/.test(said)) return "light";
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

/** Calls `change` whenever the theme may have changed; returns what ends that. */
function watchTheme(change) {
  const system = matchMedia("(prefers-color-scheme: dark)"),
    toLight = () => change("light"),
    back = () => change(themeNow());
  const observer = new MutationObserver(back);
  for (const element of [document.body, document.documentElement]) {
    observer.observe(element, {
      attributes: true,
      attributeFilter: ["class", "data-theme", "data-jp-theme-light"],
    });
  }
  system.addEventListener("change", back);
  addEventListener("beforeprint", toLight); // canvases cannot be recoloured by a style sheet
  addEventListener("afterprint", back);
  return () => {
    observer.disconnect();
    system.removeEventListener("change", back);
    removeEventListener("beforeprint", toLight);
    removeEventListener("afterprint", back);
  };
}

/* ---------------------------------------------------------------- all together */

/** What the panels share: the book, the state, and the few ways to change it. */
function makeApp(payload, live) {
  const book = new Book(payload, live);
  const store = makeStore({
    ...settled(book, payload.state || {}),
    overToken: null,
    overLayer: null,
    theme: themeNow(),
    width: 0,
    heard: 0,
    written: 0,
    texts: 0,
  });
  const app = { book, store, live, uid: `sle-${Math.random().toString(36).slice(2, 9)}` };
  const used = {}; // where each method was left, so that going back to it finds it there
  let cached = null,
    cachedFor = null;
  app.now = () => {
    const { state } = store,
      which = [...CELLS.map((name) => state[name]), state.written].join("\n");
    if (which !== cachedFor) [cached, cachedFor] = [present(book, state, cached), which];
    return cached;
  };
  // Widths are measured once for a width of the page: asking in between would lay it out each time.
  const widths = new Map();
  let widthsFor = null;
  app.room = (element) => {
    if (widthsFor !== store.state.width) widths.clear();
    widthsFor = store.state.width;
    if (!widths.has(element)) widths.set(element, Math.floor(element.clientWidth));
    return widths.get(element);
  };
  app.choose = (changes) => store.set(settled(book, { ...store.state, ...changes }));
  app.chooseMethod = (method) => {
    const { method: old, place, strength } = store.state;
    used[old] = { place, strength };
    const first = nearest(book.strengths(store.state.text, method, 0), 1);
    app.choose({ strength: book.isLive ? first : strength, ...used[method], method });
  };
  app.steps = (element) => element.addEventListener("keydown", (event) => step(app, event));
  return app;
}

/** Arrow keys: left and right to other tokens, up and down to other layers. */
function step(app, event) {
  const { store, book } = app,
    { token, layer } = store.state,
    last = app.now().tokens.length - 1;
  const to = { ArrowLeft: token - 1, ArrowRight: token + 1, Home: 0, End: last }[event.key];
  const up = { ArrowUp: 1, ArrowDown: -1 }[event.key];
  if ((to === undefined && !up) || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  event.stopPropagation(); // a notebook moves its cells with the same keys
  const index = clamp(book.layerIndex(layer) + (up || 0), 0, book.layers.length - 1);
  store.set({
    token: clamp(to ?? token, 0, Math.max(0, last)),
    layer: book.layers[index],
    overToken: null,
    overLayer: null,
  });
}

/** Hover and tap on anything that stands for a token, in whichever panel. */
function pointAtTokens(app, root) {
  const tokenOf = (event) => {
    const element = event.target.closest?.("[data-token]");
    return element ? Number(element.dataset.token) : null;
  };
  root.addEventListener("pointerover", (event) => {
    if (event.pointerType === "touch" || event.target.closest("canvas, .sle-pick")) return;
    app.store.set({ overToken: tokenOf(event) });
  });
  root.addEventListener("pointerleave", () => app.store.set({ overToken: null, overLayer: null }));
  root.addEventListener("click", (event) => {
    const token = tokenOf(event);
    if (token !== null) app.store.set({ token });
  });
}

/** Draws a payload into `el`; returns what takes it away again. */
export function mount(el, payload, live = null) {
  if (payload?.format !== 1) {
    el.textContent = `This explorer reads format 1, not ${payload?.format}: make the page anew.`;
    return () => el.replaceChildren();
  }
  const app = makeApp(payload, live),
    root = h("div", {
      class: "steerlens-explorer",
      role: "region",
      "aria-label": payload.title || "steerlens",
    });
  app.line = live ? lineToPython(app) : null;
  app.keep = keeper(app);
  app.store.watch(["theme"], (state) => {
    root.dataset.theme = state.theme;
  });
  app.store.watch([...WHICH], () =>
    root.classList.toggle("sle-waits", Boolean(live) && app.now().waits),
  );
  const parts = [
    pageHeader(app),
    controls(app),
    ...(live ? [app.line.bar, app.line.alert] : []),
    app.keep.box,
    headline(app),
    div("sle-main", div("sle-left", completions(app), tokenPanel(app)), nextPanel(app)),
    mapPanel(app),
    distance(app),
    effectPanel(app),
    wayPanel(app),
    footer(app),
  ];
  const page = div("sle-page", ...parts),
    spoken = h("div", { class: "sle-spoken", "aria-live": "polite" });
  root.append(page, spoken);
  el.replaceChildren(root);
  speak(app, spoken);
  pointAtTokens(app, root);
  const ends = [watchTheme((theme) => app.store.set({ theme })), watchWidth(app, page)];
  app.store.drawAll();
  if (live) ends.push(app.line.start(), app.line.stop);
  return () => {
    ends.forEach((end) => end());
    root.remove();
  };
}

/** For those who listen: the value where the keyboard is. */
function speak(app, spoken) {
  let first = true;
  app.store.watch(["token", "layer"], ({ token, layer, method }) => {
    const now = app.now(),
      at = app.book.layerIndex(layer);
    const words = (of) => say(of(at, token), now.measure.signed);
    const values = [
      `prompt ${words(now.ofPrompt)}`,
      now.alone ? null : `${method} ${words(now.ofMethod)}`,
    ];
    const where = `${quoted(now.tokens[token])}, layer ${layer}`;
    if (!first) spoken.textContent = `${where}: ${values.filter(Boolean).join(", ")}`;
    first = false;
  });
}

/** Charts are drawn for their width, and after the observer's own call, which would complain. */
function watchWidth(app, page) {
  let frame = null;
  const observer = new ResizeObserver(() => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => app.store.set({ width: page.clientWidth }));
  });
  observer.observe(page);
  return () => {
    observer.disconnect();
    cancelAnimationFrame(frame);
  };
}

/** anywidget's side: the payload is a value of the widget, everything else are messages. */
function render({ model, el }) {
  const live = {
    send: (message) => model.send(message),
    listen(callback) {
      model.on("msg:custom", callback);
      return () => model.off("msg:custom", callback);
    },
  };
  let end = mount(el, model.get("payload"), live);
  const anew = () => {
    end();
    end = mount(el, model.get("payload"), live);
  };
  model.on("change:payload", anew);
  return () => {
    model.off("change:payload", anew);
    end();
  };
}

export default { render };
