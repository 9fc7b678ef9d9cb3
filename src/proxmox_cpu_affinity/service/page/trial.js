// Try before you do: where a further guest would go, what placing all anew would change; and doing.

import { act, get, giveToken, hasToken } from "./api.js";
import { by, counted, make, percent } from "./dom.js";

const say = (text, name = null) => make("p", { class: name }, text);

export class Trials {
  /** `shown`: which CPUs are meant; `done`: something was changed. */
  constructor(shown, done) {
    this.shown = shown;
    this.done = done;
    by("try-form").addEventListener("submit", (event) => { event.preventDefault(); this.#attempt(); });
    by("preview").addEventListener("click", () => this.#preview());
    by("ask-form").addEventListener("submit", (event) => { event.preventDefault(); this.#agreed(); });
    by("ask-no").addEventListener("click", () => by("ask").close());
    by("ask").addEventListener("close", () => { by("ask-token").value = ""; });
  }

  async #attempt() {
    const query = new URLSearchParams({ vcpus: by("try-vcpus").value, policy: by("try-policy").value,
      sockets: by("try-sockets").value, numa: by("try-numa").checked ? "1" : "0" });
    const answer = by("try-answer");
    this.shown("");
    answer.replaceChildren(say("Looking for a place.", "quiet"));
    try {
      const trial = await get(`try?${query}`);
      answer.replaceChildren(...this.#told(trial));
      this.shown(trial.cpus);
    } catch (error) {
      answer.replaceChildren(...refusal(error));
    }
  }

  #told(trial) {
    if (trial.refused) return [say(`It would not be placed: ${trial.refused}`, "bad"), ...trial.warnings.map((text) => say(text, "warn"))];
    const lines = [
      make("p", {}, make("strong", {}, `CPUs ${trial.cpus}`), `, ${counted(trial.nodes.length, "node")} (${trial.nodes.join(", ")}), ${counted(trial.cache_groups.length, "L3 group")}`),
      say(trial.reason),
      ...trial.warnings.map((text) => say(text, "warn")),
      say(`It would lose ${percent(trial.score)}; no placement of it loses less than ${percent(trial.bound)}.`),
    ];
    if (!trial.others.length) lines.push(say("No other guest would feel it.", "good"));
    else lines.push(table(["Guest that would feel it", "On", "Loses now", "Then"], trial.others.map((other) =>
      [String(other.vmid), other.cpus, percent(other.before), percent(other.after)])));
    return [...lines, ...score(trial)];
  }

  async #preview() {
    if (this.previewing) return; // on a large host it takes its time
    this.previewing = true;
    const answer = by("preview-answer");
    answer.replaceChildren(say("Placing all anew, on a copy.", "quiet"));
    try {
      const preview = await get("preview");
      const lines = preview.moves.length
        ? [table(["Guest", "From", "To", "Saves", "Costs", "Why"], preview.moves.map((move) =>
          [String(move.vmid), move.before, move.after, percent(move.gain), percent(move.cost), move.reason]),
        (i) => this.shown(i < 0 ? "" : preview.moves[i].after))]
        : [say("No guest would move.", "good")];
      lines.push(...score(preview));
      const button = make("button", { type: "button", onclick: () => this.ask("Place all guests anew", "reassign") }, "Place all anew");
      answer.replaceChildren(...lines, make("div", { class: "row" }, button));
    } catch (error) {
      answer.replaceChildren(...refusal(error));
    } finally {
      this.previewing = false;
    }
  }

  /** Ask for leave, and for the token the first time, then do it. */
  ask(what, path) {
    this.path = path;
    by("ask-what").textContent = `${what}. Its vCPUs go on running meanwhile.`;
    by("ask-refused").textContent = "";
    this.#wantToken(!hasToken());
    by("ask").showModal();
  }

  #wantToken(wanted) {
    by("ask-label").hidden = !wanted;
    by("ask-help").hidden = !wanted;
    by("ask-token").required = wanted;
  }

  async #agreed() {
    if (!hasToken()) giveToken(by("ask-token").value);
    by("ask-yes").disabled = true;
    try {
      const answer = await act(this.path);
      by("ask").close();
      this.done([answer].flat());
    } catch (error) {
      const refused = error.status === 401 || error.status === 403;
      by("ask-refused").textContent = refused ? "The service refused this token." : [error.message, error.hint].filter(Boolean).join("; ");
      this.#wantToken(!hasToken());
      if (!hasToken()) { by("ask-token").value = ""; by("ask-token").focus(); }
    } finally {
      by("ask-yes").disabled = false;
    }
  }
}

function refusal(error) {
  return [say([error.message, error.hint].filter(Boolean).join("; "), "bad")];
}

function score({ before, after }) {
  if (!before || !after) return [];
  return [say(`The average vCPU of the host loses ${percent(before.slowdown)} now and would lose ${percent(after.slowdown)} (least possible: ${percent(after.bound)}).`)];
}

/** A table; `pointed` is told the number of the row that is pointed at, -1 for none. */
function table(heads, rows, pointed = () => {}) {
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": heads[0] }, make("table", {},
    make("thead", {}, make("tr", {}, heads.map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, rows.map((row, i) => make("tr", { onpointerenter: () => pointed(i), onpointerleave: () => pointed(-1) },
      row.map((text) => make("td", {}, text)))))));
}
