/* Two architectures side by side, with the differences marked. */
"use strict";
((NaoRay) => {
  const {h, put, card, get} = NaoRay;

  /** The comparison of two trials; in a file from the edges of both. */
  async function compared(a, b) {
    if (!NaoRay.isFile) return get("api/compare", `a=${a.pool.id}:${a.id}&b=${b.pool.id}:${b.id}`);
    const [one, two] = await Promise.all([a.pool.trial(a.id), b.pool.trial(b.id)]);
    const differing = (x, y) => Object.keys(x.edges ?? {}).filter((edge) => x.edges[edge] !== y.edges?.[edge]);
    const only = [differing(one, two), differing(two, one)],
      all = new Set([...Object.keys(one.edges ?? {}), ...Object.keys(two.edges ?? {})]);
    return {
      a: one,
      b: two,
      only_a: only[0],
      only_b: only[1],
      sentence: `${new Set(only.flat()).size} of ${all.size} operations differ`,
    };
  }

  function side(which, trial, only) {
    const cells = h("div", {
      class: "scroll cells",
      tabindex: "0",
      role: "region",
      "aria-label": `Cells of trial ${which.id}`,
    });
    NaoRay.drawCells(cells, trial, only);
    const row = which.pool.rowOf(Number(which.id));
    const score = row >= 0 ? which.pool.score(which.pool.frame.get("value")[row]) : "–";
    return card(
      null,
      h(
        "h2",
        {},
        h("a", {href: NaoRay.app.href("trial", which.pool, which.id)}, `Trial ${which.id}`),
        NaoRay.app.pools.length > 1 ? ` of ${which.pool.name}` : "",
      ),
      h(
        "p",
        {class: "summary"},
        `${which.pool.metric.label} ${score}${row >= 0 ? which.pool.after([row]) : ""}`,
        row >= 0 && which.pool.column("num_params")
          ? ` · ${NaoRay.columnText(which.pool, "num_params", row)} parameters`
          : "",
      ),
      cells,
    );
  }

  function differences(a, b, {a: one, b: two, only_a: onlyA, only_b: onlyB}) {
    const edges = [...new Set([...onlyA, ...onlyB])];
    const place = (edge) =>
      edge
        .split(":")
        .map((part, k) => (k === 0 ? part : k === 1 ? `node ${part}` : `input ${Number(part) + 1}`))
        .join(", ");
    return edges.length
      ? NaoRay.table(
          "Differences",
          ["where", `trial ${a.id}`, `trial ${b.id}`],
          edges.map((edge) => [place(edge), one.edges?.[edge] ?? "–", two.edges?.[edge] ?? "–"]),
        )
      : h("p", {class: "note"}, "The cells are the same.");
  }

  function choose(a, b) {
    const {pools} = NaoRay.app;
    const field = (which, label) => {
      const select = h(
        "select",
        {"aria-label": `Pool of ${label}`},
        pools.map((pool) => h("option", {value: pool.id, selected: pool === which.pool}, pool.name)),
      );
      const input = h("input", {inputmode: "numeric", size: "8", "aria-label": label, value: which.id ?? ""});
      return {select, input, row: [pools.length > 1 ? select : null, input]};
    };
    const one = field(a, "first trial"),
      two = field(b, "second trial");
    const go = (event) => {
      event.preventDefault();
      location.hash = NaoRay.app.href(
        "compare",
        {id: one.select.value},
        one.input.value.trim(),
        `${two.select.value}:${two.input.value.trim()}`,
      );
    };
    return h(
      "form",
      {class: "row wide", onsubmit: go},
      "Trial ",
      one.row,
      " beside trial ",
      two.row,
      h("button", {type: "submit"}, "Compare"),
    );
  }

  /** Without numbers given: the two best. */
  function defaults(pool) {
    const best = pool.report?.best ?? [];
    return [best[0]?.trial, best[1]?.trial];
  }

  NaoRay.views.push({
    id: "compare",
    label: "Compare",
    build(root, pool, [first, second]) {
      const place = h("div", {class: "wide"}),
        [poolId, id] = (second ?? "").split(":");
      let now = "";
      root.append(place);
      return {
        update() {
          const [bestA, bestB] = defaults(pool),
            a = {pool, id: first ?? bestA},
            b = {pool: NaoRay.app.pools.find((one) => one.id === poolId) ?? pool, id: id || bestB};
          const next = `${a.id} ${b.pool.id}:${b.id}`;
          if (next === now) return;
          now = next;
          place.replaceChildren(choose(a, b));
          if (a.id === undefined || b.id === undefined)
            return void place.append(h("p", {class: "lead"}, "Type the numbers of two trials."));
          const shown = h("div", {class: "stack"}, h("p", {class: "note"}, "Reading …"));
          place.append(shown);
          compared(a, b).then(
            (found) => {
              const wide = card(
                "Differences",
                h("p", {class: "summary"}, `${found.sentence.replace(/\.$/, "")}; they are marked.`),
                differences(a, b, found),
              );
              put(
                shown,
                h("div", {class: "sides"}, side(a, found.a, found.only_a), side(b, found.b, found.only_b)),
                wide,
              );
            },
            (error) => put(shown, h("p", {class: "wrong"}, error.message)),
          );
        },
      };
    },
  });
})((window.NaoRay ??= {}));
