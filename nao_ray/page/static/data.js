/* Where the numbers come from: the server of `nao-ray page`, or the data inside a report; and the columns of a pool. */
"use strict";
((NaoRay) => {
  const TYPES = {f64: Float64Array, f32: Float32Array, i32: Int32Array, i16: Int16Array, u8: Uint8Array};
  const embedded = document.getElementById("nao-ray-data");
  let bundle = null;

  const bytesOf = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

  async function readBundle() {
    const packed = new Blob([bytesOf(embedded.textContent)]).stream().pipeThrough(new DecompressionStream("gzip"));
    return (await new Response(packed).json()).responses;
  }

  /** Something a report in a file cannot tell. */
  class NeedsServer extends Error {
    constructor() {
      super("This needs the live page: start it with `nao-ray page POOL`.");
    }
  }

  async function answer(path, query, options) {
    if (embedded) {
      bundle ??= readBundle();
      const found = (await bundle)[path];
      if (found === undefined || options) throw new NeedsServer();
      return found;
    }
    const response = await fetch(query ? `${path}?${query}` : path, options).catch(() => {
      throw new Error("The page's server does not answer; is `nao-ray page` still running?");
    });
    if (response.ok) return response;
    const told = await response.json().catch(() => ({error: response.statusText}));
    throw Object.assign(
      new Error(
        response.status === 401 ? "Open the address that `nao-ray page` printed: it carries the token." : told.error,
      ),
      {status: response.status},
    );
  }

  /** The JSON of a path. */
  async function get(path, query = "") {
    const found = await answer(path, query);
    return embedded ? found : found.json();
  }

  /** The bytes of a path. */
  async function getBytes(path, query = "") {
    const found = await answer(path, query);
    return embedded ? bytesOf(found.base64).buffer : found.arrayBuffer();
  }

  /** What the server answers to something sent; `method` POST or PUT. */
  async function send(method, path, body) {
    const headers = {"Content-Type": "application/json", "X-Nao-Ray": "1"};
    return answer(path, "", {method, headers, body: JSON.stringify(body)});
  }

  /** A frame of columns as its header and arrays by name, which share the buffer. */
  function decode(buffer) {
    const length = new DataView(buffer).getUint32(4, true);
    if (new TextDecoder().decode(new Uint8Array(buffer, 0, 4)) !== "NRC1")
      throw new Error("The server sent columns this page cannot read: reload the page.");
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
    const columns = new Map(
      header.columns.map(({name, type, offset}) => [name, new TYPES[type](buffer, 8 + length + offset, header.rows)]),
    );
    return {header, columns};
  }

  /** What stands where a number is missing: NaN, -1, or 0 for operations. */
  const missingOf = (name, array) =>
    name.startsWith("op:")
      ? 0
      : array instanceof Float32Array || array instanceof Float64Array
        ? NaN
        : array instanceof Uint8Array
          ? 0
          : -1;

  /** The finished trials of a pool, column by column; rows only ever come at the end. */
  class Frame {
    constructor() {
      Object.assign(this, {rows: 0, total: 0, series: "", version: 0, labels: {}, stores: new Map()});
    }

    /** Adds a frame of the server's; returns how many rows came. */
    absorb(buffer) {
      const {header, columns} = decode(buffer);
      if (header.since !== this.rows || (this.series && header.series !== this.series))
        Object.assign(this, {rows: 0, stores: new Map()});
      if (header.since !== this.rows) return -1;
      const rows = this.rows + header.rows;
      for (const name of new Set([...this.stores.keys(), ...columns.keys()]))
        this.#extend(name, columns.get(name), rows);
      if (header.rows || header.series !== this.series) this.version += 1;
      Object.assign(this, {rows, total: header.total, series: header.series, labels: header.labels});
      return header.rows;
    }

    #extend(name, added, rows) {
      let store = this.stores.get(name);
      const missing = missingOf(name, store ?? added);
      if (!store && this.rows === 0) return this.stores.set(name, added);
      if (!store || store.length < rows) {
        const grown = new (store ?? added).constructor(Math.ceil(1.25 * rows) + 64).fill(missing);
        if (store) grown.set(store.subarray(0, this.rows));
        this.stores.set(name, (store = grown));
      }
      if (added) store.set(added, this.rows);
      else store.fill(missing, this.rows, rows);
    }

    /** The column, or null where no trial has it. */
    get(name) {
      return this.stores.get(name)?.subarray(0, this.rows) ?? null;
    }

    /** The label of a row in a label column, or "". */
    label(name, row) {
      return this.labels[name]?.[this.get(name)?.[row]] ?? "";
    }
  }

  Object.assign(NaoRay, {get, getBytes, send, decode, Frame, NeedsServer, isFile: Boolean(embedded)});
})((window.NaoRay ??= {}));
