/* What the charts of scores share: bounds that one wild score does not blow up, the random twin, clouds of a pool. */
"use strict";
((NaoRay) => {
  const {stats, airy, counted} = NaoRay;

  /** Bounds for the scores of rows: far worse ones are left out; {extent, note}. */
  function scoreBounds(pool, rows) {
    const value = pool.frame.get("value"),
      all = stats.extent(rows, value);
    if (!all) return {extent: [0, 1], note: ""};
    const found = stats.sorted(stats.some(rows), value);
    const low = stats.quantile(found, 0.03),
      high = stats.quantile(found, 0.97),
      air = 0.7 * (high - low);
    const extent = pool.more ? [Math.max(all[0], low - air), all[1]] : [all[0], Math.min(all[1], high + air)];
    const outside = rows.reduce((sum, row) => sum + (value[row] < extent[0] || value[row] > extent[1]), 0);
    const is = outside === 1 ? "is" : "are";
    const note = `${counted(outside, "trial")} far ${pool.more ? "below" : "above"} the rest ${is} outside the picture. `;
    return {extent: airy(extent), note: outside ? note : ""};
  }

  /** Whether the scores of two pools are after as many epochs, where one of them has a ladder. */
  function isAlike(pool, other) {
    if (!pool.isLadder && !other.isLadder) return true;
    return pool.frame.get("epochs")?.[pool.own[0]] === other.frame.get("epochs")?.[other.own[0]];
  }

  /** The random search to compare a pool with: {name, pool, rows}, in the order of its search; or null. */
  function twinOf(pool) {
    if (pool.control.length) return {name: "random control", pool, rows: pool.control};
    const {space, task, metric} = pool.info;
    const other = NaoRay.app.pools.find(
      (one) =>
        one !== pool &&
        one.info.strategy === "random_search" &&
        one.info.space === space &&
        one.info.task === task &&
        one.metric.name === metric.name &&
        one.frame.rows &&
        isAlike(pool, one),
    );
    return other && pool.info.strategy !== "random_search" ? {name: other.name, pool: other, rows: other.own} : null;
  }

  /** Bounds of a column over rows, and whether its axis is better logarithmic. */
  function columnBounds(rows, column, mayLog = false) {
    const found = stats.extent(rows, column) ?? [0, 1];
    const log = mayLog && found[0] > 0 && found[1] / found[0] > 30;
    return {extent: airy(found, log), log};
  }

  /** A cloud of scored trials for a panel: {axes, cloud}; what is not selected stays as its pale background. */
  function cloudOf(pool, {x, y = "value", rows = pool.scored, axes, names, colour, tone}) {
    const mask = NaoRay.selection.maskOf(pool),
      xs = pool.column(x),
      ys = pool.column(y);
    const known = rows.filter((row) => xs[row] === xs[row] && ys[row] === ys[row]);
    const chosen = mask ? known.filter((row) => mask[row]) : known;
    const context = mask ? known.filter((row) => !mask[row]) : null;
    return {pool, rows: chosen, context, x: xs, y: ys, axes, colour, tone, brush: {x, y}, names: names ?? [y, x]};
  }

  /** Rows by round, neighbouring rounds put together where there are more than `most`: [{name, from, rows}]. */
  function roundGroups(pool, rows, most) {
    const round = pool.frame.get("round");
    if (!round) return [];
    const groups = [
      ...stats.groupBy(
        rows.filter((row) => round[row] >= 0),
        round,
      ),
    ];
    const step = Math.ceil(groups.length / most);
    return groups.flatMap(([from], k) => {
      if (k % step) return [];
      const some = groups.slice(k, k + step),
        last = some.at(-1)[0];
      return [{name: last > from ? `${from}–${last}` : String(from), from, rows: some.flatMap(([, found]) => found)}];
    });
  }

  Object.assign(NaoRay, {roundGroups, scoreBounds, twinOf, columnBounds, cloudOf});
})((window.NaoRay ??= {}));
