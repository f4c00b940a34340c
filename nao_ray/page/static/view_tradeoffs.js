/* Size, multiply-adds and latency against the score, with the Pareto front and a limit that can be moved. */
"use strict";
((NaoRay) => {
  const {h, put, Panel, Limit, stats, large, selection} = NaoRay;
  const COSTS = [
    ["num_params", "Parameters and score", "parameters"],
    ["macs", "Multiply-adds and score", "multiply-adds"],
    ["latency_ms", "Latency and score", "ms latency"],
  ];

  /** The limit on a cost that the search itself was given, or null. */
  function given(pool, cost) {
    const found = pool.info.constraints?.[cost];
    return found ? found[1] : null;
  }

  /** Rows of the trials that none beats in all of a search's objectives; where they are two, the front of a pair. */
  function wholeFront(pool, column) {
    const covered = pool.report?.covered;
    if (!covered || covered.objectives.length < 3) return [];
    const rows = covered.trials.map((trial) => pool.rowOf(trial));
    return selection.keep(
      pool,
      rows.filter((row) => row >= 0 && !Number.isNaN(column[row])),
    );
  }

  class Tradeoff {
    constructor(root, pool, [cost, title, unit]) {
      Object.assign(this, {pool, cost, unit, limitValue: null, isFresh: true});
      this.panel = new Panel(root, title, {height: 340});
      this.limit = new Limit(this.panel, unit, (value) => this.#moved(value));
      this.said = h("span", {class: "said"});
      this.take = h(
        "button",
        {type: "button", onclick: () => selection.add({column: cost, low: -Infinity, high: this.limit.value})},
        "Select these",
      );
      this.panel.extra.append(h("div", {class: "limit-row"}, this.limit.field, this.take, this.said));
      this.#moved(null);
    }

    #within(rows, limit) {
      const cost = this.pool.column(this.cost);
      return rows.filter((row) => cost[row] <= limit);
    }

    #moved(value) {
      this.take.hidden = value === null;
      if (value === null) return put(this.said, "");
      const {pool} = this,
        rows = selection.keep(pool, pool.scored),
        within = this.#within(rows, value),
        best = pool.best(within);
      put(
        this.said,
        best < 0
          ? "no trial is within"
          : [
              `${NaoRay.count(within.length)} of ${NaoRay.count(rows.length)} within; the best of them: `,
              NaoRay.trialLink(pool, pool.frame.get("trial_id")[best]),
              ` with ${pool.score(pool.frame.get("value")[best])}`,
            ],
      );
    }

    update() {
      const {pool, panel, cost} = this,
        column = pool.column(cost),
        value = pool.frame.get("value");
      const known = column ? pool.scored.filter((row) => column[row] === column[row]) : [];
      panel.root.hidden = !known.length;
      if (!known.length) return;
      const bounds = NaoRay.scoreBounds(pool, known),
        {extent, log} = NaoRay.columnBounds(known, column, true);
      const axes = {
        x: {name: NaoRay.columnLabel(cost), extent, log, format: large},
        y: {name: pool.metric.label, extent: bounds.extent},
      };
      const isAimedUp = pool.info.objectives?.includes(cost), // else less of a cost is better
        signed = isAimedUp ? Float64Array.from(column, (x) => -x) : column;
      const front = stats.pareto(selection.keep(pool, known), signed, value, pool.more),
        asked = given(pool, cost);
      const lines = [
        {
          name: "Pareto front",
          data: front.map((row) => [column[row], value[row]]),
          colour: "--accent",
          step: true,
          dots: 7,
          width: 2,
        },
      ];
      const whole = wholeFront(pool, column);
      if (whole.length)
        lines.push({
          name: "front of all objectives",
          data: whole.map((row) => [column[row], value[row]]),
          colour: "--second",
          dots: 9,
          width: 0,
        });
      if (asked)
        lines.push({
          name: "limit of the search",
          data: [
            [asked, bounds.extent[0]],
            [asked, bounds.extent[1]],
          ],
          colour: "--second",
          dashed: true,
        });
      const entry = (row) => [
        NaoRay.trialLink(pool, pool.frame.get("trial_id")[row]),
        large(column[row]),
        pool.score(value[row]),
      ];
      panel.show({
        axes,
        lines,
        cloud: NaoRay.cloudOf(pool, {x: cost, rows: known, axes, names: ["value", cost, "round"]}),
        note: `${pool.rungNote(pool.scored)}${bounds.note}`,
        legend: [
          {name: "trial", colour: "--dot", form: "round"},
          {name: "Pareto front", colour: "--accent"},
          ...(whole.length ? [{name: "front of all objectives", colour: "--second", form: "round"}] : []),
          ...(asked ? [{name: "limit of the search", colour: "--second", form: "dashes"}] : []),
        ],
        summary: front.length
          ? `${NaoRay.counted(front.length, "trial")} on the Pareto front, from ${pool.score(value[front[0]])} with ${large(column[front[0]])} to ${pool.score(value[front.at(-1)])} with ${large(column[front.at(-1)])}.`
          : "No trial is selected.",
        table: () => [["trial on the front", NaoRay.columnLabel(cost), pool.metric.label], front.map(entry)],
      });
      if (this.isFresh && asked) this.limit.set(asked);
      else this.#moved(this.limit.value);
      this.isFresh = false;
      this.limit.place();
    }
  }

  /** Of a search with several objectives: the hypervolume above the worst of each, over its trials. */
  function coveredPanel(panel, pool) {
    const covered = pool.report?.covered,
      volumes = covered?.volumes ?? [];
    panel.root.hidden = !volumes.length;
    if (!volumes.length) return;
    const last = volumes.at(-1),
      half = covered.marks[volumes.findIndex((volume) => 2 * volume >= last)],
      point = Object.entries(covered.reference)
        .map(([name, value]) => `${NaoRay.columnLabel(name)} ${large(value)}`)
        .join(", ");
    panel.show({
      axes: {
        x: {name: "finished trials", whole: true, extent: [0, covered.marks.at(-1) * 1.02]},
        y: {name: "hypervolume", format: large, extent: [0, last * 1.05 || 1]},
      },
      lines: [
        {
          name: "hypervolume",
          data: volumes.map((volume, k) => [covered.marks[k], volume]),
          colour: "--accent",
          step: true,
          width: 2.5,
        },
      ],
      legend: [{name: "hypervolume", colour: "--accent"}],
      summary: `${NaoRay.counted(covered.trials.length, "trial")} that none beats in ${covered.objectives.join(", ")}; hypervolume ${large(last)}, half of it after ${NaoRay.counted(half, "trial")}.`,
      note: `${pool.rungNote(pool.scored)}Above the worst of each among the trials: ${point}. It is of all trials, whatever is selected.`,
      table: () => [
        ["trials", "hypervolume"],
        volumes.map((volume, k) => [NaoRay.count(covered.marks[k]), large(volume)]),
      ],
    });
  }

  NaoRay.views.push({
    id: "tradeoffs",
    label: "Trade-offs",
    build(root, pool) {
      const charts = COSTS.map((cost) => new Tradeoff(root, pool, cost));
      const volume = new Panel(root, "Hypervolume of its objectives", {height: 300});
      const none = h("p", {class: "lead"}, "No scored trial has a number of parameters, multiply-adds or latency.");
      root.append(none);
      return {
        update() {
          coveredPanel(volume, pool);
          charts.forEach((chart) => chart.update());
          none.hidden = charts.some((chart) => !chart.panel.root.hidden);
        },
        dispose: () => [volume, ...charts.map((chart) => chart.panel)].forEach((panel) => panel.dispose()),
      };
    },
  });
})((window.NaoRay ??= {}));
