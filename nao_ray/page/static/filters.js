/* The bar that tells the selection, takes conditions away, and adds one by typing: what a drag over a chart does, by keyboard. */
"use strict";
((NaoRay) => {
  const {h, put, count, selection} = NaoRay;
  let bar, chips, told, form;

  function say(pool) {
    const all = pool.frame.rows,
      total = pool.frame.total;
    const of =
      total > all ? `${count(all)} of ${count(total)} trials are in this file` : `${count(all)} finished trials`;
    return selection.conditions.length
      ? `${count(selection.countOf(pool))} of ${count(all)} trials selected`
      : `All ${of}`;
  }

  const chip = (condition) =>
    h(
      "li",
      {},
      h(
        "button",
        {
          type: "button",
          class: "chip",
          "aria-label": `Remove the condition ${selection.text(condition)}`,
          onclick: () => {
            selection.remove(condition);
            form.querySelector("summary").focus();
          },
        },
        selection.text(condition),
        h("span", {"aria-hidden": "true"}, "×"),
      ),
    );

  function fields(pool, name) {
    const label = pool.frame.labels[name];
    if (label)
      return [
        h(
          "label",
          {},
          "is ",
          h(
            "select",
            {name: "is"},
            label.map((text) => h("option", {}, text)),
            h("option", {value: ""}, "none"),
          ),
        ),
      ];
    if (name === "state")
      return [
        h(
          "label",
          {},
          "is ",
          h("select", {name: "is"}, h("option", {value: "0"}, "completed"), h("option", {value: "1"}, "failed")),
        ),
      ];
    return [
      h("label", {}, "from ", h("input", {name: "low", inputmode: "decimal", size: "8"})),
      h("label", {}, "to ", h("input", {name: "high", inputmode: "decimal", size: "8"})),
    ];
  }

  /** The condition that the form says, or a text that says what is wrong with it. */
  function read(column) {
    const get = (name) => form.querySelector(`[name=${name}]`)?.value.trim();
    if (column === "state") return {column, low: Number(get("is")), high: Number(get("is"))};
    if (get("is") !== undefined) return {column, values: [get("is")]};
    const [low, high] = [get("low") ? Number(get("low")) : -Infinity, get("high") ? Number(get("high")) : Infinity];
    if (Number.isNaN(low) || Number.isNaN(high)) return "Type numbers, like 0.93 or 3.3e6.";
    return low === -Infinity && high === Infinity ? "Type a lower or an upper bound." : {column, low, high};
  }

  function build(root) {
    bar = root;
    told = h("p", {class: "told"});
    chips = h("ul", {class: "chips"});
    const column = h("select", {
      name: "column",
      onchange: () => place.replaceChildren(...fields(NaoRay.app.pool, column.value)),
    });
    const place = h("span", {class: "fields"}),
      wrong = h("p", {class: "wrong", role: "alert"});
    const submit = (event) => {
      event.preventDefault();
      const condition = read(column.value);
      put(wrong, typeof condition === "string" ? condition : "");
      if (typeof condition !== "string") selection.add(condition);
    };
    form = h(
      "details",
      {class: "filter", ontoggle: () => form.open && fill()},
      h("summary", {}, "Filter"),
      h(
        "form",
        {onsubmit: submit},
        h("label", {}, "Trials whose ", column),
        place,
        h("button", {type: "submit"}, "Select"),
        wrong,
      ),
    );
    const fill = () => {
      column.replaceChildren(
        ...NaoRay.selectable(NaoRay.app.pool).map(({name, label}) =>
          h("option", {value: name, selected: name === "value"}, label),
        ),
      );
      place.replaceChildren(...fields(NaoRay.app.pool, column.value));
    };
    const clear = h("button", {type: "button", class: "plain clear", onclick: () => selection.clear()}, "Clear");
    bar.replaceChildren(told, chips, clear, form);
  }

  function update(pool) {
    put(told, say(pool));
    chips.replaceChildren(...selection.conditions.map(chip));
    bar.querySelector(".clear").hidden = !selection.conditions.length;
  }

  NaoRay.filters = {build, update, say};
})((window.NaoRay ??= {}));
