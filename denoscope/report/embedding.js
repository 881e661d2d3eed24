// A page in a notebook's cell: the very file that works offline. What is picked in it comes back as "picked".
export function render({ model, el }) {
  const frame = document.createElement("iframe");
  frame.setAttribute("sandbox", "allow-scripts allow-downloads");
  frame.title = model.get("title");
  frame.style.cssText = `width:100%;height:${model.get("height")}px;border:0`;
  const hear = (event) => {
    if (event.source !== frame.contentWindow || !event.data || !event.data.denoscope) return;
    model.set("picked", event.data.denoscope);
    model.save_changes();
  };
  window.addEventListener("message", hear);
  frame.srcdoc = model.get("html");
  el.appendChild(frame);
  return () => window.removeEventListener("message", hear);
}
