// goes through the page with mouse and keys, and tells what it saw
const wait = setInterval(async () => {
  if (!document.body.dataset.ready) return;
  clearInterval(wait);
  const seen = {}, at = id => document.getElementById(id);
  const canvases = () => [...document.querySelectorAll("#panels canvas")].map(c => c.toDataURL());
  const look = name => {
    seen[name] = { told: at("told").textContent, titles: [...document.querySelectorAll("#panels h3")].map(h => h.textContent),
      pressed: buttons.map(b => b.getAttribute("aria-pressed")), where: at("where").textContent, stop: at("stop").textContent,
      ranked: [...document.querySelectorAll("#ranked li")].map(l => l.firstChild.textContent) };
    const now = canvases();
    seen[name].changed = now.map((c, i) => c !== before[i]);
    before = now;
  };
  const buttons = [...document.querySelectorAll("[data-word]")];
  let before = canvases();
  look("start");
  const other = buttons.find(b => b.getAttribute("aria-pressed") === "false") || buttons[0];
  other.dispatchEvent(new PointerEvent("pointerenter", { pointerType: "mouse" }));
  look("hovered");
  other.dispatchEvent(new PointerEvent("pointerleave", { pointerType: "mouse" }));
  look("left");
  other.focus();
  look("focused");
  other.click();
  look("pair");
  document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
  look("escaped");
  at("step").value = 1;
  at("step").dispatchEvent(new Event("input"));
  look("stepped");
  const second = document.querySelectorAll("#panels canvas")[1], box = second.getBoundingClientRect();
  second.dispatchEvent(new MouseEvent("click", { clientX: box.left + box.width * 5.5 / 8, clientY: box.top + box.height * 3.5 / 8 }));
  look("placed");
  document.querySelector("#panels canvas").dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown" }));
  look("moved");
  document.querySelectorAll("[data-pair]").forEach(b => b.click());
  look("matrix");
  const blobs = [], files = {}, address = URL.createObjectURL;
  URL.createObjectURL = blob => { blobs.push(blob); return address(blob); };
  HTMLAnchorElement.prototype.click = function () { files[this.download] = blobs.at(-1); };
  document.querySelectorAll("[data-save]").forEach(b => b.click());
  seen.files = {};
  for (const [name, blob] of Object.entries(files)) seen.files[name] = await blob.text();
  const right = [...document.querySelectorAll("main *, header *, footer *")].filter(e => !e.closest(".scroll") || e.className === "scroll").map(e => e.getBoundingClientRect().right);
  Object.assign(seen, { width: innerWidth, scroll: document.documentElement.scrollWidth, right: Math.max(...right), title: document.title });
  parent.postMessage(JSON.stringify(seen), "*");
}, 50);
