// The guests as a list, and each one's explanation: the decision, its candidates, placing it anew.

import { get } from "./api.js";
import { breakable, by, clock, counted, make, mark, percent } from "./dom.js";

const OUTCOMES = { full: "good", part: "warn", failed: "bad", pending: "quiet", reserved: "quiet" };
const MEANS = { scope: "scope", threads: "threads", none: "" };
const TERMS = ["contention", "smt", "latency", "kind", "spread"];

export class GuestList {
  /** `lit`: which guests are pointed at; `shown`: which CPUs are meant; `moved`: place one anew. */
  constructor({ lit, shown, moved }) {
    this.lit = lit;
    this.shown = shown;
    this.moved = moved;
    this.rows = new Map(); // VMID: {told, row, why}
    this.opened = new Set();
    this.body = by("guest-rows");
    this.body.addEventListener("pointerleave", () => lit([]));
    this.body.addEventListener("focusout", () => lit([]));
  }

  /** Bring the list in line; rows of guests that are as they were stay. */
  settle(guests) {
    const sorted = [...guests].sort((a, b) => b.running - a.running || a.vmid - b.vmid);
    const wanted = [];
    for (const guest of sorted) {
      const told = JSON.stringify(guest);
      let kept = this.rows.get(guest.vmid);
      if (!kept || kept.told !== told) kept = this.#renewed(guest, told, kept);
      wanted.push(kept.row);
      if (kept.why) wanted.push(kept.why);
    }
    const there = new Set(sorted.map((guest) => guest.vmid));
    for (const vmid of this.rows.keys()) {
      if (!there.has(vmid)) { this.rows.delete(vmid); this.opened.delete(vmid); }
    }
    if (!wanted.length) wanted.push(make("tr", {}, make("td", { colspan: 7, class: "quiet" }, "No guest of this node is known.")));
    const now = [...this.body.children];
    if (now.length !== wanted.length || now.some((row, i) => row !== wanted[i])) this.#place(wanted);
  }

  #renewed(guest, told, kept) {
    const row = this.#row(guest);
    const made = { told, row, guest, why: kept?.why ?? null };
    if (kept) {
      const focused = kept.row.contains(document.activeElement);
      if (kept.row.classList.contains("on")) row.classList.add("on");
      kept.row.replaceWith(row);
      if (focused) row.querySelector("button").focus();
    }
    this.rows.set(guest.vmid, made);
    if (made.why) this.#explain(guest.vmid);
    return made;
  }

  #place(wanted) {
    const focused = this.body.contains(document.activeElement) ? document.activeElement : null;
    this.body.replaceChildren(...wanted);
    focused?.focus();
  }

  #row(guest) {
    const placed = guest.cpus !== "";
    const sign = placed ? mark(guest.vmid) : null;
    const open = this.opened.has(guest.vmid);
    const name = make("button", { type: "button", class: "open", "aria-expanded": String(open),
      onclick: () => this.toggle(guest.vmid), onfocus: () => this.lit([guest.vmid]) },
      make("span", { class: `key ${sign?.colour ?? "none"}` }, sign?.key ?? "–"), " ",
      make("span", { class: "vmid" }, String(guest.vmid)), " ",
      make("bdi", { class: "name" }, guest.name));
    const cell = (label, content, more = "") => make("td", { role: "cell", "data-label": label,
      class: `${more}${content === "" ? " blank" : ""}`.trim() || null }, content);
    return make("tr", { role: "row", class: `guest${guest.running ? "" : " idle"}`, "data-vmid": guest.vmid,
      onpointerenter: () => this.lit([guest.vmid]) },
      make("th", { role: "rowheader", scope: "row" }, name),
      cell("", guest.policy),
      cell("vCPUs", String(guest.vcpus), "n"),
      cell("CPUs", placed ? breakable(guest.cpus) : "", "cpus"),
      cell("Nodes", (guest.nodes ?? []).join(", ")),
      cell("Loss / least", guest.score === null || guest.score === undefined ? "" : `${percent(guest.score)} / ${percent(guest.bound)}`, "n"),
      make("td", { role: "cell" }, this.#held(guest),
        guest.drift ? make("span", { class: "warn" }, ` · put back ${counted(guest.drift, "time")}`) : null));
  }

  #held(guest) {
    if (guest.refused) return make("span", { class: "bad" }, "not placed");
    if (!guest.outcome) {
      const said = guest.managed ? (guest.running ? "not placed yet" : "stopped") : guest.reason;
      return make("span", { class: "quiet" }, said);
    }
    const means = MEANS[guest.confinement] ?? guest.confinement;
    return make("span", { class: OUTCOMES[guest.outcome] ?? "warn" }, [guest.outcome, means].filter(Boolean).join(" · "));
  }

  light(vmids) {
    for (const [vmid, { row }] of this.rows) row.classList.toggle("on", vmids.includes(vmid));
  }

  /** Open or close a guest's explanation. */
  toggle(vmid) {
    const kept = this.rows.get(vmid);
    if (!kept) return;
    if (this.opened.delete(vmid)) {
      kept.why?.remove();
      kept.why = null;
      this.shown("");
    } else {
      this.opened.add(vmid);
      kept.why = make("tr", { role: "row", class: "why" }, make("td", { role: "cell", colspan: 7 }, "Asking why"));
      kept.row.after(kept.why);
      this.#explain(vmid);
    }
    kept.row.querySelector("button").setAttribute("aria-expanded", String(this.opened.has(vmid)));
  }

  open(vmid) {
    const kept = this.rows.get(vmid);
    if (!kept) return;
    if (!this.opened.has(vmid)) this.toggle(vmid);
    kept.row.scrollIntoView({ block: "nearest" });
    kept.row.querySelector("button").focus();
  }

  async #explain(vmid) {
    const kept = this.rows.get(vmid);
    let content;
    try {
      const decisions = await get(`decisions?vmid=${vmid}`);
      const current = decisions.find((each) => each.vmid === vmid && each.current);
      content = this.#explanation(kept.guest, current);
    } catch (error) {
      content = [make("p", { class: "bad" }, `The explanation could not be fetched: ${error.message}`)];
    }
    if (kept.why) kept.why.firstChild.replaceChildren(...content);
  }

  #explanation(guest, decision) {
    const lines = [];
    const say = (text, name = null) => { if (text) lines.push(make("p", { class: name }, text)); };
    say(guest.refused && `Not placed: ${guest.refused}`, "bad");
    say(guest.reason && `Left alone: ${guest.reason}.`);
    if (decision) say(`${decision.time ? `${clock(decision.time)}: ` : ""}${decision.reason}`);
    else if (guest.cpus) say("It was found on these CPUs and left there; no decision is known.");
    say(guest.width_why);
    say(this.#facts(guest));
    for (const text of guest.warnings) say(text, "warn");
    for (const text of guest.faults) say(text, "bad");
    if (decision?.candidates.length) lines.push(this.#candidates(decision));
    if (guest.running && guest.managed) {
      lines.push(make("div", { class: "row" }, make("button", { type: "button",
        onclick: () => this.moved(guest.vmid) }, `Place ${guest.vmid} anew`)));
    }
    return lines;
  }

  #facts(guest) {
    const facts = [];
    if (guest.threads) facts.push(`${counted(guest.threads, "thread")} read back`);
    if (guest.held_since) facts.push(`held from: ${guest.held_since}`);
    if (typeof guest.confined_after_s === "number") facts.push(`${guest.confined_after_s.toFixed(2)} s after its start`);
    if (guest.managed_by) facts.push(`managed by: ${guest.managed_by}`);
    if (guest.pid) facts.push(`PID ${guest.pid}`);
    return facts.join(" · ");
  }

  #candidates(decision) {
    const heads = ["CPUs considered", "Cost", ...TERMS, "From"];
    const rows = decision.candidates.map((each) => {
      const chosen = each.cpus === decision.cpus;
      return make("tr", { class: chosen ? "chosen" : null, onpointerenter: () => this.shown(each.cpus), onpointerleave: () => this.shown("") },
        make("td", { class: "cpus" }, breakable(each.cpus), chosen ? " (chosen)" : ""),
        make("td", { class: "n" }, each.cost.toFixed(2)),
        TERMS.map((term) => make("td", { class: "n" }, each[term].toFixed(2))),
        make("td", {}, each.origin));
    });
    return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Candidates" }, make("table", {},
      make("thead", {}, make("tr", {}, heads.map((head, i) =>
        make("th", { scope: "col", class: i > 0 && i < heads.length - 1 ? "n" : null }, head)))),
      make("tbody", {}, rows)));
  }
}
