"use strict";
const one = (query, root = document) => root.querySelector(query), all = (query, root = document) => [...root.querySelectorAll(query)];

function viewer(stage) {
  const scroller = one(".scroller", stage), slider = one("#slider"), handle = one(".handle", stage);
  const value = (id, other) => (one("#" + id) ? one("#" + id).value : other);
  const view = () => all(".view", stage)[Number(value("view", 0))];
  let zoom = "fit";
  const cut = () => { // the picture on the right begins at the slider's place in the window
    const x = (slider.value / 100) * scroller.clientWidth;
    handle.style.left = x + "px";
    const inside = scroller.getBoundingClientRect().left + x - view().getBoundingClientRect().left;
    all(".is-after", view()).forEach((image) => { image.style.clipPath = `inset(0 0 0 ${inside}px)`; });
  };
  const size = () => { // whole screen pixels, so that 1:1 and 4:1 show every pixel alike
    const part = view(), { width, height } = part.dataset, ratio = devicePixelRatio;
    const fit = Math.min(stage.parentNode.clientWidth / width, Math.max(320, innerHeight * 0.78) / height);
    const factor = zoom === "fit" ? fit : Number(zoom) / ratio;
    Object.assign(part.style, { width: width * factor + "px", height: height * factor + "px" });
    stage.style.maxWidth = zoom === "fit" ? part.style.width : ""; // no bars beside a whole picture
    scroller.style.overflow = zoom === "fit" ? "hidden" : "auto";
    stage.classList.toggle("exact", zoom !== "fit" || fit >= 1);
    part.style.marginLeft = Math.max(0, Math.floor((scroller.clientWidth - width * factor) / 2)) + "px";
    stage.style.left = stage.style.top = "";
    const box = stage.getBoundingClientRect(), off = (at) => Math.round(at * ratio) / ratio - at + "px";
    Object.assign(stage.style, { left: off(box.left + scrollX), top: off(box.top + scrollY) });
    cut();
  };
  const show = () => {
    const keys = { before: value("before"), after: value("after") }, mode = value("mode", "rgb");
    all(".view", stage).forEach((part) => { part.hidden = part !== view(); });
    all("img", stage).forEach((image) => { image.className = image.style.clipPath = ""; });
    for (const [side, key] of Object.entries(keys)) {
      const found = all(`img[data-key="${key}"]`, view());
      const image = found.find((i) => i.dataset.mode === mode) || found[0];
      if (image && !image.className) image.className = "is-" + side;
      one(".tag." + side, stage).textContent = one("#" + side).selectedOptions[0].textContent;
    }
    stage.classList.toggle("whole", keys.before === keys.after);
    all(".legend[data-key]").forEach((legend) => { legend.hidden = !Object.values(keys).includes(legend.dataset.key); });
    all(".borders", stage).forEach((lines) => lines.toggleAttribute("hidden", !one("#borders")?.checked));
    size();
  };
  all("[data-zoom]").forEach((button) => button.addEventListener("click", () => {
    const [width, height] = [scroller.clientWidth / 2, scroller.clientHeight / 2], before = view().offsetWidth;
    const [x, y] = [scroller.scrollLeft + width, scroller.scrollTop + height];
    zoom = button.dataset.zoom;
    all("[data-zoom]").forEach((b) => b.setAttribute("aria-pressed", b === button));
    size();
    const ratio = view().offsetWidth / before;
    scroller.scrollTo(Math.round(x * ratio - width), Math.round(y * ratio - height));
  }));
  all("select, #borders").forEach((input) => input.addEventListener("change", show));
  slider.addEventListener("input", cut);
  scroller.addEventListener("scroll", cut);
  handle.addEventListener("pointerdown", (event) => { handle.setPointerCapture(event.pointerId); });
  handle.addEventListener("pointermove", (event) => {
    if (!handle.hasPointerCapture(event.pointerId)) return;
    slider.value = (100 * (event.clientX - stage.getBoundingClientRect().left)) / scroller.clientWidth;
    cut();
  });
  addEventListener("resize", size);
  show();
}

function sortable(table) {
  all("th button", table).forEach((button) => button.addEventListener("click", () => {
    const head = button.closest("th"), place = [...head.parentNode.children].indexOf(head), body = table.tBodies[0];
    const way = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    all("th", table.tHead).forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
    const key = (row) => row.children[place].dataset.sort ?? row.children[place].textContent.trim();
    const compare = (a, b) => (a === "") - (b === "") || way * (isNaN(a - b) ? a.localeCompare(b) : a - b);
    body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
  }));
}

if (one("#stage")) viewer(one("#stage"));
all("table.sortable").forEach(sortable);
