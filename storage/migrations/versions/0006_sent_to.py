"""Where effects were sent

Revision: 0006, after 0005
"""

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("effects", sa.Column("sent_to", AutoString(length=16), nullable=True))


def downgrade() -> None:
    op.drop_column("effects", "sent_to")
