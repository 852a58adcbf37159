"""The README says what is so: every setting is listed, every picture and file it names is there."""

import re
from pathlib import Path

import pytest

from core import demo
from core.settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_listed_with_its_default(name: str) -> None:
    field = Settings.model_fields[name]
    line = next((line for line in README.splitlines() if line.startswith(f"| `COUNTERSIGN_{name.upper()}`")), "")

    assert str(field.description) in line
    if isinstance(field.default, (int, float)) and not isinstance(field.default, bool):
        assert f"`{field.default}`" in line


def test_every_file_that_the_readme_links_to_is_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]

    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_whoever_the_readme_acts_as_is_in_the_demo() -> None:
    named = set(re.findall(r"--as (\w+@demo\.example)", README))

    assert {"leo@demo.example", "lola@demo.example"} <= named <= {one.email for one in demo.PEOPLE}
