"""The linters run in the same way before a commit, by hand and in CI."""

from __future__ import annotations

import re

from tests.support.paths import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()


def recipe(target: str) -> list[str]:
    """The commands of a target, without the environment in which they are."""
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert found is not None, target
    return [line.strip().removeprefix("$(BIN)/") for line in found[1].splitlines()]


def test_make_lint_has_no_rules_of_its_own() -> None:
    # They are in pyproject.toml, where editors find them as well.
    assert recipe("lint") == ["ruff check .", "ruff format --check .", "mypy"]


def test_a_commit_is_checked_by_make_lint() -> None:
    config = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"^ +entry: (.*)$", config, re.MULTILINE) == ["make lint"]
    assert re.findall(r"^ +- repo: (.*)$", config, re.MULTILINE) == ["local"]


def test_ci_makes_all_checks_and_no_others() -> None:
    called = re.findall(r"^make ([\w-]+)", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert called == ["check-install", "lint", "test", "test-long"]
    for target in called:
        assert recipe(target)
