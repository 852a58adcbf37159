"""`python -m storage.migrations.check`: do the migrations, run on an empty database, give exactly the tables?"""

import sys
import tempfile
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlmodel import SQLModel

import storage.tables  # noqa: F401 - fills the metadata.
from storage import database, schema


def differences(url: str) -> list[str]:
    """What autogenerate would still change after all migrations ran on the empty database at `url`."""
    opened = schema.open_store(url, create=True)
    with opened.reader.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = compare_metadata(context, SQLModel.metadata)
    database.use(None)
    return [str(change) for change in found]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        changes = differences(f"sqlite:///{Path(folder) / 'check.db'}")
    for change in changes:
        print(change, file=sys.stderr)
    print("migrations and tables differ" if changes else "migrations and tables agree")
    sys.exit(1 if changes else 0)
