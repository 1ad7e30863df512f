"""What a release consists of says the same everywhere, and what builds it is pinned."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import hist2scrna

ROOT = Path(__file__).resolve().parent.parent
ENTRY = ROOT / ".github" / "ecosystem" / "meta.yaml"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

pytestmark = pytest.mark.skipif(not ENTRY.exists(), reason="the source distribution has no .github")


@pytest.fixture(scope="module")
def settings() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def project(settings) -> dict:
    return settings["project"]


def test_no_link_of_the_readme_is_dead_on_the_page_of_a_registry(settings) -> None:
    text = readme = (ROOT / "README.md").read_text()
    for rule in settings["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    targets, before = (re.findall(r"\]\(([^)\s]+)\)", page) for page in (text, readme))
    assert len(targets) == len(before)
    assert [target for target in targets if not target.startswith("https://")] == []
    here = [target for target in before if not target.startswith("https://")]
    assert here and [target for target in here if not (ROOT / target).exists()] == []
    moved = [target for target in targets if "hist2scrna/raw/v" in target or "hist2scrna/blob/v" in target]
    assert [target.split("$HFPR_VERSION/")[1] for target in moved] == here
    assert re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)[0].startswith(f"{settings['project']['urls']['Source']}/raw/v")


def test_the_ecosystem_entry_is_of_this_version(project) -> None:
    entry = yaml.safe_load(ENTRY.read_text())
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert entry["version"] == citation["version"] == hist2scrna.__version__
    assert entry["license"] == citation["license"] == project["license"]
    assert entry["name"] == entry["install"]["pypi"] == project["name"]
    assert entry["project_home"] == project["urls"]["Source"]
    assert entry["documentation_home"] == project["urls"]["Documentation"]
    # The fields that the schema of the list requires, beside those above.
    assert entry["description"] and entry["tags"] and entry["contact"]
    assert entry["category"] == "ecosystem"
    target = entry["test_command"].removeprefix("make ")
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit(path) -> None:
    used = re.findall(r"uses: *(\S+)", path.read_text())
    assert used
    assert [name for name in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", name)] == []


def test_each_python_that_is_promised_is_tested(project) -> None:
    promised = {c.rpartition(" ")[2] for c in project["classifiers"] if re.search(r":: 3\.\d+$", c)}
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())["jobs"]
    assert {row["python"] for row in jobs["test"]["strategy"]["matrix"]["include"]} == promised
    assert set(jobs["wheel"]["strategy"]["matrix"]["python"]) == promised
    assert f">={min(promised, key=lambda v: int(v.partition('.')[2]))}" == project["requires-python"]
