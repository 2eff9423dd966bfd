"""What a task says in one evaluation, judged against its contract: progress, then exactly one result, then the end.

Anyone may have written the task, so nothing that it sends is believed or kept without a limit. What breaks the contract
becomes a :class:`Misbehaviour` for the task's author, before the result that the evaluation has all the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc
from bilevel.v1 import task_pb2

from inner_service.task import EvaluationProgress, EvaluationResult, Misbehaviour, TaskFault
from inner_service.task_messages import progress_from_proto, result_from_proto, result_problem
from service_kit.parameters import Outcome
from service_kit.status import remote_error

LINGER_SECONDS = 2.0
"""How long a task may take to end its stream after the result."""
PROGRESS_MESSAGES, PROGRESS_RATE = 2_000, 200.0
"""Progress messages that an evaluation may send at once, and a second from then on. Ten a second are plenty."""
RESULT_BYTES, PROGRESS_BYTES = 256 * 1024, 64 * 1024
"""Largest result and largest progress message: they are kept on the trace."""

TaskEvent: TypeAlias = EvaluationProgress | Misbehaviour | EvaluationResult


async def judged(responses: AsyncIterator[task_pb2.EvaluateResponse]) -> AsyncIterator[TaskEvent]:
    """Progress and misbehaviour as they come, one result at the end. Raises what ``responses`` raises before that."""
    began, count = time.monotonic(), 0
    async for response in responses:
        if response.WhichOneof("event") == "result":
            async for misbehaviour in _judged_ending(response.result, responses):
                yield misbehaviour
            yield _result(response.result)
            return
        count += 1
        if broken := _too_much(response.progress, count, time.monotonic() - began):
            yield broken
            yield EvaluationResult(Outcome.CRASHED, message=f"the task broke its contract: {broken.message}")
            return
        yield progress_from_proto(response.progress)
    missing = "the task ended the evaluation without a result"
    hint = "Send exactly one result before the stream ends, also for an evaluation that failed: it names the outcome."
    yield Misbehaviour(TaskFault.NO_RESULT, missing, hint)
    yield EvaluationResult(Outcome.CRASHED, message=missing)


def _too_much(progress: task_pb2.EvaluationProgress, count: int, seconds: float) -> Misbehaviour | None:
    if progress.ByteSize() > PROGRESS_BYTES:
        text = f"a progress message of {progress.ByteSize()} bytes; at most {PROGRESS_BYTES} are read"
        return Misbehaviour(TaskFault.MESSAGE_TOO_LARGE, text, "Report a few measurements by name, not all of them.")
    if count > PROGRESS_MESSAGES + PROGRESS_RATE * seconds:
        text = f"{count} progress messages in {seconds:.1f} s"
        return Misbehaviour(TaskFault.PROGRESS_FLOOD, text, "Report progress at most ten times a second.")
    return None


def _result(message: task_pb2.EvaluationResult) -> EvaluationResult:
    if message.ByteSize() > RESULT_BYTES:
        text = f"the task broke its contract: {_too_large(message)}"
        return EvaluationResult(Outcome.CRASHED, message=text)
    return result_from_proto(message)


def _too_large(message: task_pb2.EvaluationResult) -> str:
    return f"a result of {message.ByteSize()} bytes; at most {RESULT_BYTES} are kept"


async def _judged_ending(
    result: task_pb2.EvaluationResult, rest: AsyncIterator[task_pb2.EvaluateResponse]
) -> AsyncIterator[Misbehaviour]:
    """What is wrong with the result and with what follows it."""
    if result.ByteSize() > RESULT_BYTES:
        hint = "Send fewer side metrics and a shorter message."
        yield Misbehaviour(TaskFault.MESSAGE_TOO_LARGE, _too_large(result), hint)
    elif problem := result_problem(result):
        hint = "Set metric exactly when the outcome is SUCCEEDED; a metric that is not finite is the outcome DIVERGED."
        yield Misbehaviour(TaskFault.INVALID_RESULT, problem, hint)
    hint = "End the stream after the one result."
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            more = await anext(rest, None)
    except TimeoutError:
        text = f"the stream was still open {LINGER_SECONDS:g} s after the result"
        yield Misbehaviour(TaskFault.NOT_ENDED, text, hint)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:  # a server that stops has said all that it had to say
            text = f"the call failed after its result: {remote_error(error).message}"
            yield Misbehaviour(TaskFault.NOT_ENDED, text, hint)
    else:
        if more is not None and more.WhichOneof("event") == "result":
            second = more.result.metric if more.result.HasField("metric") else "no metric"
            text = f"a second result came, with {second}; the first one counts"
            yield Misbehaviour(TaskFault.SECOND_RESULT, text, hint)
        elif more is not None:
            yield Misbehaviour(TaskFault.NOT_ENDED, "progress came after the result", hint)
