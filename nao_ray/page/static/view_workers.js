/* When each worker trained what, and what share of them was busy. A worker is a node, or a place on it where trials overlap. */
"use strict";
((NaoRay) => {
  const {Panel, stats, duration, share, count, counted, selection} = NaoRay;
  const MOST_LANES = 40,
    SLICES = 120;

  /** Lanes without overlap: [{name, rows}], by node. */
  function lanes(pool) {
    const {frame} = pool,
      node = frame.get("node"),
      started = frame.get("started"),
      finished = frame.get("finished");
    if (!started || !finished) return [];
    const rows = pool.order.filter((row) => finished[row] > 0 && started[row] > 0 && finished[row] >= started[row]);
    if (!isSorted(rows, started)) rows.sort((a, b) => started[a] - started[b]);
    const byNode = new Map();
    for (const row of rows) {
      const name = frame.labels.node?.[node?.[row]] ?? "worker";
      if (!byNode.has(name)) byNode.set(name, []);
      const places = byNode.get(name);
      let place = places.find((one) => one.end <= started[row] + 1e-3);
      if (!place) places.push((place = {rows: [], end: 0}));
      place.rows.push(row);
      place.end = finished[row];
    }
    return [...byNode].flatMap(([name, places]) =>
      places.map((place, k) => ({name: places.length > 1 ? `${name} · ${k + 1}` : name, rows: place.rows})),
    );
  }

  const isSorted = (rows, column) => rows.every((row, k) => k === 0 || column[rows[k - 1]] <= column[row]);

  /** Paints lanes as bars; failed trials in the second colour, those not selected pale. */
  function painter(pool, shown, [from, to]) {
    const started = pool.frame.get("started"),
      finished = pool.frame.get("finished"),
      state = pool.frame.get("state"),
      mask = selection.maskOf(pool);
    return (canvas, width, height) => {
      const ratio = devicePixelRatio || 1,
        context = canvas.getContext("2d");
      Object.assign(canvas, {width: Math.round(width * ratio), height: Math.round(height * ratio)});
      Object.assign(canvas.style, {width: `${width}px`, height: `${height}px`});
      context.scale(ratio, ratio);
      const colours = [NaoRay.css("--accent"), NaoRay.css("--second"), NaoRay.css("--pale")],
        lane = height / shown.length,
        thick = Math.min(lane * 0.72, 22);
      const gap = shown.some((one) => one.rows.length > width / 4) ? 0 : 1;
      shown.forEach(({rows}, k) => {
        for (const row of rows) {
          context.fillStyle = colours[mask && !mask[row] ? 2 : state[row]];
          const left = ((started[row] - from) / (to - from)) * width,
            right = ((finished[row] - from) / (to - from)) * width;
          context.fillRect(left, k * lane + (lane - thick) / 2, Math.max(right - left - gap, 0.7), thick);
        }
      });
    };
  }

  function busy(pool, all, [from, to]) {
    const started = pool.frame.get("started"),
      finished = pool.frame.get("finished"),
      step = (to - from) / SLICES,
      sums = new Float64Array(SLICES);
    for (const {rows} of all)
      for (const row of rows) {
        const first = Math.max(0, Math.floor((started[row] - from) / step)),
          last = Math.min(SLICES - 1, Math.floor((finished[row] - from) / step));
        for (let k = first; k <= last; k += 1)
          sums[k] += Math.min(finished[row], from + (k + 1) * step) - Math.max(started[row], from + k * step);
      }
    return [...sums].map((sum, k) => [(k + 0.5) * step, Math.max(0, sum / (step * all.length))]);
  }

  function draw(panels, pool) {
    const all = pool.cached("lanes", () => lanes(pool));
    if (!all.length) return panels.forEach((panel) => panel.show({empty: "No finished trial tells when it ran."}));
    const started = pool.frame.get("started"),
      finished = pool.frame.get("finished"),
      rows = all.flatMap((lane) => [lane.rows[0], lane.rows.at(-1)]);
    const range = [stats.extent(rows, started)[0], stats.extent(rows, finished)[1]],
      shown = all.slice(0, MOST_LANES),
      length = range[1] - range[0] || 1;
    const course = pool.cached("busy", () => busy(pool, all, [range[0], range[0] + length])),
      mean = course.reduce((sum, [, value]) => sum + value, 0) / SLICES;
    const time = NaoRay.timeAxis("time since the first trial started", length);
    const working = (lane) => lane.rows.reduce((sum, row) => sum + finished[row] - started[row], 0);
    panels[0].show({
      height: 76 + Math.max(3, shown.length) * (shown.length > 20 ? 16 : 28),
      axes: {x: time, y: {categories: shown.map((lane) => lane.name), inverse: true, room: 128}},
      paint: painter(pool, shown, [range[0], range[0] + length]),
      series: [{type: "bar", data: []}],
      legend: [
        {name: "trial", colour: "--accent", form: "square"},
        {name: "failed", colour: "--second", form: "square"},
      ],
      summary: `${counted(all.length, "worker")} over ${duration(length)}.`,
      note:
        all.length > shown.length
          ? `The first ${shown.length} of ${count(all.length)} workers are drawn.`
          : "A worker is a node, or a place on it where trials overlap in time.",
      table: () => [
        ["worker", "trials", "working", "busy"],
        all.map((lane) => [lane.name, count(lane.rows.length), duration(working(lane)), share(working(lane) / length)]),
      ],
    });
    panels[1].show({
      axes: {x: time, y: {name: "share of the workers that train", extent: [0, 1.05], format: share}},
      lines: [{name: "busy", data: course, colour: "--accent", area: true, width: 1.5}],
      tooltip: {trigger: "axis", valueFormatter: share},
      summary: `${share(mean)} of the workers' time went into trials.`,
      table: () => [
        ["time since start", "busy"],
        course.filter((_, k) => k % 5 === 0).map(([at, value]) => [duration(at), share(value)]),
      ],
    });
  }

  NaoRay.views.push({
    id: "workers",
    label: "Workers",
    build(root, pool) {
      const panels = [
        new Panel(root, "Timeline of the workers", {class: "wide"}),
        new Panel(root, "Busy share", {class: "wide", height: 240}),
      ];
      return {update: () => draw(panels, pool), dispose: () => panels.forEach((panel) => panel.dispose())};
    },
  });
})((window.NaoRay ??= {}));
