// Streams of a trace: what is committed, then live events, heartbeats while idle, the end of the run.

import { invalid } from "./errors.js";
import { milliseconds } from "./task.js";

export function watch(run, call) {
  const { after_sequence: after, heartbeat, no_follow: noFollow } = call.request;
  const pause = heartbeat ? milliseconds(heartbeat) : 5000;
  const wrong = [];
  if (!(Number(after) >= 0 && Number(after) <= run.events.length)) {
    wrong.push(["after_sequence", `must be from 0 to ${run.events.length}; got ${after}`]);
  }
  if (!(pause >= 100 && pause <= 3_600_000)) wrong.push(["heartbeat", "must be from 0.1 s to 3600 s"]);
  if (wrong.length) throw invalid(...wrong);

  let sent = Number(after);
  let timer;
  const finish = () => {
    clearTimeout(timer);
    run.changes.off("event", send);
  };
  const beat = () => {
    call.write({ item: "heartbeat", heartbeat: { last_sequence: run.events.length } });
    timer = setTimeout(beat, pause);
  };
  function send() {
    clearTimeout(timer);
    while (sent < run.events.length) call.write({ item: "event", event: run.events[sent++] });
    if (run.terminal || noFollow) {
      finish();
      call.end();
    } else {
      timer = setTimeout(beat, pause);
    }
  }
  call.on("cancelled", finish);
  run.changes.on("event", send);
  send();
}
