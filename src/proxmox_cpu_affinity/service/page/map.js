// The host as a map: packages, nodes, L3 groups, cores, and a cell for each CPU.

import { by, cpus, make, mark } from "./dom.js";

const sizes = [[16, "l"], [64, "m"], [160, "s"], [Infinity, "xs"]];

export class HostMap {
  /** `lit` is told which guests are pointed at, `opened` which one is to be explained. */
  constructor(lit, opened) {
    this.lit = lit;
    this.opened = opened;
    this.cells = new Map(); // CPU: its button
    this.places = new Map(); // CPU: its place in the topology
    this.holders = new Map(); // CPU: its guests
    this.load = new Map();
    this.pointed = null;
    this.root = by("map");
    this.root.addEventListener("keydown", (event) => this.#move(event));
    this.root.addEventListener("pointerleave", () => this.#point(null));
    this.root.addEventListener("focusout", () => this.#point(null));
  }

  /** Draw the host anew, if it is another one. */
  draw(topology, status) {
    const told = JSON.stringify([topology, status.usable]);
    if (told === this.told) return;
    this.told = told;
    const focused = document.activeElement?.dataset?.cpu;
    this.places = new Map(topology.cpus.map((place) => [place.cpu, place]));
    this.online = new Set(cpus(topology.online));
    this.usable = new Set(cpus(status.usable));
    this.isolated = new Set(cpus(topology.isolated));
    const known = topology.cpus.map((place) => place.cpu);
    const absent = cpus(topology.present).filter((cpu) => !this.places.has(cpu));
    const count = known.length + absent.length;
    this.root.dataset.size = sizes.find(([most]) => count <= most)[1];
    this.cells.clear();
    const packages = this.#split(topology.cpus, "package").map(([number, places]) =>
      this.#package(number, places, topology));
    const apart = absent.length ? [this.#absent(absent)] : [];
    this.root.replaceChildren(...packages, ...apart);
    this.order = [...this.root.querySelectorAll(".cell")];
    const first = this.cells.get(Number(focused)) ?? this.order[0];
    if (first) first.tabIndex = 0;
    if (focused !== undefined) first?.focus();
    for (const cpu of this.cells.keys()) this.#fill(cpu);
  }

  #split(places, level) {
    const found = new Map();
    for (const place of places) {
      if (!found.has(place[level])) found.set(place[level], []);
      found.get(place[level]).push(place);
    }
    return [...found].sort(([a], [b]) => a - b);
  }

  #package(number, places, topology) {
    const nodes = this.#split(places, "node").map(([node, inside]) => {
      const memory = topology.nodes.find((each) => each.node === node)?.memory_mib;
      const size = memory ? ` · ${Math.round(memory / 1024)} GiB` : "";
      const groups = this.#split(inside, "cache_group").map(([group, members]) =>
        make("div", { role: "group", "aria-label": `L3 group ${group}` },
          make("div", { class: "where" }, `L3 ${group}`),
          make("div", { class: "cores" }, this.#split(members, "core").map(([, siblings]) =>
            make("div", { class: "core" }, siblings.map((place) => this.#cell(place.cpu)))))));
      return make("div", { class: "numa", role: "group", "aria-label": `Node ${node}` },
        make("div", { class: "where" }, make("b", {}, `Node ${node}`), size),
        make("div", { class: "groups" }, groups));
    });
    return make("div", { class: "package", role: "group", "aria-label": `Package ${number}` },
      make("div", { class: "where" }, `Package ${number}`),
      make("div", { class: "numas" }, nodes));
  }

  #absent(numbers) {
    return make("div", { class: "package", role: "group", "aria-label": "Offline" },
      make("div", { class: "where" }, "Offline"),
      make("div", { class: "cores" }, numbers.map((cpu) =>
        make("div", { class: "core" }, this.#cell(cpu)))));
  }

  #cell(cpu) {
    const cell = make("button", {
      type: "button", class: "cell", tabindex: "-1", "data-cpu": cpu,
      onpointerenter: () => this.#point(cpu),
      onfocus: () => this.#point(cpu),
      onclick: () => { for (const vmid of (this.holders.get(cpu) ?? []).slice(0, 1)) this.opened(vmid); },
    });
    this.cells.set(cpu, cell);
    return cell;
  }

  /** Who holds which CPU: guests with `vmid`, `name` and `cpus`. */
  settle(guests) {
    const holders = new Map();
    this.names = new Map();
    this.applied = new Map();
    for (const guest of guests) {
      this.names.set(guest.vmid, guest.name);
      this.applied.set(guest.vmid, cpus(guest.applied));
      for (const cpu of cpus(guest.cpus)) {
        if (!holders.has(cpu)) holders.set(cpu, []);
        holders.get(cpu).push(guest.vmid);
      }
    }
    const before = this.holders;
    this.holders = holders;
    for (const cpu of this.cells.keys()) {
      if (String(before.get(cpu) ?? "") !== String(holders.get(cpu) ?? "")) this.#fill(cpu);
    }
    if (this.pointed !== null) this.#read(this.pointed);
  }

  #state(cpu) {
    if (!this.online.has(cpu)) return "offline";
    if (!this.usable.has(cpu)) return this.isolated.has(cpu) ? "isolated, not for guests" : "not for guests";
    return this.isolated.has(cpu) ? "isolated" : "";
  }

  #fill(cpu) {
    const cell = this.cells.get(cpu);
    const held = this.holders.get(cpu) ?? [];
    const state = this.#state(cpu);
    cell.className = `cell${state === "offline" ? " offline" : ""}${state.endsWith("for guests") ? " host" : ""}`;
    const marks = held.map(mark);
    const said = held.length > 2 ? `×${held.length}` : marks.map((each) => each.key).join("");
    const large = this.root.dataset.size === "l" && held.length === 1 && held[0] < 100000;
    cell.replaceChildren(
      ...marks.slice(0, 4).map((each) => make("i", { class: each.colour })),
      make("b", {}, large ? String(held[0]) : said),
    );
    cell.setAttribute("aria-label", this.#label(cpu, held, large || !said ? "" : `${said}: `, state));
  }

  #label(cpu, held, said, state) {
    const guests = held.map((vmid) => `${vmid} ${this.names.get(vmid)}`).join(", ");
    const parts = [`CPU ${cpu}`, guests ? `${said}guest ${guests}` : state ? "" : "free", state];
    return parts.filter(Boolean).join(", ");
  }

  /** How busy CPUs are: CPU numbers and shares, in the same order. */
  weigh(numbers, busy) {
    numbers.forEach((cpu, i) => {
      this.load.set(cpu, busy[i]);
      this.cells.get(cpu)?.style.setProperty("--load", busy[i].toFixed(2));
    });
    if (this.pointed !== null) this.#read(this.pointed);
  }

  #point(cpu) {
    this.pointed = cpu;
    if (cpu !== null) this.#read(cpu);
    this.lit(cpu === null ? [] : this.holders.get(cpu) ?? []);
  }

  #read(cpu) {
    const place = this.places.get(cpu);
    const held = this.holders.get(cpu) ?? [];
    const busy = this.load.get(cpu);
    const parts = [`CPU ${cpu}`];
    if (place) {
      parts.push(`core ${place.core}`, `L3 group ${place.cache_group}`, `node ${place.node}`, `package ${place.package}`);
      if (place.kind && place.kind !== "performance") parts.push(`${place.kind} core`);
    }
    parts.push(held.map((vmid) => `${mark(vmid).key} ${vmid} ${this.names.get(vmid)}`).join(", ") || this.#state(cpu) || "free");
    if (busy !== undefined && this.online.has(cpu)) parts.push(`load ${Math.round(busy * 100)} %`);
    by("reading").textContent = parts.join(" · ");
    by("reading").dataset.said = "";
  }

  /** Light up guests' CPUs, and dim the others'. */
  light(vmids) {
    const may = new Set(vmids.flatMap((vmid) => this.applied?.get(vmid) ?? []));
    this.root.classList.toggle("lit", vmids.length > 0);
    for (const [cpu, cell] of this.cells) {
      const on = (this.holders.get(cpu) ?? []).some((vmid) => vmids.includes(vmid));
      cell.classList.toggle("on", on);
      cell.classList.toggle("may", !on && may.has(cpu));
    }
  }

  /** Mark CPUs that something is said of: a candidate, a trial. */
  show(list) {
    const here = new Set(cpus(list));
    for (const [cpu, cell] of this.cells) cell.classList.toggle("here", here.has(cpu));
  }

  #move(event) {
    const from = event.target.closest(".cell");
    if (!from) return;
    const at = this.order.indexOf(from);
    const next = { ArrowRight: this.order[at + 1], ArrowLeft: this.order[at - 1],
      Home: this.order[0], End: this.order.at(-1) }[event.key] ?? this.#beside(from, event.key);
    if (!next) return;
    event.preventDefault();
    from.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  /** The nearest cell above or below. */
  #beside(from, key) {
    const sign = { ArrowDown: 1, ArrowUp: -1 }[key];
    if (!sign) return null;
    const here = from.getBoundingClientRect();
    let best = null;
    let least = Infinity;
    for (const cell of this.order) {
      const there = cell.getBoundingClientRect();
      const down = (there.top - here.top) * sign;
      const far = down * 2 + Math.abs(there.left - here.left);
      if (down > 1 && far < least) [best, least] = [cell, far];
    }
    return best;
  }
}
