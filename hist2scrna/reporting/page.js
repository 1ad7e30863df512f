"use strict";
(() => {
  const data = JSON.parse(document.getElementById("gene-data").textContent);
  const columns = data.columns;
  const total = columns.gene.length;
  const ROWS_A_PAGE = 25;
  const lower = columns.gene.map((name) => name.toLowerCase());
  const first = data.shown.find((column) => column.key === "pearson") || data.shown[0];
  const state = { sort: first.key, descending: true, page: 0, suffix: data.scales.length ? data.scales[0].suffix : "", found: [] };

  const byId = (id) => document.getElementById(id);
  const table = byId("gene-table");
  const body = table.tBodies[0];
  const headings = new Map();
  // A column that is there on every scale is read on the one chosen.
  const valuesOf = (column) => columns[column.scaled ? column.key + state.suffix : column.key];
  const words = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

  function text(value) {
    if (value === null || value === undefined) return "–";
    if (typeof value === "string") return value;
    const size = Math.abs(value);
    return value === 0 || (size >= 0.0005 && size < 1e5) ? value.toFixed(3) : value.toExponential(1);
  }

  function order() {
    const column = data.shown.find((one) => one.key === state.sort);
    const values = valuesOf(column) || [];
    const sign = state.descending ? -1 : 1;
    const rank = column.key === "level" ? (value) => data.levels.indexOf(value) : null;
    state.found.sort((a, b) => {
      const x = values[a];
      const y = values[b];
      const gone = (x === null || x === undefined) - (y === null || y === undefined);
      if (gone || x === y || x === null || x === undefined) return gone || a - b;
      if (rank) return sign * (rank(x) - rank(y)) || a - b;
      return sign * (column.text ? words.compare(x, y) : x - y) || a - b;
    });
  }

  function search() {
    const asked = byId("search").value.toLowerCase().split(/[\s,;]+/).filter(Boolean);
    state.found = [];
    for (let i = 0; i < total; i++) {
      if (!asked.length || asked.some((word) => lower[i].includes(word))) state.found.push(i);
    }
    order();
    state.page = 0;
    byId("found").textContent = asked.length
      ? `${state.found.length.toLocaleString("en")} of ${total.toLocaleString("en")} genes`
      : `${total.toLocaleString("en")} genes`;
    show();
  }

  function show() {
    const pages = Math.max(1, Math.ceil(state.found.length / ROWS_A_PAGE));
    const start = state.page * ROWS_A_PAGE;
    const rows = document.createDocumentFragment();
    for (const i of state.found.slice(start, start + ROWS_A_PAGE)) {
      const row = document.createElement("tr");
      for (const column of data.shown) {
        const cell = document.createElement(column.key === "gene" ? "th" : "td");
        cell.textContent = text((valuesOf(column) || [])[i]);
        if (column.key === "gene") {
          cell.scope = "row";
          cell.title = cell.textContent;
        }
        row.append(cell);
      }
      rows.append(row);
    }
    body.replaceChildren(rows);
    for (const [key, heading] of headings) {
      heading.setAttribute("aria-sort", key !== state.sort ? "none" : state.descending ? "descending" : "ascending");
    }
    const last = Math.min(start + ROWS_A_PAGE, state.found.length);
    byId("page").textContent = state.found.length ? `${start + 1} to ${last} of ${state.found.length.toLocaleString("en")}` : "no gene";
    byId("previous").disabled = state.page === 0;
    byId("next").disabled = state.page >= pages - 1;
  }

  function csv() {
    const quoted = (value) => {
      const word = value === null || value === undefined ? "" : String(value);
      return /[",\r\n]/.test(word) ? `"${word.replaceAll('"', '""')}"` : word;
    };
    const names = Object.keys(columns);
    const lines = state.found.map((i) => names.map((name) => quoted(columns[name][i])).join(","));
    return [names.map(quoted).join(","), ...lines].join("\r\n") + "\r\n";
  }

  function download() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv;charset=utf-8" }));
    link.download = "genes.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  const line = table.tHead.insertRow();
  for (const column of data.shown) {
    const heading = document.createElement("th");
    const button = document.createElement("button");
    heading.scope = "col";
    button.type = "button";
    button.textContent = column.label;
    button.title = column.title;
    button.addEventListener("click", () => {
      state.descending = state.sort === column.key ? !state.descending : !column.text;
      state.sort = column.key;
      state.page = 0;
      order();
      show();
    });
    heading.append(button);
    line.append(heading);
    headings.set(column.key, heading);
  }
  for (const scale of data.scales) byId("scale").add(new Option(scale.label, scale.suffix));
  byId("scale").addEventListener("change", (event) => {
    state.suffix = event.target.value;
    order();
    state.page = 0;
    show();
  });
  byId("search").addEventListener("input", search);
  byId("download").addEventListener("click", download);
  byId("previous").addEventListener("click", () => { state.page -= 1; show(); });
  byId("next").addEventListener("click", () => { state.page += 1; show(); });
  search();
})();
