// An inner service in Node.js, from the proto files alone: runs in memory, random proposals, no mechanisms.
//
//     node server.js --task NAME=HOST:PORT [--listen 127.0.0.1:7412] [--address-file PATH] [--proto FOLDER]

import { renameSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import { ReflectionService } from "@grpc/reflection";
import { HealthImplementation } from "grpc-health-check";
import { innerLoop } from "./service.js";
import { Task } from "./task.js";

const { values: options } = parseArgs({
  options: {
    task: { type: "string", multiple: true, default: [] },
    listen: { type: "string", default: "127.0.0.1:7412" },
    "address-file": { type: "string" },
    proto: { type: "string", default: fileURLToPath(new URL("../../../../proto", import.meta.url)) },
  },
});
const NAME = "bilevel.v1.InnerLoopService";

const loaded = protoLoader.loadSync("bilevel/v1/inner.proto", {
  includeDirs: [options.proto], keepCase: true, enums: String, longs: String, defaults: true, oneofs: true,
});
const { InnerLoopService, TaskService } = grpc.loadPackageDefinition(loaded).bilevel.v1;

const tasks = options.task.map((text) => {
  const [name, address] = text.split("=");
  if (!name || !address) {
    console.error(`error: --task must be NAME=HOST:PORT; got ${text}`);
    process.exit(2);
  }
  return new Task(name, address, TaskService);
});

/** What is no refusal is a defect: its text goes to the log alone. */
function refusal(error, method) {
  if (error.code !== undefined) return error;
  console.error(`${method} failed:`, error);
  return { code: grpc.status.INTERNAL, details: "internal error, see the server's log" };
}

const { unary, streaming } = innerLoop(tasks);
const handlers = {};
for (const [method, answer] of Object.entries(unary)) {
  handlers[method] = (call, callback) => {
    answer(call.request).then((response) => callback(null, response), (error) => callback(refusal(error, method)));
  };
}
for (const [method, answer] of Object.entries(streaming)) {
  handlers[method] = (call) => {
    answer(call).catch((error) => call.emit("error", refusal(error, method)));
  };
}

const server = new grpc.Server();
server.addService(InnerLoopService.service, handlers);
const health = new HealthImplementation({ "": "SERVING", [NAME]: "SERVING" });
health.addToServer(server);
new ReflectionService(loaded).addToServer(server);
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
    health.setStatus("", "NOT_SERVING");
    if (file) rmSync(file, { force: true });
    for (const task of tasks) task.close();
    server.forceShutdown();
  };
  process.once("SIGTERM", end);
  process.once("SIGINT", end);
});
