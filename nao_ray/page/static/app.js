/* The page: which pool and view are shown, and the refresh. A view is {id, label, build(root, pool, args)}; build
   returns {update(), dispose()}: update is called whenever there is something new to show. */
"use strict";
((NaoRay) => {
  const {h, put, get, Pool, views, selection} = NaoRay;
  const MOST_READ = 12; // pools whose trials are read although another is shown
  const REPORT_EVERY = 30; // seconds: the report's tables are worked out anew by the server
  const at = (id) => document.getElementById(id);
  const app = (NaoRay.app = {pools: [], pool: null, view: null, refreshSeconds: 3, error: ""});
  let shown = null,
    key = "",
    scheduled = 0;

  /** The address of a view of a pool. */
  app.href = (view, pool = app.pool, ...rest) => `#${[view, pool.id, ...rest].map(encodeURIComponent).join("/")}`;

  function route() {
    const [id, pool, ...args] = location.hash.slice(1).split("/").map(decodeURIComponent);
    app.pool = app.pools.find((one) => one.id === pool) ?? app.pool ?? app.pools[0];
    app.view = views.find((one) => one.id === id) ?? views[0];
    const now = [app.view.id, app.pool.id, ...args].join("/");
    if (now !== key) open(args, key !== "");
    key = now;
  }

  function open(args, moveFocus) {
    shown?.dispose?.();
    const root = h("div", {class: `view view-${app.view.id}`});
    at("view").replaceChildren(root);
    const title = app.view.title?.(args, app.pool) ?? app.view.label;
    put(at("title"), title);
    document.title = `${title} · ${app.pool.name} · nao_ray`;
    shown = app.view.build(root, app.pool, args);
    if (moveFocus) {
      at("title").focus({preventScroll: true});
      scrollTo(0, 0);
    }
    app.update();
    demand(app.pool).then(app.update, fail);
  }

  /** Draws what is new now. */
  function draw() {
    head();
    NaoRay.filters.update(app.pool);
    if (app.pool.error && !app.pool.frame.rows) put(at("view"), h("p", {class: "lead"}, app.pool.error));
    else shown?.update();
  }

  /** Draws what is new, once per frame of the screen. */
  app.update = () => {
    cancelAnimationFrame(scheduled);
    scheduled = requestAnimationFrame(draw);
  };

  function head() {
    const many = app.pools.length > 1;
    const choice = h(
      "select",
      {id: "pool", "aria-label": "Pool"},
      app.pools.map((pool) => h("option", {value: pool.id, selected: pool === app.pool}, pool.name)),
    );
    if (at("pool")?.innerHTML !== choice.innerHTML) {
      choice.addEventListener(
        "change",
        () => (location.hash = app.href(app.view.hidden ? "overview" : app.view.id, {id: choice.value})),
      );
      at("pools").replaceChildren(many ? choice : h("strong", {}, app.pool.name));
    }
    nav(many);
    const state = app.error ? "bad" : NaoRay.isFile ? "still" : "on";
    put(
      at("live"),
      h("span", {class: `dot ${state}`, "aria-hidden": "true"}),
      app.error || (NaoRay.isFile ? "Report" : app.pool.status?.driver?.state === "alive" ? "Running" : "Live"),
    );
    put(at("theme"), NaoRay.theme.current() === "dark" ? "Light" : "Dark");
    at("theme").setAttribute(
      "aria-label",
      `Switch to the ${NaoRay.theme.current() === "dark" ? "light" : "dark"} colours`,
    );
  }

  function nav(many) {
    const link = (view) =>
      h(
        "a",
        {
          href: app.href(view.id),
          "aria-current": view === app.view ? "page" : view.id === app.view.under ? "true" : null,
        },
        view.label,
      );
    const offered = views.filter((view) => !view.hidden && (view.id !== "pools" || many));
    if (
      !put(
        at("nav"),
        h(
          "ul",
          {},
          offered.map((view) => h("li", {}, link(view))),
        ),
      )
    )
      return;
    const current = at("nav").querySelector("[aria-current]"); // on a narrow page the row of views scrolls
    if (current) at("nav").scrollLeft = current.offsetLeft - at("nav").clientWidth / 2 + current.offsetWidth / 2;
  }

  /** Says something to who does not see the page. */
  app.say = (text) => put(at("said"), text);

  function fail(error) {
    if (error instanceof NaoRay.NeedsServer) return;
    app.error = error.message;
    app.update();
  }

  /** What the view needs besides the columns: report, status, notes, map. */
  async function demand(pool, isAgain = false) {
    const old = Date.now() - (pool.reportRead ?? 0) > 1000 * REPORT_EVERY;
    const wanted = [pool.refreshStatus()];
    if (!pool.report || (isAgain && old)) {
      pool.reportRead = Date.now();
      wanted.push(pool.refreshReport());
    }
    if (!pool.notesRead) {
      pool.notesRead = true;
      wanted.push(pool.refreshNotes());
    }
    if (app.view.wantsMap && pool.frame.rows) wanted.push(pool.refreshMap());
    const ends = await Promise.allSettled(wanted.map((one) => one.then(app.update)));
    const wrong = ends.find((end) => end.status === "rejected" && !(end.reason instanceof NaoRay.NeedsServer));
    if (wrong) throw wrong.reason;
  }

  async function refresh() {
    for (const pool of app.pools) {
      if (pool !== app.pool && app.pools.length > MOST_READ) continue;
      if (!pool.error && (await pool.refresh())) app.update();
    }
    await demand(app.pool, true);
    if (app.error) [app.error] = ["", app.update()];
  }

  function again() {
    setTimeout(async () => {
      if (!document.hidden) await refresh().catch(fail);
      again();
    }, 1000 * app.refreshSeconds);
  }

  async function start() {
    const {pools, refresh_seconds: seconds} = await get("api/pools");
    app.refreshSeconds = seconds ?? 3;
    app.pools = pools.map((info) => new Pool(info));
    NaoRay.filters.build(at("filters"));
    const wanted = location.hash.slice(1).split("/")[1];
    const first = app.pools.find((pool) => pool.id === wanted) ?? app.pools[0];
    if (!first.error) await first.refresh();
    route();
    addEventListener("hashchange", route);
    for (const pool of app.pools.slice(0, MOST_READ))
      if (pool !== first && !pool.error) await pool.refresh().then(app.update, fail);
    if (!NaoRay.isFile) again();
  }

  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    at("main").focus();
  });
  at("theme").addEventListener("click", NaoRay.theme.toggle);
  NaoRay.theme.onChange(() => shown && draw()); // at once: paper does not wait for the next frame
  selection.onChange(() => {
    app.update();
    app.say(NaoRay.filters.say(app.pool));
  });
  start().catch((error) => put(at("view"), h("p", {class: "lead wrong"}, error.message)));
})((window.NaoRay ??= {}));
