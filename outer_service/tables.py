"""The tables of the outer service's database, beside the event log's own.

The log is the truth. ``campaigns`` repeats what it says, written in the same transaction, so that lists need not read
whole logs. ``library`` outlives campaigns and is written by the events that accept and judge mechanisms.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import JSON, Column, Integer, MetaData, String, Table, text

from service_kit import eventlog, leases
from service_kit.migrations import Schema

metadata = MetaData()

campaigns = Table(
    "campaigns",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("request_id", String(64), unique=True),
    Column("run", String(255), nullable=False, index=True),
    Column("state", String(16), nullable=False, index=True),
    Column("owner", String(64), nullable=False, server_default=text("''"), index=True),
    Column("document", JSON, nullable=False),
    Column("fingerprint", String(16)),  # of the code that wrote the row; one of other code is written anew
)
library = Table(
    "library",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("document", JSON, nullable=False),
)
SCHEMA = Schema("outer", Path(__file__).with_name("versions"), (eventlog.metadata, leases.metadata, metadata))
"""All tables of the service's database, and the revisions that lead to them."""
