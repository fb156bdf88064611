"""The script of a report: plots in the page's own ink and font, and tables sorted by a click."""

SCRIPT = r"""
(() => {
  "use strict";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  // plotly draws its own colours, so they are set anew whenever the page turns dark or light.
  const paint = () => {
    for (const plot of document.querySelectorAll(".js-plotly-plot")) {
      const change = { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
        "font.color": ink("--ink"), "font.family": getComputedStyle(document.body).fontFamily,
        "title.subtitle.font.color": ink("--soft"), "hoverlabel.bgcolor": ink("--card"),
        "hoverlabel.bordercolor": ink("--line"), "hoverlabel.font.color": ink("--ink") };
      for (const axis of Object.keys(plot._fullLayout || {}).filter((k) => /^[xy]axis/.test(k))) {
        change[axis + ".gridcolor"] = ink("--grid");
        change[axis + ".zerolinecolor"] = ink("--line");
        change[axis + ".linecolor"] = ink("--line");
      }
      Plotly.relayout(plot, change);
    }
  };
  dark.addEventListener("change", paint);
  addEventListener("load", paint);
  // On paper the page is light, whatever the screen is.
  const root = document.documentElement;
  addEventListener("beforeprint", () => { root.dataset.printing = ""; paint(); });
  addEventListener("afterprint", () => { delete root.dataset.printing; paint(); });

  const key = (row, column) => {
    const cell = row.cells[column];
    if (!("value" in cell.dataset)) return cell.textContent;
    const number = Number(cell.dataset.value);
    return cell.dataset.value === "inf" ? Infinity : cell.dataset.value === "-inf" ? -Infinity
      : number;
  };
  const order = (a, b) => {
    if (typeof a === "string") return a.localeCompare(b, undefined, { numeric: true });
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return a < b ? -1 : a > b ? 1 : 0;
  };
  const sort = (head) => {
    const body = head.closest("table").tBodies[0];
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentNode.cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].map((row) => [key(row, head.cellIndex), row]);
    rows.sort(([a], [b]) => {
      // What was not measured stays at the end both ways.
      if (Number.isNaN(a) || Number.isNaN(b)) return order(a, b);
      return down ? order(b, a) : order(a, b);
    });
    body.append(...rows.map(([, row]) => row));
  };
  document.addEventListener("click", (event) => {
    const head = event.target.closest(".sortable thead th");
    if (head) sort(head);
  });
})();
"""
