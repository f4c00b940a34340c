/* Clouds of trials, painted on a canvas under the chart's lines: as dots, or where they are many as their density. */
"use strict";
((NaoRay) => {
  const MOST_DOTS = 20000;
  const BIN = 2; // pixels
  // blue to yellow by growing lightness: in order for any colour vision, and seen on white and on near-black
  const SCALE = ["#3f4fc4", "#8e4fc0", "#d0567f", "#ee8a4a", "#f2c93e"];

  const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

  /** The colour of a share in [0, 1] on the scale, as [r, g, b]. */
  function scaleColour(share) {
    const place = Math.min(Math.max(share, 0), 1) * (SCALE.length - 1),
      low = Math.min(Math.floor(place), SCALE.length - 2);
    const a = rgb(SCALE[low]),
      b = rgb(SCALE[low + 1]);
    return a.map((value, k) => Math.round(value + (place - low) * (b[k] - value)));
  }

  const along = ({extent: [low, high], log}, size) => {
    if (!log) return (value) => ((value - low) / (high - low)) * size;
    const from = Math.log(low),
      over = size / (Math.log(high) - from);
    return (value) => (Math.log(value) - from) * over;
  };

  /** Where each row is, in pixels of the plot: {x, y} per place in `rows`. */
  function project(cloud, rows, width, height) {
    const toX = along(cloud.axes.x, width),
      toY = along(cloud.axes.y, height),
      n = rows.length;
    const x = new Float32Array(n),
      y = new Float32Array(n);
    for (let k = 0; k < n; k += 1) {
      x[k] = toX(cloud.x[rows[k]]);
      y[k] = height - toY(cloud.y[rows[k]]);
    }
    return {x, y};
  }

  function paintDots(context, at, rows, colourOf, radius, alpha) {
    context.globalAlpha = alpha;
    for (let k = 0; k < rows.length; k += 1) {
      if (!(at.x[k] > -radius && at.y[k] > -radius)) continue;
      context.fillStyle = colourOf(rows[k]);
      context.beginPath();
      context.arc(at.x[k], at.y[k], radius, 0, 7);
      context.fill();
    }
    context.globalAlpha = 1;
  }

  function paintDensity(context, at, rows, cloud, width, height, base) {
    const wide = Math.ceil(width / BIN),
      high = Math.ceil(height / BIN);
    const counts = new Uint32Array(wide * high),
      sums = cloud.colour && base === null ? new Float64Array(wide * high) : null;
    let most = 1;
    for (let k = 0; k < rows.length; k += 1) {
      const column = Math.floor(at.x[k] / BIN),
        line = Math.floor(at.y[k] / BIN);
      if (!(column >= 0 && column < wide && line >= 0 && line < high)) continue;
      const bin = line * wide + column;
      if ((counts[bin] += 1) > most) most = counts[bin];
      if (sums) sums[bin] += cloud.colour.column[rows[k]];
    }
    const image = new ImageData(wide, high),
      [low, top] = cloud.colour?.extent ?? [0, 1];
    for (let bin = 0; bin < counts.length; bin += 1) {
      if (!counts[bin]) continue;
      const colour = sums ? scaleColour((sums[bin] / counts[bin] - low) / (top - low)) : base;
      const strength = sums ? 0.9 : 0.35 + (0.65 * Math.log(counts[bin])) / Math.log(most + 1);
      image.data.set([...colour, 255 * strength], 4 * bin);
    }
    const small = new OffscreenCanvas(wide, high);
    small.getContext("2d").putImageData(image, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, wide * BIN, high * BIN);
  }

  /** Paints a cloud {rows, context, x, y, axes, colour, tone} on a canvas that covers the plot; returns where rows are. */
  function paintCloud(canvas, cloud, width, height) {
    const ratio = devicePixelRatio || 1,
      context = canvas.getContext("2d");
    Object.assign(canvas, {width: Math.round(width * ratio), height: Math.round(height * ratio)});
    Object.assign(canvas.style, {width: `${width}px`, height: `${height}px`});
    context.scale(ratio, ratio);
    const total = cloud.rows.length + (cloud.context?.length ?? 0);
    const radius = total < 500 ? 4 : total < 3000 ? 3 : total < 8000 ? 2.2 : 1.6;
    const tone = NaoRay.css(cloud.tone ?? "--dot"),
      pale = NaoRay.css("--pale");
    const paint = (rows, isContext) => {
      const at = project(cloud, rows, width, height);
      if (total > MOST_DOTS)
        paintDensity(context, at, rows, cloud, width, height, isContext ? rgb(pale) : cloud.colour ? null : rgb(tone));
      else {
        const [low, top] = cloud.colour?.extent ?? [0, 1];
        const colourOf = isContext
          ? () => pale
          : cloud.colour
            ? (row) => `rgb(${scaleColour((cloud.colour.column[row] - low) / (top - low))})`
            : () => tone;
        paintDots(context, at, rows, colourOf, radius, isContext ? 0.8 : total < 500 ? 0.85 : 0.65);
      }
      return at;
    };
    if (cloud.context?.length) paint(cloud.context, true);
    return paint(cloud.rows, false);
  }

  Object.assign(NaoRay, {paintCloud, scaleColour, SCALE});
})((window.NaoRay ??= {}));
