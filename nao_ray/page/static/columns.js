/* The columns of a pool, as people call them. */
"use strict";
((NaoRay) => {
  const {count, duration, large, moment, number} = NaoRay;
  const LABELS = {
    trial_id: "trial",
    order: "finished trials",
    device_time: "device time so far",
    round: "round",
    state: "state",
    predicted: "predicted",
    predicted_spread: "spread of prediction",
    num_params: "parameters",
    macs: "multiply-adds",
    latency_ms: "latency in ms",
    wall_seconds: "wall time",
    device_seconds: "device time",
    asked: "asked",
    started: "started",
    finished: "finished",
    epochs: "epochs",
    source: "parent",
    parent: "goes on from",
    retry_of: "asked again for",
    origin: "origin",
    failure_kind: "failure",
    node: "node",
    device: "device",
    weights_version: "shared weights",
    map_x: "map, first axis",
    map_y: "map, second axis",
    architecture: "architecture",
  };
  const FORMS = {
    num_params: large,
    macs: large,
    wall_seconds: duration,
    device_seconds: duration,
    device_time: duration,
    asked: moment,
    started: moment,
    finished: moment,
  };
  const WHOLE = ["trial_id", "round", "epochs", "parent", "source", "retry_of", "architecture", "order"];

  /** The name of a column for people. */
  function columnLabel(name) {
    if (name === "value") return NaoRay.app.pool?.metric.label ?? "score";
    return name.startsWith("op:") ? name.slice(3) : (LABELS[name] ?? name);
  }

  /** The value of a column in a row, for people; "–" where it is missing. */
  function columnText(pool, name, row) {
    if (pool.frame.labels[name]) return pool.frame.label(name, row) || "–";
    const value = pool.column(name)?.[row];
    if (value == null || Number.isNaN(value) || (value === -1 && WHOLE.includes(name))) return "–";
    if (name === "state") return value ? "failed" : "completed";
    if (name === "predicted") return `${pool.score(value)}${predictedFor(pool, row)}`;
    if (name === "value") return pool.score(value);
    return WHOLE.includes(name) ? (name === "order" ? count(value) : String(value)) : (FORMS[name] ?? number)(value);
  }

  /** Of a ladder " after 9 epochs" where the prediction is of another rung than the row. */
  function predictedFor(pool, row) {
    const epochs = pool.isLadder && pool.report ? pool.predictedAfter(row) : null;
    return epochs === null || epochs === pool.frame.get("epochs")[row] ? "" : ` after ${NaoRay.counted(epochs, "epoch")}`;
  }

  /** A search's objectives beside its score, those that there are, and 1 where more is better: {names, columns, signs}. */
  function aims(pool) {
    const found = (pool.info.objectives ?? [])
      .map((text) => ({name: text.replace(/^[-+]/, ""), sign: text.startsWith("-") ? -1 : 1}))
      .filter(({name}) => !name.startsWith("valid_") && pool.column(name));
    return {
      names: found.map(({name}) => name),
      columns: found.map(({name}) => pool.column(name)),
      signs: found.map(({sign}) => sign),
    };
  }

  /** The columns that a condition can be about: {name, label, isLabel}. */
  function selectable(pool) {
    const skipped = ["log_index", "is_phase", "architecture", "retry_of", "asked", "rung"];
    const names = [...pool.frame.stores.keys()].filter((name) => !skipped.includes(name));
    return names.map((name) => ({name, label: columnLabel(name), isLabel: Boolean(pool.frame.labels[name])}));
  }

  Object.assign(NaoRay, {columnLabel, columnText, aims, selectable});
})((window.NaoRay ??= {}));
