"""An outer loop of one's own, in place of ours: freezes what never helps, installs a mechanism when gains get rare."""

import argparse
from collections import Counter

from bilevel.v1 import task_pb2, trace_pb2

from clients import InnerClient
from service_kit.errors import RemoteError
from service_kit.server import run as run_politely

AUTHOR, KEPT = "a minimal outer loop", trace_pb2.TRIAL_STATE_KEPT


def useless(run: trace_pb2.Run, trials: list[trace_pb2.Trial], often: int = 3) -> dict[str, str]:
    """Level 1.5: what to freeze and why; one rule in place of an analyst."""
    tried = Counter(name for trial in trials for name in trial.changes.values)
    helped = {name for t in trials if t.state == KEPT and not t.changed_by for name in t.changes.values}
    active = {p.name for p in run.task.space.parameters if not p.locked} - set(run.search_config.frozen)
    found = [name for name, count in tried.items() if name in active - helped and count >= often]
    return {name: f"changed {tried[name]} times, never kept" for name in found[: len(active) - 1]}


async def install_one(inner: InnerClient, run: str, examples: list[task_pb2.SourceFile]) -> str:
    """Level 2: the first of the examples that the gate accepts; a language model would write one."""
    for file in examples:
        name = file.path.split("/")[-1].removesuffix(".py").replace("_", "-")
        try:
            mechanism = await inner.install_mechanism(run, name, file.content, author=AUTHOR)
            print(f"installed {name}: {mechanism.summary}")
            return name
        except RemoteError as refusal:
            print(f"not {name}: {refusal.message}")
    return ""


async def supervise(address: str, task: str, trials: int, every: int) -> None:
    """A run from its beginning to its end."""
    async with InnerClient(address) as inner:
        spec = trace_pb2.RunSpec(task=task, max_trials=trials, seed=1, checkpoint_every=every, display_name=AUTHOR)
        name, mechanism = (await inner.create_run(spec)).name, ""
        description = await inner.describe_search(name)
        print(f"{name} on {description.capabilities.implementation}")
        await inner.start_run(name)
        async for run in inner.checkpoints(name):
            recent = [trial for trial in await inner.list_trials(name) if trial.number > 0]
            if freeze := useless(run, recent):
                await inner.configure_search(run, author=AUTHOR, freeze=freeze, strategy="explore")
                print(*(f"froze {parameter}: {reason}" for parameter, reason in freeze.items()), sep="\n")
            if not mechanism and 2 * sum(trial.state == KEPT for trial in recent[-every:]) < every:
                mechanism = await install_one(inner, name, list(description.examples))
        run = await inner.get_run(name)
        print(f"{run.state_reason}: {run.baseline_metric:g} became {run.best_metric:g}, {mechanism or 'no mechanism'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A minimal outer loop.")
    for option, default in {"inner": "127.0.0.1:7402", "task": "gpt", "trials": 20, "every": 5}.items():
        parser.add_argument(f"--{option}", default=default, type=type(default))
    run_politely(supervise(*vars(parser.parse_args()).values()))
