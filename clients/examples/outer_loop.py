"""An outer loop of one's own, in place of ours: reads the trace, freezes what never helps, and when the search
slows down installs a mechanism. Only the inner service is needed.

    .venv/bin/python clients/examples/outer_loop.py --inner 127.0.0.1:7402 --task gpt --trials 20
"""

from __future__ import annotations

import argparse
from collections import Counter

from bilevel.v1 import inner_pb2, trace_pb2

from clients import InnerClient
from service_kit.errors import RemoteError
from service_kit.server import run as run_politely

AUTHOR = "a minimal outer loop"
OFTEN = 3
"""Changes of a parameter without any success after which it is frozen."""


async def freeze_what_never_helps(inner: InnerClient, run: trace_pb2.Run, trials: list[trace_pb2.Trial]) -> None:
    """Level 1.5: one rule in place of an analyst."""
    tried = Counter(name for trial in trials for name in trial.changes.values)
    kept = [trial for trial in trials if trial.state == trace_pb2.TRIAL_STATE_KEPT and not trial.changed_by]
    helped = {name for trial in kept for name in trial.changes.values}
    active = {p.name for p in run.task.space.parameters if not p.locked} - set(run.search_config.frozen)
    useless = [name for name, count in tried.items() if name in active and count >= OFTEN and name not in helped]
    for name in useless[: len(active) - 1]:
        reason = trace_pb2.FreezeReason(parameter=name, reason=f"changed {tried[name]} times, never kept")
        revision = (await inner.get_run(run.name)).search_config.revision
        request = inner_pb2.UpdateSearchConfigRequest(
            run=run.name, freeze=[reason], strategy="explore", author=AUTHOR, expected_revision=revision
        )
        await inner.update_search_config(request)
        print(f"froze {name}: {reason.reason}")


async def install_a_mechanism(inner: InnerClient, run: str, description: inner_pb2.DescribeSearchResponse) -> str:
    """Level 2: the first of the examples that the gate accepts; a language model would write one."""
    for example in description.examples if "python" in description.capabilities.mechanism_languages else ():
        name = example.path.rsplit("/", 1)[-1].removesuffix(".py").replace("_", "-")
        try:
            mechanism = await inner.install_mechanism(run, name, example.content, author=AUTHOR)
        except RemoteError as refusal:
            print(f"not {name}: {refusal.message}")
            continue
        print(f"installed {name}: {mechanism.summary}")
        return name
    return ""


async def supervise(address: str, task: str, trials: int, every: int) -> None:
    """A run from its beginning to its end."""
    async with InnerClient(address) as inner:
        spec = trace_pb2.RunSpec(task=task, max_trials=trials, seed=1, checkpoint_every=every, display_name=AUTHOR)
        run = await inner.create_run(spec)
        description = await inner.describe_search(run.name)
        print(f"{run.name} on {description.capabilities.implementation}")
        mechanism, at_checkpoint = "", False
        await inner.start_run(run.name)
        async for event in inner.watch_trace(run.name):
            at_checkpoint |= event.HasField("checkpoint_reached")
            if at_checkpoint and event.run_state_changed.to_state == trace_pb2.RUN_STATE_PAUSED:
                at_checkpoint, run = False, await inner.get_run(run.name)
                recent = [trial for trial in await inner.list_trials(run.name) if trial.number > 0]
                await freeze_what_never_helps(inner, run, recent)
                stuck = 2 * sum(trial.state == trace_pb2.TRIAL_STATE_KEPT for trial in recent[-every:]) < every
                mechanism = mechanism or (await install_a_mechanism(inner, run.name, description) if stuck else "")
                await inner.resume_run(run.name)
        run = await inner.get_run(run.name)
        gained = f"{run.baseline_metric:g} became {run.best_metric:g}"
        print(f"{run.state_reason}: {gained}, mechanism: {mechanism or 'none'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A minimal outer loop.")
    parser.add_argument("--inner", default="127.0.0.1:7402", metavar="HOST:PORT")
    parser.add_argument("--task", default="gpt")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--every", type=int, default=5, help="decided trials between two looks")
    options = parser.parse_args()
    run_politely(supervise(options.inner, options.task, options.trials, options.every))
