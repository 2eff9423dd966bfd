"""Clients of Bilevel Autoresearch: a typed library, a local stack, reports and the ``bilevel`` command.

Public names load on first use, so that a command line which only prints its help imports none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clients.blocking import BlockingInnerClient, BlockingOuterClient, read_run
    from clients.campaign_history import CampaignHistory
    from clients.history import RunHistory
    from clients.inner import InnerClient
    from clients.local_stack import LocalStack, StackSettings
    from clients.optuna_study import warm_start
    from clients.outer import OuterClient
    from clients.report.record import RunRecord, collect
    from service_kit.errors import RemoteError

__all__ = [
    "BlockingInnerClient",
    "BlockingOuterClient",
    "CampaignHistory",
    "InnerClient",
    "LocalStack",
    "OuterClient",
    "RemoteError",
    "RunHistory",
    "RunRecord",
    "StackSettings",
    "collect",
    "read_run",
    "warm_start",
]

_HOMES = {
    "BlockingInnerClient": "clients.blocking",
    "BlockingOuterClient": "clients.blocking",
    "CampaignHistory": "clients.campaign_history",
    "InnerClient": "clients.inner",
    "LocalStack": "clients.local_stack",
    "OuterClient": "clients.outer",
    "RemoteError": "service_kit.errors",
    "RunHistory": "clients.history",
    "RunRecord": "clients.report.record",
    "StackSettings": "clients.local_stack",
    "collect": "clients.report.record",
    "read_run": "clients.blocking",
    "warm_start": "clients.optuna_study",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
