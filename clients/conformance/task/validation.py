"""What Validate finds, and whether Evaluate agrees: TASK-2."""

from __future__ import annotations

from bilevel.v1 import common_pb2

from clients.conformance.expect import expect, shown
from clients.conformance.suite import NotSeen
from clients.conformance.task.subject import TASK, TaskSubject
from clients.conformance.values import wrong_values
from clients.conformance.wire import Refusal

_EACH = 3
"""Configurations of either kind that are evaluated."""


@TASK.check("TASK-2.1")
async def defaults(task: TaskSubject) -> None:
    """Validate finds nothing wrong with the defaults"""
    for configuration in ({}, (await task.space()).defaults()):
        found = await task.violations(configuration)
        expect(
            not found, f"Validate finds {found} wrong with {shown(configuration) if configuration else 'the defaults'}"
        )


@TASK.check("TASK-2.2")
async def wrong(task: TaskSubject) -> None:
    """Validate names unknown parameters, wrong types and values out of range"""
    for case in wrong_values(await task.space()):
        try:
            found = await task.violations({case.parameter: case.value})
        except Refusal as refusal:
            expect(
                False, f"Validate must answer {case.why} for {case.parameter} with a violation; it failed: {refusal}"
            )
            raise
        expect(
            case.parameter in found,
            f"Validate must name {case.parameter} for {case.why}; it names {found or 'nothing'}",
        )


@TASK.check("TASK-2.3")
async def agreement(task: TaskSubject) -> None:
    """Evaluate takes what Validate accepts and refuses what it finds wrong"""
    judged = await task.judged()
    fine = [configuration for configuration, found in judged if not found][:_EACH]
    wrong = [configuration for configuration, found in judged if found][:_EACH]
    for configuration in fine:
        outcome = await task.outcome(configuration)
        refused = isinstance(outcome, Refusal) or outcome.outcome == common_pb2.OUTCOME_INFEASIBLE
        expect(not refused, f"Validate accepts {shown(configuration)}, but Evaluate says {shown(outcome)}")
    for configuration in wrong:
        outcome = await task.outcome(configuration)
        if isinstance(outcome, Refusal):
            agrees = outcome.code == "INVALID_ARGUMENT"
        else:
            agrees = outcome.outcome == common_pb2.OUTCOME_INFEASIBLE
        expect(agrees, f"Validate finds {shown(configuration)} wrong, but Evaluate says {shown(outcome)}")
    if not fine:
        raise NotSeen("Validate accepted none of the sampled configurations")
