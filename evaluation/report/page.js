"use strict";
// Draws the charts when they come into view, highlights strategies, fills the galleries.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const views = new Map(); // id of a figure -> its Vega view
  const wanted = new Set(); // ids that were in view, and are drawn again when the theme changes
  const pressed = {}; // group -> Set of indices
  const versions = new Map(); // id -> number of the last drawing that began

  for (const group of Object.keys(data.names)) pressed[group] = new Set();

  const picked = (group) => [...pressed[group]].map((i) => data.names[group][i]);

  async function draw(id) {
    const version = (versions.get(id) || 0) + 1;
    versions.set(id, version);
    const group = data.groups[id];
    const result = await vegaEmbed(document.getElementById(id), structuredClone(data.specs[id]), {
      mode: "vega-lite",
      actions: false,
      ast: true, // no code is made from text, so the page's policy need not allow it
      config: data.themes[group][dark.matches ? "dark" : "light"],
      renderer: "svg",
      tooltip: { theme: dark.matches ? "dark" : "light" },
    });
    if (versions.get(id) !== version) return result.finalize();
    if (views.has(id)) views.get(id).finalize();
    const view = result.view;
    views.set(id, view);
    show(view, picked(group));
    if (!hasParameter(id)) return;
    view.addEventListener("mouseover", (_, item) => {
      if (item && item.datum && ["line", "symbol"].includes(item.mark.marktype) && item.datum.s !== undefined)
        show(view, [...picked(group), item.datum.s]);
    });
    view.addEventListener("mouseout", () => show(view, picked(group)));
  }

  const hasParameter = (id) => (data.specs[id].params || []).some((p) => p.name === "chosen");

  function show(view, names) {
    try {
      view.signal("chosen", names).runAsync();
    } catch {
      // A chart without strategies to pick out.
    }
  }

  function showGroup(group, names) {
    for (const [id, view] of views) if (data.groups[id] === group && hasParameter(id)) show(view, names);
  }

  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting || wanted.has(entry.target.id)) continue;
      wanted.add(entry.target.id);
      draw(entry.target.id);
    }
  }, { rootMargin: "400px" });
  for (const plot of document.querySelectorAll(".plot")) observer.observe(plot);

  dark.addEventListener("change", () => wanted.forEach(draw));
  window.addEventListener("beforeprint", () => {
    for (const plot of document.querySelectorAll(".plot"))
      if (plot.offsetWidth && !wanted.has(plot.id)) { wanted.add(plot.id); draw(plot.id); }
  });

  for (const chip of document.querySelectorAll(".chip")) {
    const group = chip.dataset.group, index = Number(chip.dataset.index);
    chip.addEventListener("click", () => {
      const on = pressed[group].has(index);
      if (on) pressed[group].delete(index); else pressed[group].add(index);
      chip.setAttribute("aria-pressed", String(!on));
      showGroup(group, picked(group));
    });
    chip.addEventListener("pointerenter", (event) => {
      if (event.pointerType === "mouse") showGroup(group, [...picked(group), data.names[group][index]]);
    });
    chip.addEventListener("pointerleave", () => showGroup(group, picked(group)));
  }

  const element = (tag, className, text) => {
    const e = document.createElement(tag);
    if (className) e.className = className;
    if (text !== undefined) e.textContent = text;
    return e;
  };

  function card(gallery, position) {
    const [label, text, picture] = gallery.samples[position];
    const box = element("div", picture < 0 && text.length > 12 ? "sample wide" : "sample");
    if (picture >= 0) {
      const image = element("img");
      image.src = gallery.pictures[picture];
      image.alt = text || "sample";
      box.append(image);
    }
    box.append(element("b", "", label < 0 ? "no label" : gallery.classes[label]));
    if (text) box.append(element("span", "", text));
    return box;
  }

  function round(gallery, title, positions, more) {
    const box = element("div", "round"), samples = element("div", "samples");
    box.append(element("h4", "", title), samples);
    for (const position of positions) samples.append(card(gallery, position));
    if (more) box.append(element("p", "note", `and ${more} more`));
    return box;
  }

  for (const details of document.querySelectorAll("details.gallery")) {
    details.addEventListener("toggle", () => {
      const place = details.querySelector(".rounds");
      if (!details.open || place.childElementCount) return;
      const group = details.dataset.group, gallery = data.galleries[group], index = Number(details.dataset.index);
      if (index < 0) return place.append(round(gallery, "Before the first round", gallery.initial, gallery.more_initial));
      gallery.rounds[data.names[group][index]].forEach((positions, t) =>
        place.append(round(gallery, `Round ${t + 1}`, positions, gallery.more)));
    });
  }
})();
