"""An index of the effects of which it is not known yet what became of them

Revision: 0007, after 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

UNSETTLED = "state IN ('sending', 'in_doubt')"


def upgrade() -> None:
    where = sa.text(UNSETTLED)
    op.create_index("ix_effects_unsettled", "effects", ["case_id"], sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    op.drop_index("ix_effects_unsettled", "effects")
