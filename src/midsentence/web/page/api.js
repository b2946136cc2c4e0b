// Everything asked of the service goes through here, and so does everything that goes wrong.

import { by } from "./dom.js";

export class Trouble extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const GONE = "The service does not answer. Is it still running?";

async function ask(path, body, signal) {
  let answer;
  try {
    answer = await fetch(path, {
      signal,
      method: body === undefined ? "GET" : "POST",
      headers: body === undefined ? {} : { "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble(GONE, 0);
  }
  const told = await answer.json().catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Trouble(answer.ok ? GONE : `The service failed (${answer.status}).`, answer.status);
  });
  if (!answer.ok) throw new Trouble(told.error ?? `The service failed (${answer.status}).`, answer.status);
  return told;
}

export const get = (path) => ask(path);

/** One tool's requests: at most one is in flight, and the newest wins. */
export class Line {
  #flying = null;
  #waiting = null;

  /** What is in flight or waits is given up. */
  drop() {
    this.#flying?.abort();
    this.#waiting?.(null);
    this.#waiting = null;
  }

  /** For clicks: what is in flight is given up. Resolves to null if this one is, later. */
  async instead(path, body) {
    this.drop();
    return this.#send(path, body);
  }

  /** For drags: what is in flight arrives, or nothing would be seen until the hand rests; only the
   * newest of those that wait for it is sent. */
  async newest(path, body) {
    if (this.#flying) {
      this.#waiting?.(null);
      const turn = await new Promise((go) => { this.#waiting = go; });
      if (turn === null) return null;
    }
    return this.#send(path, body);
  }

  async #send(path, body) {
    const flight = new AbortController();
    this.#flying = flight;
    try {
      return await ask(path, body, flight.signal);
    } catch (error) {
      if (error.name === "AbortError") return null;
      throw error;
    } finally {
      if (this.#flying === flight) {
        this.#flying = null;
        const go = this.#waiting;
        this.#waiting = null;
        go?.(true);
      }
    }
  }
}

let shown = {};

/** For what nobody has just asked for: that it works says nothing of another's error. */
export const BEHIND = { behind: true };

/** Does `work`; if it fails, the status line says why, with a button where another try may help. */
export async function attempt(work, { behind = false } = {}) {
  try {
    await work();
    // An error is over once something works; an offer to try again stays till it is taken, or not needed.
    if (shown.error && (shown.cause === work || !(behind || shown.work))) say("");
  } catch (error) {
    if (!(error instanceof Trouble)) {
      say("Something went wrong on this page. Reloading it may help.", { error: true, cause: work });
      throw error;
    }
    const passing = [0, 429, 503].includes(error.status);
    say(error.message, { error: true, work: passing ? work : null, cause: work });
  }
}

let fading = 0;

/** brief: said and gone after a while. */
export function say(text, { error = false, work = null, cause = null, brief = false } = {}) {
  const line = by("status");
  clearTimeout(fading);
  if (brief) fading = setTimeout(() => say(""), 8000);
  shown = { error, work, cause };
  const said = line.firstElementChild; // the same once more would be read out once more
  if (said.textContent !== text) said.textContent = text;
  line.lastElementChild.hidden = work === null;
  line.classList.toggle("shown", text !== "");
  line.classList.toggle("error", error);
}

by("status").lastElementChild.addEventListener("click", () => {
  const { work } = shown;
  say("Trying again …", { error: true });
  attempt(work);
});
