/**
 * A run's generations as this page has them. What is new is asked for, from the last generation on,
 * whose validation may have come since.
 */

import { api } from "../../../scripts/api.js";

const PAUSE = 1000; // ms between two questions

export class Course {
  rows = [];
  /** The names of a vector's numbers. */
  coordinates = [];
  /** Another one for each other picture, null where there is none. */
  picture = null;
  /** Called when something has come. */
  onchange = () => {};
  #path;
  #state = "idle";

  constructor(id) {
    this.#path = `/calibri/runs/${encodeURIComponent(id)}`;
  }

  get pictureAddress() {
    return api.apiURL(`${this.#path}/picture?mark=${encodeURIComponent(this.picture)}`);
  }

  /** Read what is new, then call `onchange`; one question at a time, and not too often. */
  async refresh() {
    if (this.#state !== "idle") {
      this.#state = "again";
      return;
    }
    this.#state = "asking";
    try {
      const since = this.rows.at(-1)?.generation ?? 0;
      const response = await api.fetchApi(`${this.#path}?since=${since}`, { cache: "no-store" });
      if (response.ok) this.#take(await response.json(), since);
    } catch {
      // Reconnecting, the page says so itself.
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
    const again = this.#state === "again";
    this.#state = "idle";
    if (again) await this.refresh();
  }

  #take({ course, coordinates, picture }, since) {
    this.rows.splice(since, this.rows.length, ...course);
    this.coordinates = coordinates ?? this.coordinates;
    this.picture = picture;
    this.onchange();
  }
}
