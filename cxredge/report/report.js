"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const groups = [...document.querySelectorAll(".group")].map((section) => ({
    section,
    priority: section.querySelector("h2").id,
  }));
  const films = groups.flatMap(({ section, priority }) =>
    [...section.querySelectorAll(".film")].map((item) => ({
      item,
      section,
      priority,
      name: item.querySelector(".name").textContent,
      flags: item.dataset.flags.split(" "),
    })),
  );
  const tiles = [...document.querySelectorAll(".tile")];
  const finding = byId("finding");
  const search = byId("search");
  let priority = "";
  let shown = films;

  function narrow() {
    const wanted = search.value.trim().toLowerCase();
    shown = films.filter((film) => {
      const matches =
        (!priority || film.priority === priority) &&
        (!finding.value || film.flags.includes(finding.value)) &&
        (!wanted || film.name.toLowerCase().includes(wanted));
      film.item.hidden = !matches;
      return matches;
    });
    const kept = new Set(shown.map((film) => film.section));
    for (const { section } of groups) section.hidden = !kept.has(section);
    for (const tile of tiles) tile.setAttribute("aria-pressed", String(tile.dataset.show === priority));
    const narrowed = [
      priority,
      finding.value && finding.selectedOptions[0].textContent.replace(/ \(.*/, "") + " flagged",
      wanted && `name with “${search.value.trim()}”`,
    ].filter(Boolean);
    byId("count").textContent =
      `Showing ${narrowed.length ? `${shown.length} of ${films.length}` : `all ${films.length}`} films` +
      (narrowed.length ? `: ${narrowed.join(", ")}` : ", most pressing first");
    byId("nothing").hidden = shown.length > 0 || films.length === 0;
    byId("clear").disabled = narrowed.length === 0;
  }

  function showAll() {
    priority = finding.value = search.value = "";
    narrow();
  }

  for (const tile of tiles) {
    tile.addEventListener("click", () => {
      priority = tile.dataset.show;
      narrow();
    });
  }
  finding.addEventListener("change", narrow);
  search.addEventListener("input", narrow);
  byId("clear").addEventListener("click", showAll);
  byId("nothing").querySelector("button").addEventListener("click", showAll);

  // The large view: one film of those shown, its heat map on demand.
  const dialog = byId("large");
  const picture = byId("picture");
  const heat = byId("heat");
  let at = 0;
  let warm = false;

  function draw() {
    const film = shown[at];
    const button = film.item.querySelector(".thumb");
    const plain = button.querySelector("img");
    const { heat: heatMap, top } = button.dataset;
    const overlaid = warm && Boolean(heatMap);
    picture.hidden = byId("fine").hidden = !plain;
    byId("no-picture").hidden = Boolean(plain);
    picture.src = overlaid ? heatMap : plain ? plain.src : "data:,";
    picture.alt = overlaid ? `Film ${film.name} with the evidence for ${top} in colour` : `Film ${film.name}`;
    byId("caption").textContent = overlaid ? `Brighter: more evidence for ${top}, within this film` : "";
    heat.hidden = !heatMap;
    heat.textContent = `Heat map: ${top}`;
    heat.setAttribute("aria-pressed", String(overlaid));
    byId("large-name").textContent = film.name;
    byId("details").className = film.priority;
    byId("details").replaceChildren(...[...film.item.querySelectorAll(".what, .said")].map((part) => part.cloneNode(true)));
    byId("position").textContent = `${at + 1} of ${shown.length}`;
    // Not `disabled`: a button that loses the focus would take the arrow keys with it.
    byId("previous").setAttribute("aria-disabled", String(at === 0));
    byId("next").setAttribute("aria-disabled", String(at === shown.length - 1));
  }

  function step(by) {
    if (at + by < 0 || at + by >= shown.length) return;
    at += by;
    draw();
  }

  function toggleHeat() {
    warm = !warm;
    draw();
  }

  byId("worklist").addEventListener("click", (event) => {
    const button = event.target.closest(".thumb");
    if (!button) return;
    at = shown.findIndex((film) => film.item === button.closest(".film"));
    draw();
    dialog.showModal();
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else if (event.key === "h") toggleHeat();
    else return;
    event.preventDefault();
  });
  dialog.addEventListener("close", () => shown[at]?.item.querySelector(".thumb").focus());
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("close").addEventListener("click", () => dialog.close());
  heat.addEventListener("click", toggleHeat);

  // A lazy picture that was never scrolled to would print as an empty square.
  window.addEventListener("beforeprint", () => {
    for (const image of document.querySelectorAll(".film:not([hidden]) img")) image.loading = "eager";
  });

  const tools = document.querySelector(".tools");
  tools.hidden = false;
  tools.open = window.matchMedia("(min-width: 46rem)").matches;
  narrow();
})();
