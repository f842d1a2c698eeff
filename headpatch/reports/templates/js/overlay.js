// One head's attention over both pictures: density relative to even attention, as bytes.
let overlayRows = null, overlayPlace = null;
const RAMP = !data.overlay ? [] : Array.from({ length: 256 }, (_, level) => {
  const { ramp, opaque } = data.overlay;
  const at = (level / 255) * (ramp.length - 1);
  const low = Math.floor(at), part = at - low;
  const rgb = (text) => [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16));
  const a = rgb(ramp[low]), b = rgb(ramp[Math.min(low + 1, ramp.length - 1)]);
  const mixed = a.map((value, i) => Math.round(value + part * (b[i] - value)));
  return `rgba(${mixed.join(",")},${((opaque * level) / 255).toFixed(3)})`;
});

async function startOverlays() {
  if (!data.overlay) return;
  // as the colours look on the pictures, whose median colour lies below them
  const bar = document.querySelector(".rampbar"), over = `rgb(${data.overlay.ground.join(",")})`;
  bar.style.background = `linear-gradient(90deg, ${RAMP.filter((_, level) => level % 17 === 0).join(",")}), ${over}`;
  overlayRows = await unpacked("overlay-rows");
  overlayPlace = new Map(data.overlay.heads.map((flat, place) => [flat, place]));
}

function drawOverlay(flat, name) {
  if (!data.overlay) return;
  const place = overlayPlace.get(flat);
  $("overlay-none").hidden = place !== undefined;
  const { x, y, peaks, covered, box, mass } = data.overlay;
  const width = x.length - 1, height = y.length - 1, cells = width * height;
  const look = data.heads.looks.find((one) => one.with && one.label === "this pair");
  ["with", "without"].forEach((run, index) => {
    const canvas = $(`overlay-${run}`), picture = document.querySelector(`.side-${run} img`);
    const paint = canvas.getContext("2d");
    canvas.width = picture.naturalWidth;
    canvas.height = picture.naturalHeight;
    paint.drawImage(picture, 0, 0);
    const px = (share) => Math.round(share * canvas.width), py = (share) => Math.round(share * canvas.height);
    if (place !== undefined) {
      const from = (place * 2 + index) * cells;
      for (let cell = 0; cell < cells; cell++) {
        if (covered && !covered[cell]) continue;
        const column = cell % width, row = (cell - column) / width;
        const left = px(x[column]), top = py(y[row]);
        paint.fillStyle = RAMP[overlayRows[from + cell]];
        paint.fillRect(left, top, px(x[column + 1]) - left, py(y[row + 1]) - top);
      }
    }
    const frame = [px(box[0]), py(box[1]), px(box[2]) - px(box[0]), py(box[3]) - py(box[1])];
    for (const [style, line] of [["rgba(0,0,0,0.75)", 4], ["#fff", 2]]) {
      paint.strokeStyle = style;
      paint.lineWidth = line;
      paint.setLineDash([9, 6]);
      paint.strokeRect(...frame);
    }
    const inside = look ? `region ${percent(look[run][flat])} of image attention; ` : "";
    const words = `${run[0].toUpperCase()}${run.slice(1)}: ${inside}image ${percent(mass[index][flat])} of all`;
    $(`overlay-${run}-words`).textContent = words;
    canvas.setAttribute("aria-label", `Attention of head ${name} over the picture ${run} the object. ${words}.`);
  });
  $("ramp-peak").textContent = place === undefined ? "" : `${peaks[place].toFixed(1)} × even attention`;
}
