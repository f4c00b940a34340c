/* The selection: conditions on columns that hold for every view and pool. A condition is
   {column, low, high}, {column, label, values} of a label column, or {ids, name}: trials of one pool. */
"use strict";
((NaoRay) => {
  const conditions = [];
  const listeners = [];
  let version = 0;

  const changed = () => {
    version += 1;
    listeners.forEach((listener) => listener());
  };

  const isSame = (a, b) => a.column === b.column && (a.column || a.name === b.name);

  /** Adds conditions; one on the same column gives way. */
  function add(...added) {
    for (const condition of added) {
      const place = conditions.findIndex((other) => isSame(other, condition));
      if (place >= 0) conditions.splice(place, 1, condition);
      else conditions.push(condition);
    }
    changed();
  }

  function remove(condition) {
    conditions.splice(conditions.indexOf(condition), 1);
    changed();
  }

  function clear() {
    conditions.length = 0;
    changed();
  }

  /** What a condition says. */
  function text(condition) {
    if (condition.ids) return condition.name;
    const name = NaoRay.columnLabel(condition.column);
    if (condition.values) return `${name}: ${condition.values.map((value) => value || "none").join(", ")}`;
    const {low, high} = condition,
      plain = (value) => (Math.abs(value) >= 1e4 ? NaoRay.large(value) : NaoRay.number(value));
    if (low === -Infinity) return `${name} ≤ ${plain(high)}`;
    return high === Infinity ? `${name} ≥ ${plain(low)}` : `${name} ${plain(low)} to ${plain(high)}`;
  }

  function narrow(mask, pool, condition) {
    if (condition.ids) {
      const trial = pool.frame.get("trial_id"),
        here = condition.pool === pool.id;
      for (let row = 0; row < mask.length; row += 1) if (!here || !condition.ids.has(trial[row])) mask[row] = 0;
      return;
    }
    const column = pool.column(condition.column);
    if (!column) return void mask.fill(0);
    if (condition.values) {
      const wanted = new Set(
        condition.values.map((value) => (value ? (pool.frame.labels[condition.column]?.indexOf(value) ?? -2) : -1)),
      );
      for (let row = 0; row < mask.length; row += 1) if (!wanted.has(column[row])) mask[row] = 0;
      return;
    }
    const {low, high} = condition;
    const isInteger = !(column instanceof Float32Array || column instanceof Float64Array);
    for (let row = 0; row < mask.length; row += 1) {
      const value = column[row]; // written so that NaN falls out; -1 is what stands for a missing integer
      if (!(value >= low && value <= high) || (isInteger && value === -1)) mask[row] = 0;
    }
  }

  /** One byte per row of a pool: whether it is selected; null where everything is. */
  function maskOf(pool) {
    if (!conditions.length) return null;
    const now = `${version} ${pool.frame.version} ${pool.points?.version ?? ""}`;
    if (pool.mask?.now !== now) {
      const mask = new Uint8Array(pool.frame.rows).fill(1);
      conditions.forEach((condition) => narrow(mask, pool, condition));
      pool.mask = {now, mask, count: mask.reduce((sum, bit) => sum + bit, 0)};
    }
    return pool.mask.mask;
  }

  /** Those of `rows` that are selected. */
  function keep(pool, rows) {
    const mask = maskOf(pool);
    return mask ? rows.filter((row) => mask[row]) : rows;
  }

  /** How many finished trials of a pool are selected. */
  function countOf(pool) {
    return maskOf(pool) ? pool.mask.count : pool.frame.rows;
  }

  NaoRay.selection = {
    conditions,
    add,
    remove,
    clear,
    text,
    maskOf,
    keep,
    countOf,
    onChange: (listener) => listeners.push(listener),
    get version() {
      return version;
    },
  };
})((window.NaoRay ??= {}));
