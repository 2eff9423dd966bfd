"""Which role each method needs. Whatever is not listed here is refused: a new RPC starts locked."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Role(StrEnum):
    """What a token lets its holder do. Roles do not imply each other: a token names each one that it has."""

    READ = "read"
    """Look at tasks, runs, traces, campaigns, lessons and the library."""
    DRIVE = "drive"
    """Create and steer runs and campaigns, and spend what they cost."""
    INSTALL = "install"
    """Hand over source that a service then runs in its sandbox."""


OPEN = frozenset({"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch", "/grpc.health.v1.Health/List"})
"""Methods that need no token, so that an orchestrator can ask whether a server is alive."""

_READ = {
    "bilevel.v1.TaskService": ("Describe", "Validate"),
    "bilevel.v1.InnerLoopService": (
        "ListTasks", "GetRun", "ListRuns", "GetTrial", "ListTrials", "WatchTrace", "DescribeSearch", "ListMechanisms",
        "ListLessons", "GetLesson",
    ),
    "bilevel.v1.OuterLoopService": (
        "GetCampaign", "ListCampaigns", "WatchCampaign", "ListResearchSessions", "ListLibraryEntries",
        "GetLibraryEntry", "PreviewPrompt",
    ),
    "grpc.reflection.v1alpha.ServerReflection": ("ServerReflectionInfo",),
    "grpc.reflection.v1.ServerReflection": ("ServerReflectionInfo",),
}  # fmt: skip
_DRIVE = {
    "bilevel.v1.TaskService": ("Evaluate",),
    "bilevel.v1.InnerLoopService": (
        "CreateRun", "StartRun", "PauseRun", "ResumeRun", "CancelRun", "Propose", "Evaluate", "Accept",
        "UpdateSearchConfig", "UninstallMechanism", "Remark", "CreateLesson", "DeleteLesson",
    ),
    "bilevel.v1.OuterLoopService": ("CreateCampaign", "CancelCampaign", "PauseCampaign", "ResumeCampaign"),
}  # fmt: skip
_INSTALL = {
    "bilevel.v1.InnerLoopService": ("CheckMechanism", "InstallMechanism"),
    "bilevel.v1.OuterLoopService": ("ImportLibraryEntry",),
}

METHODS: Mapping[str, Role] = {
    f"/{service}/{method}": role
    for role, services in ((Role.READ, _READ), (Role.DRIVE, _DRIVE), (Role.INSTALL, _INSTALL))
    for service, methods in services.items()
    for method in methods
}
"""Full method name to the role that it needs."""
