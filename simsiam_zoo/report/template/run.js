(() => {
  const map = JSON.parse(document.getElementById("data").textContent);
  const cloud = document.querySelector(".cloud");
  if (map && cloud) {
    const ring = cloud.querySelector(".ring");
    const thumb = document.querySelector(".thumb");
    const label = document.querySelector(".picked-label");
    const chosen = new Set();
    let at = -1;
    const side = 96;
    thumb.style.backgroundImage = `url("${map.sprite}")`;
    thumb.style.backgroundSize = `${map.columns * side}px auto`;
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

  document.documentElement.dataset.ready = "true";
})();
