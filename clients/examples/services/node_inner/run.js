// A run in memory: its trace, and the state that the trace says.

import { EventEmitter, once } from "node:events";

export const TERMINAL = ["FINISHED", "CANCELLED", "FAILED"];
export const OPEN = ["PROPOSED", "RUNNING", "EVALUATED"];
const now = () => ({ seconds: Math.floor(Date.now() / 1000), nanos: (Date.now() % 1000) * 1e6 });

export class Run {
  trials = [];
  events = [];
  config = { frozen: [], strategy: "", guidance: "", revision: 0 };
  state = "CREATED";
  reason = "";
  decided = 0;
  checkpoint = 0; // decided trials at the last checkpoint
  working = new Set(); // of AbortController: evaluations that are running

  constructor(id, spec, task) {
    Object.assign(this, { id, spec, task, name: `runs/${id}`, created: now(), updated: now() });
    this.changes = new EventEmitter().setMaxListeners(0);
    this.append("run_created", { spec, task });
  }

  get terminal() {
    return TERMINAL.includes(this.state);
  }

  /** Whether nothing new may begin. */
  get halted() {
    return this.terminal || this.cancelling === true;
  }

  /** Whether it waits at its checkpoint, and nobody asked that it stay there. */
  get atCheckpoint() {
    return this.state === "PAUSED" && this.reason === "checkpoint";
  }

  get open() {
    return this.trials.filter((trial) => OPEN.includes(trial.state));
  }

  append(kind, body) {
    const event = { run: this.name, sequence: this.events.length + 1, time: now(), event: kind, [kind]: body };
    this.events.push(event);
    this.changes.emit("event", event);
    return event.sequence;
  }

  go(state, reason) {
    const from = this.state;
    [this.state, this.reason, this.updated] = [state, reason, now()];
    this.append("run_state_changed", { from_state: `RUN_STATE_${from}`, to_state: `RUN_STATE_${state}`, reason });
  }

  /** Pauses it after its current trials, or lets it stay at its checkpoint. */
  pause(reason) {
    if (this.atCheckpoint) this.reason = reason;
    else this.pauseReason = reason;
    this.append("pause_requested", { reason });
  }

  better(metric, than) {
    return this.task.objective.direction === "DIRECTION_MAXIMIZE" ? metric > than : metric < than;
  }

  propose(configuration, changes, origin, hypothesis) {
    const number = this.trials.length;
    const trial = {
      name: `${this.name}/trials/${number}`, number, state: "PROPOSED", configuration, changes, hypothesis, origin,
      proposer: origin === "MECHANISM" ? "random" : "", attempt: 0, create_time: now(),
      incumbent_metric: this.incumbent?.metric, message: "",
    };
    this.trials.push(trial);
    this.append("trial_proposed", { trial: this.trialMessage(trial) });
    return trial;
  }

  reject(trial, reason) {
    Object.assign(trial, { state: "REJECTED", message: reason });
    this.append("trial_rejected", { number: trial.number, reason });
  }

  start(trial) {
    Object.assign(trial, { state: "RUNNING", attempt: trial.attempt + 1, start_time: now() });
    this.append("trial_started", { number: trial.number, attempt: trial.attempt, seed: this.spec.seed, budget_fraction: 1 });
  }

  evaluated(trial, result) {
    const { outcome, metric, side_metrics: side, message, elapsed } = result;
    Object.assign(trial, { state: "EVALUATED", outcome, metric, side_metrics: side, message: message ?? "", elapsed });
    this.append("trial_evaluated", { number: trial.number, result });
  }

  /** Kept exactly if it is strictly better than the incumbent; a baseline if it was measured. */
  decide(trial) {
    const measured = trial.metric !== undefined;
    const kept = measured && (this.incumbent === undefined || this.better(trial.metric, this.incumbent.metric));
    const reason = kept ? "better than the incumbent" : measured ? "not better than the incumbent" : "there is no metric";
    const gain = measured && this.incumbent ? Math.abs(trial.metric - this.incumbent.metric) * (kept ? 1 : -1) : undefined;
    Object.assign(trial, { state: kept ? "KEPT" : "DISCARDED", message: trial.message || reason, decide_time: now() });
    if (kept) {
      this.incumbent = trial;
      this.baseline ??= trial;
    }
    if (trial.origin !== "BASELINE") this.decided += 1;
    this.append("trial_decided", { number: trial.number, kept, reason, new_best: kept, gain });
  }

  trialMessage(trial) {
    return {
      ...trial, state: `TRIAL_STATE_${trial.state}`, origin: `TRIAL_ORIGIN_${trial.origin}`, budget_fraction: 1,
      configuration: { values: trial.configuration }, changes: { values: trial.changes },
    };
  }

  /** Ends the run now: kills what is being evaluated, waits for it to be gone, and closes what is open. */
  async cancel(reason) {
    this.cancelling = true;
    for (const abort of this.working) abort.abort(reason);
    if (this.working.size) await once(this.changes, "idle");
    for (const trial of this.open) {
      if (trial.state === "PROPOSED") this.reject(trial, `the run was cancelled: ${reason}`);
      else this.decide(trial);
    }
    this.go("CANCELLED", reason);
  }

  /** Registers work that `cancel` kills; returns what ends the registration. */
  work(abort) {
    this.working.add(abort);
    return () => {
      this.working.delete(abort);
      if (!this.working.size) this.changes.emit("idle");
    };
  }

  message() {
    const metric = (trial) => trial?.metric;
    return {
      name: this.name, spec: this.spec, state: `RUN_STATE_${this.state}`, state_reason: this.reason, task: this.task,
      incumbent_trial: this.incumbent?.name ?? "", best_trial: this.incumbent?.name ?? "",
      incumbent_metric: metric(this.incumbent), best_metric: metric(this.incumbent), baseline_metric: metric(this.baseline),
      decided_trials: this.decided, search_config: { ...this.config }, usage: {}, create_time: this.created, update_time: this.updated,
      last_sequence: this.events.length, etag: `"${this.events.length}"`, confirmation: this.confirmation,
    };
  }
}
