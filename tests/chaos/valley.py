"""A fast task with real child processes: each evaluation is a process that starts another one and takes a moment."""

import math
import subprocess
import sys
import time

from clients.task_sdk import Context, Integer, Real, task


@task(
    metric="val_bpb",
    unit="bits/byte",
    goal="minimize",
    space={
        "TOTAL_BATCH_SIZE": Integer(2**7, 2**17, default=2**13, log=True),
        "EMBEDDING_LR": Real(1e-3, 10.0, default=0.6, log=True),
        "MATRIX_LR": Real(1e-4, 1.0, default=0.04, log=True),
        "WEIGHT_DECAY": Real(0.0, 2.0, default=0.2),
    },
    name="valley",
    budget=1.0,
    hard_limit=60.0,
    capacity=6,
    deterministic=True,
)
def valley(
    TOTAL_BATCH_SIZE: int,  # noqa: N803 (the names that the scripted researcher knows)
    EMBEDDING_LR: float,  # noqa: N803
    MATRIX_LR: float,  # noqa: N803
    WEIGHT_DECAY: float,  # noqa: N803
    *,
    context: Context,
) -> float:
    """Smaller batches are better, down to 2^11."""
    subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(3600)"])
    for step in range(4):
        context.report(step / 4, step=step)
        time.sleep(0.05)
    return (
        2.0
        + 0.1 * abs(math.log2(TOTAL_BATCH_SIZE) - 11)
        + 0.01 * abs(WEIGHT_DECAY - 0.2)
        + 0.01 * abs(math.log10(EMBEDDING_LR / 0.3))
        + 0.01 * abs(math.log10(MATRIX_LR / 0.02))
    )


if __name__ == "__main__":
    valley.serve()
