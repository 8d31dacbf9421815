"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);

  /** The pointer's place in the coordinates of an SVG's viewBox. */
  function inside(svg, event) {
    const box = svg.getBoundingClientRect();
    const view = svg.viewBox.baseVal;
    return [
      ((event.clientX - box.left) / box.width) * view.width,
      ((event.clientY - box.top) / box.height) * view.height,
    ];
  }

  function number(value) {
    return String(Number(value.toPrecision(4)));
  }

  for (const svg of document.querySelectorAll(".chart")) {
    const { lines } = data.charts[Number(svg.parentElement.dataset.chart)];
    const cursor = svg.querySelector(".cursor");
    const reading = svg.parentElement.querySelector(".reading");
    const keys = [...reading.childNodes];
    const steps = [...new Set(lines.flatMap((line) => line.points.map((p) => p[0])))].sort((a, b) => a - b);
    let at = steps.length;

    const show = (x) => {
      const nearest = (points) => points.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
      const found = lines.map((line) => [line.label, nearest(line.points)]);
      cursor.setAttribute("x1", found[0][1][0]);
      cursor.setAttribute("x2", found[0][1][0]);
      cursor.setAttribute("visibility", "visible");
      const values = found.map(([label, p]) => (lines.length > 1 ? `${label} ` : "") + number(p[3]));
      reading.textContent = `epoch ${number(found[0][1][2])}: ${values.join(", ")}`;
    };
    const hide = () => {
      cursor.setAttribute("visibility", "hidden");
      reading.replaceChildren(...keys);
    };
    svg.addEventListener("pointermove", (event) => show(inside(svg, event)[0]));
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!move) return;
      event.preventDefault();
      at = Math.min(steps.length - 1, Math.max(0, at + move));
      show(steps[at]);
    });
  }

  const map = data.map;
  const cloud = document.querySelector(".cloud");
  if (map && cloud) {
    const ring = cloud.querySelector(".ring");
    const thumb = document.querySelector(".thumb");
    const label = document.querySelector(".picked-label");
    const chosen = new Set();
    let at = -1;
    const side = 96;
    thumb.style.backgroundImage = `url("${map.sprite}")`;
    thumb.style.backgroundSize = `${map.columns * side}px ${map.rows * side}px`;
    thumb.style.backgroundPosition = `${side}px ${side}px`;
    thumb.style.backgroundRepeat = "no-repeat";

    const visible = (i) => chosen.size === 0 || chosen.has(map.labels[i]);
    const pick = (i) => {
      at = i;
      const [x, y] = map.points[i];
      ring.setAttribute("cx", x);
      ring.setAttribute("cy", y);
      ring.setAttribute("visibility", "visible");
      thumb.style.backgroundPosition = `${-(i % map.columns) * side}px ${-Math.floor(i / map.columns) * side}px`;
      const name = map.names ? map.names[map.labels[i]] : "";
      label.textContent = `${name ? `${name}, ` : ""}image ${i + 1} of ${map.points.length}`;
    };
    cloud.addEventListener("pointermove", (event) => {
      const [x, y] = inside(cloud, event);
      let best = -1;
      let least = 400;
      map.points.forEach(([px, py], i) => {
        const distance = (px - x) ** 2 + (py - y) ** 2;
        if (distance < least && visible(i)) [best, least] = [i, distance];
      });
      if (best >= 0) pick(best);
    });
    cloud.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
      if (!move) return;
      event.preventDefault();
      const count = map.points.length;
      for (let step = 1; step <= count; step += 1) {
        const next = (Math.max(at, move < 0 ? 0 : -1) + move * step + 2 * count) % count;
        if (visible(next)) return pick(next);
      }
    });

    for (const button of document.querySelectorAll(".legend button")) {
      button.addEventListener("click", () => {
        const own = Number(button.dataset.class);
        const on = !chosen.delete(own);
        if (on) chosen.add(own);
        button.setAttribute("aria-pressed", String(on));
        cloud.classList.toggle("picking", chosen.size > 0);
        for (const group of cloud.querySelectorAll("g")) {
          group.classList.toggle("on", chosen.has(Number(group.dataset.class)));
        }
      });
    }
  }

  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
  document.documentElement.dataset.ready = "true";
})();
