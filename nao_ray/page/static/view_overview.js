/* How the search stands: state, progress, time left, tiles, the best architectures, alarms, notes and stars. */
"use strict";
((NaoRay) => {
  const {h, put, count, counted, duration, share, card, Panel} = NaoRay;
  const STATES = {alive: "Running", stale: "Silent", none: "Ended"};

  function stateText(pool) {
    const {status} = pool,
      state = status?.driver?.state ?? "none";
    if (!status) return "Reading how the search stands …";
    const left = status.eta_seconds != null && state === "alive" ? `, about ${duration(status.eta_seconds)} left` : "";
    const silent =
      state === "stale"
        ? `: its driver on ${status.driver.host} has not been heard of for ${duration(status.driver.silent_seconds)}`
        : "";
    return `${STATES[state]}${left}${silent}${status.driver?.note ? `. ${status.driver.note}` : ""}`;
  }

  function progress(pool) {
    const done = pool.status ? pool.status.completed + pool.status.failed : pool.frame.rows;
    const budget = pool.status?.budget_trials ?? pool.info.budget_trials;
    const state = pool.status?.driver?.state ?? "none";
    return h(
      "div",
      {class: "progress"},
      h(
        "p",
        {},
        h("span", {class: `badge ${state}`}, STATES[state]),
        stateText(pool)
          .replace(/^\w+/, "")
          .replace(/^[,:.] ?/, ""),
      ),
      budget
        ? [
            h("progress", {
              max: budget,
              value: Math.min(done, budget),
              "aria-label": "Trials of the budget that are finished",
            }),
            h("p", {class: "note"}, `${count(done)} of ${counted(budget, "trial")}`),
          ]
        : null,
    );
  }

  const tile = ([label, value]) => h("div", {class: "tile"}, h("dt", {}, label), h("dd", {}, value));

  function tiles(pool) {
    const {status, report} = pool;
    const best = pool.best(pool.own),
      found = [...(report?.tiles ?? [])];
    if (!report && best >= 0)
      found.push(
        [`best ${pool.metric.label}`, pool.score(pool.frame.get("value")[best])],
        ["finished trials", count(pool.frame.rows)],
      );
    if (status) {
      const live = [
        ["running now", status.running && count(status.running)],
        ["waiting", status.waiting && count(status.waiting)],
        ["trials an hour", status.trials_per_hour && NaoRay.number(status.trials_per_hour, 3)],
        ["workers busy", status.busy_share != null && share(status.busy_share)],
        [status.workers === 1 ? "worker" : "workers", status.workers && count(status.workers)],
      ];
      const told = new Set(found.map(([label]) => label));
      found.push(...live.filter(([label, value]) => value && !told.has(label)));
    }
    return h("dl", {class: "tiles"}, found.map(tile));
  }

  function facts(pool) {
    const {report, info} = pool;
    return h(
      "p",
      {class: "lead facts"},
      (report?.facts ?? info.facts).map(([label, value], k) => [k ? " · " : "", `${label} `, h("b", {}, value)]),
      report?.film ? [" · ", h("a", {href: report.film}, "the search as a film")] : null,
    );
  }

  function bestTable(pool) {
    const best = pool.report?.best ?? [];
    if (!best.length) return h("p", {class: "note"}, pool.report ? "No trial is complete yet." : "Reading …");
    const hasParams = best.some((row) => row.params),
      version = pool.report.best_version
        ? h(
            "p",
            {class: "note"},
            `By their scores with the newest shared weights (${pool.report.best_version}), which only compare.`,
          )
        : null;
    const covered = pool.report.covered,
      aims = NaoRay.aims(pool).names.filter((name) => name !== "num_params"),
      ladder = pool.report.is_ladder
        ? h("p", {class: "note"}, "Those of the highest rung first: scores after fewer epochs do not compare with theirs.")
        : null;
    return [
      version,
      ladder,
      covered && h("p", {class: "note"}, `By Pareto rank in ${covered.objectives.join(", ")}, in a rank by the metric.`),
      NaoRay.table(
        "Best architectures",
        [
          "",
          pool.metric.label,
          "trial",
          ...(ladder ? ["epochs"] : []),
          ...(hasParams ? ["parameters"] : []),
          ...aims.map(NaoRay.columnLabel),
        ],
        best
          .slice(0, 8)
          .map((row, k) => [
            String(k + 1),
            row.score + (row.is_control ? " (random control)" : ""),
            NaoRay.trialLink(pool, row.trial),
            ...(ladder ? [row.epochs] : []),
            ...(hasParams ? [row.params] : []),
            ...aims.map((name) => NaoRay.columnText(pool, name, pool.rowOf(Number(row.trial)))),
          ]),
        {fit: true},
      ),
      h("p", {class: "note"}, h("a", {href: NaoRay.app.href("best")}, "Their cells, drawn")),
    ];
  }

  function noted(pool) {
    const found = Object.entries(pool.notes);
    if (!found.length) return h("p", {class: "note"}, "Star a trial, or write a note, on its page.");
    return h(
      "ul",
      {class: "noted"},
      found.map(([trial, note]) =>
        h(
          "li",
          {},
          h("span", {"aria-hidden": "true", class: "star"}, note.star ? "★" : "✎"),
          h("a", {href: NaoRay.app.href("trial", pool, trial)}, `trial ${trial}${note.star ? ", starred" : ""}`),
          note.text ? ` ${note.text}` : "",
        ),
      ),
    );
  }

  function warnings(pool) {
    const alarms = pool.report?.alarms ?? [],
      sharing = pool.status?.sharing ?? [];
    return [
      ...alarms
        .slice(0, 3)
        .map((one) =>
          h(
            "p",
            {class: "alarm"},
            h("b", {}, "Alarm "),
            `${one.training}, ${one.moment}: the rule ${one.alarm} went off.`,
          ),
        ),
      ...sharing.map((text) => h("p", {class: "note"}, text)),
    ];
  }

  NaoRay.views.push({
    id: "overview",
    label: "Overview",
    title: (_, pool) => pool.name,
    build(root, pool) {
      const top = h("div", {class: "wide"}),
        warn = h("div", {class: "wide"});
      root.append(top, warn);
      const panel = new Panel(root, "Best so far", {height: 360});
      const best = h("div"),
        notes = h("div");
      root.append(h("div", {class: "stack"}, card("Best architectures", best), card("Notes and stars", notes)));
      return {
        update() {
          put(top, h("div", {class: "hero"}, h("div", {}, facts(pool)), progress(pool)), tiles(pool));
          put(warn, warnings(pool));
          warn.hidden = !warn.childNodes.length;
          NaoRay.bestPanel(panel, pool, "order", "finished trials");
          put(best, bestTable(pool));
          put(notes, noted(pool));
        },
        dispose: () => panel.dispose(),
      };
    },
  });
})((window.NaoRay ??= {}));
