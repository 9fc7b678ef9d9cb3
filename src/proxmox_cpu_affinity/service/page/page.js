// The live page: fetches what is, follows what happens, and tells its parts.

import { follow, get } from "./api.js";
import { by, clock, counted, cpus, make, mark, percent, together } from "./dom.js";
import { GuestList } from "./guests.js";
import { HeatMap } from "./heat.js";
import { HostMap } from "./map.js";
import { Trials } from "./trial.js";

const EVENTS_SHOWN = 200;
const STALE = 5000; // ms until what could not be fetched is asked for again
const LIVE = { opening: "Connecting", live: "Live", lost: "Connection lost; trying again" };

const heat = new HeatMap();
const trials = new Trials((list) => map.show(list), changed);
const map = new HostMap(lit, (vmid) => list.open(vmid));
const list = new GuestList({
  lit,
  shown: (cpus) => map.show(cpus),
  moved: (vmid) => trials.ask(`Place guest ${vmid} anew`, `guests/${vmid}/reassign`),
});

function lit(vmids) {
  map.light(vmids);
  list.light(vmids);
}

function changed(rows) {
  for (const row of rows) told({ time: new Date().toISOString(), level: row.status === "failed" ? "warn" : "info",
    vmid: row.vmid,
    text: `placed anew: ${row.told || row.notes || row.status}` });
  soonAll();
}

// -- what is ------------------------------------------------------------------------------------

let measuring = false; // no event tells how far it is

async function fetchHost() {
  const [topology, status] = await Promise.all([get("topology"), get("status")]);
  map.draw(topology, status);
  figures(status);
}

async function fetchStatus() {
  figures(await get("status"));
}

async function fetchGuests() {
  const guests = await get("guests");
  for (const guest of guests) if (guest.cpus !== "") mark(guest.vmid); // letters in the guests' order
  map.settle(guests.filter((guest) => guest.cpus !== ""));
  list.settle(guests);
}

async function fetchAll() {
  try {
    await fetchHost();
    await fetchGuests();
    document.documentElement.dataset.ready = "yes";
    by("stale").textContent = "";
  } catch (error) {
    if (by("live").dataset.state !== "live") return; // asked again when the connection is back
    by("stale").textContent = `This is not the latest, for the service could not tell: ${error.message}`;
    setTimeout(soonAll, STALE);
  }
}

function figures(status) {
  measuring = status.matrix.measuring;
  by("node").textContent = status.node;
  by("model").textContent = [status.model_name, counted(status.packages, "package"), counted(status.nodes, "node"),
    counted(status.cache_groups, "L3 group"), counted(status.cpus, "CPU")].join(" · ");
  by("version").textContent = `proxmox-cpu-affinity ${status.version}`;
  by("warnings").replaceChildren(...status.warnings.map((text) => make("li", { class: "warn" }, text)));
  by("facts").replaceChildren(...facts(status).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  by("score").replaceChildren(...score(status.score));
}

function facts(status) {
  const { matrix } = status;
  const measuring = matrix.measuring ? `, measuring ${matrix.pairs_done} of ${counted(matrix.pairs_all, "pair")}` : "";
  const usable = cpus(status.usable).length;
  const means = status.confinement_reason ? `${status.confinement} (${status.confinement_reason})` : status.confinement;
  return [
    ["Guests", `${status.guests_running} running, ${status.guests_confined} confined`],
    ["CPUs", usable === status.cpus ? `all ${usable} for guests` : `${usable} of ${status.cpus} for guests`],
    ["Shared CPUs", status.overlap || "none"],
    ["Latencies", `${matrix.verdict}, ${Math.round(matrix.measured_share * 100)} % measured${measuring}`],
    ["Placing", `${status.strategy}, width ${status.width}, guests by ${status.manage}`],
    ["Confining", means],
  ];
}

function score(found) {
  if (!found) return [make("p", { class: "quiet" }, "No guest is placed.")];
  const rows = [["As placed", found.slowdown, "ours"], ["Least possible", found.bound], ["Without pinning", found.no_pinning],
    ["Round robin", found.round_robin], ["Packed", found.packed]];
  const most = Math.max(...rows.map(([, share]) => share), 0.0001);
  const bars = rows.map(([name, share, more]) => {
    const bar = make("i");
    bar.style.setProperty("--share", (share / most).toFixed(4));
    return [make("dt", { class: more }, name), make("dd", { class: more }, make("span", { class: "bar" }, bar), make("span", { class: "n" }, percent(share)))];
  });
  return [make("dl", { class: "bars" }, bars), make("p", { class: "quiet" }, "Estimated slowdown of the average vCPU; less is better.")];
}

// -- what happens -------------------------------------------------------------------------------

function told(event) {
  const events = by("event-list");
  events.querySelector(":scope > .quiet")?.remove();
  events.prepend(make("li", {}, make("time", { datetime: event.time }, clock(event.time)),
    make("span", { class: event.level === "warn" ? "warn" : null },
      event.vmid ? `VM ${event.vmid}: ${event.text}` : event.text)));
  while (events.children.length > EVENTS_SHOWN) events.lastChild.remove();
}

const soonAll = together(fetchAll);
const soonStatus = together(() => fetchStatus().catch(() => {}));
const soonHeat = together(() => heat.renew(), 500);

follow({
  guest: (event) => { told(event); soonAll(); },
  host: (event) => { told(event); soonAll(); soonHeat(); },
  measure: (event) => { told(event); soonStatus(); soonHeat(); },
  settings: (event) => { told(event); soonAll(); },
  load: (event) => { map.weigh(event.cpus, event.busy); if (measuring) soonStatus(); },
  reset: () => { soonAll(); soonHeat(); },
}, (state) => {
  by("live").dataset.state = state;
  by("live").textContent = LIVE[state];
  if (state !== "live") {
    by("stale").textContent = ""; // that is said already
    return;
  }
  soonAll(); // nothing may have happened meanwhile, and yet something asked for in vain
  heat.again();
});
soonAll();
