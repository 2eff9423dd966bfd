"""Drive a run by hand with the loop's own primitives: Propose, Evaluate, Accept. Nothing else runs the search.

.venv/bin/python clients/examples/drive_by_hand.py --inner 127.0.0.1:7402 --task gpt --trials 3
"""

from __future__ import annotations

import argparse

from bilevel.v1 import trace_pb2

from clients import InnerClient, wording
from service_kit.server import run as run_politely


async def drive(address: str, task: str, trials: int) -> None:
    """A baseline and ``trials`` proposals, each evaluated and decided before the next."""
    async with InnerClient(address) as inner:
        run = await inner.create_run(trace_pb2.RunSpec(task=task, max_trials=trials, seed=1, display_name="by hand"))
        print(f"{run.name}: the first proposal is the baseline")
        while run.decided_trials < trials:
            for trial in await inner.propose(run.name):
                what = ", ".join(wording.changes(trial)) or "the starting configuration"
                print(f"trial {trial.number}: {what}. {trial.hypothesis or trial.message}")
                if trial.state == trace_pb2.TRIAL_STATE_REJECTED:
                    continue
                async for event in inner.evaluate(trial.name):
                    if event.WhichOneof("event") == "trial_progressed":
                        print(f"  {event.trial_progressed.progress.fraction:4.0%}", end="\r")
                trial = await inner.accept(trial.name)
                print(f"  {wording.status(trial)}: {wording.metric(trial.metric) if trial.HasField('metric') else '-'}")
            run = await inner.get_run(run.name)
        print(f"best {run.task.objective.metric}: {wording.metric(run.best_metric)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Drive a run by hand.")
    parser.add_argument("--inner", default="127.0.0.1:7402", metavar="HOST:PORT")
    parser.add_argument("--task", default="gpt")
    parser.add_argument("--trials", type=int, default=3)
    options = parser.parse_args()
    run_politely(drive(options.inner, options.task, options.trials))
