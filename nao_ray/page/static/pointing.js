/* The pointer over a cloud: what is under it is told, a click opens the trial, a drag selects what it covers. */
"use strict";
((NaoRay) => {
  const {h, put} = NaoRay;
  const LEAST_DRAG = 6; // pixels: less is a click

  function tell(panel, x, y) {
    const place = panel.nearest(x, y),
      {cloud} = panel.shown;
    panel.tip.hidden = place < 0;
    panel.box.classList.toggle("at-trial", place >= 0);
    if (place < 0) return;
    const {pool, names} = cloud,
      row = cloud.rows[place];
    put(
      panel.tip,
      h("b", {}, `trial ${pool.frame.get("trial_id")[row]}`),
      names.map((name) => h("div", {}, `${NaoRay.columnLabel(name)} ${NaoRay.columnText(pool, name, row)}`)),
    );
    const left = Math.min(x + 14, panel.box.clientWidth - panel.tip.offsetWidth - 4);
    Object.assign(panel.tip.style, {
      left: `${Math.max(left, 0)}px`,
      top: `${Math.max(y - panel.tip.offsetHeight - 10, 0)}px`,
    });
  }

  function select(panel, from, to) {
    const {brush} = panel.shown.cloud,
      conditions = [];
    for (const name of ["x", "y"]) {
      const [low, high] = [panel.valueAt(name, from[name]), panel.valueAt(name, to[name])].sort((a, b) => a - b);
      conditions.push({column: brush[name], low, high});
    }
    NaoRay.selection.add(...conditions);
  }

  /** Makes the cloud of a panel answer to the pointer. */
  function pointing(panel) {
    let from = null;
    const band = h("div", {class: "band", hidden: true});
    panel.box.append(band);
    const place = (event) => {
      const box = panel.box.getBoundingClientRect();
      return {x: event.clientX - box.left, y: event.clientY - box.top};
    };
    panel.box.addEventListener("pointerdown", (event) => {
      if (!panel.shown?.cloud || event.button !== 0 || event.pointerType === "touch" || event.target.closest(".limit"))
        return;
      from = place(event);
      panel.box.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    panel.box.addEventListener("pointermove", (event) => {
      if (!panel.shown?.cloud) return;
      const at = place(event);
      if (!from) return tell(panel, at.x, at.y);
      panel.tip.hidden = true;
      band.hidden = Math.abs(at.x - from.x) < LEAST_DRAG || !panel.shown.cloud.brush;
      Object.assign(band.style, {
        left: `${Math.min(at.x, from.x)}px`,
        top: `${Math.min(at.y, from.y)}px`,
        width: `${Math.abs(at.x - from.x)}px`,
        height: `${Math.abs(at.y - from.y)}px`,
      });
    });
    panel.box.addEventListener("pointerup", (event) => {
      if (!panel.shown?.cloud) return;
      const at = place(event),
        was = from ?? at;
      const isDrag = !band.hidden;
      [from, band.hidden] = [null, true];
      if (isDrag) return select(panel, was, at);
      const found = panel.nearest(at.x, at.y),
        {cloud} = panel.shown;
      if (found >= 0 && !event.target.closest(".limit"))
        location.hash = `#trial/${cloud.pool.id}/${cloud.pool.frame.get("trial_id")[cloud.rows[found]]}`;
    });
    panel.box.addEventListener("pointercancel", () => ([from, band.hidden] = [null, true]));
    panel.box.addEventListener("pointerleave", () => (panel.tip.hidden = true));
  }

  NaoRay.pointing = pointing;
})((window.NaoRay ??= {}));
