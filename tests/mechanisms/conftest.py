"""What the tests of mechanisms share: a space with every kind of parameter, a history, and short-lived workers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from mechanisms.interface import TrialRecord
from mechanisms.sandbox.host import MechanismProcess
from mechanisms.sandbox.limits import SandboxLimits
from mechanisms.synthetic import synthetic_history
from service_kit.parameters import Kind, Objective, Parameter, ParameterSpace, Scale

Start = Callable[..., Awaitable[MechanismProcess]]


@pytest.fixture(scope="session")
def space() -> ParameterSpace:
    return ParameterSpace(
        (
            Parameter("DEPTH", Kind.INTEGER, 4, minimum=1, maximum=16),
            Parameter("LR", Kind.REAL, 0.04, minimum=1e-4, maximum=1.0, scale=Scale.LOG10),
            Parameter("BATCH", Kind.INTEGER, 4096, minimum=512, maximum=65536, scale=Scale.LOG2),
            Parameter("DECAY", Kind.REAL, 0.1, minimum=0.0, maximum=1.0),
            Parameter("HEADS", Kind.INTEGER, 4, minimum=2, maximum=12, step=2),
            Parameter("ACTIVATION", Kind.CATEGORICAL, "relu", choices=("relu", "gelu", "swiglu")),
            Parameter("TIED", Kind.BOOLEAN, True),
            Parameter("BETAS", Kind.LIST, (0.8, 0.95), minimum=0.0, maximum=0.999, length=2),
            Parameter("PATTERN", Kind.TEXT, "SSSL", pattern="[SL]+"),
            Parameter("SEED", Kind.INTEGER, 1, locked=True, minimum=0, maximum=10),
        )
    )


@pytest.fixture(scope="session")
def objective() -> Objective:
    return Objective("val_bpb")


@pytest.fixture(scope="session")
def history(space: ParameterSpace, objective: Objective) -> tuple[TrialRecord, ...]:
    return synthetic_history(space, objective, 20, seed=5)


@pytest_asyncio.fixture
async def start(space: ParameterSpace, objective: Objective) -> AsyncIterator[Start]:
    """Start mechanisms that are closed when the test ends."""
    started: list[MechanismProcess] = []

    async def start(
        source: str, *, limits: SandboxLimits | None = None, seed: int = 0, **settings: object
    ) -> MechanismProcess:
        process = await MechanismProcess.start(
            source, space, objective, settings, seed, name="test", limits=limits or SandboxLimits()
        )
        started.append(process)
        return process

    yield start
    for process in started:
        await process.close()
