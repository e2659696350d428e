"""For every test: a log watched for unexpected warnings; at the end, the skips and why, and what took long."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import chain

import pytest
from hypothesis import HealthCheck, settings

# How fast examples are drawn says nothing: other tests may run beside these.
settings.register_profile("mdevfs", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mdevfs")


class Keeper(logging.Handler):
    """Keeps the records it is given."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(autouse=True)
def _watched_log(request: pytest.FixtureRequest) -> Iterator[list[logging.LogRecord]]:
    """Fails a test during which `mdevfs` logged at WARNING or above, unless it asks for `expected_logs`."""
    logger, keeper = logging.getLogger("mdevfs"), Keeper()
    logger.addHandler(keeper)
    try:
        yield keeper.records
    finally:
        logger.removeHandler(keeper)
    if keeper.records and "expected_logs" not in request.fixturenames:
        told = "\n".join(f"{record.levelname} {record.name}: {record.getMessage()}" for record in keeper.records)
        pytest.fail(f"logged, and the test does not use the fixture expected_logs:\n{told}", pytrace=False)


@pytest.fixture
def expected_logs(_watched_log: list[logging.LogRecord]) -> list[logging.LogRecord]:
    """The records that `mdevfs` logged at WARNING or above so far; asking for it permits them."""
    return _watched_log


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="the long form of the tests that do the same again and again")
    parser.addoption("--timings", action="store_true", help="tell at the end what the slowest files of tests took")


@pytest.fixture
def soak(request: pytest.FixtureRequest) -> bool:
    """Whether the long form was asked for."""
    return bool(request.config.getoption("--soak"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    if reasons:
        terminalreporter.section(f"{len(skipped)} skipped, because")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count:>5}  {reason}")
    if config.getoption("--timings"):
        terminalreporter.section("the slowest files")
        spent = defaultdict[str, float](float)
        for report in chain.from_iterable(terminalreporter.stats.values()):
            if isinstance(report, pytest.TestReport):
                spent[report.location[0]] += report.duration
        for name, seconds in sorted(spent.items(), key=lambda one: -one[1])[:12]:
            terminalreporter.line(f"timing: {name} {seconds:.1f} s")
