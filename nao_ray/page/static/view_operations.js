/* Which operations are in the cells: their share among the best and among all, what goes with a better score, and when. */
"use strict";
((NaoRay) => {
  const {Panel, stats, share, selection} = NaoRay;
  const UNKNOWN = 255; // in a column of an operation: nobody counted
  const ENOUGH = 20; // trials of a rung of a ladder that say something
  const BEST = 0.1; // "the best" are this share of the scored trials
  const MOST_ROUNDS = 24; // points of a line: of more rounds, neighbours are put together
  const COLOURS = ["--accent", "--second", "--third", "--fourth", "--fifth", "--sixth"];

  function shares(names, columns, rows) {
    const sums = columns.map((column) => rows.reduce((sum, row) => sum + column[row], 0)),
      all = sums.reduce((a, b) => a + b, 0) || 1;
    return names.map((_, k) => sums[k] / all);
  }

  /** Per operation its share among the best and all selected, and its correlation with a good score. */
  function figures(pool) {
    const value = pool.frame.get("value");
    const names = [...pool.frame.stores.keys()].filter((name) => name.startsWith("op:")),
      columns = names.map((name) => pool.frame.get(name));
    if (!names.length) return null;
    const all = pool.isLadder ? pool.ofOneRung(pool.measured, ENOUGH) : pool.scored,
      rows = selection.keep(pool, all).filter((row) => columns[0][row] !== UNKNOWN);
    if (rows.length < 2) return null;
    const found = stats.sorted(rows, value),
      bound = stats.quantile(found, pool.more ? 1 - BEST : BEST);
    const best = rows.filter((row) => (pool.more ? value[row] >= bound : value[row] <= bound));
    const inBest = shares(names, columns, best),
      inAll = shares(names, columns, rows),
      sign = pool.more ? 1 : -1;
    const ops = names.map((name, k) => ({
      name: name.slice(3),
      column: columns[k],
      best: inBest[k],
      all: inAll[k],
      effect: sign * stats.correlation(rows, columns[k], value),
    }));
    return {rows, best, ops: ops.sort((a, b) => b.best - a.best)};
  }

  const height = (ops) => 90 + 34 * ops.length;

  function sharePanel(panel, pool, {ops, best, rows}) {
    const bar = (name, key, colour) => ({
      type: "bar",
      name,
      data: ops.map((op) => op[key]),
      itemStyle: {color: NaoRay.css(colour), borderRadius: [0, 3, 3, 0]},
      barMaxWidth: 12,
      barGap: "15%",
    });
    const most = ops[0],
      up = [...ops].filter((op) => op.all > 0).sort((a, b) => b.best / b.all - a.best / a.all)[0];
    panel.show({
      height: height(ops),
      axes: {
        x: {
          name: "share of the operations",
          format: share,
          extent: [0, 1.08 * Math.max(...ops.flatMap((op) => [op.best, op.all]))],
        },
        y: {categories: ops.map((op) => op.name), inverse: true, room: 128},
      },
      series: [bar("among the best tenth", "best", "--accent"), bar("among all", "all", "--dot")],
      tooltip: {trigger: "axis", valueFormatter: share},
      legend: [
        {name: `among the best tenth (${NaoRay.count(best.length)})`, colour: "--accent", form: "square"},
        {name: `among all (${NaoRay.count(rows.length)})`, colour: "--dot", form: "square"},
      ],
      note: pool.rungNote(rows),
      summary: `Most used among the best: ${most.name}, ${share(most.best)}.${up ? ` Gains most: ${up.name}, ${NaoRay.number(up.best / up.all, 2)} times its share among all.` : ""}`,
      table: () => [
        ["operation", "among the best", "among all", "correlation with a good score"],
        ops.map((op) => [op.name, share(op.best), share(op.all), NaoRay.number(op.effect, 2)]),
      ],
    });
  }

  function effectPanel(panel, pool, {ops, rows}) {
    const known = ops.filter((op) => Number.isFinite(op.effect)).sort((a, b) => b.effect - a.effect);
    if (!known.length)
      return panel.show({empty: "The operations or the scores do not vary among the selected trials."});
    const most = 1.1 * Math.max(...known.map((op) => Math.abs(op.effect)));
    panel.show({
      height: height(known),
      axes: {
        x: {name: "correlation of its number with a good score", extent: [-most, most]},
        y: {categories: known.map((op) => op.name), inverse: true, room: 128},
      },
      series: [
        {
          type: "bar",
          name: "correlation",
          data: known.map((op) => ({
            value: op.effect,
            itemStyle: {
              color: NaoRay.css(op.effect < 0 ? "--second" : "--accent"),
              borderRadius: op.effect < 0 ? [3, 0, 0, 3] : [0, 3, 3, 0],
            },
          })),
          barMaxWidth: 16,
        },
      ],
      tooltip: {trigger: "axis", valueFormatter: (value) => NaoRay.number(value, 2)},
      legend: [
        {name: "goes with better scores", colour: "--accent", form: "square"},
        {name: "with worse", colour: "--second", form: "square"},
      ],
      note: pool.rungNote(rows),
      summary: `More ${known[0].name} goes with better scores most clearly (${NaoRay.number(known[0].effect, 2)}), more ${known.at(-1).name} least (${NaoRay.number(known.at(-1).effect, 2)}). A correlation is no cause.`,
    });
  }

  function coursePanel(panel, pool, {rows, ops}) {
    const groups = NaoRay.roundGroups(pool, rows, MOST_ROUNDS),
      columns = ops.map((op) => op.column);
    if (groups.length < 2) return panel.show({empty: "There is one round only."});
    const some = ops.slice(0, COLOURS.length),
      byRound = groups.map((group) => shares(ops, columns, group.rows));
    const most = Math.max(...byRound.flatMap((one) => one.slice(0, COLOURS.length)));
    panel.show({
      axes: {
        x: {name: "round", categories: groups.map((group) => group.name)},
        y: {name: "share of the operations", format: share, extent: [0, 1.08 * most]},
      },
      tooltip: {trigger: "axis", valueFormatter: share},
      lines: some.map((op, k) => ({
        name: op.name,
        colour: COLOURS[k],
        dots: 5,
        data: byRound.map((one) => one[k]),
      })),
      legend: some.map((op, k) => ({name: op.name, colour: COLOURS[k]})),
      note: pool.rungNote(rows),
      summary: `The operations most used among the best, by round; their shares of all operations.`,
      table: () => [
        ["round", ...some.map((op) => op.name)],
        groups.map(({name}, at) => [name, ...some.map((_, k) => share(byRound[at][k]))]),
      ],
    });
  }

  NaoRay.views.push({
    id: "operations",
    label: "Operations",
    build(root, pool) {
      const panels = [
        new Panel(root, "Share among the best"),
        new Panel(root, "What goes with a good score"),
        new Panel(root, "Share by round", {class: "wide"}),
      ];
      return {
        update() {
          const found = figures(pool);
          if (!found)
            return panels.forEach((panel) => panel.show({empty: "No scored trial with operations is selected."}));
          sharePanel(panels[0], pool, found);
          effectPanel(panels[1], pool, found);
          coursePanel(panels[2], pool, found);
        },
        dispose: () => panels.forEach((panel) => panel.dispose()),
      };
    },
  });
})((window.NaoRay ??= {}));
