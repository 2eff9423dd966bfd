// The InnerLoopService: one function for each RPC. Each takes a request and returns the answer or throws a Refusal.

import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { conflict, invalid, notFound, unimplemented, wrongState } from "./errors.js";
import { Creations, ids, page } from "./lists.js";
import { drive, evaluate, placesLeft, propose } from "./loop.js";
import { Run } from "./run.js";
import { check, editable, sameValue } from "./space.js";
import { watch } from "./watching.js";

const IMPLEMENTATION = "random inner service 1.0.0 (Node.js, in memory)";
const PYTHON = "running Python mechanisms";
const ALIVE = ["CREATED", "RUNNING", "PAUSED", "CONFIRMING"];
const BY_HAND = ["CREATED", "PAUSED"];
const source = (path) => ({ path, content: readFileSync(new URL(path, import.meta.url), "utf8") });
const now = () => ({ seconds: Math.floor(Date.now() / 1000), nanos: 0 });

export function innerLoop(tasks) {
  const [runs, lessons] = [new Map(), new Map()];
  const [createdRuns, createdLessons] = [new Creations(), new Creations()];

  function taskOf(name) {
    if (!name) throw invalid(["spec.task", "must be the name of a configured task; ListTasks gives them"]);
    const task = tasks.find((known) => known.name === name);
    if (!task) throw notFound("task", name);
    return task;
  }

  function found(id, name = `runs/${id}`) {
    if (!runs.has(id)) throw notFound("run", name);
    return runs.get(id);
  }

  function runOf(name, field, allowed) {
    const run = found(ids("run", name, field)[0], name);
    return allowed ? inState(run, allowed) : run;
  }

  function inState(run, allowed) {
    if (run.halted || !allowed.includes(run.state)) throw wrongState("run", run.name, run.state.toLowerCase(), allowed.map((s) => s.toLowerCase()));
    return run;
  }

  function trialOf(name) {
    const [id, number] = ids("trial", name, "name");
    const run = found(id);
    if (!run.trials[Number(number)]) throw notFound("trial", name);
    return [run, run.trials[Number(number)]];
  }

  function trialIn(name, state) {
    const [run, trial] = trialOf(name);
    inState(run, BY_HAND);
    if (trial.state !== state) throw wrongState("trial", name, trial.state.toLowerCase(), [state.toLowerCase()]);
    return [run, trial];
  }

  function lessonOf(name) {
    ids("lesson", name, "name");
    if (!lessons.has(name)) throw notFound("lesson", name);
    return lessons.get(name);
  }

  function checkSpec(spec, task) {
    const within = (field, low, high) => (spec[field] >= low && spec[field] <= high ? [] : [[`spec.${field}`, `must be from ${low} to ${high}; got ${spec[field]}`]]);
    const start = check(task.space, spec.start?.values);
    const wrong = [
      ...within("max_trials", 1, 100_000), ...within("checkpoint_every", 0, 100_000), ...within("confirmation_seeds", 0, 1000),
      ...within("parallelism", 0, task.capacity), ...start.violations.map(([name, description]) => [`spec.start.${name}`, description]),
    ];
    if (wrong.length) throw invalid(...wrong);
    return { ...spec, parallelism: spec.parallelism || 1, start: { values: start.values } };
  }

  async function createRun(spec) {
    const task = taskOf(spec.task);
    const description = await task.describe();
    const checked = checkSpec(spec, description);
    const violations = await task.violations(checked.start.values);
    if (violations.length) throw invalid(...violations.map(([name, description_]) => [`spec.start.${name}`, description_]));
    const id = randomBytes(5).toString("hex");
    runs.set(id, new Run(id, checked, description));
    return runs.get(id);
  }

  function going(run, reason) {
    if (run.working.size) throw wrongState("run", run.name, "being evaluated by hand", ["without a running evaluation"]);
    run.go("RUNNING", reason);
    drive(run, taskOf(run.spec.task));
    return { run: run.message() };
  }

  /** A client's own changes, typed, active, and a change. */
  function ownChanges(run, sent) {
    const { values, violations } = check(run.task.space, sent);
    const active = editable(run.task.space, run.config.frozen).map(({ name }) => name);
    const changes = Object.entries(values).filter(([name, value]) => !sameValue(value, run.incumbent.configuration[name]));
    violations.push(...changes.filter(([name]) => !active.includes(name)).map(([name]) => [name, "is frozen now"]));
    if (violations.length) throw invalid(...violations.map(([name, description]) => [`changes.${name}`, description]));
    if (!changes.length) throw invalid(["changes", "must change something: this is the incumbent's configuration"]);
    return Object.fromEntries(changes);
  }

  async function proposeOwn(run, { changes: sent, hypothesis }) {
    if (!run.incumbent) throw wrongState("run", run.name, "without a baseline", ["measured"]);
    placesLeft(run);
    const changes = ownChanges(run, sent.values);
    const configuration = { ...run.incumbent.configuration, ...changes };
    const violations = await taskOf(run.spec.task).violations(configuration);
    if (violations.length) throw invalid(...violations.map(([name, description]) => [`changes.${name}`, description]));
    return [run.propose(configuration, changes, "CLIENT", hypothesis)];
  }

  function changedConfig(run, request) {
    const names = (reasons) => reasons.map(({ parameter }) => parameter);
    const known = run.task.space.parameters.map(({ name }) => name);
    const wrong = ["freeze", "unfreeze"].flatMap((field) => names(request[field]).flatMap((name, index) => (
      known.includes(name) ? [] : [[`${field}[${index}].parameter`, `must be one of ${known.join(", ")}; got '${name}'`]])));
    if ((request.guidance ?? "").length > 4000) wrong.push(["guidance", "must have at most 4000 characters"]);
    const thawed = names(request.unfreeze);
    const frozen = [...new Set([...run.config.frozen.filter((name) => !thawed.includes(name)), ...names(request.freeze)])];
    if (!wrong.length && !editable(run.task.space, frozen).length) wrong.push(["freeze", "must leave at least one parameter active"]);
    if (wrong.length) throw invalid(...wrong);
    const { strategy = run.config.strategy, guidance = run.config.guidance } = request;
    return { frozen, strategy, guidance, revision: run.config.revision + 1 };
  }

  const unary = {
    ListTasks: async ({ names }) => ({
      tasks: await Promise.all((names.length ? names.map(taskOf) : tasks).map((task) => task.describe().then(
        (description) => ({ name: task.name, description }), (error) => ({ name: task.name, error: error.message })))),
    }),
    CreateRun: async ({ spec, request_id: requestId }) => {
      if (!spec) throw invalid(["spec.task", "must be the name of a configured task; ListTasks gives them"]);
      return { run: (await createdRuns.once(requestId, () => createRun(spec))).message() };
    },
    GetRun: async ({ name }) => ({ run: runOf(name, "name").message() }),
    ListRuns: async (request) => {
      const { items, next_page_token } = page([...runs.values()].reverse(), request, 50);
      return { runs: items.map((run) => run.message()), next_page_token };
    },
    StartRun: async ({ name }) => going(runOf(name, "name", ["CREATED"]), "started"),
    ResumeRun: async ({ name }) => going(runOf(name, "name", ["PAUSED"]), "resumed"),
    PauseRun: async ({ name, reason }) => {
      const run = runOf(name, "name");
      if (!run.atCheckpoint) inState(run, ["RUNNING"]);
      run.pause(reason || "paused on request");
      return { run: run.message() };
    },
    CancelRun: async ({ name, reason }) => {
      const run = runOf(name, "name", ALIVE);
      await run.cancel(reason || "cancelled on request");
      return { run: run.message() };
    },
    Propose: async (request) => {
      const run = runOf(request.parent, "parent", BY_HAND);
      if (request.count < 0 || request.count > 64) throw invalid(["count", `must be from 0 to 64; got ${request.count}`]);
      const task = taskOf(run.spec.task);
      const count = run.incumbent ? Math.min(request.count || 1, placesLeft(run)) : 1;
      const trials = request.changes ? await proposeOwn(run, request) : await propose(run, task, count);
      return { trials: trials.map((trial) => run.trialMessage(trial)) };
    },
    Accept: async ({ name }) => {
      const [run, trial] = trialIn(name, "EVALUATED");
      run.decide(trial);
      return { trial: run.trialMessage(trial) };
    },
    GetTrial: async ({ name }) => {
      const [run, trial] = trialOf(name);
      return { trial: run.trialMessage(trial) };
    },
    ListTrials: async (request) => {
      const run = runOf(request.parent, "parent");
      const { items, next_page_token } = page(run.trials, request, 100);
      return { trials: items.map((trial) => run.trialMessage(trial)), next_page_token };
    },
    UpdateSearchConfig: async (request) => {
      const run = runOf(request.run, "run", ALIVE);
      const expected = Number(request.expected_revision);
      if ((expected || request.check_revision) && expected !== run.config.revision) throw conflict("search configuration", run.name);
      run.config = changedConfig(run, request);
      const { freeze: newly_frozen, unfreeze: newly_unfrozen, author } = request;
      run.append("search_config_updated", { search_config: run.config, author, newly_frozen, newly_unfrozen });
      return { search_config: run.config };
    },
    DescribeSearch: async ({ run: name }) => {
      runOf(name, "run");
      return { loop_sources: [source("loop.js")], capabilities: { mechanism_languages: [], hooks: [], implementation: IMPLEMENTATION } };
    },
    CheckMechanism: async ({ run: name }) => {
      runOf(name, "run");
      throw unimplemented(PYTHON);
    },
    InstallMechanism: async ({ run: name, mechanism_id: mechanism, source: text }) => {
      const run = runOf(name, "run", ALIVE);
      const finding = { stage: "GATE_STAGE_LANGUAGE", message: `${PYTHON} is not offered by this server`, hint: "Use another inner service." };
      const report = {
        verdict: "GATE_VERDICT_REJECTED", stage: "GATE_STAGE_LANGUAGE", findings: [finding], text: finding.message,
        source_sha256: createHash("sha256").update(text).digest("hex"),
      };
      run.append("mechanism_rejected", { mechanism, report, source: text });
      throw unimplemented(PYTHON);
    },
    UninstallMechanism: async ({ name }) => {
      found(ids("mechanism", name, "name")[0]);
      throw notFound("mechanism", name);
    },
    ListMechanisms: async ({ parent }) => {
      runOf(parent, "parent");
      return { mechanisms: [] };
    },
    Remark: async ({ run: name, author, text }) => {
      const run = runOf(name, "run");
      if (!text.trim() || text.length > 2000) throw invalid(["text", `must have 1 to 2000 characters; got ${text.length}`]);
      return { sequence: run.append("remarked", { author, text }) };
    },
    ListLessons: async (request) => {
      const wanted = [...lessons.values()].filter(({ task }) => !request.task || task === request.task).reverse();
      const { items, next_page_token } = page(wanted, request, 100);
      return { lessons: items, next_page_token };
    },
    GetLesson: async ({ name }) => ({ lesson: lessonOf(name) }),
    CreateLesson: async ({ lesson: sent, request_id: requestId }) => ({
      lesson: await createdLessons.once(requestId, async () => {
        if (!sent?.statement.trim() || sent.statement.length > 2000) throw invalid(["lesson.statement", "must have 1 to 2000 characters"]);
        if (!sent.task) throw invalid(["lesson.task", "must name the task that it was learnt on"]);
        const lesson = { ...sent, name: `lessons/${randomBytes(5).toString("hex")}`, create_time: now(), update_time: now() };
        lessons.set(lesson.name, lesson);
        return lesson;
      }),
    }),
    DeleteLesson: async ({ name }) => {
      lessons.delete(lessonOf(name).name);
      return {};
    },
  };

  const streaming = {
    WatchTrace: async (call) => watch(runOf(call.request.run, "run"), call),
    Evaluate: async (call) => {
      const [run, trial] = trialIn(call.request.name, "PROPOSED");
      const abort = new AbortController();
      const kinds = ["trial_started", "trial_progressed", "trial_evaluated"];
      const pass = (event) => {
        if (kinds.includes(event.event) && event[event.event].number === trial.number) call.write({ event });
      };
      run.changes.on("event", pass);
      call.on("cancelled", () => abort.abort("the caller cancelled the evaluation"));
      try {
        await evaluate(run, taskOf(run.spec.task), trial, abort.signal);
      } finally {
        run.changes.off("event", pass);
      }
      call.end();
    },
  };
  return { unary, streaming };
}
