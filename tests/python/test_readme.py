"""README.md: its examples run as printed, and its tables name what the package has."""

from __future__ import annotations

import re
from enum import IntEnum
from pathlib import Path

import mpsnn_loss as ml
import pytest
from mpsnn_loss.__main__ import make_parser
from mpsnn_loss._conformance import report, workers

README = Path(__file__).resolve().parents[2] / "README.md"
FIRST_RUN = README.parent / "docs" / "first-run-on-a-mac.md"
CONTRACT = README.parent / "docs" / "contract.md"

if not README.is_file():
    pytest.skip(
        "README.md is not beside the tests: an installed wheel is being tested",
        allow_module_level=True,
    )

TEXT = README.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "code", [pytest.param(code, id=str(i)) for i, code in enumerate(blocks("python"))]
)
def test_a_python_example_runs_as_printed(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, str(README), "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out


def test_there_is_an_example_with_arrays_and_one_with_command_buffers_beside_swift() -> None:
    arrays, buffers = blocks("python")
    assert "ml.loss_and_gradient(" in arrays
    assert "make_command_buffer()" in buffers
    (swift,) = blocks("swift")
    assert len(swift.splitlines()) == len(buffers.splitlines())
    for name in ("MPSNNLossGradient", "MPSNNForwardLoss", "MPSNNInitialGradient"):
        assert f"ml.{name}(" in buffers
        assert f"{name}(device: device" in swift


def test_the_first_two_shell_lines_run_the_demo_and_the_tests() -> None:
    lines = "".join(blocks("sh")).splitlines()
    demo, tests = lines[:2]
    assert "-m mpsnn_loss demo" in demo
    assert "ctest" in tests
    assert "-m pytest" in tests
    assert not any(line.endswith("\\") for line in lines)


@pytest.mark.parametrize(
    ("heading", "enumeration"),
    [
        ("## 3. Losses of elements", ml.MPSCNNLossType),
        ("## 4. Weights and reductions", ml.MPSCNNReductionType),
    ],
)
def test_the_contract_has_one_row_for_each_member(heading: str, enumeration: type[IntEnum]) -> None:
    text = CONTRACT.read_text(encoding="utf-8")
    section = text.split(heading + "\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| `(\w+)`", section, re.MULTILINE)
    assert rows == [(str(int(member)), member.name.lower()) for member in enumeration]


@pytest.mark.parametrize("page", [README, FIRST_RUN, CONTRACT], ids=lambda page: page.stem)
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert targets
    assert [name for name in targets if not (page.parent / name).is_file()] == []


def test_the_readme_links_the_pages() -> None:
    assert "](CONTRIBUTING.md)" in TEXT
    assert "](docs/first-run-on-a-mac.md)" in TEXT
    assert "](docs/contract.md)" in TEXT


def test_the_words_of_the_conformance_kit_are_explained() -> None:
    section = TEXT.split("## On a Mac: the conformance kit\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `([\w ]+)` \|", section, re.MULTILINE)) == set(
        report.SHOWN.values()
    )


def test_the_page_of_the_first_run_has_the_command_and_the_limit_of_the_kit() -> None:
    page = FIRST_RUN.read_text(encoding="utf-8")
    for text in (TEXT, page):
        (command,) = re.findall(r" -m mpsnn_loss (conformance .*--json .*)$", text, re.MULTILINE)
        parsed = make_parser().parse_args(command.split())
        assert (parsed.device, parsed.json.name) == ("metal", "conformance.json")
        assert f"{workers.RUN_SECONDS / 60:g} minutes" in text
