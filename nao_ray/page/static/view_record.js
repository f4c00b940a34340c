/* What is on record: what trainings derived, their alarms and ends, the frozen manifest, footnotes. */
"use strict";
((NaoRay) => {
  const {h, put, card} = NaoRay;
  const wide = (element) => (element.classList.add("wide"), element);

  function alarm(one) {
    return h(
      "p",
      {class: "alarm"},
      h("b", {}, "Alarm "),
      `${one.training}, ${one.moment}: the rule `,
      h("b", {}, one.alarm),
      " went off.",
      one.instead ? [" It would have returned ", h("span", {class: "mono"}, one.instead)] : "",
    );
  }

  function end(one) {
    const what = one.kind === "nan" ? "diverged" : `failed (${one.kind})`;
    return h(
      "p",
      {class: "alarm"},
      h("b", {}, "Ended "),
      `${one.training}, epoch ${one.epoch}: this training ${what}. ${one.has_cell ? `What it returns is the cell of epoch ${one.epoch - 1}.` : "It returns no cell."}`,
    );
  }

  function derived(pool) {
    const {trainings, comparison = [], alarms = [], ends = [], derived: scores} = pool.report;
    if (!trainings?.rows?.length) return null;
    const groups = Object.entries(scores ?? {}).filter(([, values]) => values?.length);
    return wide(
      card(
        "What the trainings derived",
        h(
          "p",
          {class: "summary"},
          comparison.length
            ? comparison.join(" ")
            : "The comparison with the random control comes at the end of the search.",
        ),
        alarms.map(alarm),
        ends.map(end),
        NaoRay.table("What the trainings derived", trainings.headings, trainings.rows, {
          mono: [trainings.headings.length - 1],
        }),
        groups.length
          ? NaoRay.table(
              "Trained alone",
              ["architectures", "trained", "best", "mean"],
              groups.map(([name, values]) => [
                name,
                String(values.length),
                pool.score((pool.more ? Math.max : Math.min)(...values)),
                pool.score(values.reduce((a, b) => a + b, 0) / values.length),
              ]),
            )
          : null,
      ),
    );
  }

  function manifest(pool) {
    return wide(
      h(
        "details",
        {class: "card", open: true},
        h("summary", {}, "The frozen run.yaml of the pool"),
        NaoRay.table("Manifest", ["key", "value"], pool.report.manifest, {mono: [0, 1]}),
      ),
    );
  }

  function footnotes(pool) {
    return wide(
      card(
        "Notes",
        h(
          "ul",
          {class: "plain-list"},
          (pool.report.notes ?? []).map((text) => h("li", {}, text)),
          h(
            "li",
            {},
            `Pool ${pool.info.url}, space ${pool.info.space}, strategy ${pool.info.strategy}, task ${pool.info.task}, evaluator ${pool.info.evaluator}.`,
          ),
        ),
      ),
    );
  }

  NaoRay.views.push({
    id: "record",
    label: "Record",
    build(root, pool) {
      let now = null;
      root.append(h("p", {class: "note"}, "Reading …"));
      return {
        update() {
          const next = JSON.stringify(pool.report);
          if (!pool.report || next === now) return; // what is open stays open
          now = next;
          put(root, derived(pool), manifest(pool), footnotes(pool));
        },
      };
    },
  });
})((window.NaoRay ??= {}));
