"use strict";
const info = JSON.parse(document.querySelector("#rsupres-data").textContent);
const canvas = document.querySelector("canvas"), brush = canvas.getContext("2d");
const slider = document.querySelector("#slider"), tiles = new Map();
const at = { x: info.width / 2, y: info.height / 2, zoom: 1 }; // middle, screen pixels per pixel
let asked = false;

function tile(layer, level, col, row) {
  const name = `/${layer}/${level}/${col}/${row}.png`;
  if (!tiles.has(name)) {
    const image = new Image();
    image.onload = draw;
    image.src = name;
    tiles.set(name, image);
    if (tiles.size > 600) tiles.delete(tiles.keys().next().value);
  }
  return tiles.get(name);
}
function layer(name, left, right) { // draw a layer between two columns of the screen
  const level = Math.max(0, Math.min(20, Math.floor(-Math.log2(at.zoom) + 0.01)));
  const side = info.tile * 2 ** level, top = at.y - canvas.height / 2 / at.zoom;
  const start = at.x - canvas.width / 2 / at.zoom;
  const range = (low, high, size) => [Math.max(0, Math.floor(low / side)), Math.min(Math.ceil(size / side), Math.ceil(high / side))];
  const [col0, col1] = range(start + left / at.zoom, start + right / at.zoom, info.width);
  const [row0, row1] = range(top, top + canvas.height / at.zoom, info.height);
  brush.save();
  brush.beginPath();
  brush.rect(left, 0, right - left, canvas.height);
  brush.clip();
  brush.imageSmoothingEnabled = at.zoom < 1;
  for (let row = row0; row < row1; row++) for (let col = col0; col < col1; col++) {
    const image = tile(name, level, col, row), x = (col * side - start) * at.zoom, y = (row * side - top) * at.zoom;
    const [width, height] = [Math.round(x + side * at.zoom) - Math.round(x), Math.round(y + side * at.zoom) - Math.round(y)];
    if (image.complete && image.naturalWidth) brush.drawImage(image, Math.round(x), Math.round(y), width, height);
  }
  brush.restore();
}
function paint() {
  asked = false;
  const ratio = devicePixelRatio;
  Object.assign(canvas, { width: Math.round(canvas.clientWidth * ratio), height: Math.round(canvas.clientHeight * ratio) });
  const cut = info.layers.length > 1 ? Math.round((slider.value / 100) * canvas.width) : 0;
  if (cut > 0) layer(info.layers[0], 0, cut);
  layer(info.layers.at(-1), cut, canvas.width);
  if (cut > 0) { brush.fillStyle = "#fff"; brush.fillRect(cut - 1, 0, 2, canvas.height); }
  document.querySelector("output").textContent = `${info.width} × ${info.height} pixels, ${+(100 * at.zoom).toPrecision(3)} %`;
}
function draw() { if (!asked) { asked = true; requestAnimationFrame(paint); } }
function zoom(factor, x = canvas.width / 2, y = canvas.height / 2) { // keep the pixel under (x, y)
  const next = Math.min(32, Math.max(2 ** -18, at.zoom * factor));
  const move = 1 / at.zoom - 1 / next;
  Object.assign(at, { x: at.x + (x - canvas.width / 2) * move, y: at.y + (y - canvas.height / 2) * move, zoom: next });
  draw();
}
function fit() { at.zoom = Math.min(canvas.clientWidth / info.width, canvas.clientHeight / info.height) * devicePixelRatio; zoom(1); }
function pan(x, y) { at.x -= x / at.zoom; at.y -= y / at.zoom; draw(); }
const keys = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
canvas.addEventListener("keydown", (event) => {
  if (keys[event.key]) { pan(...keys[event.key]); event.preventDefault(); }
  if ("+=-".includes(event.key)) zoom(event.key === "-" ? 0.5 : 2);
});
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(2 ** (-Math.sign(event.deltaY) / 2), event.offsetX * devicePixelRatio, event.offsetY * devicePixelRatio);
}, { passive: false });
canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
canvas.addEventListener("pointermove", (event) => { if (event.buttons & 1) pan(event.movementX, event.movementY); });
document.querySelectorAll("[data-zoom]").forEach((button) => button.addEventListener("click", () => {
  if (button.dataset.zoom === "fit") { Object.assign(at, { x: info.width / 2, y: info.height / 2 }); fit(); } else { zoom(button.dataset.zoom / at.zoom); }
}));
if (slider) slider.addEventListener("input", draw);
addEventListener("resize", draw);
fit();
