"use strict";
(() => {
  document.documentElement.classList.add("js");

  // Sorting: up or down by a column, missing values last; the third time as the study has it.
  const table = document.querySelector(".sortable");
  if (table) {
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
  const lines = document.querySelectorAll("#curves .arm");
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

  // Values under the pointer and the arrow keys.
  const names = new Map([...document.querySelectorAll("#curves label")].map((label) => [label.firstElementChild.dataset.arm, label.textContent.trim()]));
  for (const svg of document.querySelectorAll(".chart")) {
    const [x0, x1] = svg.dataset.x.split(" ").map(Number);
    const [y0, y1] = svg.dataset.y.split(" ").map(Number);
    const [left, right, top, bottom] = svg.dataset.box.split(" ").map(Number);
    const cursor = svg.querySelector(".cursor");
    const reading = svg.parentElement.querySelector(".reading");
    const traces = [...svg.querySelectorAll("polyline")].map((line) => ({
      line,
      points: line.getAttribute("points").split(" ").map((pair) => pair.split(",").map(Number)),
    }));
    const visible = () => traces.filter(({ line }) => !line.parentElement.classList.contains("off"));
    const number = (value) => String(Number(value.toPrecision(3))).replace("-", "−");
    const tell = ({ line, points }, i) => {
      const [x, y] = points[i];
      cursor.setAttribute("cx", x);
      cursor.setAttribute("cy", y);
      cursor.setAttribute("visibility", "visible");
      const epoch = x0 + ((x - left) / (right - left)) * (x1 - x0);
      const value = y0 + ((bottom - y) / (bottom - top)) * (y1 - y0);
      const name = names.get(line.parentElement.dataset.arm);
      reading.textContent = `${name}, ${line.dataset.seed}, epoch ${number(epoch)}: ${number(value)}`;
    };
    const hide = () => {
      cursor.setAttribute("visibility", "hidden");
      reading.textContent = "";
    };
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
      const y = ((event.clientY - box.top) / box.height) * svg.viewBox.baseVal.height;
      let [best, at, least] = [null, 0, Infinity];
      for (const trace of visible()) {
        trace.points.forEach(([px, py], i) => {
          const distance = (px - x) ** 2 + (py - y) ** 2;
          if (distance < least) [best, at, least] = [trace, i, distance];
        });
      }
      if (best) tell(best, at);
    });
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    let [which, at] = [0, Infinity];
    svg.addEventListener("keydown", (event) => {
      const along = { ArrowLeft: -1, ArrowRight: 1 }[event.key] || 0;
      const across = { ArrowUp: -1, ArrowDown: 1 }[event.key] || 0;
      const shown = visible();
      if ((!along && !across) || !shown.length) return;
      event.preventDefault();
      which = (Math.min(which, shown.length - 1) + across + shown.length) % shown.length;
      const last = shown[which].points.length - 1;
      at = Math.max(0, Math.min(last, Math.min(at, last + 1) + along));
      tell(shown[which], at);
    });
  }

  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
  show();
  document.documentElement.dataset.ready = "true";
})();
