/* The constraint line of a chart: drawn over it, moved by dragging, by arrow keys, or by typing its value. */
"use strict";
((NaoRay) => {
  const {h} = NaoRay;

  class Limit {
    /** A line on the x axis of a panel; `onmove(value)` is called with its new value, null where there is none. */
    constructor(panel, label, onmove) {
      Object.assign(this, {panel, value: null, onmove});
      this.line = h("div", {
        class: "limit",
        role: "slider",
        tabindex: "0",
        "aria-label": `Limit of ${label}`,
        "aria-orientation": "horizontal",
        hidden: true,
      });
      this.input = h("input", {
        type: "text",
        inputmode: "decimal",
        size: "9",
        placeholder: "no limit",
        onchange: () => this.set(read(this.input.value)),
      });
      this.field = h("label", {class: "at-most"}, `at most `, this.input, ` ${label}`);
      panel.box.append(this.line);
      panel.onplace = () => this.place();
      this.#listen();
    }

    #listen() {
      const {line, panel} = this;
      let isHeld = false;
      line.addEventListener("pointerdown", (event) => {
        isHeld = true;
        line.setPointerCapture(event.pointerId);
        event.preventDefault();
        line.focus();
      });
      line.addEventListener("pointermove", (event) => {
        if (isHeld) this.set(panel.valueAt("x", event.clientX - panel.box.getBoundingClientRect().left));
      });
      line.addEventListener("pointerup", () => (isHeld = false));
      line.addEventListener("keydown", (event) => {
        const steps = {ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10}[event.key];
        if (!steps) return;
        event.preventDefault();
        this.set(panel.valueAt("x", panel.pixelOf("x", this.value) + (steps * panel.area.width) / 100));
      });
    }

    /** Sets the value, within the axis; NaN or null: no limit. */
    set(value) {
      const [low, high] = this.panel.shown.axes.x.extent;
      this.value = Number.isFinite(value) ? Math.min(Math.max(value, low), high) : null;
      this.input.value = this.value === null ? "" : NaoRay.large(this.value);
      this.onmove(this.value);
      this.place();
    }

    /** Puts the line where its value is now. */
    place() {
      const {line, panel, value} = this;
      line.hidden = value === null || !panel.shown?.axes || panel.shown.empty;
      if (line.hidden) return;
      const {top, height} = panel.area,
        [low, high] = panel.shown.axes.x.extent;
      Object.assign(line.style, {left: `${panel.pixelOf("x", value)}px`, top: `${top}px`, height: `${height}px`});
      for (const [name, text] of [
        ["valuemin", low],
        ["valuemax", high],
        ["valuenow", value],
      ])
        line.setAttribute(`aria-${name}`, text);
      line.setAttribute("aria-valuetext", NaoRay.large(value));
    }
  }

  /** A number as people type it: 3.3e6, 3,300,000, 3.3 M. */
  function read(text) {
    const found = /^([\d.,]+(?:e[+-]?\d+)?)\s*([kMGT]?)$/i.exec(text.trim());
    return found
      ? Number(found[1].replaceAll(",", "")) * {"": 1, k: 1e3, m: 1e6, g: 1e9, t: 1e12}[found[2].toLowerCase()]
      : NaN;
  }

  Object.assign(NaoRay, {Limit, readAmount: read});
})((window.NaoRay ??= {}));
