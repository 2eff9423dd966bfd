"""``make chaos``: random kills, stalls and restarts of every process during running campaigns, then an audit.

    python -m tests.chaos --seed 1 --kills 200 --database both --minutes 12

The seed fixes what is hit, how and after which pause; when that falls into the work depends on the machine. Exit code 1
when the audit finds anything.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from inner_service import store as inner_store
from inner_service import translate as inner_translate
from outer_service import store as outer_store
from outer_service import translate as outer_translate
from service_kit.leases import LEASE_SECONDS
from tests.chaos.audit import KINDS, Evidence, Finding, audit
from tests.chaos.endpoint import RecordingEndpoint
from tests.chaos.processes import Children, Database, Family, Service, Target, adopt_orphans, hit, leftovers, watch_over
from tests.chaos.workload import Journal, Workload
from tests.postgres import binaries

HITS = {"kill": signal.SIGKILL, "restart": signal.SIGTERM, "stall": signal.SIGSTOP}
CALM_SECONDS = 240.0
"""How long after the storm everything may take to come to its end."""


@dataclass
class Storm:
    """What was done to whom, and what the audit says."""

    database: str
    hits: Counter[tuple[str, str]] = field(default_factory=Counter)
    seconds: float = 0.0
    runs: int = 0
    campaigns: int = 0
    trials: int = 0
    trials_meanwhile: int = 0
    """Of them, decided before the last hit."""
    rounds: int = 0
    events: int = 0
    promises: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.hits.values())


async def main(options: argparse.Namespace) -> int:
    adopt_orphans()
    databases = ["sqlite", "postgresql"] if options.database == "both" else [options.database]
    if "postgresql" in databases and binaries() is None:
        sys.stderr.write("PostgreSQL is not installed: this part is left out\n")
        databases.remove("postgresql")
    storms = []
    deadline = time.monotonic() + 60 * options.minutes
    for i, database in enumerate(databases):
        share = (deadline - time.monotonic()) / (len(databases) - i)
        storms.append(await one_storm(database, options.seed + i, options.kills // len(databases), share, options.keep))
    show(storms, options)
    return int(any(storm.findings for storm in storms))


async def one_storm(database: str, seed: int, kills: int, seconds: float, keep: bool) -> Storm:
    """Services on one kind of database, hit ``kills`` times or for as long as ``seconds`` allow."""
    storm, began = Storm(database), time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{database}-"))
    server = await asyncio.to_thread(Database) if database == "postgresql" else None
    with contextlib.ExitStack() as stack:
        if server is not None:
            stack.callback(server.server.stop)
            urls = [server.create(name) for name in ("inner", "outer")]
        else:
            urls = [f"sqlite:///{folder / name}.db" for name in ("inner", "outer")]
        evidence = await _weather(storm, folder, server, urls, seed, kills, seconds)
    evidence.orphans = await leftovers()
    storm.findings = audit(evidence)
    storm.events = sum(len(log) for log in evidence.logs.values())
    storm.rounds = sum(e.WhichOneof("event") == "round_finished" for log in evidence.logs.values() for e in log)
    storm.promises = len(evidence.received) + len(evidence.acknowledged)
    storm.seconds = time.monotonic() - began
    if keep or storm.findings:
        sys.stderr.write(f"logs and journal: {folder}\n")
    else:
        shutil.rmtree(folder)
    return storm


async def _weather(
    storm: Storm, folder: Path, server: Database | None, urls: list[str], seed: int, kills: int, seconds: float
) -> Evidence:
    researcher = Service("researcher", folder, "clients.scripted_researcher")
    task = Service("task", folder, "tests.chaos.valley")
    await asyncio.gather(researcher.start(), task.start())
    endpoint = RecordingEndpoint(lambda: researcher.address)
    await endpoint.start()
    model = {"OPENAI_BASE_URL": endpoint.url, "BILEVEL_MODEL": "scripted-researcher", "BILEVEL_PATIENCE": "300"}
    options = ["--task", f"valley={task.address}", "--database", urls[0]]
    inner = [Service(f"inner{i}", folder, "inner_service", *options, env=model) for i in range(2 if server else 1)]
    for service in inner:
        await service.start()
    outer = Service("outer", folder, "outer_service", "--inner", inner[0].address, "--database", urls[1], env=model)
    await outer.start()
    services = [researcher, task, *inner, outer]
    targets: list[Target] = [*services, Children(task), Family(task), *([server] if server else [])]
    raging = True
    watching = asyncio.create_task(watch_over(targets, lambda: raging))
    journal = Journal(folder / "journal.jsonl")
    workload = Workload([service.address for service in inner], outer.address, journal, seed)
    workload.start()
    try:
        await _rage(storm, targets, random.Random(seed), kills, time.monotonic() + max(10.0, seconds - 45))
        storm.trials_meanwhile = workload.trials
        workload.calm()
        unfinished = await workload.ended(CALM_SECONDS)
    finally:
        raging = False
        await watching
        await workload.close()
        await asyncio.gather(*(service.end() for service in reversed(services)))
        await endpoint.stop()
    storm.runs, storm.campaigns, storm.trials = workload.runs, workload.campaigns, workload.trials
    evidence = Evidence(
        received=journal.received, acknowledged=journal.acknowledged, asked=endpoint.asked, unfinished=unfinished
    )
    if server is not None:
        await asyncio.to_thread(server.revive)
    await _read(evidence, urls)
    return evidence


async def _rage(storm: Storm, targets: list[Target], rng: random.Random, kills: int, until: float) -> None:
    """Hit one to three targets at a time, at random moments."""
    waking: set[asyncio.Task[None]] = set()
    while storm.total < kills and time.monotonic() < until:
        await asyncio.sleep(rng.uniform(0.5, 4.0))
        together = rng.choices((1, 2, 3), (70, 20, 10))[0]
        for target in rng.sample(targets, together):
            kind = rng.choices(tuple(HITS), (60, 20, 20))[0]
            stall = rng.choices((rng.uniform(0.2, 4.0), LEASE_SECONDS + 3.0), (85, 15))[0]
            victims = target.victims()
            if not victims or (isinstance(target, Children) and kind == "restart"):
                continue
            victim = rng.choice(victims)
            if hit(victim, HITS[kind]):
                storm.hits[target.name.rstrip("01"), kind] += 1
                sys.stderr.write(f"\r{storm.database}: {storm.total}/{kills} {kind} {target.name}          ")
                if kind == "stall":
                    waking.add(asyncio.create_task(_wake(victim, stall)))
    await asyncio.gather(*waking)
    sys.stderr.write("\n")


async def _wake(pids: tuple[int, ...], seconds: float) -> None:
    await asyncio.sleep(seconds)
    hit(pids, signal.SIGCONT)


async def _read(evidence: Evidence, urls: list[str]) -> None:
    """The logs as the databases hold them, each event in the form in which watchers got it."""
    inner = await inner_store.Store.open(urls[0])
    try:
        evidence.problems = [f"{problem.stream}: {problem.text}" for problem in await inner.verify()]
        for _, run in await inner.runs(10**6):
            entries = [entry async for entry in inner.entries(run.id)]
            evidence.logs[run.name] = [inner_translate.entry_to_proto(entry) for entry in entries]
            evidence.last_numbers[run.name] = await inner._log.last_sequence(inner_store.stream_of(run.id))
    finally:
        await inner.close()
    outer = await outer_store.Store.open(urls[1])
    try:
        for _, campaign in await outer.campaigns(10**6):
            found = [entry async for entry in outer.entries(campaign.id)]
            evidence.logs[campaign.name] = [outer_translate.entry_to_proto(campaign.name, entry) for entry in found]
            number = await outer._log.last_sequence(outer_store.stream_of(campaign.id))
            evidence.last_numbers[campaign.name] = number
    finally:
        await outer.close()


def show(storms: list[Storm], options: argparse.Namespace) -> None:
    """The result as the table that docs/reliability.md holds."""
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()} {platform.release()}"
    print(f"seed {options.seed}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {machine}\n")
    print("| | " + " | ".join(storm.database for storm in storms) + " |")
    print("|---|" + "---|" * len(storms))

    def row(name: str, values: list[object]) -> None:
        print(f"| {name} | " + " | ".join(str(value) for value in values) + " |")

    row("kills, stalls and restarts", [storm.total for storm in storms])
    for target in sorted({target for storm in storms for target, _ in storm.hits}):
        counts = ["/".join(str(storm.hits[target, kind]) for kind in ("kill", "stall", "restart")) for storm in storms]
        row(f"… {target}: kill/stall/restart", counts)
    row("runs, campaigns", [f"{storm.runs}, {storm.campaigns}" for storm in storms])
    row("trials decided (during the storm)", [f"{storm.trials} ({storm.trials_meanwhile})" for storm in storms])
    row("research rounds stored", [storm.rounds for storm in storms])
    row("events in the logs", [storm.events for storm in storms])
    row("acknowledgements checked", [storm.promises for storm in storms])
    row("minutes", [f"{storm.seconds / 60:.1f}" for storm in storms])
    for kind in KINDS:
        row(f"**{kind}**", [sum(finding.kind == kind for finding in storm.findings) for storm in storms])
    for storm in storms:
        for finding in storm.findings[:50]:
            print(f"\n{storm.database}: {finding.kind}: {finding.text}")


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    found.add_argument("--seed", type=int, default=1)
    found.add_argument("--kills", type=int, default=200, help="hits over all databases; default %(default)s")
    found.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    found.add_argument("--minutes", type=float, default=12.0, help="when the storms end; default %(default)s")
    found.add_argument("--keep", action="store_true", help="keep logs and journal")
    return found


if __name__ == "__main__":
    sys.exit(asyncio.run(main(parser().parse_args())))
