// One slider over strengths, the pictures at each, and what was measured. Serves the notebook and the page.
export function render({ model, el }) {
  const shown = model.get("shown");
  const make = (tag, parent, properties = {}) => parent.appendChild(Object.assign(document.createElement(tag), properties));
  el.classList.add("steered");

  const label = make("label", el, { textContent: "strength" });
  const slider = make("input", label, { type: "range", min: 0, max: shown.strengths.length - 1, step: 1 });
  const output = make("output", label);

  const pictures = make("div", el, { className: "pictures" });
  const images = shown.captions.map((caption) => {
    const figure = make("figure", pictures);
    const image = make("img", figure);
    make("figcaption", figure, { textContent: caption });
    return image;
  });

  const table = make("table", el);
  const cells = shown.metrics.map((metric) => {
    const row = make("tr", table);
    make("th", row, { textContent: metric, scope: "row" });
    return make("td", row);
  });

  function show() {
    const i = Number(slider.value);
    output.textContent = shown.labels[i];
    slider.setAttribute("aria-valuetext", "strength " + shown.labels[i]);
    images.forEach((image, k) => {
      image.src = shown.sources[i][k];
      image.alt = shown.captions[k] + ", strength " + shown.labels[i];
    });
    cells.forEach((cell, k) => { cell.textContent = shown.told[i][k]; });
  }

  slider.value = shown.first;
  show();
  slider.addEventListener("input", () => {
    show();
    model.set("strength", shown.strengths[Number(slider.value)]);
    model.save_changes();
  });
}
