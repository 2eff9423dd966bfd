// A task in Node.js, from the proto files alone: which Brotli settings deliver a text fastest.
//
//     node server.js --listen 127.0.0.1:7500 [--address-file PATH] [--proto FOLDER]

import { fork } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import { invalid } from "./refusals.js";
import { CONSTRAINTS, PARAMETERS, complete, conflicts } from "./space.js";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const { values: options } = parseArgs({
  options: {
    listen: { type: "string", default: "127.0.0.1:7500" },
    "address-file": { type: "string" },
    proto: { type: "string", default: here("../../../../proto") },
  },
});
const TEXT_FOLDER = `${options.proto}/bilevel/v1`;
const BUDGET_SECONDS = 1;
const HARD_LIMIT_SECONDS = 30;
const { status } = grpc;

const loaded = protoLoader.loadSync("bilevel/v1/task.proto", {
  includeDirs: [options.proto], enums: String, longs: String, defaults: true, oneofs: true,
});
const { TaskService } = grpc.loadPackageDefinition(loaded).bilevel.v1;

function digest(...files) {
  const hash = createHash("sha256");
  for (const file of files) hash.update(readFileSync(file));
  return hash.digest("hex").slice(0, 16);
}

const texts = readdirSync(TEXT_FOLDER).filter((name) => name.endsWith(".proto")).sort();
const task = {
  name: "brotli-delivery",
  title: "Brotli settings that deliver a text fastest",
  documentation:
    "A server compresses a text with Brotli for each request and sends it over a link of 8 Mbit/s. The metric is the median " +
    "time of compressing it, measured, and the time that the link takes for the compressed bytes. Trying harder makes fewer " +
    "bytes and takes longer.",
  space: { parameters: PARAMETERS, constraints: CONSTRAINTS },
  objective: { metric: "delivery_ms", direction: "DIRECTION_MINIMIZE", unit: "ms", documentation: "Compressing and sending." },
  budget: { seconds: BUDGET_SECONDS },
  budgetClock: "wall clock",
  capacity: 1,
  hardLimit: { seconds: HARD_LIMIT_SECONDS },
  sources: [{ path: "measure.js", content: readFileSync(here("measure.js"), "utf8") }],
  hasHeldOutSplit: false,
  deterministic: false,
  identity: {
    node: process.versions.node, brotli: process.versions.brotli, code: digest(here("measure.js")),
    text: digest(...texts.map((name) => `${TEXT_FOLDER}/${name}`)),
  },
  hardware: cpus()[0]?.model ?? process.arch,
};

function describe(_call, answer) {
  answer(null, { task });
}

function validate(call, answer) {
  const { configuration, violations } = complete(call.request.configuration);
  answer(null, { violations: violations.length ? violations : conflicts(configuration) });
}

const running = new Set();

function evaluate(call) {
  const began = process.hrtime.bigint();
  const elapsed = () => {
    const nanoseconds = process.hrtime.bigint() - began;
    return { seconds: Number(nanoseconds / 1_000_000_000n), nanos: Number(nanoseconds % 1_000_000_000n) };
  };
  const { configuration, violations } = complete(call.request.configuration);
  const fraction = call.request.budgetFraction === 0 ? 1 : call.request.budgetFraction;
  if (call.request.split === "SPLIT_HELD_OUT") violations.push({ parameter: "split", description: "must be SEARCH" });
  if (!(fraction > 0 && fraction <= 1)) violations.push({ parameter: "budget_fraction", description: "must be above 0, at most 1" });
  if (violations.length) return call.emit("error", invalid(violations));

  const finish = (result) => {
    call.write({ result: { ...result, elapsed: elapsed() } });
    call.end();
  };
  const [conflict] = conflicts(configuration);
  if (conflict) return finish({ outcome: "OUTCOME_INFEASIBLE", message: conflict.description });
  if (running.size >= task.capacity) {
    return call.emit("error", { code: status.RESOURCE_EXHAUSTED, details: `at most ${task.capacity} evaluation at a time` });
  }

  // A process of its own, so that it can be killed; `detached` makes it a group that is killed whole.
  const child = fork(here("measure.js"), { detached: true });
  running.add(child);
  let result;
  let stopped = "";
  const stop = (why) => {
    stopped ||= why;
    if (child.exitCode === null && child.signalCode === null) process.kill(-child.pid, "SIGKILL");
  };
  const limit = setTimeout(() => stop("limit"), 1000 * HARD_LIMIT_SECONDS);
  call.on("cancelled", () => stop("cancelled"));
  child.on("message", (message) => {
    if (message.progress && !stopped) call.write({ progress: { ...message.progress, elapsed: elapsed() } });
    result = message.result ?? result;
  });
  child.on("close", (code, signal) => {
    clearTimeout(limit);
    running.delete(child);
    if (stopped === "cancelled") return;
    if (stopped === "limit") finish({ outcome: "OUTCOME_TIMED_OUT", message: `killed after ${HARD_LIMIT_SECONDS} s` });
    else finish(result ?? { outcome: "OUTCOME_CRASHED", message: `the process ended by ${signal ?? `exit code ${code}`}` });
  });
  child.send({ configuration, folder: TEXT_FOLDER, seconds: BUDGET_SECONDS * fraction });
}

const server = new grpc.Server();
server.addService(TaskService.service, { Describe: describe, Validate: validate, Evaluate: evaluate });
server.bindAsync(options.listen, grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) {
    console.error(`error: cannot listen on ${options.listen}: ${error.message}`);
    process.exit(1);
  }
  const address = options.listen.replace(/:\d+$/, `:${port}`);
  const file = options["address-file"];
  if (file) {
    writeFileSync(`${file}.draft`, `${address}\n`);
    renameSync(`${file}.draft`, file);
  }
  console.error(`listening on ${address}`);
  const end = () => {
    if (file) rmSync(file, { force: true });
    for (const child of running) process.kill(-child.pid, "SIGKILL");
    server.forceShutdown();
  };
  process.once("SIGTERM", end);
  process.once("SIGINT", end);
});
