"""Every metric that the services expose. ``docs/operations.md`` has the same list; a test compares them.

No label ever holds a run, a trial, a token or a text: methods, codes, outcomes, hooks and purposes are few.
"""

from __future__ import annotations

from service_kit.telemetry.instruments import Counter, Gauge, Histogram, Instrument

RPCS = Counter("bilevel_rpcs_total", "1", "Calls answered.", ("method", "code"))
RPC_SECONDS = Histogram("bilevel_rpc_seconds", "s", "From a call's arrival to its end, streams included.", ("method",))
RPCS_RUNNING = Gauge("bilevel_rpcs_running", "1", "Calls that are being answered.", ("method",))
WATCHERS = Gauge("bilevel_watchers", "1", "Streams that follow a trace or a campaign.")
STORE_SECONDS = Histogram("bilevel_store_transaction_seconds", "s", "A writing transaction, waiting for it included.")
LEASES = Gauge("bilevel_leases_held", "1", "Runs, trials and campaigns that this process works on.")
MODEL_CALLS = Counter("bilevel_model_calls_total", "1", "Calls of the language model.", ("purpose", "result"))
MODEL_SECONDS = Histogram("bilevel_model_seconds", "s", "From asking the model to its answer.", ("purpose",))
MODEL_TOKENS = Counter("bilevel_model_tokens_total", "tokens", "Tokens read and written.", ("kind",))
MODEL_COST = Counter("bilevel_model_cost_dollars_total", "US dollars", "What the calls cost, where the price is known.")
RUNS_DRIVEN = Gauge("bilevel_runs_driven", "1", "Runs that this inner service drives.")
CAMPAIGNS = Gauge("bilevel_campaigns_supervised", "1", "Campaigns that this outer service supervises.")
TRIALS = Counter("bilevel_trials_total", "1", "Evaluated trials.", ("outcome",))
TRIAL_SECONDS = Histogram("bilevel_trial_seconds", "s", "An evaluation as the task measured it.", ("outcome",))
DECISIONS = Counter("bilevel_trial_decisions_total", "1", "Trials kept, discarded or rejected.", ("decision",))
EVALUATIONS = Gauge("bilevel_evaluations_running", "1", "Evaluations that a task works on for this inner service.")
WAITING = Gauge("bilevel_evaluations_waiting", "1", "Evaluations that wait for a place at a busy task.")
HOOK_CALLS = Counter("bilevel_mechanism_calls_total", "1", "Calls of mechanisms' hooks.", ("hook",))
HOOK_SECONDS = Counter("bilevel_mechanism_seconds_total", "s", "Time in mechanisms' hooks.", ("hook",))
HOOK_FAILURES = Counter("bilevel_mechanism_failures_total", "1", "Mechanisms suspended.", ("hook", "kind"))

ALL: tuple[Instrument, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Instrument))
