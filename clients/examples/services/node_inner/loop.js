// The loop: a baseline, then random changes of the incumbent, each measured and kept if it is strictly better.

import { exhausted, wrongState } from "./errors.js";
import { defaults, draw, editable, random, sameValue } from "./space.js";
import { milliseconds } from "./task.js";

const DRAWS = 20; // candidates that the task may refuse before a proposal fails
const FRESH_SEED = 1_000_003; // added to the run's seed for each seed of the confirmation

/** New trials of a run: its baseline alone, or `count` random ones, with those that the task refused. */
export async function propose(run, task, count) {
  if (!run.incumbent) {
    if (run.open.length) throw wrongState("run", run.name, `waiting for trial ${run.open[0].number}`, ["decided"]);
    const configuration = { ...defaults(run.task.space), ...run.spec.start?.values };
    return [run.propose(configuration, {}, "BASELINE", "the starting configuration")];
  }
  const proposed = [];
  for (let refused = 0; count > 0 && refused < DRAWS; ) {
    const trial = await randomTrial(run, task, placesLeft(run));
    proposed.push(trial);
    if (trial.state === "PROPOSED") count -= 1;
    else refused += 1;
  }
  if (count > 0) run.append("proposal_failed", { reason: `the task refused ${DRAWS} random candidates`, consecutive: 1 });
  return proposed;
}

/** Trials that may still be proposed. Throws where there are none. */
export function placesLeft(run) {
  const left = run.spec.max_trials - run.decided - run.open.filter((trial) => trial.origin !== "BASELINE").length;
  if (left <= 0) throw exhausted("spec.max_trials", run.spec.max_trials);
  return left;
}

async function randomTrial(run, task) {
  const rng = random(BigInt(run.spec.seed) + BigInt(run.trials.length) * 7919n);
  const active = editable(run.task.space, run.config.frozen);
  const changes = {};
  for (let attempt = 0; attempt < DRAWS && !Object.keys(changes).length; attempt += 1) {
    const parameter = active[Math.floor(rng() * active.length)];
    const value = draw(parameter, rng);
    if (value && !sameValue(value, run.incumbent.configuration[parameter.name])) changes[parameter.name] = value;
  }
  const configuration = { ...run.incumbent.configuration, ...changes };
  const trial = run.propose(configuration, changes, "MECHANISM", "drawn at random");
  const [violation] = await task.violations(configuration);
  if (violation) run.reject(trial, violation.join(": "));
  return trial;
}

/** Evaluates a PROPOSED trial; `signal` cancels the work. */
export async function evaluate(run, task, trial, signal) {
  const abort = new AbortController();
  const cancel = () => abort.abort(signal.reason);
  signal?.addEventListener("abort", cancel);
  const done = run.work(abort);
  run.start(trial);
  try {
    const result = await measure(run, task, trial.configuration, run.spec.seed, "SPLIT_SEARCH", trial.name, {
      signal: abort.signal, onProgress: (progress) => run.append("trial_progressed", { number: trial.number, progress }),
    });
    run.evaluated(trial, result);
  } catch (error) {
    trial.state = "PROPOSED"; // the task is away: the trial can be evaluated again, as a new attempt
    throw error;
  } finally {
    done();
    signal?.removeEventListener("abort", cancel);
  }
}

function measure(run, task, configuration, seed, split, label, options) {
  const request = { configuration: { values: configuration }, seed, budget_fraction: 1, split, label };
  return task.evaluate(request, { hardLimit: milliseconds(run.task.hard_limit), ...options });
}

/** Drives a RUNNING run until it is in another state. What stops it is on the trace. */
export async function drive(run, task) {
  const began = Date.now();
  try {
    while (run.state === "RUNNING" && !run.halted) await step(run, task, began);
  } catch (error) {
    if (!run.halted) run.go("PAUSED", error.message);
  }
}

async function step(run, task, began) {
  const limit = run.spec.max_duration ? milliseconds(run.spec.max_duration) : Infinity;
  if (run.open.length) return workOff(run, task);
  if (run.trials.length && !run.incumbent) return run.go("FAILED", `the starting configuration cannot be measured: ${run.trials[0].message}`);
  if (run.decided >= run.spec.max_trials || Date.now() - began >= limit) {
    return run.spec.confirmation_seeds > 0 ? confirm(run, task) : run.go("FINISHED", `${run.decided} trials decided`);
  }
  if (run.pauseReason !== undefined) {
    run.go("PAUSED", run.pauseReason);
    run.pauseReason = undefined;
    return undefined;
  }
  const every = run.spec.checkpoint_every;
  if (every > 0 && Math.floor(run.decided / every) > Math.floor(run.checkpoint / every)) {
    run.checkpoint = run.decided;
    run.append("checkpoint_reached", { decided_trials: run.decided });
    return run.go("PAUSED", "checkpoint");
  }
  const wanted = Math.min(run.spec.parallelism, run.spec.max_trials - run.decided);
  const proposed = await propose(run, task, wanted);
  if (!proposed.some((trial) => trial.state === "PROPOSED") && !run.halted) run.go("PAUSED", "no candidate was taken by the task");
  return undefined;
}

async function workOff(run, task) {
  const waiting = run.open.filter((trial) => trial.state === "PROPOSED");
  await Promise.all(waiting.map((trial) => evaluate(run, task, trial)));
  const order = (a, b) => (a.metric === undefined) - (b.metric === undefined) || (run.better(a.metric, b.metric) ? -1 : 1);
  if (!run.halted) for (const trial of run.open.filter(({ state }) => state === "EVALUATED").sort(order)) run.decide(trial);
}

async function confirm(run, task) {
  run.go("CONFIRMING", `${run.decided} trials decided`);
  const abort = new AbortController();
  const done = run.work(abort);
  const split = run.task.has_held_out_split ? "SPLIT_HELD_OUT" : "SPLIT_SEARCH";
  const confirmation = { seeds: [], baseline_metrics: [], best_metrics: [], split, trial: run.incumbent.name };
  try {
    for (let index = 1; index <= run.spec.confirmation_seeds && !run.halted; index += 1) {
      const seed = String(BigInt(run.spec.seed) + BigInt(index * FRESH_SEED));
      const at = (trial) => measure(run, task, trial.configuration, seed, split, `${trial.name} confirmation`, { signal: abort.signal });
      const [baseline, best] = [await at(run.baseline), await at(run.incumbent)];
      if (baseline.metric === undefined || best.metric === undefined) continue;
      confirmation.seeds.push(seed);
      confirmation.baseline_metrics.push(baseline.metric);
      confirmation.best_metrics.push(best.metric);
    }
  } finally {
    done();
  }
  if (run.halted) return undefined;
  if (!confirmation.seeds.length) return run.go("FINISHED", "not confirmed: no fresh seed could be measured");
  const sign = run.task.objective.direction === "DIRECTION_MAXIMIZE" ? 1 : -1;
  const gains = confirmation.best_metrics.map((metric, index) => sign * (metric - confirmation.baseline_metrics[index]));
  confirmation.mean_gain = gains.reduce((sum, gain) => sum + gain, 0) / gains.length;
  confirmation.search_gain = sign * (run.incumbent.metric - run.baseline.metric);
  run.confirmation = confirmation;
  run.append("run_confirmed", { confirmation });
  return run.go("FINISHED", `confirmed: mean gain ${confirmation.mean_gain}`);
}
