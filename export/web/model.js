// The network: pixels of a crop in, a unit embedding and its quality out. ONNX Runtime Web, one thread.

import { SIZE } from "./align.js";

const NEAR = 0.99; // cosine to the stored answer: what int8 arithmetic of different processors leaves

/** Loads runtime and model and holds this browser to the answer in meta.json; an Error says what is wrong. */
export async function openModel(meta) {
  const ort = await import("./ort/ort.wasm.bundle.min.mjs");
  ort.env.wasm.numThreads = 1; // more need headers (COOP, COEP) that a plain static server does not send
  ort.env.wasm.wasmPaths = { wasm: new URL("./ort/ort-wasm-simd-threaded.wasm", import.meta.url).href };
  const session = await ort.InferenceSession.create(await bytes(meta.model));
  let last = Promise.resolve();

  /** One crop (ImageData) -> {embedding, quality, milliseconds}. Calls wait for each other. */
  const embed = (crop) => (last = last.catch(() => {}).then(() => run(ort, session, crop)));
  const found = await embed(pattern());
  if (!(cosine(found.embedding, meta.check.embedding) >= NEAR))
    throw new Error("This browser computes other numbers than the model should give, so it cannot be used here.");
  return { embed };
}

/** Of two unit embeddings. */
export const cosine = (one, other) => one.reduce((sum, value, i) => sum + value * other[i], 0);

async function run(ort, session, crop) {
  const input = new ort.Tensor("float32", planes(crop), [1, 3, SIZE, SIZE]);
  const start = performance.now();
  const { embedding, quality } = await session.run({ input });
  return { embedding: embedding.data, quality: quality.data[0], milliseconds: performance.now() - start };
}

/** RGBA pixels -> R, G and B plane, 0..255. */
function planes({ data }) {
  const area = SIZE * SIZE;
  const values = new Float32Array(3 * area);
  for (let i = 0; i < area; i++) for (let c = 0; c < 3; c++) values[c * area + i] = data[4 * i + c];
  return values;
}

/** The picture whose embedding is in meta.json, see export.to_web.pattern. */
function pattern() {
  const crop = new ImageData(SIZE, SIZE);
  for (let y = 0; y < SIZE; y++)
    for (let x = 0; x < SIZE; x++)
      for (let c = 0; c < 3; c++) crop.data[4 * (y * SIZE + x) + c] = (3 * x + 5 * y + 70 * c + ((x * y) >> 3)) & 255;
  return crop;
}

async function bytes(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name} is missing on this server (${response.status}).`);
  return new Uint8Array(await response.arrayBuffer());
}
