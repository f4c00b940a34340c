/* Best so far over trials and over device time, with the random twin; the scores of each round. */
"use strict";
((NaoRay) => {
  const {Panel, stats, airy, duration, count} = NaoRay;
  const MOST_ROUNDS = 40; // boxes that a chart shows: of more, rounds are put together

  const bestLine = (pool, rows, x) => stats.bestSoFar(rows, x, pool.frame.get("value"), pool.more);

  /** A line of another search, drawn out to where this one is. */
  const until = (steps, end) => {
    const within = steps.filter(([x]) => x <= end);
    return within.length && steps.at(-1)[0] > end ? [...within, [end, within.at(-1)[1]]] : within;
  };

  function bestPanel(panel, pool, x, name) {
    const rows = NaoRay.selection.keep(pool, pool.own),
      {frame} = pool;
    if (!rows.length)
      return panel.show({empty: frame.rows ? "No scored trial is selected." : "No trial is complete yet."});
    const xs = pool.column(x),
      twin = NaoRay.twinOf(pool),
      bounds = NaoRay.scoreBounds(pool, pool.own);
    const steps = bestLine(pool, rows, (_, row) => xs[row]);
    const end = stats.extent(pool.own, xs)[1],
      twinXs = twin?.pool.column(x);
    const twinSteps = twin
      ? until(
          bestLine(twin.pool, NaoRay.selection.keep(twin.pool, twin.rows), (place, row) =>
            twin.pool === pool || x !== "order" ? twinXs[row] : place + 1,
          ),
          end,
        )
      : [];
    const axes = {
      x: x === "order" ? {name, whole: true, extent: [0, end * 1.02]} : NaoRay.timeAxis(name, end * 1.02),
      y: {name: pool.metric.label, extent: bounds.extent},
    };
    const best = steps.at(-1),
      trial = frame.get("trial_id")[best[2]],
      said = twinSteps.length ? ` ${twin.name}: ${pool.score(twinSteps.at(-1)[1])}.` : "";
    const lines = [
      {name: "best so far", data: steps.map(([a, b]) => [a, b]), colour: "--accent", step: true, width: 2.5},
    ];
    if (twinSteps.length)
      lines.unshift({
        name: twin.name,
        data: twinSteps.map(([a, b]) => [a, b]),
        colour: "--second",
        step: true,
        dashed: true,
      });
    panel.show({
      axes,
      lines,
      cloud: NaoRay.cloudOf(pool, {x, rows: pool.own, axes}),
      note: `${pool.rungNote(pool.own)}${bounds.note}Drag over trials to select them; click one to open it.`,
      summary: `Best ${pool.score(best[1])}, reached by trial ${trial} after ${x === "order" ? `${count(xs[best[2]])} trials` : `${duration(xs[best[2]])} of device time`}.${said}`,
      legend: [
        {name: "trial", colour: "--dot", form: "round"},
        {name: "best so far", colour: "--accent"},
        ...(twinSteps.length ? [{name: twin.name, colour: "--second", form: "dashes"}] : []),
      ],
      table: () => [
        [NaoRay.columnLabel(x), `best ${pool.metric.label}`, "trial"],
        steps
          .slice(0, -1)
          .map(([at, value, row]) => [
            x === "order" ? count(at) : duration(at),
            pool.score(value),
            NaoRay.trialLink(pool, frame.get("trial_id")[row]),
          ]),
      ],
    });
  }

  function roundsPanel(panel, pool) {
    const groups = NaoRay.roundGroups(pool, NaoRay.selection.keep(pool, pool.own), MOST_ROUNDS),
      value = pool.frame.get("value");
    if (groups.length < 1) return panel.show({empty: "No selected trial belongs to a round."});
    const figures = groups.map(({name, rows}) => {
      const found = stats.sorted(rows, value),
        at = (share) => stats.quantile(found, share);
      return {
        name,
        n: rows.length,
        low: at(0.1),
        first: at(0.25),
        median: at(0.5),
        third: at(0.75),
        high: at(0.9),
        best: pool.more ? found.at(-1) : found[0],
      };
    });
    const names = figures.map((figure) => figure.name),
      of = (key) => figures.map((figure) => figure[key]),
      bars = NaoRay.css("--dot");
    const spread = (low, high, opacity, id) => [
      {
        type: "bar",
        stack: id,
        data: of(low),
        itemStyle: {color: "transparent"},
        silent: true,
        barGap: "-100%",
        barMaxWidth: 34,
      },
      {
        type: "bar",
        stack: id,
        data: figures.map((figure) => figure[high] - figure[low]),
        itemStyle: {color: bars, opacity, borderRadius: 3},
        silent: true,
        barMaxWidth: 34,
      },
    ];
    const series = [...spread("low", "high", 0.3, "tenths"), ...spread("first", "third", 0.75, "quarters")];
    const lines = [
      {name: "best", data: of("best"), colour: "--accent", dots: 6},
      {name: "median", data: of("median"), colour: "--ink", dots: 6, width: 1.5},
    ];
    const {extent} = NaoRay.scoreBounds(
      pool,
      groups.flatMap((group) => group.rows),
    );
    panel.show({
      axes: {x: {name: "round", categories: names}, y: {name: pool.metric.label, extent}},
      series,
      lines,
      tooltip: {
        trigger: "axis",
        formatter: ([{dataIndex: k}]) =>
          `round ${figures[k].name}: ${figures[k].n} trials<br>best ${pool.score(figures[k].best)}<br>median ${pool.score(figures[k].median)}`,
      },
      note: pool.rungNote(pool.own),
      summary: `Median ${pool.score(figures[0].median)} in round ${names[0]}, ${pool.score(figures.at(-1).median)} in round ${names.at(-1)}.`,
      legend: [
        {name: "best", colour: "--accent"},
        {name: "median", colour: "--ink"},
        {name: "middle half", colour: "--dot", form: "square"},
        {name: "middle four fifths", colour: "--dot", form: "square faint"},
      ],
      table: () => [
        ["round", "trials", "best", "median", "10 %", "90 %"],
        figures.map((f) => [
          f.name,
          count(f.n),
          pool.score(f.best),
          pool.score(f.median),
          pool.score(f.low),
          pool.score(f.high),
        ]),
      ],
    });
  }

  function versionsPanel(panel, pool) {
    const versions = pool.report?.versions ?? [];
    panel.root.hidden = !versions.length;
    if (!versions.length) return;
    const data = (name) => versions.map((one) => [one.round, one[name]]),
      all = versions.flatMap((one) => [one.mean, one.best]);
    panel.show({
      axes: {
        x: {name: "round", whole: true},
        y: {name: `${pool.metric.label}, shared weights`, extent: airy([Math.min(...all), Math.max(...all)])},
      },
      lines: [
        {name: "mean", data: data("mean"), colour: "--second", dots: 6},
        {name: "best", data: data("best"), colour: "--accent", dots: 6},
      ],
      tooltip: {trigger: "axis"},
      legend: [
        {name: "mean", colour: "--second"},
        {name: "best", colour: "--accent"},
      ],
      summary: `Mean ${pool.score(versions.at(-1).mean)} and best ${pool.score(versions.at(-1).best)} with the newest shared weights. Scores of different rounds come from different weights.`,
      table: () => [
        ["round", "mean", "best"],
        versions.map((one) => [String(one.round), pool.score(one.mean), pool.score(one.best)]),
      ],
    });
  }

  NaoRay.views.push({
    id: "progress",
    label: "Progress",
    build(root, pool) {
      const panels = [
        new Panel(root, "Best so far, over trials", {height: 340, class: "wide"}),
        new Panel(root, "Best so far, over device time"),
        new Panel(root, "Scores of each round"),
        new Panel(root, "Shared scores by round"),
      ];
      return {
        update() {
          bestPanel(panels[0], pool, "order", "finished trials");
          bestPanel(panels[1], pool, "device_time", "device time");
          roundsPanel(panels[2], pool);
          versionsPanel(panels[3], pool);
        },
        dispose: () => panels.forEach((panel) => panel.dispose()),
      };
    },
  });
  Object.assign(NaoRay, {bestPanel, bestLine});
})((window.NaoRay ??= {}));
