// Elements made from text that is never read as HTML, and the few words that many parts share.

/** An element; attributes that are null, undefined or false are left out. Children: nodes, texts. */
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return made;
}

export const by = (id) => document.getElementById(id);

/** A cpulist ("0-3,8") as numbers, in its order. */
export function cpus(list) {
  const found = [];
  for (const part of list ? list.split(",") : []) {
    const [low, high] = part.split("-").map(Number);
    for (let cpu = low; cpu <= (high ?? low); cpu += 1) found.push(cpu);
  }
  return found;
}

/** A cpulist as text that may break after its commas only. */
export const breakable = (list) => list.split(",").flatMap((part, i) => (i ? [",", make("wbr"), part] : [part]));

/** A share as per cent: one decimal, two where it would be nothing. */
export function percent(share) {
  if (share === null || share === undefined) return "–";
  const value = share * 100;
  return `${value.toFixed(value !== 0 && Math.abs(value) < 0.1 ? 2 : 1)}\u00a0%`;
}

export const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

export function clock(text) {
  const time = new Date(text);
  return Number.isNaN(time.getTime()) ? "" : time.toLocaleTimeString([], { hour12: false });
}

/** Calls that come close together become one, a little later. One at a time: an older answer must
    not come after a newer one. */
export function together(work, milliseconds = 120) {
  let [waiting, busy, again] = [false, false, false];
  async function run() {
    waiting = false;
    if (busy) { again = true; return; }
    busy = true;
    do { again = false; await work(); } while (again);
    busy = false;
  }
  return () => {
    if (waiting) return;
    waiting = true;
    setTimeout(run, milliseconds);
  };
}

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const numbers = new Map(); // of guests, in the order in which they were seen

/** What marks a guest on the map: a letter or two, and a colour that may repeat. */
export function mark(vmid) {
  if (!numbers.has(vmid)) numbers.set(vmid, numbers.size);
  const number = numbers.get(vmid);
  const first = number < 26 ? "" : letters[(Math.floor(number / 26) - 1) % 26];
  return { key: first + letters[number % 26], colour: `g${number % 12}` };
}
