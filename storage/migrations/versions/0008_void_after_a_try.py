"""An effect may be void after tries that surely did nothing

Revision: 0008, after 0007
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _rule("state <> 'planned' OR attempts = 0")


def downgrade() -> None:
    op.execute("UPDATE effects SET state = 'rejected' WHERE state = 'void' AND attempts > 0")
    _rule("state NOT IN ('planned', 'void') OR attempts = 0")


def _rule(condition: str) -> None:
    name = op.f("ck_effects_unsent")
    with op.batch_alter_table("effects") as effects:
        effects.drop_constraint(name, type_="check")
        effects.create_check_constraint(name, condition)
