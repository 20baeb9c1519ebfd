"""The workflows: they parse, and what they name exists. Whether they pass, only GitHub can tell."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import dropwhile
from pathlib import Path
from typing import Any

import pytest
from mpsnn_loss.__main__ import make_parser
from mpsnn_loss._conformance import workers

yaml = pytest.importorskip("yaml", reason="reading the workflows needs PyYAML")

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = {path.stem: path for path in sorted((ROOT / ".github/workflows").glob("*.yml"))}

if not WORKFLOWS:
    pytest.skip(
        "the workflows are not beside the tests: a copy without them is being tested",
        allow_module_level=True,
    )

# An action is pinned to the commit of one version of it, or to the version where nobody could look
# up its commit; never to a name that moves.
VERSION = r"v\d+\.\d+\.\d+"
ACTION = re.compile(rf"[\w.-]+/[\w.-]+(/[\w.-]+)*@({VERSION}|[0-9a-f]{{40}}  # {VERSION})")
EXPRESSION = re.compile(r"\$\{\{ *matrix\.(\w+) *\}\}")
SETTING = re.compile(r"[A-Z_]+=")  # before a command: of its environment
PYPROJECT = (ROOT / "pyproject.toml").read_text()


def jobs(name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(WORKFLOWS[name].read_text())["jobs"]
    return found


def cells(job: dict[str, Any]) -> list[dict[str, str]]:
    """What the matrix of a job gives its expressions, one for each of its runs."""
    matrix = job.get("strategy", {}).get("matrix", {})
    if "include" in matrix:
        assert list(matrix) == ["include"]
        return list(matrix["include"])
    cells: list[dict[str, str]] = [{}]
    for key, values in matrix.items():
        cells = [{**cell, key: value} for cell in cells for value in values]
    return cells


def filled_in(text: str, cell: dict[str, str]) -> str:
    return EXPRESSION.sub(lambda match: cell[match[1]], text)


def commands(name: str) -> Iterator[list[str]]:
    """Every command of every run of every job, as words."""
    for job in jobs(name).values():
        for cell in cells(job):
            for step in job["steps"]:
                for line in filled_in(step.get("run", ""), cell).splitlines():
                    for part in line.split("&&"):
                        yield shlex.split(part)


def nox_sessions() -> set[str]:
    """The names under which the sessions of noxfile.py can be chosen."""
    tree = ast.parse((ROOT / "noxfile.py").read_text())
    values = {ast.unparse(node.targets[0]): node.value for node in tree.body
              if isinstance(node, ast.Assign)}  # fmt: skip
    pythons = ast.literal_eval(values["PYTHONS"])
    names = set()
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef):
            continue
        decorators = [ast.unparse(each) for each in node.decorator_list]
        if not any(each.startswith("nox.session") for each in decorators):
            continue
        names.add(node.name)
        if "nox.session(python=PYTHONS)" in decorators:
            names |= {f"{node.name}-{python}" for python in pythons}
        for each in node.decorator_list:
            if ast.unparse(each).startswith("nox.parametrize"):
                assert isinstance(each, ast.Call)
                key, values = (ast.literal_eval(argument) for argument in each.args)
                names |= {f"{node.name}({key}={value!r})" for value in values}
    return names


def presets() -> set[str]:
    return {
        each["name"]
        for each in json.loads((ROOT / "CMakePresets.json").read_text())["configurePresets"]
    }


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_says_when_it_runs_and_what(name: str) -> None:
    workflow = yaml.safe_load(WORKFLOWS[name].read_text())
    assert workflow[True]  # the key "on", as YAML 1.1 reads it
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["jobs"]
    for job in workflow["jobs"].values():
        assert job["name"]
        assert job["timeout-minutes"] <= 180
        assert all(("uses" in step) != ("run" in step) for step in job["steps"])
        assert set(job.get("needs", "").split()) <= set(workflow["jobs"])
        for cell in cells(job):
            assert not job.get("continue-on-error") or job["name"].startswith("Metal ")
            assert re.fullmatch(r"(ubuntu|macos)-[\w.-]+", filled_in(job["runs-on"], cell))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_expression_is_one_of_the_matrix(name: str) -> None:
    for job in jobs(name).values():
        text = json.dumps(job)
        assert len(EXPRESSION.findall(text)) == text.count("${{")
        for cell in cells(job):
            filled_in(text, cell)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_action_is_pinned(name: str) -> None:
    actions = re.findall(r"^ *- uses: (.*)$", WORKFLOWS[name].read_text(), re.MULTILINE)
    steps = [step for job in jobs(name).values() for step in job["steps"] if "uses" in step]
    assert len(actions) == len(steps) > 0
    assert [action for action in actions if not ACTION.fullmatch(action)] == []


def test_an_action_is_pinned_to_the_same_commit_everywhere() -> None:
    found: dict[str, set[str]] = {}
    for path in WORKFLOWS.values():
        for action, pin in re.findall(r"uses: ([^@]+)@(.*)$", path.read_text(), re.MULTILINE):
            found.setdefault(action, set()).add(pin)
    assert {action: pins for action, pins in found.items() if len(pins) != 1} == {}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_command_names_what_exists(name: str) -> None:
    sessions, parser = nox_sessions(), make_parser()
    known = 0
    for command in commands(name):
        words = list(dropwhile(SETTING.match, command))
        if words[:2] == ["nox", "-s"]:
            assert set(words[2:]) <= sessions
        elif words[:3] == ["python", "-m", "mpsnn_loss"]:
            parser.parse_args(words[3:])
        elif words[0] == "sh":
            assert (ROOT / words[1]).is_file()
        elif words[:2] == ["ctest", "--test-dir"]:
            assert any(f"SKBUILD_BUILD_DIR={words[2]}" in other for other in commands(name))
        elif words[0] in ("cmake", "ctest"):
            assert words[words.index("--preset") + 1] in presets()
        else:
            assert words[:3] in (["python", "-m", "pip"], ["python", "-m", "pytest"]), words
        known += 1
    assert known


def test_the_commands_of_the_readme_are_run_as_printed() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    printed = "".join(re.findall(r"^```sh\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL))
    runs = [step["run"] for job in ("demo", "readme") for step in jobs("ci")[job]["steps"]
            if "run" in step]  # fmt: skip
    assert runs == printed.splitlines()[:2]


def test_what_has_to_pass_leaves_no_step_out() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [line for line in lines if re.match(r"\s*(if|case|exit)\b|.*\|\| *(true|:)", line)] == []


def test_the_oldest_and_the_newest_python_are_tested() -> None:
    declared = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT)
    matrix = jobs("ci")["python"]["strategy"]["matrix"]["python"]
    assert matrix == [declared[0], declared[-1]]
    for version in declared:
        assert f"cp{version.replace('.', '')}-*" in PYPROJECT


def test_wheels_are_made_for_macos_and_linux_on_both_processors() -> None:
    platforms = {(cell["system"], cell["archs"]) for cell in cells(jobs("wheels")["build"])}
    assert platforms == {
        ("macos", "arm64"),
        ("macos", "x86_64"),
        ("manylinux", "x86_64"),
        ("manylinux", "aarch64"),
    }
    assert cells(jobs("wheels")["conformance"]) == cells(jobs("wheels")["build"])


def test_wheels_are_tested_without_metal() -> None:
    assert 'test-environment = { MPSNN_LOSS_DEVICE = "cpu" }' in PYPROJECT
    kinds = subprocess.run(
        [sys.executable, "-c", "import tested_devices as t; print(*[d.kind for d in t.DEVICES])"],
        cwd=Path(__file__).parent,
        env=os.environ | {"MPSNN_LOSS_DEVICE": "cpu"},
        capture_output=True,
        text=True,
    )
    assert (kinds.stdout, kinds.stderr) == ("cpu\n", "")


def test_only_a_job_that_fails_nothing_runs_on_metal() -> None:
    on_metal = {}
    for name in WORKFLOWS:
        for key, job in jobs(name).items():
            runs = [step.get("run", "") for step in job["steps"]]
            if any("conformance metal" in run or "--device metal" in run for run in runs):
                on_metal[key] = job
    assert list(on_metal) == ["metal"]
    job = on_metal["metal"]
    assert job["continue-on-error"] is True
    assert {cell["archs"] for cell in cells(job)} == {"arm64", "x86_64"}
    (upload,) = [step for step in job["steps"] if "upload-artifact" in step.get("uses", "")]
    assert upload["if"] == "always()"
    limits = [step["timeout-minutes"] for step in job["steps"] if "timeout-minutes" in step]
    assert sum(limits) < job["timeout-minutes"]
    assert workers.Patience().seconds < 60 * limits[0]  # the kit ends itself before


def test_the_macos_compile_job_looks_at_what_is_linked() -> None:
    job = jobs("ci")["macos_compile"]
    assert {(cell["archs"], cell["target"]) for cell in cells(job)} == {
        ("arm64", "11.0"),
        ("x86_64", "10.15"),
    }
    for cell in cells(job):
        select = f'select = "*-macosx_{cell["archs"]}"\n'
        target = f'environment.MACOSX_DEPLOYMENT_TARGET = "{cell["target"]}"'
        assert select + target in PYPROJECT
    script = (ROOT / ".ci/macos-compile").read_text()
    assert "otool -L" in script
    assert "for framework in CoreGraphics Foundation Metal MetalPerformanceShaders" in script


OTOOL = """#!/bin/sh
echo "$2:"
for name in {0}; do
  echo "	/System/Library/Frameworks/$name.framework/Versions/A/$name (version 1.0.0)"
done
"""


@pytest.mark.parametrize(
    ("links", "code"),
    [
        ("CoreGraphics Foundation Metal MetalPerformanceShaders", 0),
        ("Foundation Metal MetalPerformanceShaders", 1),
        ("CoreGraphics Foundation MetalPerformanceShaders", 1),
    ],
)
def test_a_framework_that_is_not_linked_is_noticed(tmp_path: Path, links: str, code: int) -> None:
    """The script with the tools of a Mac played by others."""
    tools = tmp_path / "bin"
    (tmp_path / "out/unpacked/mpsnn_loss").mkdir(parents=True)
    (tmp_path / "out/unpacked/mpsnn_loss/_core.so").touch()
    tools.mkdir()
    for name in ("clang++", "xcrun", "python"):
        (tools / name).write_text("#!/bin/sh\n")
    (tools / "otool").write_text(OTOOL.format(links))
    for tool in tools.iterdir():
        tool.chmod(0o755)
    done = subprocess.run(
        ["sh", str(ROOT / ".ci/macos-compile"), str(tmp_path / "out")],
        env={"PATH": f"{tools}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    assert ("::error::the extension does not link" in done.stdout) == (code == 1)


def test_a_mistaken_command_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.yml"
    for command in ("nox -s lnit", "sh .ci/nothing", "cmake --preset deflaut", "make everything"):
        wrong.write_text(yaml.safe_dump({"jobs": {"a": {"steps": [{"run": command}]}}}))
        monkeypatch.setitem(WORKFLOWS, "wrong", wrong)
        with pytest.raises(AssertionError):
            test_every_command_names_what_exists("wrong")
