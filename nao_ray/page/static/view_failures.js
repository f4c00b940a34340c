/* Failures by kind, with their commonest message, when they came, and the traceback of the newest. */
"use strict";
((NaoRay) => {
  const {h, put, count, counted, share, card, Panel, selection, stats} = NaoRay;
  const COLOURS = ["--second", "--accent", "--third", "--fourth", "--fifth", "--sixth"];
  const SLICES = 24;

  /** Rows of each kind of failure, the most first: [[kind, rows]]. */
  function byKind(pool) {
    const rows = selection.keep(pool, pool.failed),
      kind = pool.frame.get("failure_kind");
    if (!kind) return [];
    return [...stats.groupBy(rows, kind)]
      .map(([label, found]) => [pool.frame.labels.failure_kind[label] ?? "unknown", found])
      .sort((a, b) => b[1].length - a[1].length);
  }

  function coursePanel(panel, pool, kinds) {
    const order = pool.column("order"),
      size = Math.max(1, Math.ceil(pool.frame.rows / SLICES)),
      slices = Math.ceil(pool.frame.rows / size);
    const all = selection.keep(pool, pool.order),
      failed = kinds.reduce((sum, [, rows]) => sum + rows.length, 0);
    if (!failed) return panel.show({empty: "No selected trial failed."});
    const names = Array.from({length: slices}, (_, k) =>
      size === 1 ? String(k + 1) : `${k * size + 1}–${Math.min((k + 1) * size, pool.frame.rows)}`,
    );
    const counts = (rows) =>
      rows.reduce((sums, row) => ((sums[Math.floor((order[row] - 1) / size)] += 1), sums), new Array(slices).fill(0));
    const figures = kinds
      .slice(0, COLOURS.length)
      .map(([name, rows], k) => ({name, colour: COLOURS[k], counts: counts(rows)}));
    const most = Math.max(...names.map((_, k) => figures.reduce((sum, one) => sum + one.counts[k], 0)));
    panel.show({
      axes: {
        x: {name: "finished trials, in order", categories: names},
        y: {name: "failed trials", whole: true, extent: [0, most + 1]},
      },
      series: figures.map(({name, colour, counts: data}) => ({
        type: "bar",
        stack: "all",
        name,
        data,
        itemStyle: {color: NaoRay.css(colour), borderColor: NaoRay.css("--card"), borderWidth: 1},
        barCategoryGap: "18%",
      })),
      tooltip: {trigger: "axis"},
      legend: figures.map(({name, colour}) => ({name, colour, form: "square"})),
      summary: `${counted(failed, "trial")} of ${count(all.length)} failed (${share(failed / all.length)}), most of kind ${kinds[0][0]}.`,
      table: () => [
        ["trials", ...figures.map((one) => one.name)],
        names.map((name, k) => [name, ...figures.map((one) => String(one.counts[k]))]),
      ],
    });
  }

  function kindRow(pool, [kind, rows], most, told) {
    const newest = pool.frame.get("trial_id")[rows.at(-1)],
      id = told?.trial_id ?? newest;
    const log = h(
      "pre",
      {class: "log", tabindex: "0", role: "region", "aria-label": `Traceback of trial ${id}`},
      "Reading …",
    );
    const box = h(
      "details",
      {
        ontoggle: () =>
          box.open &&
          pool.trial(id).then(
            (trial) => put(log, trial.logs?.length ? trial.logs.join("\n\n") : "Nothing was logged."),
            (error) => put(log, error.message),
          ),
      },
      h("summary", {}, `Traceback of trial ${id}`),
      log,
    );
    const again = told?.retried
      ? h("p", {class: "note"}, `${counted(told.retried, "trial")} asked again, ${count(told.cured)} completed then.`)
      : null;
    return h(
      "li",
      {"data-kind": kind},
      h(
        "div",
        {class: "kind"},
        h("b", {}, kind),
        h("span", {class: "bar", style: `width:${Math.max(2, Math.round((160 * rows.length) / most))}px`}),
        h("span", {}, counted(rows.length, "trial")),
        h(
          "button",
          {type: "button", class: "plain", onclick: () => selection.add({column: "failure_kind", values: [kind]})},
          `Select ${kind}`,
        ),
        NaoRay.trialLink(pool, newest),
      ),
      told?.message ? h("p", {class: "message"}, told.message) : null,
      again,
      box,
    );
  }

  NaoRay.views.push({
    id: "failures",
    label: "Failures",
    build(root, pool) {
      let now = "";
      const panel = new Panel(root, "When they came", {class: "wide", height: 260}),
        list = h("ul", {class: "kinds"}),
        box = card("Kinds of failure", list);
      box.classList.add("wide");
      root.append(box);
      return {
        update() {
          const kinds = byKind(pool),
            next = JSON.stringify([kinds.map(([kind, rows]) => [kind, rows.length]), pool.report?.failures]);
          coursePanel(panel, pool, kinds);
          box.hidden = !kinds.length;
          if (next === now) return; // what is open stays open
          now = next;
          const opened = new Set(
            [...list.querySelectorAll("details[open]")].map((one) => one.closest("li").dataset.kind),
          );
          list.replaceChildren(
            ...kinds.map((kind) =>
              kindRow(
                pool,
                kind,
                kinds[0][1].length,
                pool.report?.failures.find((one) => one.kind === kind[0]),
              ),
            ),
          );
          for (const item of list.children) item.querySelector("details").open = opened.has(item.dataset.kind);
        },
        dispose: () => panel.dispose(),
      };
    },
  });
})((window.NaoRay ??= {}));
