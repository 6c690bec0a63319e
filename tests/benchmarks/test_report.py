import copy
import json
import re
import shutil
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import pytest

import picture
import report
from figures import Figure, Row, Spread, duration, number

ROOT = Path(__file__).resolve().parents[2]


def spread(value: float) -> Spread:
    return Spread(value, value * 0.9, value * 1.1)


TRAINING = Row(
    "AutoNCP(19, 2), B=128",
    "forward + backward",
    2,
    [
        Figure("ncps", "{} x ncps", spread(212.4), at_least=200),
        Figure("LSTM", "{} of LSTM(19)", spread(0.523), at_most=0.5),
    ],
    {"fastltc": {"seconds": 3.14e-3, "q1": 3.1e-3, "q3": 3.2e-3, "calls": 10}},
    15,
    1e-6,
)
MEMORY = Row(
    "AutoNCP(19, 2), B=128",
    "peak memory",
    2,
    [Figure("ncps", "{} x less than ncps", spread(60.0), at_least=50)],
    {"fastltc": {"bytes": 3 * 2**20}, "ncps": {"bytes": 180 * 2**20}},
)
NOTHING_ASKED = Row(
    "AutoNCP(19, 2), B=128",
    "by avx512",
    1,
    [Figure("other", "avx2 takes {} x the time", spread(1.7))],
    {"avx512": {"seconds": 5e-3, "q1": 5e-3, "q3": 5e-3, "calls": 10}},
)


# The rows of the README, each with another number.
EIGHT = {
    name: Row(
        "AutoNCP(19, 2), B=128",
        "forward + backward",
        2,
        [
            Figure("ncps", "{} x ncps", spread(100 + number), at_least=104),
            Figure("LSTM", "{} of LSTM(19)", spread(0.5), at_most=0.4),
            Figure("other", "{} x", spread(7.0)),
        ],
        {"fastltc": {"seconds": 1e-3, "q1": 1e-3, "q3": 1e-3, "calls": 10}},
    )
    for number, name in enumerate(report.README)
}


def run(*rows: Row, **named: Row) -> dict[str, Any]:
    """A run of rows, the names of whose benchmarks do not matter or are given."""
    named = {f"test_{index}": row for index, row in enumerate(rows)} | named
    return {
        "machine_info": {
            "processor": "Some CPU",
            "cores": 2,
            "instruction_set": "avx512",
            "python": "CPython 3.11.7",
            "build_type": "Release",
            "versions": {"fastltc": "0.1.0", "torch": "2.13.0"},
            "threads": 2,
            "load_average_before": 0.1,
            "load_average_after": 1.9,
            "quick": False,
        },
        "commit_info": {"id": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
        "datetime": "2026-01-02T03:04:05+00:00",
        "benchmarks": [
            {"name": name, "extra_info": {"row": row.to_json()}} for name, row in named.items()
        ],
    }


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A result and a page with markers."""
    result = tmp_path / "benchmarks" / "results" / "some.json"
    result.parent.mkdir(parents=True)
    result.write_text(json.dumps(run(TRAINING, MEMORY, **EIGHT)))
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{report.BEGIN}\nold\n{report.END}\n\nThe end.\n")
    return result, page


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_rows_survive_json() -> None:
    rows = [TRAINING, MEMORY, NOTHING_ASKED]
    assert list(report.read_rows(json.loads(json.dumps(run(*rows)))).values()) == rows


def test_rows_without_a_target_come_last_and_others_keep_their_order() -> None:
    assert report.table([NOTHING_ASKED, MEMORY, TRAINING]) == report.table(
        [MEMORY, TRAINING, NOTHING_ASKED]
    )
    assert report.table([MEMORY, TRAINING]) != report.table([TRAINING, MEMORY])


def test_benchmarks_without_a_row_are_left_out() -> None:
    data = run(TRAINING)
    data["benchmarks"].append({"name": "test_other", "extra_info": {}})
    assert report.read_rows(data) == {"test_0": TRAINING}


def test_table_has_times_ratios_targets_and_whether_they_are_reached() -> None:
    lines = report.table([TRAINING, MEMORY, NOTHING_ASKED]).splitlines()
    assert cells(lines[0]) == list(report.HEADER)
    assert cells(lines[2]) == [
        "AutoNCP(19, 2), B=128: forward + backward, 2 threads",
        "3.14 ms",
        "212 x ncps",
        "0.523 of LSTM(19)",
        "",
        "at least 200 x ncps; at most 0.5 of LSTM(19)",
        "yes; no",
    ]
    assert cells(lines[3])[1:] == [
        "3 MiB",
        "60 x less than ncps",
        "",
        "",
        "at least 50 x less than ncps",
        "yes",
    ]
    assert cells(lines[4]) == [
        "AutoNCP(19, 2), B=128: by avx512, 1 thread",
        "5 ms",
        "",
        "",
        "avx2 takes 1.7 x the time",
        "",
        "",
    ]


@pytest.mark.parametrize(
    ("value", "bounds", "reached"),
    [
        (200.0, {"at_least": 200}, True),
        (199.99, {"at_least": 200}, False),
        (0.5, {"at_most": 0.5}, True),
        (0.5001, {"at_most": 0.5}, False),
        (1.0, {}, None),
        (float("nan"), {"at_least": 1}, False),
    ],
)
def test_reached_compares_the_unrounded_median(
    value: float, bounds: dict[str, float], reached: bool | None
) -> None:
    assert Figure("other", "{} x", Spread(value, value, value), **bounds).reached is reached


def test_numbers_have_three_digits_and_no_exponent() -> None:
    values = (212.4, 12345.6, 99.96, 0.5, 70.0, 1.8, 0.01234, 1.2e-5, 0.0)
    assert [number(value) for value in values] == [
        "212",
        "12346",
        "100",
        "0.5",
        "70",
        "1.8",
        "0.0123",
        "0.000012",
        "0",
    ]


def test_durations_have_a_unit() -> None:
    assert [duration(s) for s in (1.5, 3.14e-3, 1e-3, 17.25e-6)] == [
        "1.5 s",
        "3.14 ms",
        "1 ms",
        "17.2 us",
    ]


def test_a_page_gets_the_table_between_its_markers(files: tuple[Path, Path]) -> None:
    result, page = files
    assert report.main([str(result), "--docs", str(page)]) == 0
    text = page.read_text()
    assert text.startswith(f"# Title\n\n{report.BEGIN}\n| case |")
    assert text.endswith(f"{report.END}\n\nThe end.\n")
    assert "old" not in text
    for part in ("Some CPU", "avx512", "2 cores", "torch 2.13.0", "0123456789ab", "2026-01-02"):
        assert part in text
    assert "`some.json`" in text
    assert text.count("| 1 ms |") == 8
    # A second time changes nothing.
    assert report.main([str(result), "--docs", str(page)]) == 0
    assert page.read_text() == text


def test_readme_gets_eight_rows_within_80_columns(files: tuple[Path, Path]) -> None:
    result, readme = files
    assert report.main([str(result), "--readme", str(readme)]) == 0
    lines = readme.read_text().splitlines()
    table = [cells(line) for line in lines if line.startswith("|")]
    assert table[0] == list(report.README_HEADER)
    assert table[2:] == [
        [label, "1 ms", f"{100 + index} x", "2 x", f"{int(index >= 4)} of 2 met"]
        for index, label in enumerate(report.README.values())
    ]
    assert max(map(len, lines)) <= 80
    assert len({len(line) for line in lines if line.startswith("|")}) == 1


def test_neither_page_is_written_when_a_row_of_the_readme_is_missing(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    result, readme = files
    docs = readme.with_name("docs.md")
    docs.write_text(before := readme.read_text())
    result.write_text(json.dumps(run(TRAINING)))
    assert report.main([str(result), "--docs", str(docs), "--readme", str(readme)]) == 1
    assert next(iter(report.README)) in capsys.readouterr().err
    assert docs.read_text() == readme.read_text() == before


def test_the_committed_pages_and_pictures_are_of_the_committed_result(tmp_path: Path) -> None:
    result = ROOT / "benchmarks" / "results" / "epyc-zen4-2cores.json"
    options = []
    for option, page in (("--docs", "docs/benchmarks.md"), ("--readme", "README.md")):
        options += [option, str(shutil.copy(ROOT / page, tmp_path))]
    assert report.main([str(result), *options]) == 0
    intel = ROOT / "benchmarks" / "results" / "xeon-granite-rapids-2cores.json"
    copy = shutil.copy(ROOT / "docs" / "benchmarks-intel.md", tmp_path)
    assert report.main([str(intel), "--docs", str(copy)]) == 0
    for page in ("docs/benchmarks.md", "docs/benchmarks-intel.md", "README.md"):
        assert (tmp_path / Path(page).name).read_text() == (ROOT / page).read_text()
    assert picture.main([str(result), str(tmp_path)]) == 0
    for name in ("speed-light.svg", "speed-dark.svg"):
        assert (tmp_path / name).read_text() == (ROOT / "docs" / "images" / name).read_text()
        assert f"docs/images/{name}" in (ROOT / "README.md").read_text()


def test_pictures_differ_in_colours_only() -> None:
    light, dark = picture.THEMES["light"], picture.THEMES["dark"]
    assert light.keys() == dark.keys()
    result = ROOT / "benchmarks" / "results" / "epyc-zen4-2cores.json"
    pictures = picture.pictures(json.loads(result.read_text()))
    text = pictures["speed-light.svg"]
    xml.etree.ElementTree.fromstring(text)
    shown = re.search(r"LTC, 19 neurons, NCP +\| (\S+ us)", (ROOT / "README.md").read_text())
    assert shown is not None
    assert shown[1] in text
    for name, colour in light.items():
        text = text.replace(colour, dark[name])
    assert text == pictures["speed-dark.svg"]


def test_without_a_page_the_table_is_printed(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main([str(files[0])]) == 0
    captured = capsys.readouterr()
    assert "212 x ncps" in captured.out
    assert captured.err == ""


def test_quick_results_stay_out_of_pages_and_pictures(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    result, readme = files
    data = run(TRAINING)
    data["machine_info"]["quick"] = True
    result.write_text(json.dumps(data))
    before = readme.read_text()
    assert report.main([str(result), "--readme", str(readme)]) == 1
    assert readme.read_text() == before
    assert "quick mode" in capsys.readouterr().err
    assert picture.main([str(result), str(result.parent)]) == 1
    assert "quick mode" in capsys.readouterr().err
    assert not list(result.parent.glob("*.svg"))


@pytest.mark.parametrize(
    "text",
    [
        "no markers",
        report.BEGIN,
        f"{report.END}\n{report.BEGIN}",
        f"{report.BEGIN}{report.END}" * 2,
    ],
)
def test_a_page_without_its_markers_is_left_as_it_is(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str], text: str
) -> None:
    result, page = files
    page.write_text(text)
    assert report.main([str(result), "--docs", str(page)]) == 1
    assert page.read_text() == text
    assert report.BEGIN in capsys.readouterr().err


@pytest.mark.parametrize(
    ("part", "key", "value", "word"),
    [
        ("machine_info", "load_average_before", 1.5, "load average"),
        ("commit_info", "dirty", True, "working tree"),
        ("machine_info", "build_type", "Debug", "Debug"),
    ],
)
def test_warns_of_what_speaks_against_publishing(
    files: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    part: str,
    key: str,
    value: object,
    word: str,
) -> None:
    data = copy.deepcopy(run(TRAINING))
    assert report.warnings(data) == []
    data[part][key] = value
    files[0].write_text(json.dumps(data))
    assert report.main([str(files[0])]) == 0
    assert word in capsys.readouterr().err


def test_a_load_of_seven_tenths_per_core_is_not_busy() -> None:
    assert report.load_warning(1.4, 2) is None
    assert report.load_warning(None, 2) is None
    assert report.load_warning(1.41, 2) is not None
