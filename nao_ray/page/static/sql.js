/* The SQL box: one query over trials, fits and final, its answer as a table, and its trials as a selection. */
"use strict";
((NaoRay) => {
  const {h, put, selection} = NaoRay;

  const cell = (value) => (value == null ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));

  function answerTable(pool, {columns, rows, total, truncated, seconds}) {
    const at = columns.indexOf("trial_id"),
      ids = () => new Set(rows.map((row) => row[at]));
    const take =
      at < 0
        ? null
        : h(
            "button",
            {type: "button", onclick: () => selection.add({ids: ids(), pool: pool.id, name: "found by SQL"})},
            "Select these trials",
          );
    return [
      h(
        "p",
        {class: "row"},
        `${NaoRay.counted(total, "row")} in ${seconds.toFixed(2)} s${truncated ? `, the first ${NaoRay.count(rows.length)} of them here` : ""}. `,
        take,
      ),
      NaoRay.table(
        "Answer of the query",
        columns,
        rows.map((row) => row.map(cell)),
      ),
    ];
  }

  /** The box, closed at first. */
  function sqlBox(pool) {
    const text = h(
      "textarea",
      {id: "query", rows: "3", spellcheck: "false"},
      `SELECT trial_id, ${pool.metric.column ?? "genotype"}, num_params FROM trials ORDER BY trial_id DESC LIMIT 20`,
    );
    const answer = h("div", {"aria-live": "polite"});
    const ask = async (event) => {
      event.preventDefault();
      answer.replaceChildren(h("p", {class: "note"}, "Asking …"));
      try {
        const found = await (await NaoRay.send("POST", pool.path("sql"), {query: text.value})).json();
        answer.replaceChildren(...answerTable(pool, found));
      } catch (error) {
        answer.replaceChildren(h("p", {class: "wrong"}, error.message));
      }
    };
    text.addEventListener(
      "keydown",
      (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && ask(event),
    );
    const form = h(
      "form",
      {onsubmit: ask},
      h("label", {for: "query"}, "A query of the tables trials, fits and final (DuckDB; Ctrl and Enter runs it)"),
      text,
      h("button", {type: "submit"}, "Run"),
      answer,
    );
    return h(
      "details",
      {class: "sql"},
      h("summary", {}, "SQL"),
      NaoRay.isFile ? h("p", {class: "note"}, new NaoRay.NeedsServer().message) : form,
    );
  }

  NaoRay.sqlBox = sqlBox;
})((window.NaoRay ??= {}));
