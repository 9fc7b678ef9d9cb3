// The latency heat map: the service's own picture, and the exact value under the pointer.

import { get, text } from "./api.js";
import { by, make } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";

export class HeatMap {
  constructor() {
    this.root = by("heat-map");
    this.at = [0, 1];
    this.root.addEventListener("pointermove", (event) => this.#pointed(event));
    this.root.addEventListener("keydown", (event) => this.#key(event));
    this.root.addEventListener("focus", () => this.#read());
    this.wanted = false;
    this.stale = true;
    new IntersectionObserver((entries) => {
      this.wanted = entries.at(-1).isIntersecting;
      this.again();
    }, { rootMargin: "200px" }).observe(this.root);
  }

  /** The matrix is another one. It is fetched when somebody can see it. */
  renew() {
    this.stale = true;
    return this.again();
  }

  /** What could not be fetched may be there now. */
  again() {
    return this.wanted && this.stale ? this.#load() : null;
  }

  async #load() {
    this.stale = false;
    try {
      const [picture, matrix] = await Promise.all([text("heatmap.svg?bare=1"), get("matrix")]);
      this.#draw(picture, matrix);
    } catch (error) {
      this.stale = true;
      this.root.replaceChildren(make("p", { class: "bad" }, `The heat map could not be fetched: ${error.message}`));
    }
  }

  #draw(picture, matrix) {
    const svg = new DOMParser().parseFromString(picture, "image/svg+xml").documentElement;
    this.svg = document.importNode(svg, true);
    this.root.replaceChildren(this.svg);
    this.cells = this.svg.querySelector("[data-cpus]");
    if (!this.cells) return;
    this.cpus = this.cells.dataset.cpus.split(" ").map(Number);
    this.starts = this.cells.dataset.at.split(" ").map(Number);
    this.cell = Number(this.cells.dataset.cell);
    this.at = this.at.map((place) => Math.min(place, this.cpus.length - 1)); // CPUs may have gone
    this.matrix = matrix;
    this.index = new Map(matrix.cpus.map((cpu, i) => [cpu, i]));
    this.cross = ["cross halo", "cross"].map((name) => {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("class", name);
      return path;
    });
    this.cells.append(...this.cross);
  }

  #pointed(event) {
    if (!this.cells) return;
    const matrix = this.cells.getScreenCTM();
    if (!matrix) return;
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
    const [column, row] = [this.#nearest(point.x), this.#nearest(point.y)];
    if (column < 0 || row < 0) return;
    this.at = [row, column];
    this.#read();
  }

  #nearest(along) {
    return this.starts.findIndex((start) => along >= start && along < start + this.cell);
  }

  #key(event) {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step || !this.cpus) return;
    event.preventDefault();
    const last = this.cpus.length - 1;
    this.at = this.at.map((was, i) => Math.max(0, Math.min(last, was + step[i])));
    this.#read();
  }

  #read() {
    if (!this.cpus || this.cpus.length < 2) return;
    const [row, column] = this.at;
    const [first, second] = [this.cpus[row], this.cpus[column]];
    const pair = `CPU ${first} and CPU ${second}`;
    by("heat-reading").dataset.said = "";
    by("heat-reading").textContent = first === second ? `CPU ${first} itself` : `${pair}: ${this.#value(first, second)}`;
    const [x, y, size] = [this.starts[column], this.starts[row], this.cell];
    const [middle, centre, end] = [x + size / 2, y + size / 2, this.starts.at(-1) + size];
    const half = Math.max(size, 10) / 2;
    const box = `M${middle - half} ${centre - half}h${2 * half}v${2 * half}h-${2 * half}z`;
    const rays = `M0 ${centre}H${middle - half}M${middle + half} ${centre}H${end}M${middle} 0V${centre - half}M${middle} ${centre + half}V${end}`;
    const wide = Math.max(1.2, size / 14);
    this.cross.forEach((path, i) => {
      path.setAttribute("d", box + rays);
      path.setAttribute("stroke-width", i ? wide : wide + 3);
    });
  }

  #value(first, second) {
    const [low, high] = [this.index.get(first), this.index.get(second)].sort((a, b) => a - b);
    const ns = this.matrix.ns[low][high - low - 1];
    const measured = this.matrix.measured[low][high - low - 1] === "1";
    return `${ns.toFixed(1)} ns one way, ${measured ? "measured" : "predicted"}`;
  }
}
