/* The trials as a table: sorted by any column, a page at a time; downloads of the selection; the SQL box. */
"use strict";
((NaoRay) => {
  const {h, put, count, selection, columnLabel, columnText} = NaoRay;
  const PAGE = 50;
  const COLUMNS = [
    "trial_id",
    "value",
    "predicted",
    "round",
    "num_params",
    "macs",
    "latency_ms",
    "epochs",
    "parent",
    "device_seconds",
    "state",
    "failure_kind",
    "origin",
    "node",
    "finished",
  ];

  /** Selected rows in the order of a column, missing numbers last. */
  function sortedRows(pool, {by, down}) {
    const rows = Uint32Array.from(selection.keep(pool, pool.order)),
      column = pool.column(by);
    if (by === "order" || !column) return down ? rows.reverse() : rows;
    const sign = down ? -1 : 1,
      missing = (value) => value !== value || value === -1;
    return rows.sort((a, b) => missing(column[a]) - missing(column[b]) || sign * (column[a] - column[b]) || a - b);
  }

  function save(blob, name) {
    const link = h("a", {href: URL.createObjectURL(blob), download: name});
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  /** The columns of this page as CSV: what a report in a file can give. */
  function csv(pool, rows) {
    const names = COLUMNS.filter((name) => pool.column(name)),
      quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const plain = (name, row) =>
      pool.frame.labels[name]
        ? pool.frame.label(name, row)
        : name === "state"
          ? columnText(pool, name, row)
          : String(pool.column(name)[row]).replace(/^(NaN|-1)$/, "");
    const lines = Array.from(rows, (row) => names.map((name) => quoted(plain(name, row))).join(","));
    return new Blob(
      [[names.map((name) => (name === "value" ? pool.metric.name : name)).join(","), ...lines].join("\n"), "\n"],
      {type: "text/csv"},
    );
  }

  async function download(pool, format, told) {
    const rows = selection.keep(pool, pool.order),
      name = `${pool.name.replaceAll(/[^\w.-]+/g, "_")}.${format}`;
    try {
      if (NaoRay.isFile) return save(csv(pool, rows), name);
      const ids = selection.conditions.length ? Array.from(rows, (row) => pool.frame.get("trial_id")[row]) : null;
      put(told, "Preparing …");
      save(await (await NaoRay.send("POST", pool.path("download"), {format, ids})).blob(), name);
      put(told, "");
    } catch (error) {
      put(told, error.message);
    }
  }

  function toolbar(pool) {
    const told = h("span", {class: "said", role: "status"});
    const button = (format, text) =>
      h(
        "button",
        {type: "button", disabled: NaoRay.isFile && format === "parquet", onclick: () => download(pool, format, told)},
        text,
      );
    const star = h(
      "button",
      {
        type: "button",
        onclick: () =>
          selection.add({
            ids: new Set(
              Object.entries(pool.notes)
                .filter(([, note]) => note.star)
                .map(([id]) => Number(id)),
            ),
            pool: pool.id,
            name: "starred",
          }),
      },
      "Starred only",
    );
    return h(
      "div",
      {class: "row"},
      "Download the selection: ",
      button("csv", "CSV"),
      button("parquet", "Parquet"),
      star,
      told,
    );
  }

  class Table {
    constructor(root, pool) {
      Object.assign(this, {pool, page: 0, sort: {by: "order", down: true}});
      this.body = h("tbody");
      this.heads = h("tr");
      this.pager = h("div", {class: "pager"});
      this.box = h(
        "div",
        {class: "scroll trials", tabindex: "0", role: "region", "aria-label": "Trials"},
        h("table", {}, h("caption", {class: "hidden"}, "Trials"), h("thead", {}, this.heads), this.body),
      );
      root.append(h("section", {class: "card wide"}, toolbar(pool), this.pager, this.box, NaoRay.sqlBox(pool)));
    }

    #order(by) {
      const {sort} = this;
      this.sort = {by, down: sort.by === by ? !sort.down : by !== "trial_id"};
      this.page = 0;
      this.update();
      this.heads.querySelector(`[data-by="${by}"]`)?.focus();
    }

    #head(name) {
      const {by, down} = this.sort,
        isBy = by === name;
      return h(
        "th",
        {scope: "col", "aria-sort": isBy ? (down ? "descending" : "ascending") : "none"},
        h(
          "button",
          {type: "button", class: "sort", "data-by": name, onclick: () => this.#order(name)},
          columnLabel(name),
          h("span", {"aria-hidden": "true"}, isBy ? (down ? " ↓" : " ↑") : ""),
        ),
      );
    }

    #rows() {
      const {pool, sort} = this,
        now = `${sort.by} ${sort.down} ${selection.version} ${pool.frame.version}`;
      if (this.now !== now) Object.assign(this, {now, rows: sortedRows(pool, sort)});
      return this.rows;
    }

    #line(row) {
      const {pool, names} = this,
        id = pool.frame.get("trial_id")[row],
        note = pool.notes[id],
        text = pool.texts.get(id);
      const cells = names.map((name) =>
        h(
          "td",
          {class: ["state", "failure_kind", "origin", "node"].includes(name) ? null : "number"},
          name === "trial_id"
            ? [note?.star ? "★ " : "", h("a", {href: NaoRay.app.href("trial", pool, id)}, String(id))]
            : columnText(pool, name, row),
        ),
      );
      return h(
        "tr",
        {class: pool.frame.get("state")[row] ? "failed" : null},
        cells,
        h(
          "td",
          {class: "mono"},
          h("span", {class: "genotype", title: text?.message ?? text?.genotype}, text?.message ?? text?.genotype ?? ""),
        ),
      );
    }

    #turn(by) {
      this.page += by;
      this.update();
      this.box.scrollTop = 0;
    }

    update() {
      const {pool} = this,
        rows = this.#rows(),
        pages = Math.max(1, Math.ceil(rows.length / PAGE));
      this.page = Math.min(this.page, pages - 1);
      this.names = COLUMNS.filter((name) => pool.column(name));
      const shown = [...rows.subarray(this.page * PAGE, (this.page + 1) * PAGE)],
        ids = shown.map((row) => pool.frame.get("trial_id")[row]);
      const draw = () =>
        put(
          this.body,
          shown.map((row) => this.#line(row)),
        );
      const heads = h(
        "tr",
        {},
        this.names.map((name) => this.#head(name)),
        h("th", {scope: "col"}, "genotype or message"),
      );
      if (heads.innerHTML !== this.heads.innerHTML) this.heads.replaceChildren(...heads.childNodes);
      draw();
      pool.readTexts(ids).then(
        () => ids.length && draw(),
        () => {},
      );
      const button = (text, by, isOff) =>
        h("button", {type: "button", disabled: isOff, onclick: () => this.#turn(by)}, text);
      const label = `${count(this.page * PAGE + (rows.length ? 1 : 0))}–${count(Math.min((this.page + 1) * PAGE, rows.length))} of ${count(rows.length)}`;
      if (this.label === label) return;
      this.label = label;
      this.pager.replaceChildren(
        button("Previous", -1, this.page === 0),
        h("span", {}, label),
        button("Next", 1, this.page >= pages - 1),
      );
    }
  }

  NaoRay.views.push({
    id: "trials",
    label: "Trials",
    build(root, pool) {
      const table = new Table(root, pool);
      return {update: () => table.update()};
    },
  });
})((window.NaoRay ??= {}));
