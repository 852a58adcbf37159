"""Indexes for what is stuck, due by step, a demo, and events by kind; on PostgreSQL room in the hot pages, early cleaning

Revision: 0003, after 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

DUE = "state IN ('pending', 'retrying')"
STUCK = "state = 'failed' OR (state = 'escalated' AND step <> 'review')"
HOT = ("cases", "effects", "attempts", "counters", "installation", "workers")
ROOM = "fillfactor = 75, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02"


def upgrade() -> None:
    _create("ix_cases_stuck", "since", "number", where=STUCK)
    op.drop_index("ix_cases_due", table_name="cases")
    _create("ix_cases_due", "step", "due_at", "id", where=DUE)
    _create("ix_cases_demo", "id", where="demo")
    op.drop_index("ix_events_at", table_name="events")
    op.create_index("ix_events_kind_at", "events", ["kind", "at"])
    if op.get_bind().dialect.name == "postgresql":
        for table in HOT:
            op.execute(f"ALTER TABLE {table} SET ({ROOM})")


def downgrade() -> None:
    op.drop_index("ix_events_kind_at", table_name="events")
    op.create_index("ix_events_at", "events", ["at"])
    op.drop_index("ix_cases_demo", table_name="cases")
    op.drop_index("ix_cases_due", table_name="cases")
    _create("ix_cases_due", "due_at", "id", where=DUE)
    op.drop_index("ix_cases_stuck", table_name="cases")
    if op.get_bind().dialect.name == "postgresql":
        names = ", ".join(one.split(" = ")[0] for one in ROOM.split(", "))
        for table in HOT:
            op.execute(f"ALTER TABLE {table} RESET ({names})")


def _create(name: str, *columns: str, where: str) -> None:
    op.create_index(name, "cases", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
