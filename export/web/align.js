// From two eyes to the 112x112 crop that the model takes, in the same steps as mobileface.data.photos.view.
// Coordinates are x, y in px; the centre of a picture's first pixel is 0, 0, as in OpenCV.

export const SIZE = 112;

/** The factor a + bi and the shift x, y that take two eyes onto the template's; null where the eyes coincide. */
export function similarity([[x0, y0], [x1, y1]], [[u0, v0], [u1, v1]]) {
  const [dx, dy, du, dv] = [x1 - x0, y1 - y0, u1 - u0, v1 - v0];
  const spread = dx * dx + dy * dy;
  if (!(spread >= 1)) return null;
  const a = (du * dx + dv * dy) / spread;
  const b = (dv * dx - du * dy) / spread;
  return { a, b, x: u0 - a * x0 + b * y0, y: v0 - b * x0 - a * y0 };
}

/** The crop, an ImageData, from the canvas of a 2-D context: bilinear, black around, shrunk by area first if large. */
export function cut(context, matrix) {
  const crop = new ImageData(SIZE, SIZE);
  const scale = Math.hypot(matrix.a, matrix.b);
  const { left, top, width, height } = needed(context.canvas, matrix, 2 / Math.min(scale, 0.5));
  if (width < 1 || height < 1) return bilinear(crop, { data: [], width: 0, height: 0 }, (u, v) => [u, v]);
  const whole = context.getImageData(left, top, width, height);
  const shrink = Math.min(1, 2 * scale);
  const part = shrink < 1 ? byArea(whole, atLeastOne(width * shrink), atLeastOne(height * shrink)) : whole;
  const [across, down] = [part.width / width, part.height / height];
  return bilinear(crop, part, (u, v) => {
    const [x, y] = source(matrix, u, v);
    return [(x - left + 0.5) * across - 0.5, (y - top + 0.5) * down - 0.5];
  });
}

/** Where a pixel of the crop lies in the picture. */
function source({ a, b, x, y }, u, v) {
  const square = a * a + b * b;
  return [(a * (u - x) + b * (v - y)) / square, (a * (v - y) - b * (u - x)) / square];
}

/** The part of the picture, in whole px, that the crop shows with `margin` px around it. */
function needed(picture, matrix, margin) {
  const corners = [[0, 0], [SIZE, 0], [0, SIZE], [SIZE, SIZE]].map(([u, v]) => source(matrix, u, v));
  const clip = (value, most) => Math.min(Math.max(value, 0), most);
  const span = (values, most) => {
    const first = clip(Math.floor(Math.min(...values) - margin), most);
    return [first, clip(Math.ceil(Math.max(...values) + margin), most) - first];
  };
  const [left, width] = span(corners.map(([x]) => x), picture.width);
  const [top, height] = span(corners.map(([, y]) => y), picture.height);
  return { left, top, width, height };
}

const atLeastOne = (value) => Math.max(1, Math.round(value));

/** The picture at a smaller size, each pixel the mean of the area that it stands for; RGBA as numbers. */
function byArea({ data, width, height }, newWidth, newHeight) {
  const narrow = along(data, width, newWidth, height, 4, width * 4);
  return { data: along(narrow, height, newHeight, newWidth, newWidth * 4, 4), width: newWidth, height: newHeight };
}

/** Shrinks `lines` lines of `length` pixels to `wanted`; `step` and `stride`: numbers between pixels, between lines. */
function along(data, length, wanted, lines, step, stride) {
  const result = new Float32Array(wanted * lines * 4);
  const [newStep, newStride] = step === 4 ? [4, wanted * 4] : [step, 4];
  const ratio = length / wanted;
  for (let to = 0; to < wanted; to++) {
    const [start, end] = [to * ratio, Math.min((to + 1) * ratio, length)];
    for (let from = Math.floor(start); from < end; from++) {
      const share = (Math.min(from + 1, end) - Math.max(from, start)) / ratio;
      for (let line = 0; line < lines; line++)
        for (let channel = 0; channel < 3; channel++)
          result[to * newStep + line * newStride + channel] += share * data[from * step + line * stride + channel];
    }
  }
  return result;
}

/** Fills the crop with what lies at(u, v) in the picture. */
function bilinear(crop, { data, width, height }, at) {
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height;
  const value = (x, y, channel) => (inside(x, y) ? data[(y * width + x) * 4 + channel] : 0);
  for (let v = 0; v < SIZE; v++)
    for (let u = 0; u < SIZE; u++) {
      const [x, y] = at(u, v);
      const [left, top] = [Math.floor(x), Math.floor(y)];
      const [right, below] = [x - left, y - top];
      const pixel = (v * SIZE + u) * 4;
      for (let channel = 0; channel < 3; channel++)
        crop.data[pixel + channel] =
          (1 - below) * ((1 - right) * value(left, top, channel) + right * value(left + 1, top, channel)) +
          below * ((1 - right) * value(left, top + 1, channel) + right * value(left + 1, top + 1, channel));
      crop.data[pixel + 3] = 255;
    }
  return crop;
}
