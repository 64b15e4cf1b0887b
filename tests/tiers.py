"""Which tests are quick, from one place: `slow_tests.txt`, which names what was measured to be slow, and the markers.

Bare `pytest` runs the quick tier on all cores: no network, daemon, GPU, ZenML, MLflow or BentoML, and no test function
that takes more than `QUICK_S` with all its parameters. Where tests, files, folders or markers are named, all of these
run. `pytest tests --measure` writes the list again, of all tests that it ran (in one process, without `-n`).
"""

from __future__ import annotations

import os
import re
import resource
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

QUICK_S = 0.5
"""CPU seconds of the test's process and of those it waited for, and its part of what fixtures of its module take."""
WAITING_S = 0.9
"""Seconds beside these that the test waits, with all its parameters: measure where nothing else runs."""
LIST = Path(__file__).with_name("slow_tests.txt")
LONG = ("integration", "slow", "gpu", "cluster", "container")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--measure", action="store_true", help=f"measure the tests that run and write {LIST.name} again")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("measure"):
        config.pluginmanager.register(_Measured(), "measured")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Before xdist looks at the number of processes; those that it starts come here too, and start none."""
    if hasattr(config, "workerinput"):
        return
    if _is_bare(config) and config.pluginmanager.hasplugin("xdist") and config.option.numprocesses is None:
        config.option.numprocesses = os.cpu_count()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Bare `pytest` does not import files that are marked long as a whole: what they need takes seconds."""
    if not _is_bare(config) or collection_path.suffix != ".py":
        return None
    marks = re.search(r"^pytestmark = .*$", collection_path.read_text("utf-8"), re.MULTILINE)
    return True if marks and any(f"mark.{name}" in marks[0] for name in LONG) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark slow tests; of bare `pytest` keep the quick ones; else let files that take long come first."""
    slow = set(LIST.read_text("utf-8").split())
    for item in items:
        if _function(item) in slow:
            item.add_marker("slow")
    is_long = {item: any(item.get_closest_marker(name) for name in LONG) for item in items}
    if _is_bare(config):
        config.hook.pytest_deselected(items=[item for item in items if is_long[item]])
        items[:] = [item for item in items if not is_long[item]]
        return
    ranks: dict[Path, int] = defaultdict(int)  # by file: a file's tests, which share fixtures, stay together
    for item in items:
        rank = 2 if item.get_closest_marker("cluster") else int(is_long[item])
        ranks[item.path] = max(ranks[item.path], rank)
    items.sort(key=lambda item: -ranks[item.path])


def _is_bare(config: pytest.Config) -> bool:
    """Whether nothing is named: no test, file, folder, marker or word."""
    named = config.getoption("markexpr") or config.getoption("keyword") or config.getoption("measure")
    if hasattr(config, "workerinput"):
        return bool(config.workerinput["bare"])
    return not named and config.args_source is not pytest.Config.ArgsSource.ARGS


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """A process of xdist is given its arguments by name."""
    node.workerinput["bare"] = _is_bare(node.config)


def _function(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0].removeprefix("tests/")


class _Measured:
    """CPU seconds by test function, all parameters together."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.waiting: dict[str, float] = defaultdict(float)
        self.of_fixtures: dict[object, float] = {}
        self.fixtures: dict[str, set[object]] = defaultdict(set)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: pytest.FixtureRequest) -> Iterator[None]:
        before = _cpu_s()
        try:
            return (yield)
        finally:
            if fixturedef.scope == "function":
                self.seconds[_function(request.node)] += _cpu_s() - before
            elif fixturedef.scope != "session":
                self.of_fixtures[fixturedef] = _cpu_s() - before

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        before, began = _cpu_s(), time.monotonic()
        try:
            return (yield)
        finally:
            if not any(item.get_closest_marker(name) for name in LONG if name != "slow"):
                worked = _cpu_s() - before
                self.seconds[_function(item)] += worked
                self.waiting[_function(item)] += time.monotonic() - began - worked
                self.fixtures[_function(item)].update(
                    found[-1]
                    for found in item._fixtureinfo.name2fixturedefs.values()  # type: ignore[attr-defined]
                )

    def pytest_sessionfinish(self) -> None:
        slow = set(LIST.read_text("utf-8").split()) - self.fixtures.keys()
        users = Counter(one for fixtures in self.fixtures.values() for one in fixtures)
        for function, fixtures in self.fixtures.items():
            shared = sum(self.of_fixtures.get(one, 0.0) / users[one] for one in fixtures)
            if self.seconds[function] + shared > QUICK_S or self.waiting[function] > WAITING_S:
                slow.add(function)
        LIST.write_text("".join(f"{function}\n" for function in sorted(slow)), "utf-8")


def _cpu_s() -> float:
    """Of this process and of those it has waited for."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )
