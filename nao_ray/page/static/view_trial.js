/* The page of one trial: its cells, figures, curve, lineage, log; its star and note. */
"use strict";
((NaoRay) => {
  const {h, put, card, Panel, airy, columnLabel, columnText} = NaoRay;
  const FACTS = [
    "value",
    "predicted",
    "predicted_spread",
    "round",
    "num_params",
    "macs",
    "latency_ms",
    "epochs",
    "device_seconds",
    "wall_seconds",
    "state",
    "failure_kind",
    "origin",
    "weights_version",
    "node",
    "device",
    "started",
    "finished",
  ];
  const MOST_KIN = 30;

  /** Puts the picture of a trial's cells into an element; `differing`: edges to mark. */
  function drawCells(place, trial, differing = []) {
    if (!trial.svg) return put(place, h("pre", {class: "log"}, trial.text ?? "This genotype cannot be drawn."));
    place.innerHTML = trial.svg; // made by the project itself, with every text escaped
    for (const edge of differing)
      for (const part of place.querySelectorAll(`[data-edge="${CSS.escape(edge)}"]`)) part.classList.add("differs");
  }

  function facts(pool, row) {
    const known = FACTS.filter((name) => pool.column(name))
      .map((name) => [name, columnText(pool, name, row)])
      .filter(([, text]) => text !== "–");
    return h(
      "dl",
      {class: "facts"},
      known.map(([name, text]) => h("div", {}, h("dt", {}, columnLabel(name)), h("dd", {}, text))),
    );
  }

  /** A link to a trial, with its score and of a ladder the epochs of it. */
  function kinLink(pool, row) {
    const id = pool.frame.get("trial_id")[row];
    const told = `${id} (${pool.score(pool.frame.get("value")[row])}${pool.after([row])})`;
    return h("a", {href: NaoRay.app.href("trial", pool, id)}, told);
  }

  /** Of a ladder the rows of all rungs of a row's architecture, the lowest first. */
  function rungsOf(pool, row) {
    const parent = pool.frame.get("parent"),
      trial = pool.frame.get("trial_id"),
      found = [row];
    if (!parent) return found;
    for (let at = pool.rowOf(parent[row]); at >= 0; at = pool.rowOf(parent[at])) found.unshift(at);
    const family = new Set(found.map((one) => trial[one]));
    for (const one of pool.order)
      if (family.has(parent[one]) && !family.has(trial[one])) {
        family.add(trial[one]);
        found.push(one);
      }
    return found;
  }

  function rungs(pool, row) {
    const links = rungsOf(pool, row).map((one, k) => [
      k ? " → " : "",
      one === row ? `${pool.frame.get("trial_id")[one]}${pool.after([one])}` : kinLink(pool, one),
    ]);
    return h("p", {class: "kin"}, h("b", {}, "Rungs "), links);
  }

  function lineage(pool, row) {
    const trial = pool.frame.get("trial_id"),
      source = pool.frame.get("source");
    const climbed = pool.isLadder ? rungs(pool, row) : null;
    if (!source) return [climbed, h("p", {class: "note"}, "Trials of this strategy have no parents.")];
    const parents = [],
      seen = new Set([row]);
    for (
      let at = pool.rowOf(source[row]);
      at >= 0 && !seen.has(at) && parents.length < MOST_KIN;
      at = pool.rowOf(source[at])
    ) {
      seen.add(at);
      parents.unshift(at);
    }
    const family = new Set(rungsOf(pool, row).map((one) => trial[one])),
      parent = pool.frame.get("parent"); // a further rung has the source of the first
    const children = [...pool.order.filter((one) => family.has(source[one]) && !(parent?.[one] >= 0))];
    const name = (one) => kinLink(pool, one);
    return [
      climbed,
      h(
        "p",
        {class: "kin"},
        h("b", {}, "Parents "),
        parents.length ? parents.map((one) => [name(one), " → "]) : "none",
        parents.length ? `${trial[row]}` : null,
      ),
      h(
        "p",
        {class: "kin"},
        h("b", {}, `Children `),
        children.length
          ? [
              children.slice(0, MOST_KIN).map((one, k) => [k ? ", " : "", name(one)]),
              children.length > MOST_KIN ? ` and ${children.length - MOST_KIN} more` : "",
            ]
          : "none",
      ),
    ];
  }

  function noteForm(pool, id, onsave) {
    const note = pool.notes[id] ?? {star: false, text: ""},
      said = h("span", {class: "said", role: "status"});
    if (NaoRay.isFile)
      return h(
        "p",
        {},
        note.star ? "★ starred. " : "",
        note.text || "No note.",
        h("span", {class: "note"}, " Notes are written on the live page."),
      );
    const text = h("textarea", {rows: "3", maxlength: "10000", "aria-label": "Note"}, note.text),
      star = h("button", {type: "button", class: "starred", "aria-pressed": String(note.star)}, "★ Star");
    const save = async () => {
      try {
        await pool.note(id, star.getAttribute("aria-pressed") === "true", text.value);
        onsave();
        put(said, "Saved.");
      } catch (error) {
        put(said, error.message);
      }
    };
    star.addEventListener("click", () => {
      star.setAttribute("aria-pressed", String(star.getAttribute("aria-pressed") !== "true"));
      save();
    });
    return h(
      "form",
      {class: "stack", onsubmit: (event) => (event.preventDefault(), save())},
      text,
      h("div", {class: "row"}, star, h("button", {type: "submit"}, "Save note"), said),
    );
  }

  function compareForm(pool, id) {
    const other = h("input", {
      name: "other",
      inputmode: "numeric",
      size: "8",
      "aria-label": "Number of the other trial",
      required: true,
    });
    const best = pool.bestBeside(pool.rowOf(Number(id))),
      bestId = best < 0 ? null : pool.frame.get("trial_id")[best];
    const go = (event) => {
      event.preventDefault();
      location.hash = NaoRay.app.href("compare", pool, id, `${pool.id}:${other.value.trim()}`);
    };
    return h(
      "form",
      {class: "row", onsubmit: go},
      "Compare with trial ",
      other,
      h("button", {type: "submit"}, "Compare"),
      bestId !== null && bestId !== Number(id)
        ? h("a", {href: NaoRay.app.href("compare", pool, id, `${pool.id}:${bestId}`)}, `with the best${pool.after([best])} (${bestId})`)
        : null,
    );
  }

  function curvePanel(panel, pool, trial) {
    const known = trial.curve?.filter((value) => value != null) ?? [];
    panel.root.hidden = known.length < 2;
    if (known.length < 2) return;
    panel.show({
      axes: {
        x: {name: "epoch", whole: true},
        y: {name: trial.curve_label, extent: airy([Math.min(...known), Math.max(...known)])},
      },
      tooltip: {trigger: "axis"},
      lines: [
        {
          name: trial.curve_label,
          data: trial.curve.map((value, k) => [k + 1, value]),
          colour: "--accent",
          dots: known.length < 40 ? 6 : 0,
        },
      ],
      summary: `From ${NaoRay.number(known[0])} to ${NaoRay.number(known.at(-1))} in ${NaoRay.counted(trial.curve.length, "epoch")}.`,
      table: () => [["epoch", trial.curve_label], trial.curve.map((value, k) => [String(k + 1), NaoRay.number(value)])],
    });
  }

  function rest(trial) {
    const notations = Object.entries(trial.notations ?? {}).map(([dialect, text]) =>
      h("div", {}, h("dt", {}, dialect), h("dd", {class: "mono"}, text)),
    );
    return [
      card(
        "Genotype",
        h(
          "dl",
          {class: "notations"},
          h("div", {}, h("dt", {}, "genotype"), h("dd", {class: "mono"}, trial.row.genotype ?? "–")),
          notations,
        ),
      ),
      trial.text && trial.svg
        ? h(
            "details",
            {class: "card"},
            h("summary", {}, "The cells as text"),
            h("pre", {class: "log", tabindex: "0"}, trial.text),
          )
        : null,
      trial.logs?.length
        ? card(
            "Log",
            trial.logs.map((log, k) =>
              h("pre", {class: "log", tabindex: "0", role: "region", "aria-label": `Log ${k + 1}`}, log),
            ),
          )
        : null,
      trial.final?.length
        ? card(
            "Full trainings",
            NaoRay.table(
              "Full trainings",
              ["training", "test", "validation", "recipe", "epochs", "parameters"],
              trial.final.map((row) => [row.name, row.test, row.valid, row.recipe, row.epochs, row.params]),
            ),
          )
        : null,
      h(
        "details",
        {class: "card"},
        h("summary", {}, "Every column"),
        NaoRay.table(
          "Columns of the trial",
          ["column", "value"],
          Object.entries(trial.row)
            .filter(([, value]) => value != null)
            .map(([name, value]) => [name, typeof value === "object" ? JSON.stringify(value) : String(value)]),
        ),
      ),
    ];
  }

  NaoRay.views.push({
    id: "trial",
    label: "Trial",
    hidden: true,
    under: "trials",
    title: ([id]) => `Trial ${id}`,
    build(root, pool, [id]) {
      const row = () => pool.rowOf(Number(id)),
        cells = h(
          "div",
          {class: "scroll cells", tabindex: "0", role: "region", "aria-label": `Cells of trial ${id}`},
          "Reading …",
        );
      const about = h("div"),
        notes = h("div"),
        kin = h("div"),
        more = h("div", {class: "wide stack"}),
        drawn = card("Cells", cells);
      drawn.classList.add("wide");
      root.append(drawn, card("Figures", about, compareForm(pool, id)));
      const panel = new Panel(root, "Curve");
      root.append(card("Lineage", kin), card("Star and note", notes), more);
      panel.root.hidden = true;
      pool.trial(id).then(
        (trial) => {
          drawCells(cells, trial);
          curvePanel(panel, pool, trial);
          put(more, rest(trial));
        },
        (error) => put(cells, error.message),
      );
      let noted = null;
      return {
        update() {
          put(
            about,
            row() >= 0
              ? facts(pool, row())
              : h("p", {class: "note"}, "This trial has not finished, or its columns are not in this file."),
          );
          put(kin, row() >= 0 ? lineage(pool, row()) : "");
          const now = JSON.stringify(pool.notes[id] ?? null);
          if (now === noted || notes.contains(document.activeElement)) return; // what is being written stays
          notes.replaceChildren(noteForm(pool, id, () => (noted = JSON.stringify(pool.notes[id] ?? null))));
          noted = now;
        },
        dispose: () => panel.dispose(),
      };
    },
  });
  NaoRay.drawCells = drawCells;
})((window.NaoRay ??= {}));
