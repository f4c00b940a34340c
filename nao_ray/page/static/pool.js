/* A pool as the page knows it, and what follows from its columns. Rows are numbers of finished trials. */
"use strict";
((NaoRay) => {
  const {Frame, get, getBytes} = NaoRay;

  class Pool {
    constructor(info) {
      Object.assign(this, {info, id: info.id, name: info.name, frame: new Frame(), status: null, report: null});
      Object.assign(this, {
        notes: {},
        texts: new Map(),
        trials: new Map(),
        points: null,
        error: info.error,
        caches: new Map(),
      });
    }

    get metric() {
      return this.info.metric;
    }

    get more() {
      return this.metric.more_is_better;
    }

    /** The score as text. */
    score(value) {
      return NaoRay.isMissing(value) ? "–" : `${NaoRay.number(value)}${this.metric.unit ? ` ${this.metric.unit}` : ""}`;
    }

    /** A figure that is made once per state of the columns, of a ladder of the selection too. */
    cached(name, make) {
      const chosen = this.isLadder ? NaoRay.selection.version : "", // the rung that is looked at follows the selection
        version = `${this.frame.version} ${this.points?.version ?? ""} ${chosen}`;
      const found = this.caches.get(name);
      if (found?.version === version) return found.value;
      const value = make();
      this.caches.set(name, {version, value});
      return value;
    }

    /** All rows in the order the strategy was told. */
    get order() {
      return this.cached("order", () => {
        const {rows} = this.frame,
          index = this.frame.get("log_index"),
          found = new Uint32Array(rows);
        const places = new Int32Array(1 + (index?.reduce((most, value) => Math.max(most, value), rows) ?? rows)).fill(
          -1,
        );
        let n = 0;
        for (let row = 0; row < rows; row += 1) places[index?.[row] >= 0 ? index[row] : row] = row;
        for (const row of places) if (row >= 0) found[n++] = row;
        return found.subarray(0, n);
      });
    }

    /** Whether its search has a ladder of fidelities. */
    get isLadder() {
      return Boolean(this.info.rungs?.length);
    }

    /** Rows with a score in order, of a ladder those of every rung: see `ofOneRung`. */
    get measured() {
      return this.cached("measured", () => {
        const value = this.frame.get("value"),
          state = this.frame.get("state"),
          phase = this.frame.get("is_phase");
        if (!value) return new Uint32Array(0);
        return this.order.filter((row) => state[row] === 0 && !phase?.[row] && Number.isFinite(value[row]));
      });
    }

    /** Those of `rows` that compare: of a ladder the highest rung of which `fewest` are selected, or else the fullest. */
    ofOneRung(rows, fewest = 1) {
      const rung = this.frame.get("rung");
      if (!rung) return rows;
      const kept = NaoRay.selection.keep(this, rows),
        groups = [...NaoRay.stats.groupBy(kept.length ? kept : rows, rung)].reverse();
      const full = Math.max(...groups.map(([, found]) => found.length));
      const chosen = groups.find(([, found]) => found.length >= Math.min(fewest, full))?.[0];
      return rows.filter((row) => rung[row] === chosen);
    }

    /** " after 8 epochs" of rows of one rung; "" where there is no ladder. */
    after(rows) {
      return this.isLadder && rows.length ? ` after ${NaoRay.counted(this.frame.get("epochs")[rows[0]], "epoch")}` : "";
    }

    /** Says of which rung these rows are. */
    rungNote(rows) {
      const after = this.after(rows);
      return after && `Trials${after} alone, for scores of other rungs do not compare with theirs. `;
    }

    /** Of a ladder the epochs that a row's predicted score is of, as its round's fit says, or else those of the first rung. */
    predictedAfter(row) {
      return this.report?.predicted_rungs?.[this.frame.get("round")?.[row]] ?? this.info.rungs[0];
    }

    /**
     * Rows with a score that compare with each other, in order: trained alone, or else of the newest shared weights; of
     * a ladder those of the highest rung that was reached, by what is selected.
     */
    get scored() {
      return this.cached("scored", () => {
        const version = this.frame.get("weights_version"),
          all = this.ofOneRung(this.measured);
        if (!version || !all.length) return all;
        const alone = all.filter((row) => version[row] < 0);
        if (alone.length) return alone;
        const newest = version[all.at(-1)];
        return all.filter((row) => version[row] === newest);
      });
    }

    #ofOrigin(isControl, rows = this.scored) {
      const origin = this.frame.get("origin"),
        control = this.frame.labels.origin?.indexOf("control") ?? -1;
      if (!origin || control < 0) return isControl ? new Uint32Array(0) : rows;
      return rows.filter((row) => (origin[row] === control) === isControl);
    }

    /** The scored rows that the strategy proposed. */
    get own() {
      return this.cached("own", () => this.#ofOrigin(false));
    }

    /** The scored rows of the random twin inside this pool. */
    get control() {
      return this.cached("control", () => this.#ofOrigin(true));
    }

    /** The rows that failed. */
    get failed() {
      return this.cached("failed", () => {
        const state = this.frame.get("state");
        return this.order.filter((row) => state[row] === 1);
      });
    }

    /** The row with the best score, or -1. */
    best(rows) {
      const value = this.frame.get("value");
      let best = -1;
      for (const row of rows)
        if (best < 0 || (this.more ? value[row] > value[best] : value[row] < value[best])) best = row;
      return best;
    }

    /** The best row that the strategy proposed, to compare a row with: of a ladder the best of the row's rung; or -1. */
    bestBeside(row) {
      if (!this.isLadder) return this.best(this.own);
      const rung = this.frame.get("rung"),
        beside = this.measured.filter((one) => rung[one] === rung[row]);
      return this.best(this.#ofOrigin(false, beside));
    }

    /** A column of the frame, or one that follows from it: order, device_time, map_x, map_y; null where there is none. */
    column(name) {
      const make = {
        order: () => this.#places(),
        device_time: () => this.#times(),
        map_x: () => this.#mapped("x"),
        map_y: () => this.#mapped("y"),
      }[name];
      return make ? this.cached(`column ${name}`, make) : this.frame.get(name);
    }

    #places() {
      const found = new Float64Array(this.frame.rows);
      this.order.forEach((row, place) => (found[row] = place + 1));
      return found;
    }

    #times() {
      const seconds = this.frame.get("device_seconds"),
        found = new Float64Array(this.frame.rows);
      let sum = 0;
      for (const row of this.order) found[row] = sum += seconds?.[row] > 0 ? seconds[row] : 0;
      return found;
    }

    #mapped(axis) {
      if (!this.points) return null;
      const found = new Float64Array(this.frame.rows).fill(NaN);
      this.points.columns
        .get("trial_id")
        .forEach((trial, k) => (found[this.rowOf(trial)] = this.points.columns.get(axis)[k]));
      return found;
    }

    /** The row of a trial, or -1. */
    rowOf(trial) {
      const rows = this.cached("rows", () => {
        const found = new Map();
        this.frame.get("trial_id")?.forEach((id, row) => found.set(id, row));
        return found;
      });
      return rows.get(trial) ?? -1;
    }

    path(rest) {
      return `api/pools/${this.id}/${rest}`;
    }

    /** Reads the trials that are new; true where there are any. */
    async refresh() {
      const {frame} = this;
      const query = frame.series ? `since=${frame.rows}&series=${encodeURIComponent(frame.series)}` : "";
      let came = frame.absorb(await getBytes(this.path("columns"), NaoRay.isFile ? "" : query));
      if (came < 0) came = frame.absorb(await getBytes(this.path("columns")));
      return came > 0;
    }

    async refreshStatus() {
      this.status = await get(this.path("status"));
    }

    async refreshReport() {
      this.report = await get(this.path("report"));
    }

    async refreshNotes() {
      this.notes = (await get(this.path("notes"))).notes;
    }

    /** Reads where the embeddings are, once, and again when the pool has grown by a tenth. */
    async refreshMap() {
      if (this.points && this.frame.total < 1.1 * this.points.total) return;
      const total = this.frame.total;
      this.points = {...NaoRay.decode(await getBytes(this.path("map"))), total, version: total};
    }

    /** What the table shows of some trials besides numbers: genotype and message. */
    async readTexts(ids) {
      const wanted = ids.filter((id) => !this.texts.has(id));
      if (!wanted.length) return;
      const found = await get(this.path("texts"), `ids=${wanted.join(",")}`);
      for (const id of wanted) this.texts.set(id, found[id] ?? {genotype: "", message: null});
    }

    /** One trial with its picture, curve and logs. */
    async trial(id) {
      if (!this.trials.has(id)) this.trials.set(id, await get(this.path(`trials/${id}`)));
      return this.trials.get(id);
    }

    async note(id, star, text) {
      const answer = await NaoRay.send("PUT", this.path(`notes/${id}`), {star, text});
      this.notes = (await answer.json()).notes;
    }
  }

  NaoRay.Pool = Pool;
})((window.NaoRay ??= {}));
