(() => {
  document.documentElement.classList.add("js");

  // Sorting: up or down by a column, missing values last; the third time as the study has it.
  for (const table of document.querySelectorAll(".sortable")) {
    const body = table.tBodies[0];
    const order = [...body.rows];
    for (const head of table.querySelectorAll("th[data-column]")) {
      const column = Number(head.dataset.column);
      const numeric = "number" in head.dataset;
      const ways = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
      const label = head.querySelector("span");
      const button = document.createElement("button");
      button.type = "button";
      button.append(...label.childNodes);
      label.replaceWith(button);
      button.addEventListener("click", () => {
        const way = ways[ways.indexOf(head.getAttribute("aria-sort")) + 1];
        for (const other of table.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
        if (way) head.setAttribute("aria-sort", way);
        const sign = way === "descending" ? -1 : 1;
        const value = (row) => row.cells[column].dataset.sort;
        const compare = (a, b) => (numeric ? a - b : a.localeCompare(b, "en", { numeric: true }));
        const sorted = [...order];
        if (way) {
          sorted.sort((a, b) => {
            const [x, y] = [value(a), value(b)];
            if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
            return sign * compare(x, y);
          });
        }
        body.append(...sorted);
      });
    }
  }

  // Switching arms.
  const boxes = [...document.querySelectorAll("input[data-arm]")];
  const lines = document.querySelectorAll("#curves .arm"); // and their names
  const show = () => {
    const shown = new Set(boxes.filter((box) => box.checked).map((box) => box.dataset.arm));
    for (const line of lines) line.classList.toggle("off", !shown.has(line.dataset.arm));
  };
  for (const box of boxes) {
    box.addEventListener("change", show);
    const own = [...lines].filter((line) => line.dataset.arm === box.dataset.arm);
    const stress = (on) => {
      for (const line of own) {
        line.classList.toggle("on", on);
        line.closest("svg").classList.toggle("stressing", on);
      }
    };
    for (const [event, on] of [["mouseenter", true], ["mouseleave", false], ["focusin", true], ["focusout", false]]) {
      box.parentElement.addEventListener(event, () => stress(on && box.checked));
    }
  }
  for (const button of document.querySelectorAll("button[data-show]")) {
    button.addEventListener("click", () => {
      const { show: which } = button.dataset;
      for (const box of boxes) box.checked = which === "all" || box.dataset.arm === which;
      show();
    });
  }

  show();
  document.documentElement.dataset.ready = "true";
})();
