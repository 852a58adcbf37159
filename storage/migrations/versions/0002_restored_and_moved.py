"""Restored and moved installations

Revision: 0002, after 0001
"""

import sqlalchemy as sa
import sqlmodel.sql.sqltypes
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("installation", sa.Column("restored_at", sqlmodel.sql.sqltypes.UTCDateTime(), nullable=True))
    op.add_column("installation", sa.Column("reconciled_at", sqlmodel.sql.sqltypes.UTCDateTime(), nullable=True))
    op.add_column("installation", sa.Column("moved_to", sqlmodel.sql.sqltypes.AutoString(length=500), nullable=True))


def downgrade() -> None:
    op.drop_column("installation", "moved_to")
    op.drop_column("installation", "reconciled_at")
    op.drop_column("installation", "restored_at")
