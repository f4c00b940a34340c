/* Elements and texts: how every view writes what it shows. Everything of the page hangs on the one global `NaoRay`. */
"use strict";
((NaoRay) => {
  /** An element: h("p", {class: "note", onclick: f}, "text", child, ...); null children are left out. */
  function h(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value === true) element.setAttribute(name, "");
      else if (value !== false && value != null) element.setAttribute(name, value);
    }
    element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
    return element;
  }

  /** Replaces what an element holds, unless the new content reads the same: nothing flickers, focus
   *  stays. Returns whether it was new. */
  function put(element, ...children) {
    const next = h("div", {}, ...children);
    if (element.innerHTML === next.innerHTML) return false;
    element.replaceChildren(...next.childNodes);
    return true;
  }

  const isMissing = (value) => value == null || Number.isNaN(value);

  /** A count with its thousands set apart. */
  const count = (value) => (isMissing(value) ? "–" : Math.round(value).toLocaleString("en"));

  /** "1 trial", "2 trials". */
  const counted = (value, word) => `${count(value)} ${word}${value === 1 ? "" : "s"}`;

  /** A number in four digits. */
  function number(value, digits = 4) {
    if (isMissing(value)) return "–";
    const size = Math.abs(value);
    if (size >= 1e15 || (size > 0 && size < 1e-4)) return value.toExponential(2);
    if (size >= 1e4) return value.toLocaleString("en", {maximumFractionDigits: 0});
    if (size >= 1e3) return Number(value.toPrecision(Math.max(digits, 4))).toLocaleString("en");
    return Number.isInteger(value) ? String(value) : value.toPrecision(digits);
  }

  /** A large number with k, M, G: 3.31 M. */
  function large(value) {
    if (isMissing(value)) return "–";
    for (const [size, unit] of [
      [1e12, "T"],
      [1e9, "G"],
      [1e6, "M"],
      [1e3, "k"],
    ])
      if (Math.abs(value) >= size) return `${(value / size).toPrecision(3)} ${unit}`;
    return number(value, 3);
  }

  /** Seconds as people say them. */
  function duration(seconds) {
    if (isMissing(seconds)) return "–";
    if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
    const minutes = Math.round(seconds / 60);
    if (minutes < 60) return `${minutes} min`;
    const hours = Math.floor(minutes / 60);
    return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
  }

  /** An axis of seconds from 0 to an end: ticks at whole seconds, minutes, hours or days. */
  function timeAxis(name, end) {
    const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400];
    const interval = steps.find((step) => end / step <= 7) ?? 86400 * Math.ceil(end / 86400 / 7);
    const [size, unit] = [
      [86400, "d"],
      [3600, "h"],
      [60, "min"],
      [1, "s"],
    ].find(([one]) => interval >= one);
    return {
      name,
      extent: [0, end],
      interval: end > 0 ? interval : null,
      format: (value) => `${+(value / size).toFixed(1)} ${unit}`,
    };
  }

  const share = (value) => (isMissing(value) ? "–" : `${(100 * value).toPrecision(value < 0.0995 ? 2 : 3)} %`);

  /** Seconds since 1970 as local date and time. */
  function moment(seconds) {
    if (isMissing(seconds)) return "–";
    const at = new Date(1000 * seconds),
      two = (value) => String(value).padStart(2, "0");
    return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}`;
  }

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  /** A table: headings; rows of texts, elements, or {sort, text}; numeric columns are set to the right. */
  function table(caption, headings, rows, options = {}) {
    const textOf = (value) => value?.textContent ?? String(value ?? "");
    const isNumber = headings.map(
      (_, column) => rows.length > 0 && rows.every((row) => /^([-–\d.,]+( [kMGTs%])?)?$/.test(textOf(row[column]))),
    );
    const cells = (row) =>
      row.map((value, column) =>
        h("td", {class: isNumber[column] ? "number" : options.mono?.includes(column) ? "mono" : null}, value ?? "–"),
      );
    return h(
      "div",
      {class: "scroll", tabindex: "0", role: "region", "aria-label": caption},
      h(
        "table",
        {class: options.fit ? "fit" : null},
        h("caption", {class: "hidden"}, caption),
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            headings.map((text, column) => h("th", {scope: "col", class: isNumber[column] ? "number" : null}, text)),
          ),
        ),
        h(
          "tbody",
          {},
          rows.map((row) => h("tr", {}, cells(row))),
        ),
      ),
    );
  }

  /** A card of the page with a heading. */
  const card = (title, ...children) => h("section", {class: "card"}, title && h("h2", {}, title), ...children);

  /** The link to a trial's page. */
  const trialLink = (pool, trial) => h("a", {href: `#trial/${pool.id}/${trial}`}, String(trial));

  Object.assign(NaoRay, {
    h,
    put,
    isMissing,
    count,
    counted,
    number,
    large,
    duration,
    timeAxis,
    share,
    moment,
    css,
    table,
    card,
    trialLink,
    views: [],
  });
})((window.NaoRay ??= {}));
