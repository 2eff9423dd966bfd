"""Lessons say what they are about, who wrote them, and how often they were cited."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "inner_0002_lessons_say_more"
down_revision = "inner_0001_first"
branch_labels = None
depends_on = None

_OF_OLD_LESSONS: dict[str, tuple[sa.types.TypeEngine[Any], Any]] = {
    "kind": (sa.String(length=16), "experiment"),
    "failure": (sa.String(length=16), ""),
    "parameters": (sa.JSON(), []),
    "author": (sa.String(length=255), ""),
    "scripted": (sa.Boolean(), False),
    "imported": (sa.Boolean(), False),
    "times_cited": (sa.Integer(), 0),
    "times_cited_kept": (sa.Integer(), 0),
}
"""New columns with what holds for lessons that are there already."""
_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    with op.batch_alter_table("lessons", schema=None) as batch_op:
        batch_op.add_column(sa.Column("update_time", _MOMENT, nullable=True))
        for name, (kind, _) in _OF_OLD_LESSONS.items():
            batch_op.add_column(sa.Column(name, kind, nullable=True))

    created, updated = sa.column("create_time", _MOMENT), sa.column("update_time", _MOMENT)
    columns: list[sa.ColumnClause[Any]] = [sa.column(name, kind) for name, (kind, _) in _OF_OLD_LESSONS.items()]
    lessons = sa.table("lessons", created, updated, *columns)
    old = {name: value for name, (_, value) in _OF_OLD_LESSONS.items()}
    op.execute(lessons.update().values(update_time=lessons.c.create_time, **old))

    with op.batch_alter_table("lessons", schema=None) as batch_op:
        batch_op.alter_column("update_time", existing_type=_MOMENT, nullable=False)
        for name, (kind, _) in _OF_OLD_LESSONS.items():
            batch_op.alter_column(name, existing_type=kind, nullable=False)


def downgrade() -> None:
    with op.batch_alter_table("lessons", schema=None) as batch_op:
        for name in ("update_time", *_OF_OLD_LESSONS):
            batch_op.drop_column(name)
