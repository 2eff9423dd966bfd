"""A run and its campaign as the protocol's own messages, for everything that reads them."""

from __future__ import annotations

import random

import pytest
from bilevel.v1 import common_pb2, outer_pb2, task_pb2, trace_pb2

from clients.report.record import RunRecord
from service_kit.translate import configuration_to_proto

HOSTILE = "<script>alert('x')</script> & <b>bold</b>"
SOURCE = '''class Mechanism:
    """Turn round: when growing the batch keeps failing, halve it instead."""

    def revise(self, view, candidate):
        if candidate.changes.get("TOTAL_BATCH_SIZE", 0) > view.incumbent.configuration["TOTAL_BATCH_SIZE"]:
            return {"changes": {"TOTAL_BATCH_SIZE": 4096}, "hypothesis": "<b>smaller</b> batches, more steps"}
        return candidate
'''


class Script:
    """Writes events one after the other, numbered like a trace."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.events: list[trace_pb2.TraceEvent] = []
        self.campaign: list[outer_pb2.CampaignEvent] = []

    def say(self, **event: object) -> None:
        sequence = len(self.events) + 1
        message = trace_pb2.TraceEvent(run=self.run, sequence=sequence, **event)
        message.time.FromSeconds(1_760_000_000 + 5 * sequence)
        self.events.append(message)

    def tell(self, **event: object) -> None:
        sequence = len(self.campaign) + 1
        message = outer_pb2.CampaignEvent(campaign="campaigns/c1", sequence=sequence, **event)
        message.time.FromSeconds(1_760_000_000 + 5 * sequence)
        self.campaign.append(message)


def usage(tokens: int = 1000, cost: float | None = None) -> common_pb2.TokenUsage:
    return common_pb2.TokenUsage(calls=1, prompt_tokens=tokens, completion_tokens=tokens // 10, cost_usd=cost)


def task() -> task_pb2.TaskDescription:
    description = task_pb2.TaskDescription(
        name="gpt-laptop",
        title="GPT pre-training, preset laptop",
        documentation="A small GPT is trained from scratch for four seconds on a virtual clock.",
        objective=common_pb2.Objective(
            metric="val_bpb",
            direction=common_pb2.DIRECTION_MINIMIZE,
            unit="bits/byte",
            documentation="Validation loss.",
        ),
        budget_clock="virtual clock (analytic cost)",
        capacity=2,
        has_held_out_split=True,
        deterministic=True,
        identity={"corpus": "9d3a51", "tokenizer": "77b0c2"},
        hardware="cpu, 1 thread",
    )
    description.budget.FromSeconds(4)
    for name, default, low, high, words in (
        ("TOTAL_BATCH_SIZE", 8192, 512, 65536, "Tokens of one optimiser step."),
        ("WEIGHT_DECAY", 0.2, 0.0, 1.0, "Pull of weights towards zero."),
    ):
        parameter = description.space.parameters.add(
            name=name, kind=1 if isinstance(default, int) else 2, minimum=low, maximum=high, documentation=words
        )
        parameter.default_value.CopyFrom(configuration_to_proto({name: default}).values[name])
    pattern = description.space.parameters.add(name="WINDOW_PATTERN", kind=common_pb2.PARAMETER_KIND_TEXT)
    pattern.default_value.string_value = "SSSL"
    return description


def tell_run(name: str, title: str, levels: bool, *, trials: int = 30, scripted: bool = True) -> RunRecord:
    """A finished run, with a campaign where ``levels`` is true."""
    script, rng = Script(f"runs/{name}"), random.Random(3)
    spec = trace_pb2.RunSpec(task="gpt", max_trials=trials, seed=7, display_name=title, confirmation_seeds=3)
    script.say(run_created=trace_pb2.RunCreated(spec=spec, task=task()))
    script.say(run_state_changed=trace_pb2.RunStateChanged(from_state=1, to_state=2))
    configuration = {"TOTAL_BATCH_SIZE": 8192, "WEIGHT_DECAY": 0.2, "WINDOW_PATTERN": "SSSL"}
    incumbent, best = 2.0512, 2.0512
    if levels:
        policy = outer_pb2.CampaignPolicy(levels=[outer_pb2.LEVEL_CONFIGURATION, outer_pb2.LEVEL_MECHANISM])
        script.tell(campaign_created=outer_pb2.CampaignCreated(run=script.run, policy=policy))
    for number in range(trials + 1):
        changes = [{"TOTAL_BATCH_SIZE": 16384}, {"WEIGHT_DECAY": 0.1}, {"WINDOW_PATTERN": "SSLL"}][number % 3]
        metric = 2.0512 + (0.19 if number % 3 == 0 else rng.uniform(-0.004, 0.012))
        changed = levels and number > 10 and number % 3 == 0
        if changed:
            changes, metric = {"TOTAL_BATCH_SIZE": 4096 if number < 20 else 2048}, best - rng.uniform(0.005, 0.05)
        trial(script, number, {} if number == 0 else changes, configuration, HOSTILE if number == 2 else "", changed)
        call = trace_pb2.ModelCalled(
            purpose="propose",
            model="scripted-researcher" if scripted else "a-model",
            usage=usage(cost=None if scripted else 0.002),
            scripted=scripted,
        )
        script.say(model_called=call)
        if changed:
            script.say(
                decision_changed=trace_pb2.DecisionChanged(
                    mechanism=f"{script.run}/mechanisms/turn-round",
                    hook=trace_pb2.MECHANISM_HOOK_REVISE,
                    trial=number,
                    before="TOTAL_BATCH_SIZE=16384",
                    after="TOTAL_BATCH_SIZE=4096",
                )
            )
        failed = number == 8
        result = task_pb2.EvaluationResult(outcome=2 if failed else 1, side_metrics={"peak_memory_mb": 512.0})
        if failed:
            result.message = "the training loss exploded at step 9"
        else:
            result.metric = 2.0512 if number == 0 else metric
        result.elapsed.FromMilliseconds(4200)
        script.say(trial_evaluated=trace_pb2.TrialEvaluated(number=number, result=result))
        kept = number == 0 or (not failed and metric < incumbent)
        decided = trace_pb2.TrialDecided(number=number, kept=kept, new_best=kept)
        if kept and number:
            incumbent = best = metric
            configuration |= changes
        script.say(trial_decided=decided)
        if levels and number and number % 5 == 0:
            consult(script, number)
    confirmation = trace_pb2.Confirmation(
        seeds=[101, 102, 103], mean_gain=0.8 * (2.0512 - best), gain_low=0.5 * (2.0512 - best), split=2,
        gain_high=1.1 * (2.0512 - best), search_gain=2.0512 - best,
    )  # fmt: skip
    script.say(run_confirmed=trace_pb2.RunConfirmed(confirmation=confirmation))
    script.say(run_state_changed=trace_pb2.RunStateChanged(to_state=5, reason="its trials are spent"))
    return RunRecord(script.events, script.campaign)


def trial(script: Script, number: int, changes: dict, configuration: dict, hypothesis: str, changed: bool) -> None:
    message = trace_pb2.Trial(
        name=f"{script.run}/trials/{number}",
        number=number,
        state=trace_pb2.TRIAL_STATE_PROPOSED,
        configuration=configuration_to_proto(configuration | changes),
        changes=configuration_to_proto(changes),
        hypothesis=hypothesis or ("" if number == 0 else "a larger batch makes gradients less noisy"),
        origin=1 if number == 0 else 2,
        budget_fraction=1.0,
        changed_by=["turn-round"] if changed else [],
    )
    script.say(trial_proposed=trace_pb2.TrialProposed(trial=message))
    script.say(trial_started=trace_pb2.TrialStarted(number=number, attempt=1, seed=7, budget_fraction=1.0))
    progress = task_pb2.EvaluationProgress(fraction=0.5, step=11, metrics={"train_loss": 4.2}, phase="training")
    script.say(trial_progressed=trace_pb2.TrialProgressed(number=number, progress=progress))


def turn(round_: int, answer: str, prompt: list[str]) -> outer_pb2.ResearchTurn:
    messages = [common_pb2.ChatMessage(role="user", content=text) for text in prompt]
    message = outer_pb2.ResearchTurn(
        round=round_, answer=answer, usage=usage(9000), model="scripted-researcher", scripted=True, prompt=messages
    )
    message.latency.FromMilliseconds(800)
    return message


def consult(script: Script, number: int) -> None:
    """What the outer loop does at a checkpoint."""
    script.tell(cycle_started=outer_pb2.CycleStarted(cycle=number // 5, decided_trials=number, levels=[1]))
    freeze = [trace_pb2.FreezeReason(parameter="WEIGHT_DECAY", reason="three trials without a gain")]
    script.tell(
        analysis_finished=outer_pb2.AnalysisFinished(
            turn=turn(0, "{}", ["Look at the trace."]),
            observation="The same three directions come round and round.",
            freeze=freeze,
            strategy="explore",
            guidance="Leave the batch size alone.",
            applied=True,
        )
    )
    script.say(
        search_config_updated=trace_pb2.SearchConfigUpdated(
            search_config=trace_pb2.SearchConfig(frozen=["WEIGHT_DECAY"], strategy="explore"), newly_frozen=freeze
        )
    )
    if number == 10:
        session = "campaigns/c1/researchSessions/1"
        script.tell(research_started=outer_pb2.ResearchStarted(session=session, after_trial=10))
        asked: list[str] = []
        for index, words in enumerate(("explore", "critique", "specify", "generate"), 1):
            asked.append(f"Round {words}: {HOSTILE}")
            answer = f'{{"choice": "turn-round", "reason": "because of {words}"}}'
            script.tell(
                round_finished=outer_pb2.RoundFinished(
                    session=session, turn=turn(index, answer, asked), summary=f"It {words}s."
                )
            )
        report = trace_pb2.GateReport(
            verdict=1, stage=5, text="turn-round: accepted at stage effect", hooks=[5], replayed_trials=10
        )
        script.tell(
            mechanism_judged=outer_pb2.MechanismJudged(session=session, attempt=1, report=report, source=SOURCE)
        )
        mechanism = trace_pb2.Mechanism(
            name=f"{script.run}/mechanisms/turn-round",
            summary="Turn round: when growing the batch keeps failing, halve it instead.",
            source=SOURCE,
            source_sha256="ab" * 32,
            hooks=[5],
            report=report,
            sandbox_layers=["rlimits", "no_new_privs", "seccomp"],
            installed_after_trial=10,
            author="scripted researcher",
            state=1,
        )
        script.say(mechanism_installed=trace_pb2.MechanismInstalled(mechanism=mechanism))
        script.tell(
            research_finished=outer_pb2.ResearchFinished(
                session=session, outcome=1, message="installed at the first attempt", mechanism="turn-round"
            )
        )
    if number > 10:
        count = trace_pb2.HookEffect(hook=5, calls=5, changed=2)
        count.time.FromMicroseconds(2500)
        counts = trace_pb2.MechanismHookCounts(mechanism=f"{script.run}/mechanisms/turn-round", hooks=[count])
        script.say(hooks_counted=trace_pb2.HooksCounted(trial=number, mechanisms=[counts]))
    script.tell(cycle_finished=outer_pb2.CycleFinished(cycle=number // 5))


@pytest.fixture(scope="session")
def bare() -> RunRecord:
    """A level-1 run."""
    return tell_run("bare1", "level 1", False)


@pytest.fixture(scope="session")
def bilevel() -> RunRecord:
    """A run with levels 1.5 and 2, answered by the scripted researcher."""
    return tell_run("bi1", "bilevel", True)
