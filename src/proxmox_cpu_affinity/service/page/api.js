// The service's API: asking, acting with the token, and the stream of events that comes back.

const SILENT = 20000; // ms without any event, load included, after which the stream is opened anew
const AGAIN = [500, 1000, 2000, 5000]; // ms to wait before the next try

let token = ""; // in memory only

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `the service answered ${status}`);
    this.status = status;
    this.hint = problem.hint || "";
  }
}

async function ask(path, options = {}) {
  const answer = await fetch(path, { cache: "no-store", credentials: "omit", ...options });
  if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => ({})));
  return answer;
}

export const get = async (path) => (await ask(`api/v1/${path}`)).json();
export const text = async (path) => (await ask(`api/v1/${path}`)).text();

export const hasToken = () => token !== "";
export const giveToken = (given) => { token = given.trim(); };

/** Change something. A token that is refused is forgotten. */
export async function act(path) {
  const headers = { "Content-Type": "application/json", Authorization: `Bearer ${token}` };
  try {
    return await (await ask(`api/v1/${path}`, { method: "POST", headers, body: "{}" })).json();
  } catch (error) {
    if (error.status === 401 || error.status === 403) token = "";
    throw error;
  }
}

/** Follow the events; `heard` by name, `state` with "live" or "lost". Comes back by itself: the
    browser does, with the last event's id; where it gives up or nothing is heard, we do. */
export function follow(heard, state) {
  let source = null;
  let tries = 0;
  let silence = 0;

  function alive() {
    clearTimeout(silence);
    silence = setTimeout(again, SILENT);
  }

  function again() {
    clearTimeout(silence);
    source.close();
    state("lost");
    setTimeout(open, AGAIN[Math.min(tries, AGAIN.length - 1)]);
    tries += 1;
  }

  function open() {
    source = new EventSource("api/v1/events");
    source.onopen = () => { tries = 0; alive(); state("live"); };
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) again();
      else state("lost");
    };
    for (const [name, hear] of Object.entries(heard)) {
      source.addEventListener(name, (event) => { alive(); hear(JSON.parse(event.data)); });
    }
  }

  state("opening");
  open();
}
