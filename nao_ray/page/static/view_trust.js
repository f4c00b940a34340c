/* How far a score can be believed: repeats of one architecture, shared scores against those trained alone, test scores. */
"use strict";
((NaoRay) => {
  const {h, put, card, Panel, stats, airy, number, selection} = NaoRay;

  function noisePanel(panel, pool) {
    const {frame} = pool,
      architecture = frame.get("architecture"),
      value = frame.get("value"),
      epochs = frame.get("epochs"),
      version = frame.get("weights_version");
    const rows = selection.keep(pool, pool.scored);
    if (!architecture || !rows.length) return panel.show({empty: "No scored trial is selected."});
    const {groups, deviation, freedom} = stats.repeats(
      rows,
      architecture,
      (row) => 1e6 * (version?.[row] ?? -1) + (epochs?.[row] ?? -1),
      value,
    );
    if (!groups.length)
      return panel.show({
        empty:
          "No architecture was trained twice in the same way, so repeats do not tell how far a score can be believed.",
      });
    const means = new Float64Array(frame.rows).fill(NaN),
      offs = new Float64Array(frame.rows).fill(NaN);
    for (const group of groups)
      for (const row of group.rows) [means[row], offs[row]] = [group.mean, value[row] - group.mean];
    const shown = Uint32Array.from(groups.flatMap((group) => group.rows)),
      all = stats.deviation(rows, value);
    const axes = {
      x: {name: `mean ${pool.metric.label} of the architecture`, extent: airy(stats.extent(shown, means))},
      y: {name: "training minus mean", extent: airy(stats.extent(shown, offs) ?? [-1, 1])},
    };
    const ends = axes.x.extent,
      line = (height, name) => ({
        name,
        data: [
          [ends[0], height],
          [ends[1], height],
        ],
        colour: "--accent",
        dashed: true,
        width: 1.5,
      });
    panel.show({
      axes,
      lines: [line(deviation, "one standard deviation"), line(-deviation)],
      cloud: {pool, rows: shown, x: means, y: offs, axes, names: ["value", "epochs"]},
      summary: `Two trainings of one architecture differ by ${number(deviation * Math.SQRT2, 2)} (standard deviation of a score ${number(deviation, 2)}, from ${NaoRay.counted(groups.length, "architecture")} trained more than once, ${freedom} degrees of freedom). All scores have a standard deviation of ${number(all, 2)}: ${NaoRay.share(Math.min(1, deviation ** 2 / all ** 2))} of their variance is noise.`,
      note: pool.rungNote(rows),
      legend: [
        {name: "training", colour: "--dot", form: "round"},
        {name: "one standard deviation", colour: "--accent", form: "dashes"},
      ],
      table: () => [
        ["architecture of trial", "trainings", "mean", "from", "to"],
        [...groups]
          .sort((a, b) => b.rows.length - a.rows.length)
          .slice(0, 40)
          .map((group) => {
            const found = stats.sorted(group.rows, value);
            return [
              NaoRay.trialLink(pool, frame.get("trial_id")[group.rows[0]]),
              String(found.length),
              pool.score(group.mean),
              pool.score(found[0]),
              pool.score(found.at(-1)),
            ];
          }),
      ],
    });
  }

  function auditPanel(panel, pool) {
    const {audit, is_shared: isShared} = pool.report ?? {};
    panel.root.hidden = !isShared;
    if (!isShared) return;
    if (!audit)
      return panel.show({empty: "Not known yet: the audit of the shared scores comes at the end of the search."});
    const points = (wanted) =>
      audit.shared.flatMap((x, k) => (audit.is_audited[k] === wanted ? [[x, audit.alone[k]]] : []));
    const bounds = (values) => airy([Math.min(...values), Math.max(...values)]),
      colour = NaoRay.css("--accent");
    panel.show({
      axes: {
        x: {name: `${pool.metric.label} with shared weights`, extent: bounds(audit.shared)},
        y: {name: "trained alone", extent: bounds(audit.alone)},
      },
      series: [
        {
          type: "scatter",
          name: "finalist",
          data: points(false),
          symbolSize: 9,
          itemStyle: {color: "transparent", borderColor: colour, borderWidth: 2},
        },
        {type: "scatter", name: "audited", data: points(true), symbolSize: 9, itemStyle: {color: colour}},
      ],
      tooltip: {trigger: "item"},
      legend: [
        {name: "audited", colour: "--accent", form: "round"},
        {name: "finalist", colour: "--accent", form: "ring"},
      ],
      summary: `${audit.figures}. ${audit.meaning}`,
      note: "At the end of the search, architectures drawn at random from those scored last were trained alone. Tau is 1 where both scores rank them alike, 0 where they have nothing to do with each other and -1 where the order is reversed; the interval says what other random draws could have given. Finalists were chosen for their shared scores and do not count.",
      table: () => [
        ["with shared weights", "trained alone", "chosen as"],
        audit.shared.map((x, k) => [
          pool.score(x),
          pool.score(audit.alone[k]),
          audit.is_audited[k] ? "audited" : "finalist",
        ]),
      ],
    });
  }

  function tests(place, pool) {
    const found = pool.report?.tests ?? [],
      {metric} = pool;
    put(
      place,
      found.length
        ? [
            NaoRay.table(
              "Test scores",
              ["training", "trial", `test ${metric.name}`, metric.label, "recipe", "epochs", "parameters"],
              found.map((row) => [row.name, row.trial, row.test, row.valid, row.recipe, row.epochs, row.params]),
            ),
            h(
              "p",
              {class: "note"},
              "Full trainings of chosen architectures; each read the test split once. Their rows are in the pool's final/.",
            ),
          ]
        : h("p", {class: "note"}, "The test split was not read: no full training has ended."),
    );
  }

  NaoRay.views.push({
    id: "trust",
    label: "Trust",
    build(root, pool) {
      const panels = [
        new Panel(root, "Noise floor: trainings of one architecture", {height: 340, class: "wide"}),
        new Panel(root, "Can the shared scores be believed?", {class: "wide"}),
      ];
      const place = h("div"),
        box = card("Test scores", place);
      box.classList.add("wide");
      root.append(box);
      return {
        update() {
          noisePanel(panels[0], pool);
          auditPanel(panels[1], pool);
          tests(place, pool);
        },
        dispose: () => panels.forEach((panel) => panel.dispose()),
      };
    },
  });
})((window.NaoRay ??= {}));
