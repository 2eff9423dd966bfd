"""Which settings of this process are not valid, all at once: what a service would say one after the other."""

from __future__ import annotations

from collections.abc import Callable

from clients.dashboard.door.settings import DoorSettings
from service_kit import logs
from service_kit.errors import InvalidArgument, Violation
from service_kit.llm.prices import Prices
from service_kit.patience import PatienceSettings
from service_kit.security.channels import ChannelSecurity
from service_kit.security.quota import Quota
from service_kit.server import ServerSettings
from service_kit.settings import ModelSettings, PathSettings
from service_kit.telemetry.serving import MetricsSettings

_CHECKS: tuple[Callable[[], object], ...] = (
    lambda: Prices.of(ModelSettings.load()),
    PathSettings.load,
    PatienceSettings.load,
    lambda: ServerSettings.secured("127.0.0.1:0"),
    Quota.load,
    MetricsSettings.load,
    ChannelSecurity.load,
    DoorSettings.load,
    logs.chosen_level,
    logs.chosen_format,
)


def wrong_settings() -> list[Violation]:
    """One for each wrong variable, whatever the others are."""
    wrong: list[Violation] = []
    for check in _CHECKS:
        try:
            check()
        except InvalidArgument as error:
            wrong += error.violations
    return wrong
