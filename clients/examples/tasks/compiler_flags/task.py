"""Which compiler flags make a real C program fast, measured.

.venv/bin/python clients/examples/tasks/compiler_flags/task.py --listen 127.0.0.1:7500
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from clients.task_sdk import Boolean, Choice, Context, Infeasible, Integer, Result, task

PROGRAM = Path(__file__).with_name("orbits.c")
ROUNDS = 30
"""Rounds of the program in one run: some 0.1 s at -O2."""
RUNS = 9
"""Runs of a full-budget evaluation; the fastest counts, because a disturbance can only slow a run down."""
TOLERANCE = 1e-6
"""How far, relatively, the program's checksum may be from that of the plain build: fast but wrong is not fast."""


def compiler() -> str:
    """Version line of the compiler: results depend on it."""
    found = shutil.which("gcc")
    if found is None:
        return "none"
    return subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


@task(
    name="compiler-flags",
    metric="cpu_ms",
    unit="ms",
    goal="minimize",
    space={
        "level": Choice(["-O1", "-O0", "-O2", "-O3", "-Os"], doc="General optimisation level."),
        "native": Boolean(doc="-march=native: use every instruction of this machine."),
        "fast_math": Boolean(doc="-ffast-math: reorder floating-point arithmetic."),
        "unroll": Boolean(doc="-funroll-loops."),
        "lto": Boolean(doc="-flto: optimise at link time."),
        "omit_frame_pointer": Boolean(default=True, doc="-fomit-frame-pointer."),
        "vectorize": Choice(["default", "on", "off"], doc="-ftree-vectorize on or off, or what the level says."),
        "inline_limit": Integer(8, 2048, log=True, default=64, doc="-finline-limit: size of functions to inline."),
        "tile": Integer(1, 192, default=16, doc="Rows and columns of a tile of the matrix; must divide 192."),
    },
    budget=3.0,
    hard_limit=60.0,
    sources=[PROGRAM.name],
    identity={"compiler": compiler()},
)
def compiler_flags(
    level: str,
    native: bool,
    fast_math: bool,
    unroll: bool,
    lto: bool,
    omit_frame_pointer: bool,
    vectorize: str,
    inline_limit: int,
    tile: int,
    *,
    context: Context,
) -> Result:
    """CPU time of a small C program by gcc's flags.

    The program mixes planets that attract each other (floating point, dependent divisions), a tiled matrix product
    (memory and vector units) and hashing (integers and branches). It is compiled with the flags, run several times, and
    the CPU time of the fastest run counts. A build whose checksum differs from the plain build's by more than one
    part in a million is infeasible, however fast it is.
    """
    flags = [level, f"-finline-limit={inline_limit}", f"-DTILE={tile}"]
    flags += [flag for flag, on in (("-march=native", native), ("-ffast-math", fast_math), ("-flto", lto)) if on]
    flags += ["-funroll-loops"] if unroll else []
    flags += ["-fomit-frame-pointer" if omit_frame_pointer else "-fno-omit-frame-pointer"]
    flags += {"default": [], "on": ["-ftree-vectorize"], "off": ["-fno-tree-vectorize"]}[vectorize]
    context.report(0.0, phase="compiling")
    built = build(flags, context.folder / "tuned")
    expected, _ = timed(build(["-O1"], context.folder / "plain"))
    runs = max(1, round(RUNS * context.budget_fraction))
    best, said = math.inf, math.nan
    for run in range(runs):
        said, milliseconds = timed(built)
        best = min(best, milliseconds)
        context.report((run + 1) / runs, step=run + 1, phase="running", cpu_ms=milliseconds)
    if not math.isclose(said, expected, rel_tol=TOLERANCE):
        raise Infeasible(f"these flags change the result from {expected:.12g} to {said:.12g}: try without -ffast-math")
    return Result(best, {"runs": runs, "binary_bytes": built.stat().st_size}, " ".join(flags))


@compiler_flags.check
def tile_divides(tile: int) -> bool:
    """tile must divide 192: 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96 or 192"""
    return 192 % tile == 0


def build(flags: Sequence[str], binary: Path) -> Path:
    """Compile the program. Raises Infeasible with what the compiler says."""
    command = ["gcc", *flags, str(PROGRAM), "-o", str(binary), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Infeasible(f"gcc refuses {' '.join(flags)}: {done.stderr.strip().splitlines()[-1]}")
    return binary


def timed(binary: Path) -> tuple[float, float]:
    """Checksum and CPU milliseconds (user and system) of one run."""
    process = subprocess.Popen([binary, str(ROUNDS)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # wait4 has reaped it: subprocess must not wait again
    if process.returncode != 0:
        raise Infeasible(f"the program built with these flags ends with code {process.returncode}")
    return float(printed), 1e3 * (usage.ru_utime + usage.ru_stime)


if __name__ == "__main__":
    compiler_flags.serve()
