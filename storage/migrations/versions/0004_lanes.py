"""Lanes, spending, prompt choices; due work by lane

Revision: 0004, after 0003
"""

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

DUE = "state IN ('pending', 'retrying')"
TIME, TEXT = UTCDateTime, AutoString


def upgrade() -> None:
    op.create_table(
        "lanes",
        sa.Column("name", TEXT(length=64), nullable=False),
        sa.Column("stopped_at", TIME(), nullable=True),
        sa.Column("stopped_by", TEXT(length=32), nullable=True),
        sa.Column("detail", TEXT(length=500), nullable=True),
        sa.Column("until", TIME(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("stops", sa.Integer(), nullable=False),
        sa.Column("probe", sa.Uuid(), nullable=True),
        sa.Column("probe_until", TIME(), nullable=True),
        sa.Column("paused_at", TIME(), nullable=True),
        sa.Column("paused_by", sa.Uuid(), nullable=True),
        sa.Column("paused_reason", TEXT(length=500), nullable=True),
        sa.ForeignKeyConstraint(["paused_by"], ["people.id"], name=op.f("fk_lanes_paused_by")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_lanes")),
    )
    op.create_table(
        "spending",
        sa.Column("day", TEXT(length=10), nullable=False),
        sa.Column("scope", TEXT(length=36), nullable=False),
        sa.Column("nano_dollars", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day", "scope", name=op.f("pk_spending")),
    )
    op.create_table(
        "prompt_choices",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workflow", TEXT(length=64), nullable=False),
        sa.Column("digest", TEXT(length=64), nullable=True),
        sa.Column("person_id", sa.Uuid(), nullable=False),
        sa.Column("why", TEXT(length=5_000), nullable=False),
        sa.Column("at", TIME(), nullable=False),
        sa.ForeignKeyConstraint(["digest"], ["prompt_versions.digest"], name=op.f("fk_prompt_choices_digest")),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_prompt_choices_person_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prompt_choices")),
    )
    op.create_index("ix_prompt_choices_workflow_at", "prompt_choices", ["workflow", "at"])
    with op.batch_alter_table("prompt_versions") as versions:
        versions.add_column(sa.Column("written_by", sa.Uuid(), nullable=True))
        versions.add_column(sa.Column("why", TEXT(length=5_000), nullable=True))
        versions.create_foreign_key(op.f("fk_prompt_versions_written_by"), "people", ["written_by"], ["id"])
    op.drop_column("workers", "trouble")
    op.drop_column("workers", "trouble_since")
    op.add_column("attempts", sa.Column("lane", TEXT(length=64), nullable=True))
    op.add_column("attempts", sa.Column("reason", sa.Text(), nullable=True))
    op.add_column("attempts", sa.Column("spent", sa.Integer(), nullable=False, server_default="0"))
    op.execute("UPDATE attempts SET spent = 1 WHERE kind NOT IN ('open', 'blocked', 'held', 'applied', 'ok')")
    op.add_column("attempts", sa.Column("retry", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("attempts", sa.Column("reserved_tokens", sa.BigInteger(), nullable=True))
    op.add_column("attempts", sa.Column("reserved_nano_dollars", sa.BigInteger(), nullable=True))
    op.add_column("effects", sa.Column("message", sa.Boolean(), nullable=False, server_default=sa.false()))
    # Until now there was one receiver, the ledger.
    op.add_column("cases", sa.Column("lane", TEXT(length=64), nullable=False, server_default="model"))
    op.execute("UPDATE cases SET lane = 'ledger' WHERE step IN ('apply', 'undo')")
    op.drop_index("ix_cases_due", table_name="cases")
    _due("lane", "step", "due_at", "id")


def downgrade() -> None:
    op.drop_index("ix_cases_due", table_name="cases")
    _due("step", "due_at", "id")
    op.drop_column("cases", "lane")
    op.drop_column("effects", "message")
    for name in ("reserved_nano_dollars", "reserved_tokens", "retry", "spent", "reason", "lane"):
        op.drop_column("attempts", name)
    op.add_column("workers", sa.Column("trouble", TEXT(length=500), nullable=True))
    op.add_column("workers", sa.Column("trouble_since", TIME(), nullable=True))
    with op.batch_alter_table("prompt_versions") as versions:
        versions.drop_constraint(op.f("fk_prompt_versions_written_by"), type_="foreignkey")
        versions.drop_column("why")
        versions.drop_column("written_by")
    for name in ("prompt_choices", "spending", "lanes"):
        op.drop_table(name)


def _due(*columns: str) -> None:
    op.create_index("ix_cases_due", "cases", columns, sqlite_where=sa.text(DUE), postgresql_where=sa.text(DUE))
