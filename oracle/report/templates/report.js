"use strict";
(() => {
  const collator = new Intl.Collator("en", { numeric: true });

  // NaN is worse than any number, and a cell without a number comes last whichever way one sorts.
  const measure = (text) => {
    if (text === "") return null;
    if (text === "nan") return [2, 0];
    return [1, text === "inf" ? Infinity : text === "-inf" ? -Infinity : Number(text)];
  };

  const compare = (one, other, kind, sign) => {
    if (kind === "text") return sign * collator.compare(one, other);
    if (one === null || other === null) return (one === null) - (other === null);
    if (one[0] !== other[0]) return sign * (one[0] - other[0]);
    return one[1] === other[1] ? 0 : sign * (one[1] < other[1] ? -1 : 1);
  };

  const sort = (table, column, kind, sign) => {
    const body = table.tBodies[0];
    const keyed = [...body.rows].map((row) => {
      const cell = row.cells[column];
      const text = cell.dataset.key ?? cell.textContent;
      return { row, key: kind === "text" ? text : measure(text), place: Number(row.cells[0].textContent) };
    });
    keyed.sort((a, b) => compare(a.key, b.key, kind, sign) || a.place - b.place);
    body.append(...keyed.map(({ row }) => row));
  };

  for (const table of document.querySelectorAll("table.tensors")) {
    const headers = [...table.tHead.rows[0].cells];
    headers.forEach((header, column) => {
      const { kind } = header.dataset;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => {
        const before = header.getAttribute("aria-sort");
        // The largest errors are looked for first; names and places from the start.
        const first = kind === "number" ? "descending" : "ascending";
        const second = kind === "number" ? "ascending" : "descending";
        const order = before === first ? second : first;
        headers.forEach((other) => other.removeAttribute("aria-sort"));
        header.setAttribute("aria-sort", order);
        sort(table, column, kind, order === "ascending" ? 1 : -1);
      });
    });
    headers[0].setAttribute("aria-sort", "ascending");
  }

  for (const controls of document.querySelectorAll("[data-filters]")) {
    const table = document.getElementById(controls.dataset.filters);
    const [input, select, told] = ["input", "select", "output"].map((tag) => controls.querySelector(tag));
    const rows = [...table.tBodies[0].rows].map((row) => ({ row, text: row.textContent.toLowerCase() }));
    const filter = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      const wanted = select.value;
      let shown = 0;
      for (const { row, text } of rows) {
        const { status } = row.dataset;
        const fits = !wanted || status === wanted || (wanted === "!match" && status !== "match");
        row.hidden = !(fits && words.every((word) => text.includes(word)));
        shown += !row.hidden;
      }
      told.textContent = shown === rows.length ? "" : `${shown} of ${rows.length} shown`;
    };
    input.addEventListener("input", filter);
    select.addEventListener("change", filter);
    controls.hidden = false;
    // A browser that goes back to the page keeps what was chosen.
    filter();
  }

  const select = (element) => {
    const range = document.createRange();
    range.selectNodeContents(element);
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
  };

  const copy = async (element) => {
    try {
      await navigator.clipboard.writeText(element.textContent);
      return true;
    } catch {
      // A page that was opened from a file may lack the clipboard.
      select(element);
      return document.execCommand("copy");
    }
  };

  for (const button of document.querySelectorAll("[data-copies]")) {
    const element = document.getElementById(button.dataset.copies);
    const told = document.getElementById(`${button.dataset.copies}-copied`);
    button.hidden = false;
    button.addEventListener("click", async () => {
      const done = await copy(element);
      told.textContent = done ? "copied" : "selected: copy it with the keyboard";
    });
  }
})();
