// A task of the configuration, reached over the protocol.

import grpc from "@grpc/grpc-js";
import { unavailable } from "./errors.js";

const BUSY_PAUSE = 200; // milliseconds between attempts to get a place at a busy task
export const milliseconds = (duration) => 1000 * Number(duration?.seconds ?? 0) + (duration?.nanos ?? 0) / 1e6;
const duration = (ms) => ({ seconds: Math.floor(ms / 1000), nanos: Math.round((ms % 1000) * 1e6) });

export class Task {
  constructor(name, address, Client) {
    this.name = name;
    this.client = new Client(address, grpc.credentials.createInsecure());
    this.address = address;
  }

  close() {
    this.client.close();
  }

  #call(method, request) {
    return new Promise((resolve, reject) => {
      this.client[method](request, { deadline: Date.now() + 15_000 }, (error, answer) => {
        if (error) reject(unavailable(`task ${this.name} at ${this.address}`, error.details));
        else resolve(answer);
      });
    });
  }

  async describe() {
    return (await this.#call("Describe", {})).task;
  }

  /** Pairs of a parameter and what is wrong with it. */
  async violations(configuration) {
    const { violations } = await this.#call("Validate", { configuration: { values: configuration } });
    return violations.map(({ parameter, description }) => [parameter, description]);
  }

  /** The result of one evaluation; `signal` cancels the work. Waits for a place while the task is busy. */
  async evaluate(request, { hardLimit, signal, onProgress = () => {} }) {
    for (;;) {
      const result = await this.#attempt(request, hardLimit, signal, onProgress);
      if (result !== "busy") return result;
      await new Promise((resolve) => setTimeout(resolve, BUSY_PAUSE));
    }
  }

  #attempt(request, hardLimit, signal, onProgress) {
    const began = Date.now();
    const failed = (outcome, message) => ({ outcome, message, elapsed: duration(Date.now() - began) });
    if (signal.aborted) return failed("OUTCOME_CANCELLED", String(signal.reason));
    return new Promise((resolve, reject) => {
      const call = this.client.Evaluate(request);
      let ended;
      const end = (result) => {
        ended ??= result;
        call.cancel();
      };
      const limit = setTimeout(() => end(failed("OUTCOME_TIMED_OUT", `killed at the hard limit of ${hardLimit} ms`)), hardLimit);
      const cancel = () => end(failed("OUTCOME_CANCELLED", String(signal.reason)));
      const settle = (finish) => {
        clearTimeout(limit);
        signal.removeEventListener("abort", cancel);
        finish();
      };
      signal.addEventListener("abort", cancel);
      call.on("data", ({ event, progress, result }) => {
        if (event === "progress" && !ended) onProgress(progress);
        if (event === "result") ended ??= sound(result) ?? failed("OUTCOME_CRASHED", "the task's result contradicts itself");
      });
      call.on("end", () => settle(() => resolve(ended ?? failed("OUTCOME_CRASHED", "the task ended without a result"))));
      call.on("error", ({ code, details }) => settle(() => {
        if (ended) resolve(ended);
        else if (code === grpc.status.RESOURCE_EXHAUSTED) resolve("busy");
        else if (code === grpc.status.INVALID_ARGUMENT) resolve(failed("OUTCOME_INFEASIBLE", details));
        else reject(unavailable(`task ${this.name} at ${this.address}`, details));
      }));
    });
  }
}

/** The result, or undefined where a metric is missing, made up, or no number. */
function sound(result) {
  const succeeded = result.outcome === "OUTCOME_SUCCEEDED";
  return succeeded === (result.metric !== undefined) && (!succeeded || Number.isFinite(result.metric)) ? result : undefined;
}
