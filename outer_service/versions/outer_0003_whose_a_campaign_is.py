"""Whose a campaign is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "outer_0003_whose_a_campaign_is"
down_revision = "outer_0002_snapshots_and_leases"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("campaigns", schema=None) as batch_op:
        batch_op.add_column(sa.Column("owner", sa.String(length=64), server_default=sa.text("''"), nullable=False))
        batch_op.create_index(batch_op.f("ix_campaigns_owner"), ["owner"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("campaigns", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_campaigns_owner"))
        batch_op.drop_column("owner")
