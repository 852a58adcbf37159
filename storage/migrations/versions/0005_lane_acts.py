"""Why lanes were paused and resumed; which receivers a worker has

Revision: 0005, after 0004
"""

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "lane_acts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("lane", AutoString(length=64), nullable=False),
        sa.Column("person_id", sa.Uuid(), nullable=True),
        sa.Column("why", AutoString(length=500), nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_lane_acts_person_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lane_acts")),
    )
    op.add_column("workers", sa.Column("receivers", AutoString(length=1_000), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("workers", "receivers")
    op.drop_table("lane_acts")
