// goes through the page with mouse and keys, and tells what it saw
const wait = setInterval(() => {
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
  seen.files = {};
  let written = "";
  const Whole = window.Blob;
  window.Blob = function (parts, how) { written = parts[0]; return new Whole(parts, how); };
  HTMLAnchorElement.prototype.click = function () { seen.files[this.download] = written; };
  document.querySelectorAll("[data-save]").forEach(b => b.click());
  const right = [...document.querySelectorAll("main *, header *, footer *")].filter(e => !e.closest(".scroll") || e.className === "scroll").map(e => e.getBoundingClientRect().right);
  Object.assign(seen, { width: innerWidth, scroll: document.documentElement.scrollWidth, right: Math.max(...right), title: document.title });
  parent.postMessage(JSON.stringify(seen), "*");
}, 50);
