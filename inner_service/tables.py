"""The tables of the inner service's database, beside the event log's own.

The log is the truth. ``runs``, ``trials`` and ``mechanisms`` repeat what it says, written in the same transaction, so
that neither lists nor opening a run need read whole traces. Lessons outlive runs and have no log.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import JSON, Boolean, Column, ForeignKey, Integer, MetaData, String, Table, text

from service_kit import eventlog, leases
from service_kit.database import Moment
from service_kit.migrations import Schema

metadata = MetaData()

runs = Table(
    "runs",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("request_id", String(64), unique=True),
    Column("state", String(16), nullable=False, index=True),
    Column("owner", String(64), nullable=False, server_default=text("''"), index=True),
    Column("created", JSON, nullable=False),  # what never changes: the spec and the task's description
    Column("head", JSON, nullable=False),  # what does
    Column("fingerprint", String(16)),  # of the code that wrote this run's rows; rows of other code are written anew
)
trials = Table(
    "trials",
    metadata,
    Column("run", String(64), ForeignKey("runs.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("state", String(16), nullable=False),
    Column("decision", Integer),  # its place in the order of decisions, counted from 0
    Column("document", JSON, nullable=False),
)
mechanisms = Table(
    "mechanisms",
    metadata,
    Column("run", String(64), ForeignKey("runs.id"), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("document", JSON, nullable=False),
)
lessons = Table(
    "lessons",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("request_id", String(64), unique=True),
    Column("statement", String(2000), nullable=False),
    Column("task", String(255), nullable=False, index=True),
    Column("hardware", String(255), nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("create_time", Moment, nullable=False),
    Column("update_time", Moment, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("failure", String(16), nullable=False),
    Column("parameters", JSON, nullable=False),
    Column("author", String(255), nullable=False),
    Column("scripted", Boolean, nullable=False),
    Column("imported", Boolean, nullable=False),
    Column("times_shown", Integer, nullable=False, default=0),
    Column("times_helped", Integer, nullable=False, default=0),
    Column("times_cited", Integer, nullable=False, default=0),
    Column("times_cited_kept", Integer, nullable=False, default=0),
)
SCHEMA = Schema("inner", Path(__file__).with_name("versions"), (eventlog.metadata, leases.metadata, metadata))
"""All tables of the service's database, and the revisions that lead to them."""
