/* The pools of the page compared: their bests over trials and over device time, and their figures. */
"use strict";
((NaoRay) => {
  const {h, put, card, count, duration, Panel, airy, selection, stats} = NaoRay;
  const COLOURS = ["--accent", "--second", "--third", "--fourth", "--fifth", "--sixth"];

  const known = () => NaoRay.app.pools.filter((pool) => pool.frame.rows && selection.keep(pool, pool.own).length);

  function coursePanel(panel, chosen, x, name) {
    const metric = chosen[0].metric,
      pools = known().filter((pool) => pool.metric.name === metric.name);
    const lines = pools.map((pool) => {
      const k = NaoRay.app.pools.indexOf(pool),
        rows = selection.keep(pool, pool.own),
        time = pool.column("device_time");
      const steps = NaoRay.bestLine(pool, rows, (place, row) => (x === "order" ? place + 1 : time[row]));
      return {
        name: pool.name,
        data: steps.map(([at, value]) => [at, value]),
        colour: COLOURS[k % COLOURS.length],
        dashed: k >= COLOURS.length,
        step: true,
      };
    });
    const ends = lines.map((line) => line.data.at(-1)),
      values = lines.flatMap((line) => line.data.filter(([at]) => at > 0.01 * ends[0][0]).map(([, value]) => value));
    const longest = 1.02 * Math.max(...ends.map(([at]) => at));
    panel.show({
      lines,
      axes: {
        x: x === "order" ? {name, whole: true, extent: [0, longest]} : NaoRay.timeAxis(name, longest),
        y: {name: metric.label, extent: airy([Math.min(...values), Math.max(...values)])},
      },
      legend: lines.map(({name: label, colour, dashed}) => ({name: label, colour, form: dashed ? "dashes" : "line"})),
      summary: lines.map((line, k) => `${line.name}: ${pools[k].score(ends[k][1])}`).join("; ") + ".",
    });
  }

  function row(pool) {
    if (pool.error || !pool.frame.rows) return [pool.name, pool.error ?? "no finished trial", "–", "–", "–", "–", "–"];
    const rows = selection.keep(pool, pool.own),
      best = pool.best(rows),
      values = stats.sorted(rows, pool.frame.get("value"));
    const time = pool.frame.get("device_seconds")?.reduce((sum, value) => sum + (value > 0 ? value : 0), 0);
    return [
      h("a", {href: NaoRay.app.href("overview", pool)}, pool.name),
      pool.info.strategy,
      pool.info.space,
      count(pool.frame.total),
      count(pool.failed.length),
      best < 0 ? "–" : pool.score(pool.frame.get("value")[best]),
      pool.score(stats.quantile(values, 0.5)),
      duration(time),
    ];
  }

  NaoRay.views.push({
    id: "pools",
    label: "Pools",
    build(root, pool) {
      const place = h("div"),
        box = card("Pools", place),
        panels = [
          new Panel(root, "Best so far, over trials", {height: 340}),
          new Panel(root, "Best so far, over device time", {height: 340}),
        ];
      box.classList.add("wide");
      root.append(box);
      return {
        update() {
          const pools = known();
          const chosen = pools.length && [pools.includes(pool) ? pool : pools[0]];
          if (!chosen) panels.forEach((panel) => panel.show({empty: "No scored trial is selected."}));
          else {
            coursePanel(panels[0], chosen, "order", "scored trials");
            coursePanel(panels[1], chosen, "device_time", "device time");
          }
          put(
            place,
            NaoRay.table(
              "Pools",
              ["pool", "strategy", "space", "trials", "failed", "best", "median", "device time"],
              NaoRay.app.pools.map(row),
            ),
          );
        },
        dispose: () => panels.forEach((panel) => panel.dispose()),
      };
    },
  });
})((window.NaoRay ??= {}));
