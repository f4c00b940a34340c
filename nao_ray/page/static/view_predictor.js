/* What the controller knows: predicted against measured, the map of its embeddings, its fits. */
"use strict";
((NaoRay) => {
  const {h, put, card, Panel, stats, airy, selection} = NaoRay;
  const COLOURS = ["--accent", "--second", "--third", "--fourth", "--fifth", "--sixth"];

  const ENOUGH = 10; // predicted trials of a rung of a ladder that say something

  /** Rows whose score is of what was predicted: of a ladder those of the rung that their prediction is of, of one rung. */
  function measuredAsPredicted(pool) {
    if (!pool.isLadder) return pool.scored;
    const epochs = pool.frame.get("epochs"),
      predicted = pool.frame.get("predicted");
    return pool.ofOneRung(
      pool.measured.filter((row) => predicted[row] === predicted[row] && epochs[row] === pool.predictedAfter(row)),
      ENOUGH,
    );
  }

  function predictedPanel(panel, pool) {
    const predicted = pool.frame.get("predicted"),
      value = pool.frame.get("value");
    if (pool.isLadder && !pool.report) return panel.show({empty: "Reading …"});
    const known = predicted ? measuredAsPredicted(pool).filter((row) => predicted[row] === predicted[row]) : [];
    if (known.length < 2)
      return panel.show({
        empty: `This strategy predicts nothing, or no predicted trial ${pool.isLadder ? "has reached the rung that was predicted" : "is complete"} yet.`,
      });
    const bounds = NaoRay.scoreBounds(pool, known),
      guessed = stats.sorted(known, predicted);
    const axes = {
      x: {
        name: `predicted ${pool.metric.label}`,
        extent: airy([stats.quantile(guessed, 0.002), stats.quantile(guessed, 0.998)]),
      },
      y: {name: `measured ${pool.metric.label}`, extent: bounds.extent},
    };
    const low = Math.max(axes.x.extent[0], axes.y.extent[0]),
      high = Math.min(axes.x.extent[1], axes.y.extent[1]);
    const rows = selection.keep(pool, known),
      ranked = stats.rankCorrelation(rows, predicted, value);
    const error = stats.sorted(
      rows,
      Float64Array.from(value, (score, row) => Math.abs(score - predicted[row])),
    );
    panel.show({
      axes,
      cloud: NaoRay.cloudOf(pool, {x: "predicted", rows: known, axes, names: ["value", "predicted", "round"]}),
      lines:
        low < high
          ? [
              {
                name: "exact",
                data: [
                  [low, low],
                  [high, high],
                ],
                colour: "--accent",
                dashed: true,
                width: 1.5,
              },
            ]
          : [],
      summary: `Rank correlation ${NaoRay.number(ranked, 2)} over ${NaoRay.counted(rows.length, "trial")}; half of the predictions are off by less than ${NaoRay.number(stats.quantile(error, 0.5), 2)}.`,
      legend: [
        {name: "trial", colour: "--dot", form: "round"},
        ...(low < high ? [{name: "exact", colour: "--accent", form: "dashes"}] : []),
      ],
      note: `${pool.rungNote(known)}${bounds.note}Predictions were made before each training.`,
      table: () => {
        const byRound = stats.groupBy(rows, pool.frame.get("round") ?? new Int32Array(pool.frame.rows));
        return [
          ["round", "trials", "rank correlation"],
          [...byRound].map(([round, found]) => [
            String(round),
            String(found.length),
            NaoRay.number(stats.rankCorrelation(found, predicted, value), 2),
          ]),
        ];
      },
    });
  }

  function mapPanel(panel, pool) {
    const {points} = pool;
    if (!points) return panel.show({empty: pool.frame.rows ? "Reading the embeddings …" : "No trial is complete yet."});
    if (points.header.rows < 3)
      return panel.show({empty: "This strategy proposes no embeddings, or too few are here yet."});
    const x = pool.column("map_x"),
      y = pool.column("map_y"),
      value = pool.frame.get("value");
    const mapped = (pool.isLadder ? pool.measured : pool.scored).filter((row) => x[row] === x[row]);
    const rows = pool
      .ofOneRung(mapped, ENOUGH)
      .sort((a, b) => (pool.more ? value[a] - value[b] : value[b] - value[a]));
    const {shown: some, of} = points.header,
      shown = `${NaoRay.count(pool.isLadder ? rows.length : some)}${!pool.isLadder && of > some ? ` of ${NaoRay.count(of)}` : ""}`;
    const [first, second] = points.header.explained.map((one) => NaoRay.share(one));
    const axes = {
      x: {name: `first principal axis (${first} of the variance)`, extent: NaoRay.columnBounds(rows, x).extent},
      y: {name: `second axis (${second})`, extent: NaoRay.columnBounds(rows, y).extent},
    };
    const found = stats.sorted(rows, value),
      extent = [stats.quantile(found, 0.02), stats.quantile(found, 0.98)];
    const scale = `linear-gradient(90deg, ${NaoRay.SCALE.join(",")})`;
    put(
      panel.extra,
      h(
        "p",
        {class: "scale"},
        pool.score(extent[0]),
        h("i", {style: `background:${scale}`, "aria-hidden": "true"}),
        pool.score(extent[1]),
        ` ${pool.metric.label}`,
      ),
    );
    panel.show({
      axes,
      cloud: NaoRay.cloudOf(pool, {
        x: "map_x",
        y: "map_y",
        rows,
        axes,
        names: ["value", "round"],
        colour: {column: value, extent},
      }),
      summary: `The embeddings that the controller proposed: ${shown}, on their two principal axes.`,
      note: `${pool.rungNote(rows)}Drag over a region to see in the other views what lies there.`,
      table: () => [
        ["trial", pool.metric.label, "first axis", "second axis"],
        [...rows]
          .slice(-30)
          .reverse()
          .map((row) => [
            NaoRay.trialLink(pool, pool.frame.get("trial_id")[row]),
            pool.score(value[row]),
            NaoRay.number(x[row], 3),
            NaoRay.number(y[row], 3),
          ]),
      ],
    });
  }

  function fitsPanel(panel, pool) {
    const curves = Object.entries(pool.report?.fit_curves ?? {});
    if (!curves.length) return panel.show({empty: pool.report ? "No fit has been told yet." : "Reading …"});
    const values = curves.flatMap(([, curve]) => curve.value).filter((value) => value != null);
    const lines = curves.map(([name, curve], k) => ({
      name,
      colour: COLOURS[k % COLOURS.length],
      dots: curve.round.length < 60 ? 6 : 0,
      dashed: k >= COLOURS.length,
      silent: false,
      data: curve.round.map((round, at) => [round, curve.value[at]]),
    }));
    panel.show({
      axes: {
        x: {name: "round", whole: true},
        y: {name: "quality of the fit", extent: airy([Math.min(...values), Math.max(...values)])},
      },
      lines,
      tooltip: {trigger: "axis"},
      legend: lines.map(({name, colour, dashed}) => ({name, colour, form: dashed ? "dashes" : "line"})),
      summary: `At the last fit: ${curves.map(([name, curve]) => `${name} ${NaoRay.number(curve.value.at(-1), 3)}`).join(", ")}.`,
    });
  }

  function fitsTable(place, pool) {
    const {headings = [], rows = []} = pool.report?.fits ?? {};
    place.hidden = !rows.length;
    if (rows.length) put(place.lastChild, NaoRay.table("Controller fits", headings, rows));
  }

  NaoRay.views.push({
    id: "predictor",
    label: "Predictor",
    wantsMap: true,
    build(root, pool) {
      const panels = [
        new Panel(root, "Predicted and measured", {height: 340}),
        new Panel(root, "Map of the embeddings", {height: 340}),
        new Panel(root, "Quality of the controller's fits"),
      ];
      const fits = card("Controller fits", h("div"));
      fits.classList.add("wide", "fits");
      root.append(fits);
      return {
        update() {
          predictedPanel(panels[0], pool);
          mapPanel(panels[1], pool);
          fitsPanel(panels[2], pool);
          fitsTable(fits, pool);
        },
        dispose: () => panels.forEach((panel) => panel.dispose()),
      };
    },
  });
})((window.NaoRay ??= {}));
