"""What the commands of the terminal share: their options, an open store, one clear line for every refusal."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer
from sqlalchemy.exc import DBAPIError

from core import acting, errors, installation, logs, outage, people
from core import settings as settings_
from core.permissions import Who
from core.settings import Settings
from storage import database, troubles

As = Annotated[str, typer.Option("--as", metavar="EMAIL", help="Who does this.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
CaseId = Annotated[str, typer.Argument(metavar="ID", help="The case's id or its number.")]
Version = Annotated[
    int | None, typer.Option("--version", min=1, help="The version that was shown; refused when the case has moved.")
]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the record.")]


@contextmanager
def opened(*, create: bool = False, moved: bool = False) -> Iterator[Settings]:
    """Settings and an open store."""
    with refusals() as settings:
        installation.open_(settings, create=create, moved=moved)
        yield settings


@contextmanager
def refusals() -> Iterator[Settings]:
    """Settings; every refusal ends with one line on stderr and exit 1."""
    try:
        settings = settings_.load()
        logs.set_up(settings.log_level)
        yield settings
    except outage.Away as error:
        refuse(str(outage.not_saved(error)))
    except (errors.CountersignError, database.StoreError) as error:
        refuse(str(error))
    except DBAPIError as error:
        refuse(f"not saved: the database did not answer ({troubles.code_of(error)})")
    except BrokenPipeError:
        raise  # Nobody reads any more: no refusal of ours.
    except OSError as error:
        refuse(f"{error.filename or 'a file'} cannot be used: {error.strerror or type(error).__name__}")
    except UnicodeError:
        refuse("what was given holds bytes that are not UTF-8 text")
    finally:
        database.use(None)


def done(act: Callable[[Who], acting.Done], email: str, as_json: bool) -> None:
    done = act(people.find(email))
    if as_json:
        print_json(
            {
                "case": str(done.case_id), "number": done.number, "state": done.state, "step": done.step,
                "outcome": done.outcome, "version": done.version, "message": done.message,
            }
        )  # fmt: skip
    else:
        print(done.message)


def refuse(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    raise typer.Exit(1)


def print_json(value: Any, indent: int | None = 2) -> None:
    print(json.dumps(value, indent=indent, ensure_ascii=False))
