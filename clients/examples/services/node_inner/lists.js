// Names, pages and creations: what every list and every request of the protocol has in common.

import { invalid } from "./errors.js";

const ID = "([A-Za-z0-9][A-Za-z0-9_-]{0,63})";
const FORMS = {
  run: [new RegExp(`^runs/${ID}$`), "runs/RUN"],
  trial: [new RegExp(`^runs/${ID}/trials/([0-9]{1,9})$`), "runs/RUN/trials/NUMBER"],
  mechanism: [new RegExp(`^runs/${ID}/mechanisms/${ID}$`), "runs/RUN/mechanisms/MECHANISM"],
  lesson: [new RegExp(`^lessons/${ID}$`), "lessons/LESSON"],
};

/** The ids in a resource's name. */
export function ids(kind, name, field) {
  const [pattern, form] = FORMS[kind];
  const found = pattern.exec(name);
  if (!found) throw invalid([field, `must have the form ${form}; got '${name}'`]);
  return found.slice(1);
}

/** A page of `items`, which follow the last item of the page before, whatever was added since. */
export function page(items, { page_size: size, page_token: token }, usual) {
  if (size < 0 || size > 1000) throw invalid(["page_size", `must be from 0 to 1000, where 0 is ${usual}; got ${size}`]);
  const before = Buffer.from(token, "base64").toString();
  const begin = token ? items.findIndex(({ name }) => name === before) + 1 : 0;
  if (token && !begin) throw invalid(["page_token", "must be the next_page_token of an earlier page, unchanged"]);
  const end = begin + (size || usual);
  const next_page_token = end < items.length ? Buffer.from(items[end - 1].name).toString("base64") : "";
  return { items: items.slice(begin, end), next_page_token };
}

/** Creates something once for each request_id. */
export class Creations {
  #created = new Map();

  async once(requestId, create) {
    if (requestId.length > 64) throw invalid(["request_id", `must have at most 64 characters; got ${requestId.length}`]);
    if (!requestId) return create();
    if (!this.#created.has(requestId)) {
      this.#created.set(requestId, create().catch((error) => {
        this.#created.delete(requestId);
        throw error;
      }));
    }
    return this.#created.get(requestId);
  }
}
