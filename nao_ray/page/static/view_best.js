/* The best architectures with their cells drawn. */
"use strict";
((NaoRay) => {
  const {h, put, selection} = NaoRay;
  const MOST = 20,
    DRAWN = 3;

  function ranked(pool) {
    const value = pool.frame.get("value"),
      sign = pool.more ? -1 : 1,
      kept = selection.keep(pool, pool.scored);
    if (!kept.length) return [];
    const aims = NaoRay.aims(pool);
    if (aims.names.length) return NaoRay.stats.byRank(kept, [value, ...aims.columns], [-sign, ...aims.signs], MOST);
    const found = NaoRay.stats.sorted(kept, value),
      last = Math.min(MOST, found.length) - 1;
    const bound = pool.more ? found[found.length - 1 - last] : found[last];
    return [...kept.filter((row) => sign * value[row] <= sign * bound)]
      .sort((a, b) => sign * (value[a] - value[b]))
      .slice(0, MOST);
  }

  function entry(pool, row, place) {
    const id = pool.frame.get("trial_id")[row],
      drawing = h(
        "div",
        {class: "scroll cells", tabindex: "0", role: "region", "aria-label": `Cells of trial ${id}`},
        "Reading …",
      );
    const draw = () =>
      pool.trial(id).then(
        (trial) => NaoRay.drawCells(drawing, trial),
        (error) => put(drawing, error.message),
      );
    const box = h(
      "details",
      {class: "card best", ontoggle: () => box.open && !box.isDrawn && ((box.isDrawn = true), draw())},
      h(
        "summary",
        {},
        h("b", {}, `${place}. `, pool.score(pool.frame.get("value")[row])),
        ` trial ${id}`,
        pool.frame.get("num_params") ? ` · ${NaoRay.columnText(pool, "num_params", row)} parameters` : "",
        NaoRay.aims(pool)
          .names.filter((name) => name !== "num_params")
          .map((name) => ` · ${NaoRay.columnLabel(name)} ${NaoRay.columnText(pool, name, row)}`),
        pool.frame.label("origin", row) ? ` · ${pool.frame.label("origin", row)}` : "",
      ),
      h("p", {}, h("a", {href: NaoRay.app.href("trial", pool, id)}, `Open trial ${id}`)),
      drawing,
    );
    return box;
  }

  NaoRay.views.push({
    id: "best",
    label: "Architectures",
    build(root, pool) {
      let now = "";
      const list = h("div", {class: "wide stack"}),
        legend = h(
          "p",
          {class: "note wide"},
          pool.info.is_recurrent
            ? "A node applies its activation, with weights and a gate of its own, to the state that its arrow comes from; the output is the mean of the states with a line to it."
            : "A node is the sum of what its arrows bring; the output is the concatenation of the states with a line to it. Dashed arrows bring nothing.",
        );
      const lead = h("p", {class: "lead wide"});
      root.append(lead, list, legend);
      return {
        update() {
          const rows = ranked(pool),
            next = rows.join(),
            {names} = NaoRay.aims(pool),
            order = names.length
              ? ` By Pareto rank in ${[pool.metric.label, ...names.map(NaoRay.columnLabel)].join(", ")}, in a rank by the first.`
              : "";
          put(
            lead,
            rows.length
              ? `The best ${rows.length} of the ${NaoRay.count(selection.keep(pool, pool.scored).length)} selected trials with a score${pool.after(rows)}.${order}`
              : "No scored trial is selected.",
          );
          if (next === now) return;
          now = next;
          list.replaceChildren(...rows.map((row, k) => entry(pool, row, k + 1)));
          [...list.children].slice(0, DRAWN).forEach((box) => (box.open = true));
        },
      };
    },
  });
})((window.NaoRay ??= {}));
