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
      patient: item.querySelector(".patient")?.textContent ?? "",
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
        (!wanted || `${film.name}\n${film.patient}`.toLowerCase().includes(wanted));
      if (film.item.hidden === matches) film.item.hidden = !matches;
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

  // Keys of the worklist work only inside it, so that they are in nobody's way elsewhere.
  const worklist = byId("worklist");
  // Caps Lock is no reason to ignore a key.
  const pressed = (event) => (event.key.length === 1 ? event.key.toLowerCase() : event.key);
  const modified = (event) => event.altKey || event.ctrlKey || event.metaKey;
  worklist.addEventListener("keydown", (event) => {
    if (modified(event) || shown.length === 0) return;
    const here = shown.findIndex((film) => film.item.contains(document.activeElement));
    const last = shown.length - 1;
    const to = {
      ArrowDown: Math.min(here + 1, last),
      j: Math.min(here + 1, last),
      ArrowUp: Math.max(here - 1, 0),
      k: Math.max(here - 1, 0),
      Home: 0,
      End: last,
    }[pressed(event)];
    if (to === undefined) return;
    event.preventDefault();
    focusOn(shown[to]);
  });

  function focusOn(film) {
    film.item.scrollIntoView({ block: "nearest" });
    film.item.querySelector(".thumb").focus({ preventScroll: true });
  }

  // The large view: one film of those shown, under one of its heat maps on demand.
  const dialog = byId("large");
  const picture = byId("picture");
  const heat = byId("heat");
  let at = 0;
  let map = 0; // 0 is the film alone

  const mapsOf = (film) =>
    [...film.item.querySelectorAll("[data-heat]")].map((flag) => ({
      name: flag.querySelector(".finding").firstChild.textContent.trim(),
      source: flag.dataset.heat,
      point: flag.dataset.finding,
    }));

  function draw() {
    const film = shown[at];
    const plain = film.item.querySelector(".thumb img");
    picture.hidden = byId("fine").hidden = !plain;
    byId("frame").hidden = !plain;
    byId("no-picture").hidden = Boolean(plain);
    picture.src = plain ? plain.src : "data:,";
    byId("large-name").textContent = film.name;
    byId("details").className = film.priority;
    byId("details").replaceChildren(...[...film.item.querySelectorAll(".what, .said")].map((part) => part.cloneNode(true)));
    byId("position").textContent = `${at + 1} of ${shown.length}`;
    // Not `disabled`: a button that loses the focus would take the arrow keys with it.
    byId("previous").setAttribute("aria-disabled", String(at === 0));
    byId("next").setAttribute("aria-disabled", String(at === shown.length - 1));
    const buttons = ["Film alone", ...mapsOf(film).map(({ name }) => name)].map((name, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => {
        map = index;
        overlay();
      });
      return button;
    });
    byId("maps").replaceChildren(...buttons);
    byId("maps").hidden = !plain || buttons.length === 1;
    overlay();
  }

  function overlay() {
    const film = shown[at];
    const maps = mapsOf(film);
    if (map > maps.length) map = maps.length ? 1 : 0;
    const shownMap = maps[map - 1];
    for (const [index, button] of [...byId("maps").children].entries()) button.setAttribute("aria-pressed", String(index === map));
    heat.hidden = !shownMap?.source;
    if (shownMap?.source) heat.src = shownMap.source;
    // Drawn coarsely where it is embedded; a file of its own is smooth already.
    heat.classList.toggle("coarse", Boolean(shownMap?.source.startsWith("data:")));
    byId("scale").hidden = heat.hidden;
    picture.alt = heat.hidden ? `Film ${film.name}` : `Film ${film.name} with the evidence for ${shownMap.name} in colour`;
    byId("caption").textContent = !shownMap
      ? ""
      : shownMap.source
        ? `Each colour holds a quarter of the model’s evidence for ${shownMap.name}; the rest is spread over the film. It shows what the model used, not where disease is.`
        : `No place stands out for ${shownMap.name}: its evidence is spread evenly over the film.`;
    byId("meaning").textContent = shownMap ? byId(`point-${shownMap.point}`).querySelector("dd").textContent : "";
  }

  // The frame takes the film's own shape, so that a map stretched over it lies where it belongs.
  picture.addEventListener("load", () => {
    if (picture.naturalWidth) byId("frame").style.setProperty("--ratio", String(picture.naturalWidth / picture.naturalHeight));
  });

  function step(by) {
    if (at + by < 0 || at + by >= shown.length) return;
    at += by;
    map = Math.min(map, 1);
    draw();
  }

  worklist.addEventListener("click", (event) => {
    const button = event.target.closest(".thumb");
    if (!button) return;
    at = shown.findIndex((film) => film.item === button.closest(".film"));
    map = Math.min(map, 1);
    draw();
    dialog.showModal();
  });
  dialog.addEventListener("keydown", (event) => {
    if (modified(event)) return;
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else if (pressed(event) === "h") {
      map = map === mapsOf(shown[at]).length ? 0 : map + 1;
      overlay();
    } else return;
    event.preventDefault();
  });
  dialog.addEventListener("close", () => shown[at] && focusOn(shown[at]));
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("close").addEventListener("click", () => dialog.close());

  // A lazy picture that was never scrolled to would print as an empty square.
  window.addEventListener("beforeprint", () => {
    for (const image of document.querySelectorAll(".film:not([hidden]) img")) image.loading = "eager";
  });

  const tools = document.querySelector(".tools");
  tools.hidden = false;
  tools.open = window.matchMedia("(min-width: 46rem)").matches;
  narrow();
})();
