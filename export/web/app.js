// The page: two pictures, one model, one answer.

import { cosine, openModel } from "./model.js";
import { Picture } from "./picture.js";

const WAIT = 150; // ms without a change before the model runs
const part = (name) => document.querySelector(`#${name}`);
const whole = new Intl.NumberFormat("en");

const say = (text, bad = false) => {
  part("status").textContent = text;
  part("status").classList.toggle("bad", bad);
};

/** Makes one card from the template; returns its element. */
function card(name) {
  const root = part("card").content.firstElementChild.cloneNode(true);
  root.setAttribute("aria-label", name);
  root.querySelector("h2").textContent = name;
  part("pictures").append(root);
  return root;
}

/** Embeds a crop once it has stayed the same for a moment; `found` is its last result or null. */
function watcher(root, model, answer) {
  const state = { found: null, crop: null };
  let timer;
  const show = (found) => {
    state.found = found;
    root.querySelector("[data-part=quality]").textContent = found ? found.quality.toFixed(1) : "";
    root.querySelector("[data-part=time]").textContent = found ? `${found.milliseconds.toFixed(0)} ms` : "";
    root.querySelector(".facts").hidden = !found;
    answer();
  };
  state.changed = (crop) => {
    state.crop = crop;
    clearTimeout(timer);
    if (!crop) return show(null);
    timer = setTimeout(async () => {
      try {
        const found = await (await model).embed(crop);
        if (state.crop !== crop) return;
        say("");
        show(found);
      } catch (error) {
        if (state.crop === crop) show(null);
        say(`The model does not run: ${error.message}`, true);
      }
    }, WAIT);
  };
  return state;
}

/** Shows a similarity at a threshold, or without one. */
function show(similarity, chosen) {
  const place = (value) => `${100 * Math.min(1, Math.max(0, value))}%`; // what is below 0 is as different as 0
  part("similarity").textContent = similarity.toFixed(2);
  part("found").style.width = place(similarity);
  part("limit").hidden = !chosen;
  if (!chosen) {
    part("verdict").textContent = "Similarity";
    part("detail").textContent = "This model comes without a threshold, so the page gives only the number.";
    return;
  }
  const same = similarity >= chosen.threshold;
  const reaches = `${same ? "reaches" : "stays below"} the threshold of ${chosen.threshold.toFixed(3)}`;
  part("limit").style.left = place(chosen.threshold);
  part("verdict").textContent = same ? "Probably the same person" : "Probably different people";
  part("verdict").dataset.same = same;
  part("detail").textContent = `The similarity of ${similarity.toFixed(3)} ${reaches}. ${origin(chosen)}`;
}

/** What a threshold means and where it is from. */
function origin({ rate, set, pairs }) {
  const one = `about 1 of ${whole.format(Math.round(1 / rate))} pairs of different people is taken for one person`;
  const measured = set ? `, measured on ${set}${pairs ? ` with ${whole.format(pairs)} pairs` : ""}` : "";
  return `At that threshold, ${one}${measured}.`;
}

function strictness(thresholds, answer) {
  for (const [i, { rate }] of thresholds.entries())
    part("strictness").append(new Option(`1 in ${whole.format(Math.round(1 / rate))}`, i, false, rate === 0.001));
  part("strictness").addEventListener("change", answer);
  part("choice").hidden = thresholds.length < 2;
}

function footer(meta) {
  const rows = {
    Model: `${meta.name}, ${(meta.bytes / 2 ** 20).toFixed(1)} MiB, ${meta.dim} numbers for a face`,
    "Licence of the weights": meta.licence.weights,
    "Licence of the training data": meta.licence.data,
    "SHA-256": meta.sha256,
    Runs: `${meta.runtime} on this device`,
  };
  for (const [name, value] of Object.entries(rows)) {
    const row = document.createElement("div");
    row.append(document.createElement("dt"), document.createElement("dd"));
    [row.firstChild.textContent, row.lastChild.textContent] = [name, value];
    part("about").append(row);
  }
}

async function start() {
  part("start").hidden = true;
  for (const type of ["dragover", "drop"]) document.addEventListener(type, (event) => event.preventDefault());
  const response = await fetch("meta.json");
  if (!response.ok) throw new Error(`meta.json is missing on this server (${response.status}).`);
  const meta = await response.json();
  footer(meta);
  const model = openModel(meta);
  const sides = [];
  const answer = () => {
    const [one, other] = sides.map((side) => side.found);
    const chosen = meta.thresholds[Number(part("strictness").value || 0)];
    const both = Boolean(one && other);
    document.body.classList.toggle("answered", both);
    for (const name of ["similarity", "scale", "ends"]) part(name).hidden = !both;
    part("verdict").dataset.same = "";
    part("verdict").textContent = "No answer yet";
    part("detail").textContent = "Give two pictures and mark the eyes on each.";
    if (both) show(cosine(one.embedding, other.embedding), chosen);
  };
  strictness(meta.thresholds, answer);
  for (const name of ["First picture", "Second picture"]) {
    const root = card(name);
    const side = watcher(root, model, answer);
    sides.push(side);
    new Picture(root, meta.eyes, side.changed);
  }
  answer();
  await model;
  say("");
  document.body.dataset.ready = "yes";
}

start().catch((error) => say(`This page cannot work here: ${error.message}`, true));
