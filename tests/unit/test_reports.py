"""Every figure on a page comes from the JSON of the reports: `bench/pages.py` would write all pages as they stand."""

import pages
import pytest
from report_pages.drawing import apart
from report_pages.runs import WHY
from report_pages.source import Reports, spelled

PROGRAMS = {"steps", "rules", "bits", "whole-runs", "rows", "lowbit", "scaling", "doors", "stepping", "extras"}


@pytest.fixture(scope="module")
def reports():
    return Reports()


def test_all_reports_are_there(reports):
    assert set(pages.PAGES) == PROGRAMS <= reports.names


def test_pages_are_what_the_reports_give(reports):
    assert pages.stale(reports) == []


def test_a_figure_that_was_typed_is_found(reports):
    text = (pages.ROOT / "README.md").read_text()
    where = pages.ROOT / "README.md"
    blocks = [match[0] for match in pages.BLOCK.finditer(text)]
    assert blocks
    for block in blocks:
        begin, *_, end = block.splitlines()
        assert pages.filled(f"{begin}\n12 ns\n{end}", reports, where) == block


def test_runs_that_are_slower_have_a_reason(reports):
    where, runs = pages.ROOT / "README.md", reports["whole-runs"]["runs"]
    quick, slow, even = (
        {"seconds": s, "low": s - spread, "high": s + spread} for s, spread in ((1, 0.1), (2, 0.1), (1.1, 0))
    )
    made = Reports()
    made.read["whole-runs"] = {"runs": [{"case": "JAX, 64 hidden", "stock": quick, "fastadam": slow}]}
    for case, ours in (("B", even), ("C", even), ("D", slow), ("E", quick)):
        made.read["whole-runs"]["runs"].append({"case": case, "stock": quick, "fastadam": ours})
    assert pages.BLOCKS["slower-runs"](made, where)[1:] == [
        f"- JAX, 64 hidden (0.50×): {WHY['JAX']}.",
        "- B (0.91×); C (0.91×): the quartiles of the two overlap, so it may be noise.",
        "- D (0.50×): the reason is not known.",
    ]
    assert all(any(row["case"].startswith(start) for row in runs) for start in WHY)


def test_a_block_that_is_not_known_is_refused(reports):
    with pytest.raises(ValueError, match="no block is called 'step'; there are around"):
        pages.filled("<!-- reports: step -->\n<!-- end -->", reports, pages.ROOT / "README.md")


def test_pages_of_another_folder_leave_the_documentation_alone(reports, tmp_path):
    (tmp_path / "doors.json").write_text((reports.folder / "doors.json").read_text())
    [(path, text)] = pages.texts(Reports(tmp_path))
    assert path == tmp_path / "doors.md"
    assert "Machine and versions" in text
    (tmp_path / "doors.json").rename(tmp_path / "used.json")
    (tmp_path / "whole-runs.json").write_text((reports.folder / "whole-runs.json").read_text())
    [(_, text)] = pages.texts(Reports(tmp_path))
    assert 'src="pictures/whole-runs-light.svg"' in text  # not those of the documentation


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8192 hidden", "8,192 hidden"),
        ("100,000 of 512", "100,000 of 512"),
        ("v4, 10000128", "v4, 10,000,128"),
        ("0.12345", "0.12345"),
    ],
)
def test_large_numbers_have_commas(text, expected):
    assert spelled(text) == expected


def test_labels_stand_apart_in_their_order():
    placed = apart({"a": 0.0, "b": 1.0, "c": 2.0, "d": 100.0}, 10.0)
    assert placed["d"] == 100
    assert [placed[name] for name in "abc"] == [-9, 1, 11]
