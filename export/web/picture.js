// One of the two pictures: where it comes from, its two eye markers, its crop.

import { SIZE, cut, similarity } from "./align.js";

const MOST = 16e6; // px of a picture; phones give a canvas no more
const VIEW = 800; // px of the canvas that shows it, a square
const FACE = 4.5; // side of the close view, in distances between the eyes
const NAMES = ["Eye on the left", "Eye on the right"];
const START = [[0.38, 0.42], [0.62, 0.42]]; // of the view: where the markers wait
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Picture {
  /** `root`: the card; `template`: the two eyes in the crop; `changed`: called with each new crop, or null. */
  constructor(root, template, changed) {
    Object.assign(this, { root, template, changed, placed: [false, false], eyes: [], turn: 0 });
    this.picture = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    this.view = this.part("view").getContext("2d");
    this.view.canvas.width = this.view.canvas.height = VIEW;
    this.markers = [...root.querySelectorAll(".eye")];
    this.wire();
  }

  part(name) {
    return this.root.querySelector(`[data-part="${name}"]`);
  }

  wire() {
    const on = (name, event, action) => this.part(name).addEventListener(event, action);
    on("file", "change", ({ target }) => {
      if (target.files[0]) this.read(target.files[0]);
      target.value = "";
    });
    on("camera", "click", () => this.film());
    on("shoot", "click", () => this.shoot());
    on("cancel", "click", () => this.clear());
    on("again", "click", () => this.clear());
    on("closer", "click", () => this.look(this.part("closer").getAttribute("aria-pressed") === "false"));
    on("view", "click", (event) => this.click(event));
    for (const type of ["dragenter", "dragover"])
      this.root.addEventListener(type, () => this.root.classList.add("over"));
    for (const type of ["dragleave", "drop"])
      this.root.addEventListener(type, () => this.root.classList.remove("over"));
    this.root.addEventListener("drop", ({ dataTransfer }) => dataTransfer.files[0] && this.read(dataTransfer.files[0]));
    this.markers.forEach((marker, eye) => this.wireMarker(marker, eye));
  }

  wireMarker(marker, eye) {
    marker.addEventListener("keydown", (event) => {
      const move = MOVES[event.key];
      if (!move) return;
      event.preventDefault();
      const step = (event.shiftKey ? 10 : 1) * this.pxOfScreen();
      this.place(eye, this.eyes[eye].map((value, axis) => value + move[axis] * step));
    });
    marker.addEventListener("click", () => this.place(eye, this.eyes[eye])); // Enter and Space
    marker.addEventListener("pointerdown", (event) => marker.setPointerCapture(event.pointerId));
    marker.addEventListener("pointermove", (event) => {
      if (marker.hasPointerCapture(event.pointerId)) this.place(eye, this.at(event));
    });
  }

  /** What was under way before this may not show its result any more; true as long as nothing else has begun. */
  begin() {
    const turn = ++this.turn;
    return () => turn === this.turn;
  }

  show(state) {
    this.begin();
    for (const track of this.part("video").srcObject?.getTracks() ?? []) track.stop();
    this.part("video").srcObject = null;
    this.root.dataset.state = state;
    this.say("");
  }

  say(problem) {
    this.part("problem").textContent = problem;
  }

  clear() {
    this.show("empty");
    this.changed(null);
    this.part("file").focus();
  }

  /** Takes a file that the person chose or dropped. */
  async read(file) {
    const latest = this.begin();
    let bitmap;
    try {
      bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
    } catch {
      if (latest())
        this.say(`“${file.name}” is no picture that this browser can read. JPEG, PNG and WebP work everywhere.`);
      return;
    }
    if (latest()) this.take(bitmap, bitmap.width, bitmap.height);
    bitmap.close();
  }

  async film() {
    this.say("");
    if (!navigator.mediaDevices?.getUserMedia) {
      this.say("The camera works only over https:// or on localhost. You can still choose a picture.");
      return;
    }
    const latest = this.begin();
    try {
      const video = { facingMode: "user", width: { ideal: 1280 } };
      const stream = await navigator.mediaDevices.getUserMedia({ video });
      if (!latest()) return stream.getTracks().forEach((track) => track.stop());
      this.show("filming");
      this.part("video").srcObject = stream;
      this.part("shoot").focus();
    } catch (error) {
      if (!latest()) return;
      this.say(
        error.name === "NotAllowedError"
          ? "The camera was not allowed. You can allow it in the browser’s settings, or choose a picture."
          : "No camera can be used here. You can choose a picture instead.",
      );
    }
  }

  shoot() {
    const video = this.part("video");
    if (video.videoWidth) this.take(video, video.videoWidth, video.videoHeight);
  }

  /** Copies a picture of width x height px; one of 112x112 is a crop already. */
  take(source, width, height) {
    const shrink = Math.min(1, Math.sqrt(MOST / (width * height)));
    const { canvas } = this.picture;
    [canvas.width, canvas.height] = [width, height].map((side) => Math.max(1, Math.round(side * shrink)));
    this.picture.imageSmoothingQuality = "high";
    this.picture.fillRect(0, 0, canvas.width, canvas.height); // black under what is transparent
    this.picture.drawImage(source, 0, 0, canvas.width, canvas.height);
    this.placed = [false, false];
    this.changed(null);
    this.show(width === SIZE && height === SIZE ? "aligned" : "marking");
    this.look(false);
    this.eyes = START.map(([x, y]) => [this.frame.x + x * this.frame.side, this.frame.y + y * this.frame.side]);
    this.update();
  }

  /** Shows the whole picture, or the square around the face. */
  look(close) {
    const { width, height } = this.picture.canvas;
    const [[x0, y0], [x1, y1]] = close ? this.eyes : [[0, 0], [width, height]];
    const side = close ? FACE * Math.max(8, Math.hypot(x1 - x0, y1 - y0)) : Math.max(width, height);
    this.frame = { x: (x0 + x1 - side) / 2, y: (y0 + y1 - side) / 2, side };
    this.part("closer").setAttribute("aria-pressed", close);
    const zoom = VIEW / side;
    this.view.clearRect(0, 0, VIEW, VIEW);
    this.view.imageSmoothingQuality = "high";
    this.view.drawImage(this.picture.canvas, -this.frame.x * zoom, -this.frame.y * zoom, width * zoom, height * zoom);
    this.drawMarkers();
  }

  /** Px of the picture in one px of the screen. */
  pxOfScreen() {
    return this.frame.side / this.view.canvas.getBoundingClientRect().width;
  }

  /** Where in the picture the pointer is; half a px less, because a pixel's centre counts. */
  at({ clientX, clientY }) {
    const box = this.view.canvas.getBoundingClientRect();
    const scale = this.pxOfScreen();
    return [this.frame.x + (clientX - box.left) * scale - 0.5, this.frame.y + (clientY - box.top) * scale - 0.5];
  }

  /** The next eye that has no marker yet, else the nearest one, goes to where the person points. */
  click(event) {
    if (this.root.dataset.state !== "marking") return;
    const point = this.at(event);
    const away = this.eyes.map(([x, y]) => Math.hypot(x - point[0], y - point[1]));
    const waiting = this.placed.indexOf(false);
    this.place(waiting >= 0 ? waiting : Number(away[1] < away[0]), point);
  }

  place(eye, [x, y]) {
    const { width, height } = this.picture.canvas;
    this.eyes[eye] = [Math.min(Math.max(x, -0.5), width - 0.5), Math.min(Math.max(y, -0.5), height - 0.5)];
    this.placed[eye] = true;
    this.update();
  }

  /** Markers, instruction and crop, as the eyes are now. */
  update() {
    this.drawMarkers();
    let crop = null;
    if (this.root.dataset.state === "aligned") crop = this.picture.getImageData(0, 0, SIZE, SIZE);
    else if (this.placed.every(Boolean)) {
      const matrix = similarity(this.eyes, this.template);
      crop = matrix && cut(this.picture, matrix);
    }
    this.part("closer").disabled = !this.placed.every(Boolean);
    this.part("task").textContent = this.task(crop);
    const shown = this.part("crop");
    shown.hidden = !crop;
    this.root.classList.toggle("cropped", Boolean(crop));
    if (crop) shown.getContext("2d").putImageData(crop, 0, 0);
    this.changed(crop);
  }

  task(crop) {
    if (this.root.dataset.state === "aligned") return "Already cut to 112 × 112 px: taken as it is.";
    if (!this.placed[0]) return "Tap the eye on the left.";
    if (!this.placed[1]) return "Now the eye on the right.";
    if (!crop) return "The two markers are in one place. Move them apart.";
    if (this.eyes[1][0] < this.eyes[0][0]) return "The face is upside down: the first marker belongs on the left.";
    return "Drag the markers for a better fit.";
  }

  drawMarkers() {
    this.root.querySelector(".stage").classList.toggle("ready", this.placed.every(Boolean));
    this.markers.forEach((marker, eye) => {
      if (!this.eyes[eye]) return;
      const [x, y] = this.eyes[eye];
      marker.style.left = `${(100 * (x + 0.5 - this.frame.x)) / this.frame.side}%`;
      marker.style.top = `${(100 * (y + 0.5 - this.frame.y)) / this.frame.side}%`;
      marker.classList.toggle("placed", this.placed[eye]);
      const state = this.placed[eye] ? "at" : "not marked yet, waits at";
      marker.setAttribute("aria-label", `${NAMES[eye]}, ${state} ${Math.round(x)}, ${Math.round(y)} px`);
    });
  }
}
