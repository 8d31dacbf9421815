"use strict";

/** The pointer's place in the coordinates of an SVG's viewBox. */
function inside(svg, event) {
  const box = svg.getBoundingClientRect();
  const view = svg.viewBox.baseVal;
  return [
    ((event.clientX - box.left) / box.width) * view.width,
    ((event.clientY - box.top) / box.height) * view.height,
  ];
}

// The charts' values under the pointer and the arrow keys.
for (const svg of document.querySelectorAll(".chart")) {
  const cursor = svg.querySelector(".cursor");
  const reading = svg.closest("figure").querySelector(".reading");
  const rest = [...reading.childNodes];
  const pairs = (text) => text.trim().split(" ").map((pair) => pair.split(",").map(Number));
  const traces = [...svg.querySelectorAll("polyline")].map((line) => ({
    line,
    points: pairs(line.getAttribute("points")),
    values: pairs(line.dataset.values),
  }));
  const visible = () => traces.filter(({ line }) => !line.parentElement.classList.contains("off"));
  const number = (value) => String(value).replace("-", "\u2212");
  const tell = ({ line, points, values }, i) => {
    cursor.setAttribute("cx", points[i][0]);
    cursor.setAttribute("cy", points[i][1]);
    cursor.setAttribute("visibility", "visible");
    const name = line.dataset.name ? `${line.dataset.name}, ` : "";
    reading.textContent = `${name}epoch ${number(values[i][0])}: ${number(values[i][1])}`;
  };
  const hide = () => {
    cursor.setAttribute("visibility", "hidden");
    reading.replaceChildren(...rest);
  };
  svg.addEventListener("pointermove", (event) => {
    const [x, y] = inside(svg, event);
    let [best, at, least] = [null, 0, Infinity];
    for (const trace of visible()) {
      trace.points.forEach(([px, py], i) => {
        const distance = (px - x) ** 2 + (py - y) ** 2;
        if (distance < least) [best, at, least] = [trace, i, distance];
      });
    }
    if (best) tell(best, at);
  });
  // Enlarged here, and not by the label, which would take the focus from the chart's keys.
  const zoom = svg.parentElement.querySelector(".zoom");
  svg.addEventListener("click", (event) => {
    event.preventDefault();
    zoom.checked = !zoom.checked;
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

// Tables that do not fit say so.
const tell = () => {
  for (const box of document.querySelectorAll(".scroll")) {
    box.classList.toggle("more", box.scrollWidth > box.clientWidth + 1);
  }
};
addEventListener("resize", tell);
addEventListener("toggle", tell, true);
tell();

addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});

// A page that is kept up to date: the browser keeps the place to which it was scrolled.
const seconds = Number(document.documentElement.dataset.reload);
if (seconds) setTimeout(() => location.reload(), 1000 * seconds);
