"""Bad input at every way in. The error names the argument, what came, and what is allowed. Everything (arrays, states,
counters, options, files) is bit for bit as before. The same input again is refused again. A good call then gives the
same as without the bad ones.
The tables are in refused/, a file for each way in.
"""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from refused import (
    adapters,
    average,
    c,
    construction,
    files,
    functional,
    gradients,
    groups,
    names,
    numba,
    options,
    own_rules,
    step_options,
    torch,
    worlds,
)
from refused.case import Case

TABLES = (
    options,
    construction,
    step_options,
    gradients,
    groups,
    names,
    files,
    functional,
    own_rules,
    numba,
    adapters,
    torch,
    average,
)
CASES: list[Case] = [case for table in TABLES for case in table.CASES]


def check(case: Case, folder: Path) -> None:
    """Of two worlds that are the same, one has the bad call; both go on."""
    made = []
    for name in ("bad", "good"):
        (folder / name).mkdir()
        made.append(case.world(folder / name))
    bad, good = made
    before = worlds.seen(bad)
    assert before == worlds.seen(good)
    text = case.text.replace("{folder}", str(bad.folder))
    for _ in range(2):  # what was looked at once, and refused, is not taken for good
        with pytest.raises(case.error) as raised:
            case.call(bad)
        said = str(raised.value)
        assert re.match(".*".join(map(re.escape, text.split("…"))), said, re.S), said
        assert len(said) < 2500
        assert worlds.seen(bad) == before
    for world in made:
        world.go_on()
    assert worlds.seen(bad) == worlds.seen(good) != before


def test_every_case_is_another_one() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert len(CASES) - len(gradients.FIFTY_SEVENTH) >= 150


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_refused(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(("call", "code"), [row[1:] for row in c.CALLS], ids=[row[0] for row in c.CALLS])
def test_refused_in_c(call: Any, code: str, dtype: str, client: Any, tmp_path: Path) -> None:
    world = partial(worlds.in_c, client=client, dtype=dtype)
    check(Case("", world, call, worlds.Refused, f"FASTADAM_{code}"), tmp_path)
