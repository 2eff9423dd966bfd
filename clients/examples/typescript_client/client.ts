// Creates a run, follows its trace until the baseline is decided, and cancels it: a client in TypeScript.
//
//     node dist/client.js 127.0.0.1:7402

import { createClient } from "@connectrpc/connect";
import { Http2SessionManager, createGrpcTransport } from "@connectrpc/connect-node";
import { InnerLoopService } from "./generated/bilevel/v1/inner_pb.js";
import { RunState } from "./generated/bilevel/v1/trace_pb.js";

const address = process.argv[2] ?? "127.0.0.1:7402";
const baseUrl = `http://${address}`;
const sessionManager = new Http2SessionManager(baseUrl);
const inner = createClient(InnerLoopService, createGrpcTransport({ baseUrl, sessionManager }));

const { tasks } = await inner.listTasks({});
const task = tasks.find((configured) => configured.description !== undefined);
if (task === undefined) throw new Error(`no task can be reached: ${tasks.map(({ name, error }) => `${name}: ${error}`).join("; ")}`);
const { run } = await inner.createRun({ spec: { task: task.name, maxTrials: 1, displayName: "from TypeScript" } });
if (run === undefined) throw new Error("the inner service created nothing");
console.log(`${run.name} on ${task.name} is ${RunState[run.state]}`);

await inner.startRun({ name: run.name });
for await (const { item } of inner.watchTrace({ run: run.name })) {
  if (item.case !== "event") continue;
  const { sequence, event } = item.value;
  console.log(`${sequence} ${event.case}`);
  if (event.case === "trialDecided") break;
}
const { run: ended } = await inner.cancelRun({ name: run.name, reason: "seen enough" });
console.log(`baseline ${ended?.task?.objective?.metric}: ${ended?.baselineMetric}`);
sessionManager.abort(); // an open connection would keep the process alive
