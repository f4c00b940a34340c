/* A chart with all that belongs to it: a heading, a sentence that says what it shows, a legend, the picture, and its
   figures as a table. Clouds can be pointed at, clicked, and dragged over to select. */
"use strict";
((NaoRay) => {
  const {h, put, css} = NaoRay;
  const GRID = {left: 62, right: 18, top: 26, bottom: 44, outerBoundsMode: "none"};
  const NEAR = 14; // pixels between the pointer and the trial it means

  /** Bounds with some air around [low, high]; of a log axis in proportion. */
  function airy([low, high], log = false) {
    if (log) return [low / (high / low) ** 0.04 / 1.001, high * (high / low) ** 0.04 * 1.001];
    const air = 0.05 * (high - low) || 0.02 * Math.max(Math.abs(high), 1e-3);
    return [low - air, high + air];
  }

  const plain = (value) => (Math.abs(value) >= 1e4 ? NaoRay.large(value) : String(+value.toPrecision(6)));

  function axisOption(axis, isY) {
    const [min, max] = axis.extent ?? [null, null];
    const quiet = css("--muted");
    return {
      type: axis.categories ? "category" : axis.log ? "log" : "value",
      data: axis.categories,
      inverse: axis.inverse,
      min,
      max,
      name: axis.name,
      nameLocation: isY ? "end" : "middle",
      nameGap: isY ? 10 : 27,
      nameTextStyle: {
        color: quiet,
        fontSize: 12,
        align: isY ? "left" : "center",
        padding: isY ? [0, 0, 0, 4 - (axis.room ?? GRID.left)] : 0,
      },
      axisLine: {onZero: false, show: !isY, lineStyle: {color: css("--line")}},
      axisTick: {show: false},
      minInterval: axis.whole ? 1 : 0,
      interval: axis.interval,
      splitNumber: isY ? 4 : 6,
      axisLabel: {
        color: quiet,
        fontSize: 12,
        hideOverlap: true,
        showMinLabel: axis.extent ? false : null,
        showMaxLabel: axis.extent ? false : null,
        formatter: axis.format ?? (axis.categories ? null : plain),
        width: axis.categories && isY ? axis.room - 12 : null,
        overflow: "truncate",
      },
      splitLine: {show: !axis.categories && (isY || axis.grid !== false), lineStyle: {color: css("--faint")}},
    };
  }

  /** A series of lines as people see it: {data, colour, step, dashed, dots, width}. */
  const lineSeries = (line) => ({
    type: "line",
    zlevel: 2,
    name: line.name,
    data: line.data,
    step: line.step ? "end" : false,
    showSymbol: Boolean(line.dots),
    showAllSymbol: true,
    symbol: "circle",
    symbolSize: line.dots ?? 0,
    silent: line.silent ?? true,
    lineStyle: {
      color: css(line.colour),
      width: line.width ?? 2,
      type: line.dashed ? [5, 4] : "solid",
      opacity: line.opacity ?? 1,
    },
    itemStyle: {color: css(line.colour)},
    areaStyle: line.area ? {color: css(line.colour), opacity: 0.18} : null,
    emphasis: {disabled: true},
    z: line.z ?? 4,
  });

  const legendOf = (entries) =>
    h(
      "ul",
      {class: "legend"},
      entries.map(({name, colour, form}) =>
        h(
          "li",
          {},
          h("i", {class: `swatch ${form ?? "line"}`, style: `--of:var(${colour})`, "aria-hidden": "true"}),
          name,
        ),
      ),
    );

  class Panel {
    /** `title`; `height` in pixels; `class` of the card. */
    constructor(parent, title, options = {}) {
      this.summary = h("p", {class: "summary"});
      this.legend = h("div");
      this.canvas = h("canvas", {"aria-hidden": "true"});
      this.plot = h("div", {class: "plot"});
      this.tip = h("div", {class: "tip", hidden: true});
      this.box = h(
        "div",
        {class: "chart", role: "img", style: `height:${options.height ?? 300}px`},
        this.canvas,
        this.plot,
        this.tip,
      );
      this.note = h("p", {class: "note"});
      this.figures = h(
        "details",
        {class: "figures", ontoggle: () => this.#fill()},
        h("summary", {}, "Figures as a table"),
        h("div"),
      );
      this.extra = h("div", {class: "extra"});
      this.heading = h("h2", {}, title);
      this.root = h(
        "figure",
        {class: `card ${options.class ?? ""}`},
        h("figcaption", {}, this.heading, this.summary),
        this.extra,
        this.legend,
        this.box,
        this.note,
        this.figures,
      );
      this.title = title;
      parent.append(this.root);
      this.watcher = new ResizeObserver(() => this.#resize());
      this.watcher.observe(this.box);
      NaoRay.pointing?.(this);
    }

    /** Shows figures: {summary, legend, axes, lines, series, cloud, tooltip, note, table} or {empty: why there is none}. */
    show(shown) {
      this.shown = shown;
      put(this.summary, shown.empty ?? shown.summary ?? "");
      put(this.legend, shown.legend?.length > 0 && !shown.empty ? legendOf(shown.legend) : null);
      put(this.note, shown.note ?? "");
      this.note.hidden = !shown.note;
      this.box.hidden = this.legend.hidden = this.extra.hidden = Boolean(shown.empty);
      this.figures.hidden = Boolean(shown.empty) || !shown.table;
      if (shown.empty) return;
      if (shown.height) this.box.style.height = `${shown.height}px`;
      this.box.setAttribute("aria-label", `${this.title}. ${this.summary.textContent}`);
      this.#draw();
      this.#fill();
    }

    #draw() {
      if (!this.box.clientWidth) return;
      this.chart ??= echarts.init(this.plot);
      if (this.chart.getWidth() !== this.box.clientWidth || this.chart.getHeight() !== this.box.clientHeight)
        this.chart.resize();
      const {axes, lines = [], series = [], tooltip} = this.shown;
      const grid = {...GRID, ...(axes.y.room && {left: axes.y.room}), ...(axes.right && {right: axes.right})};
      const tips = tooltip && {
        ...tooltip,
        confine: true,
        backgroundColor: css("--card"),
        borderColor: css("--line"),
        textStyle: {color: css("--ink"), fontSize: 13},
        axisPointer: {
          type: tooltip.trigger === "axis" && axes.x.categories ? "shadow" : "line",
          lineStyle: {color: css("--line")},
          shadowStyle: {color: css("--faint"), opacity: 0.5},
        },
      };
      const option = {
        animation: false,
        grid,
        xAxis: axisOption(axes.x, false),
        yAxis: axisOption(axes.y, true),
        series: [...lines.map(lineSeries), ...series.map((one) => ({zlevel: 2, ...one}))],
        tooltip: tips ?? {show: false},
        textStyle: {fontFamily: css("--font")},
      };
      this.chart.setOption(option, {notMerge: true});
      this.#paint();
    }

    /** The plot within the chart, in pixels. */
    get area() {
      const {axes} = this.shown,
        left = axes.y.room ?? GRID.left,
        top = GRID.top;
      return {
        left,
        top,
        width: this.box.clientWidth - left - (axes.right ?? GRID.right),
        height: this.box.clientHeight - top - GRID.bottom,
      };
    }

    #paint() {
      const {cloud, paint} = this.shown,
        {left, top, width, height} = this.area;
      this.canvas.hidden = !(cloud || paint);
      if (this.canvas.hidden || width <= 0) return;
      Object.assign(this.canvas.style, {left: `${left}px`, top: `${top}px`});
      if (cloud) this.at = NaoRay.paintCloud(this.canvas, cloud, width, height);
      else paint(this.canvas, width, height);
    }

    #resize() {
      if (this.shown && !this.shown.empty) this.#draw();
      this.onplace?.();
    }

    #fill() {
      if (this.figures.open && this.shown?.table)
        put(this.figures.lastChild, NaoRay.table(`${this.title}: figures`, ...this.shown.table()));
    }

    /** The place in cloud.rows of the trial nearest to a point of the chart, or -1. */
    nearest(x, y) {
      if (!this.at || !this.shown?.cloud) return -1;
      const {left, top} = this.area;
      let best = -1,
        least = NEAR * NEAR;
      for (let k = 0; k < this.at.x.length; k += 1) {
        const distance = (this.at.x[k] + left - x) ** 2 + (this.at.y[k] + top - y) ** 2;
        if (distance < least) [best, least] = [k, distance];
      }
      return best;
    }

    /** The value of an axis at a pixel of the chart; and the pixel of a value. */
    valueAt(name, pixel) {
      const axis = this.shown.axes[name],
        {left, top, width, height} = this.area;
      const part = name === "x" ? (pixel - left) / width : 1 - (pixel - top) / height,
        [low, high] = axis.extent;
      return axis.log ? low * (high / low) ** part : low + part * (high - low);
    }

    pixelOf(name, value) {
      const axis = this.shown.axes[name],
        {left, top, width, height} = this.area,
        [low, high] = axis.extent;
      const part = axis.log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
      return name === "x" ? left + part * width : top + (1 - part) * height;
    }

    dispose() {
      this.watcher.disconnect();
      this.chart?.dispose();
    }
  }

  Object.assign(NaoRay, {Panel, airy});
})((window.NaoRay ??= {}));
