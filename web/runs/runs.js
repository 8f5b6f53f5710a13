/**
 * The calibrations as this page knows them: the server's summaries, kept up to date by its events.
 *
 * A `runs` event says that something changed: `detail.before` and `detail.now` are the summaries of
 * one run, null where it was not known or is gone. An action that fails sends a `refused` event with
 * the server's sentence. An answer may come after an event that is newer: the `revision` decides.
 */

import { api } from "../../../scripts/api.js";
import { t } from "../language.js";

const LISTED = "/calibri/runs";
const DELETED = "deleted"; // the state in the last event of a run
const LOOK_AGAIN = 5000; // ms, since nobody tells of the runs of other processes

class Runs extends EventTarget {
  #runs = new Map();
  #revisions = new Map(); // of deleted runs as well
  #followed = new Set();
  #followers = new Set();
  #timer = null;
  /** Whether the list has been read: what is running then did not begin now. */
  isKnown = false;

  constructor() {
    super();
    // At once: the page warns of events that nobody listens to.
    api.addEventListener("calibri.run", ({ detail }) => this.#take(detail));
    api.addEventListener("reconnected", () => this.#afterReconnecting());
  }

  /** Summaries, in the server's order. */
  get all() {
    return [...this.#runs.values()];
  }

  /** Read the list anew. A run that is no longer there counts as deleted. */
  async load() {
    const answer = await this.#ask(LISTED);
    if (answer === null) return;
    const listed = new Set(answer.runs.map((run) => run.id));
    const { revision } = answer;
    for (const run of this.all)
      if (!listed.has(run.id)) this.#take({ ...run, revision, state: DELETED });
    for (const run of answer.runs) this.#take(run);
    this.isKnown = true;
  }

  /**
   * `action`: pause, resume, stop, finish or save. What comes of it arrives as an event; the summary
   * after it is given too, null where it was refused.
   */
  async act(id, action) {
    const summary = await this.#ask(`${LISTED}/${encodeURIComponent(id)}/${action}`, "POST", {});
    if (summary?.id) this.#take(summary);
    return summary;
  }

  /** To the server's trash. */
  async remove(id) {
    const answer = await this.#ask(`${LISTED}/${encodeURIComponent(id)}`, "DELETE", {});
    const run = this.#runs.get(id);
    if (answer !== null && run) this.#take({ ...run, ...answer, state: DELETED });
  }

  /** End the slice that runs as if a prompt waited, and keep the queue empty for a while. */
  makeRoom() {
    return this.#ask(`${LISTED}/make-room`, "POST", {});
  }

  /** `who` asks for every batch of what runs, not for whole generations only, or no longer. */
  follow(who, following) {
    if (following) this.#followers.add(who);
    else this.#followers.delete(who);
    this.#updateFollowed();
    clearTimeout(this.#timer);
    if (this.#followers.size > 0) this.#lookAgain();
  }

  #lookAgain() {
    this.#timer = setTimeout(async () => {
      if (!document.hidden) await this.load();
      if (this.#followers.size > 0) this.#lookAgain();
    }, LOOK_AGAIN);
  }

  #take(run) {
    if (run.revision < this.#revisions.get(run.id)) return;
    this.#revisions.set(run.id, run.revision);
    const before = this.#runs.get(run.id) ?? null;
    const now = run.state === DELETED ? null : run;
    if (now === null) this.#runs.delete(run.id);
    else this.#runs.set(run.id, now);
    this.#updateFollowed();
    if (!isSame(before, now)) this.dispatchEvent(new CustomEvent("runs", { detail: { before, now } }));
  }

  #updateFollowed() {
    const isTold = (run) => run.state === "running" && run.where !== "elsewhere";
    const wanted = this.#followers.size > 0 ? this.all.filter(isTold) : [];
    const ids = new Set(wanted.map((run) => run.id));
    for (const id of ids) if (!this.#followed.has(id)) this.#tellFollowing(id, "follow");
    for (const id of this.#followed) if (!ids.has(id)) this.#tellFollowing(id, "unfollow");
    this.#followed = ids;
  }

  #tellFollowing(id, action) {
    if (!this.#runs.has(id)) return;
    const path = `${LISTED}/${encodeURIComponent(id)}/${action}`;
    this.#ask(path, "POST", { client_id: api.clientId });
  }

  /** ComfyUI may have been restarted: it has forgotten who follows, and its runs may rest. */
  async #afterReconnecting() {
    this.#followed = new Set();
    this.#revisions.clear();
    await this.load();
  }

  /** The server's answer; null, after a `refused` event, where there is none. */
  async #ask(path, method = "GET", body = undefined) {
    const headers = { "Content-Type": "application/json" };
    const request = body === undefined ? {} : { headers, body: JSON.stringify(body) };
    try {
      const response = await api.fetchApi(path, { method, cache: "no-store", ...request });
      const answer = await response.json().catch(() => ({}));
      if (response.ok) return answer;
      this.#refuse(answer.error ?? `${response.status} ${response.statusText}`);
    } catch (error) {
      // Reconnecting, the page says so itself.
      if (method !== "GET") this.#refuse(t("runs.news.silent", { reason: error.message }));
    }
    return null;
  }

  #refuse(sentence) {
    this.dispatchEvent(new CustomEvent("refused", { detail: sentence }));
  }
}

/** Whether two summaries of a run say the same. */
function isSame(before, now) {
  if (before === null || now === null) return before === now;
  return JSON.stringify({ ...before, revision: 0 }) === JSON.stringify({ ...now, revision: 0 });
}

export const runs = new Runs();
