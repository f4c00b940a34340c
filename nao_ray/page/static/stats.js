/* Figures over columns. `rows` are numbers of rows, in any typed array; `more`: whether more is better. */
"use strict";
((NaoRay) => {
  const SOME = 50000;

  /** At most SOME of the rows, evenly spread. */
  function some(rows) {
    const step = Math.ceil(rows.length / SOME);
    return step > 1 ? rows.filter((_, k) => k % step === 0) : rows;
  }

  /** The steps of the best so far, as [x, value, row], with one at the end; `rows` in the order of the search. */
  function bestSoFar(rows, x, value, more) {
    const steps = [];
    let best = NaN;
    for (let k = 0; k < rows.length; k += 1) {
      const score = value[rows[k]];
      if (Number.isNaN(best) || (more ? score > best : score < best))
        steps.push([x(k, rows[k]), (best = score), rows[k]]);
    }
    if (steps.length) steps.push([x(rows.length - 1, rows[rows.length - 1]), best, steps.at(-1)[2]]);
    return steps;
  }

  /** The rows that no other beats in both: less of `x`, better `y`; by growing x. */
  function pareto(rows, x, y, more) {
    const front = [];
    const sign = more ? 1 : -1;
    for (const row of rows) {
      const cost = x[row],
        score = sign * y[row];
      if (!(cost === cost && score === score)) continue;
      let low = 0,
        high = front.length;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (x[front[middle]] <= cost) low = middle + 1;
        else high = middle;
      }
      if (low > 0 && sign * y[front[low - 1]] >= score) continue;
      let first = low;
      while (first > 0 && x[front[first - 1]] === cost) first -= 1;
      let last = low;
      while (last < front.length && sign * y[front[last]] <= score) last += 1;
      front.splice(first, last - first, row);
    }
    return front;
  }

  /**
   * Rows by Pareto rank, in a rank by the first of some columns, until there are `most`; without those that lack a value.
   * Of each of the `columns` more is better where its sign of `signs` is 1, less where it is -1.
   */
  function byRank(rows, columns, signs, most) {
    const better = (one, other) => {
      for (let k = 0; k < columns.length; k += 1) {
        const difference = signs[k] * (columns[k][other] - columns[k][one]);
        if (difference) return difference;
      }
      return 0;
    };
    const beats = (one, other) =>
      columns.every((column, k) => signs[k] * (column[one] - column[other]) >= 0) && better(one, other) < 0;
    const found = [];
    let left = [...rows].filter((row) => columns.every((column) => Number.isFinite(column[row]))).sort(better);
    while (left.length && found.length < most) {
      const front = []; // whoever beats a row comes before it
      left = left.filter((row) => front.some((one) => beats(one, row)) || !front.push(row));
      found.push(...front);
    }
    return found.slice(0, most);
  }

  /** Sorted finite values of rows. */
  function sorted(rows, column) {
    const values = new Float64Array(rows.length);
    let n = 0;
    for (const row of rows) if (Number.isFinite(column[row])) values[n++] = column[row];
    return values.subarray(0, n).sort();
  }

  /** A quantile of sorted values, between the nearest two. */
  function quantile(values, at) {
    if (!values.length) return NaN;
    const place = at * (values.length - 1),
      low = Math.floor(place);
    return values[low] + (place - low) * (values[Math.min(low + 1, values.length - 1)] - values[low]);
  }

  /** Groups rows by a column of whole numbers: Map of value to rows, by growing value. */
  function groupBy(rows, column) {
    const groups = new Map();
    for (const row of rows) {
      const group = groups.get(column[row]);
      if (group) group.push(row);
      else groups.set(column[row], [row]);
    }
    return new Map([...groups].sort(([a], [b]) => a - b));
  }

  /** Lowest and highest finite value of rows, or null. */
  function extent(rows, column) {
    let low = Infinity,
      high = -Infinity;
    for (const row of rows) {
      const value = column[row];
      if (value < low) low = value;
      if (value > high) high = value;
    }
    return low <= high ? [low, high] : null;
  }

  /** Pearson's correlation of two columns over rows where both are known; NaN where one does not vary. */
  function correlation(rows, x, y) {
    let n = 0,
      mx = 0,
      my = 0,
      xx = 0,
      yy = 0,
      xy = 0;
    for (const row of rows) {
      const a = x[row],
        b = y[row];
      if (!(Number.isFinite(a) && Number.isFinite(b))) continue;
      n += 1;
      const dx = a - mx,
        dy = b - my;
      mx += dx / n;
      my += dy / n;
      xx += dx * (a - mx);
      yy += dy * (b - my);
      xy += dx * (b - my);
    }
    return n > 2 && xx > 0 && yy > 0 ? xy / Math.sqrt(xx * yy) : NaN;
  }

  /** The ranks of values, from 0; equal ones share their mean rank. */
  function ranks(values) {
    const order = Uint32Array.from(values.keys()).sort((a, b) => values[a] - values[b]);
    const found = new Float64Array(values.length);
    for (let start = 0, end = 0; start < order.length; start = end) {
      while (end < order.length && values[order[end]] === values[order[start]]) end += 1;
      for (let k = start; k < end; k += 1) found[order[k]] = (start + end - 1) / 2;
    }
    return found;
  }

  /** Spearman's rank correlation of two columns without missing values; over some of many rows. */
  function rankCorrelation(rows, x, y) {
    const chosen = some(rows);
    const of = (column) => ranks(Float64Array.from(chosen, (row) => column[row]));
    return correlation(chosen.keys(), of(x), of(y));
  }

  /** How far trainings of one architecture differ: {groups: [{mean, rows}], deviation} of rows trained alike. */
  function repeats(rows, architecture, alike, value) {
    const known = sorted(rows, architecture),
      repeated = new Set();
    for (let k = 1; k < known.length; k += 1) if (known[k] === known[k - 1]) repeated.add(known[k]);
    const alone = rows.filter((row) => architecture[row] >= 0 && repeated.has(architecture[row]));
    const kinds = [...groupBy(alone, architecture).values()].flatMap((found) => {
      const first = alike(found[0]);
      if (found.every((row) => alike(row) === first)) return [found];
      return [...Map.groupBy(found, alike).values()];
    });
    let squares = 0,
      freedom = 0;
    const groups = [];
    for (const found of kinds) {
      if (found.length < 2) continue;
      const mean = found.reduce((sum, row) => sum + value[row], 0) / found.length;
      squares += found.reduce((sum, row) => sum + (value[row] - mean) ** 2, 0);
      freedom += found.length - 1;
      groups.push({mean, rows: found});
    }
    return {groups, deviation: Math.sqrt(squares / freedom), freedom};
  }

  /** The standard deviation of rows. */
  function deviation(rows, column) {
    let n = 0,
      mean = 0,
      squares = 0;
    for (const row of rows) {
      n += 1;
      const step = column[row] - mean;
      mean += step / n;
      squares += step * (column[row] - mean);
    }
    return Math.sqrt(squares / (n - 1));
  }

  Object.assign(NaoRay, {
    stats: {
      some,
      bestSoFar,
      pareto,
      byRank,
      sorted,
      quantile,
      groupBy,
      extent,
      correlation,
      rankCorrelation,
      repeats,
      deviation,
    },
  });
})((window.NaoRay ??= {}));
