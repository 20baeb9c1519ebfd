"""How a run of the conformance kit goes on, and ends, whatever its cases do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mpsnn_loss as ml
import pytest
from kit import HEAD, conformance
from mpsnn_loss._conformance import environment, recording, report, workers
from mpsnn_loss._conformance.cases import CASES

Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a module of cases and returns its name; processes find it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def module(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(HEAD + text)
        return name

    return module


def run_all(module: str, **more: Any) -> dict[str, dict[str, Any]]:
    names = list(workers.cases_of(module))
    records = list(workers.run_cases(names, "cpu", module=module, **more))
    assert [record["case"] for record in records] == names
    return {record["case"]: record for record in records}


def words(record: dict[str, Any]) -> str:
    return str(record["results"][-1]["words"])


# --- Child processes ---


def test_a_case_that_ends_its_process_does_not_end_the_run(write: Write) -> None:
    module = write(
        "deadly_cases",
        """
CASES = cases(
    ("first", good), ("kills", kills), ("second", good),
    ("aborts", lambda device: os.abort(), {"is_risky": True}),
    ("hangs", hangs, {"seconds": 2}), ("exits", lambda device: os._exit(3)),
    ("raises", lambda device: 1 / 0), ("no JSON", lambda device: {"results": [object()]}),
    ("last", good, {"is_risky": True}))
""",
    )
    records = run_all(module)
    for name in ("first", "second", "last"):
        assert records[name]["results"][0]["value"] == ml.cpu_device().name
    ends = {name: words(record) for name, record in records.items()
            if report.verdict(record) == "died"}  # fmt: skip
    assert ends == {
        "kills": "the process ended with signal SIGKILL",
        "aborts": "the process ended with signal SIGABRT",
        "hangs": "did not end in 2 s",
        "exits": "the process ended with exit code 3",
    }
    assert records["kills"]["exit"] == -9
    assert report.verdict(records["raises"]) == report.verdict(records["no JSON"]) == "refused"
    assert words(records["raises"]) == "ZeroDivisionError: division by zero"


def test_each_case_has_what_it_wrote_to_stderr_itself(write: Write) -> None:
    text = """
def says(word):
    def run(device):
        print(word, file=sys.stderr)
        return good(device)
    return run
CASES = cases(("a", says("one")), ("b", says("two")), ("c", kills))
"""
    records = run_all(write("speaking_cases", text))
    assert [records[name]["stderr"] for name in "abc"] == ["one\n", "two\n", "about to end\n"]


def test_a_process_that_dies_on_its_way_out_is_noticed(write: Write) -> None:
    text = """
import atexit
def leaves(device):
    atexit.register(os._exit, 5)
    return good(device)
CASES = cases(("leaves", leaves), ("other", good))
"""
    record = run_all(write("leaving_cases", text))["other"]
    assert record["results"][0]["verdict"] == "recorded"
    assert words(record) == "afterwards, the process ended with exit code 5"


def test_a_record_is_there_before_the_next_case_ends(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "go on"
    monkeypatch.setenv("KIT_TEST_FILE", str(file))
    module = write("waiting_cases", 'CASES = cases(("first", good), ("second", waits))')
    records = workers.run_cases(["first", "second"], "cpu", module=module)
    assert next(records)["case"] == "first"
    file.touch()
    assert report.verdict(next(records)) == "recorded"


def test_after_a_device_error_the_next_case_has_a_new_process(write: Write) -> None:
    text = """
def raises(device):
    raise ml.DeviceError("no")
def catches(device):
    record = process(device)
    record["results"].append(refusal("kernels", ml.DeviceError("no")))
    return record
CASES = cases(("a", process), ("b", process), ("raises", raises), ("c", process),
              ("catches", catches), ("d", process), ("e", process))
"""
    records = run_all(write("failing_cases", text))
    seen = {name: record["results"][0].get("value") for name, record in records.items()}
    assert seen["a"] == seen["b"]
    assert seen["c"] == seen["catches"]
    assert seen["d"] == seen["e"]
    assert len({seen["a"], seen["c"], seen["d"]}) == 3
    assert report.verdict(records["raises"]) == "refused"


def test_three_timeouts_in_a_row_end_the_run(write: Write) -> None:
    rows = ["hangs", "hangs", "good", "hangs", "hangs", "hangs", "good", "good"]
    text = ", ".join(f'("{i}", {run}, {{"seconds": 0.5}})' for i, run in enumerate(rows))
    records = run_all(write("hanging_cases", f"CASES = cases({text})"))
    verdicts = [report.verdict(record) for record in records.values()]
    died = ["died", "died"]
    assert verdicts == [*died, "recorded", *died, "died", "not run", "not run"]
    assert words(records["7"]) == "3 cases in a row did not end in time"


def test_a_run_ends_when_its_time_is_over(write: Write) -> None:
    module = write("long_cases", 'CASES = cases(("a", good), ("b", good), ("c", hangs))')
    patience = workers.Patience()
    records = workers.run_cases(["a", "b", "c"], "cpu", module=module, patience=patience)
    assert report.verdict(next(records)) == "recorded"
    patience.seconds = 0
    rest = list(records)
    assert [report.verdict(record) for record in rest] == ["not run", "not run"]
    assert words(rest[-1]) == "the run ends after 0 minutes"
    assert workers.Patience().seconds == 30 * 60


def test_the_end_of_its_time_ends_a_case_too(write: Write) -> None:
    module = write("longer_cases", 'CASES = cases(("a", hangs), ("b", good))')
    records = run_all(module, patience=workers.Patience(seconds=3))
    assert report.verdict(records["a"]) == "died"
    assert words(records["a"]) != f"did not end in {workers.SECONDS:g} s"
    assert report.verdict(records["b"]) == "not run"


@pytest.mark.parametrize("layer", workers.LAYERS)
def test_the_layers_of_metal_are_environments_of_the_child(
    write: Write, layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["METAL_DEVICE_WRAPPER_TYPE", "MTL_DEBUG_LAYER", "MTL_SHADER_VALIDATION"]
    monkeypatch.setenv("MTL_SHADER_VALIDATION", "of the user")
    text = f"""
CASES = cases(("see", lambda device: {{
    "results": [fact(name, os.environ.get(name)) for name in {names}]}}))
"""
    record = run_all(write("seeing_cases", text), layer=layer)["see"]
    seen = [result["value"] for result in record["results"]]
    assert (
        seen
        == {
            "none": [None, None, None],
            "debug layer": ["1", "1", None],
            "shader validation": [None, None, "1"],
        }[layer]
    )


def test_label_gradients_have_processes_of_their_own() -> None:
    labels = {name for name, case in CASES.items() if case.group == "labels"}
    waiting = list(CASES)
    while waiting:
        together = workers.sharing(waiting, CASES)
        assert not labels & set(together) or labels >= set(together)
        waiting = waiting[len(together) :]
    assert len(labels) > 100
    for name, results in {"cell/hinge/sum": ["loss", "predictions"],
                          "labels/cell/hinge/sum": ["labels"]}.items():  # fmt: skip
        record = CASES[name].run(ml.cpu_device())
        assert {result["result"] for result in record["results"]} == set(results)


# --- The smoke cases ---

SMOKE = """
CASES = cases(("smoke", {0}, {{"is_smoke": True}}), ("other", good))
"""


@pytest.mark.parametrize("run", ["kills", "lambda device: 1 / 0"])
def test_where_the_smoke_case_fails_the_run_ends_with_a_page(
    write: Write,
    run: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(report, "CASES", write(f"smoking_{run[0]}", SMOKE.format(run)))
    file = tmp_path / "run.json"
    assert report.run("cpu", file, None, is_strict=False) == 1
    page = capsys.readouterr().out
    assert "not run: 1 of the cases, as smoke does not work\n" in page
    assert "The run ends here" in page
    assert "attach" in page
    assert f"what happened       smoke: {'the process' if run == 'kills' else 'Zero'}" in page
    assert ("  | about to end" in page) == (run == "kills")
    whole = json.loads(file.read_text())
    smoke, other = whole["runs"][0]["cases"]
    assert report.verdict(smoke) == ("died" if run == "kills" else "refused")
    assert words(other) == "smoke does not work"


def test_a_smoke_case_that_differs_ends_nothing(
    write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "CASES", write("smoking_d", SMOKE.format("differs")))
    assert report.run("cpu", None, None, is_strict=False) == 0
    assert "recorded  other" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fault", "code", "happened"),
    [
        ("no_device", 2, "MPSNN_LOSS_DEVICE must name a device that is here"),
        ("kernel_is_nil", 1, "smoke/kernel: RuntimeError: MPSNNLossGradient could not be made"),
        ("encode_raises", 1, "smoke/encode: RuntimeError: encoding failed"),
        ("buffer_error=3", 1, "smoke/encode: DeviceError: "),
    ],
)
def test_a_device_on_which_nothing_works(
    double: object, fault: str, code: int, happened: str, tmp_path: Path
) -> None:
    file = tmp_path / "run.json"
    result = conformance("--device", "metal", "--json", str(file), SOFTMETAL_FAULT=fault)
    assert result.returncode == code, result.stdout + result.stderr
    assert f"what happened       {happened}" in result.stdout
    whole = json.loads(file.read_text())
    calls = whole["environment"]["device_calls"]
    assert (calls["MTLCreateSystemDefaultDevice"]["name"] == "nil") == (fault == "no_device")
    if fault.startswith("buffer_error"):
        error = whole["runs"][0]["cases"][1]["results"][0]["nserror"]
        assert error["domain"] == "MTLCommandBufferErrorDomain"
        assert error["code"] == 3
        assert isinstance(error["userInfo"], str)


def test_looking_at_the_device_may_end_a_process(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        'import os, sys\nif any("_conformance.environment" in each for each in sys.orig_argv):\n'
        '    os.write(2, b"no GPU for you\\n")\n    os.abort()\n'
    )
    file = tmp_path / "run.json"
    result = conformance("--json", str(file), PYTHONPATH=str(tmp_path))
    assert result.returncode == 2
    assert "  | the process ended with signal SIGABRT: no GPU for you" in result.stdout
    assert "SIGABRT" in json.loads(file.read_text())["environment"]["died"]


# --- The file ---


def test_the_file_has_each_case_before_the_next_ends(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.json"
    monkeypatch.setenv("KIT_TEST_FILE", str(file))
    text = """
import json
def sees(device):
    seen, end = [], time.monotonic() + 60
    while not seen and time.monotonic() < end:
        time.sleep(0.02)
        whole = json.loads(Path(os.environ["KIT_TEST_FILE"]).read_text())
        seen = [record["case"] for run in whole["runs"] for record in run["cases"]]
    return {"results": [fact("seen", seen)]}
CASES = cases(("first", good), ("second", sees))
"""
    monkeypatch.setattr(report, "CASES", write("reading_cases", text))
    assert report.run("cpu", file, None, is_strict=False) == 0
    second = json.loads(file.read_text())["runs"][0]["cases"][1]
    assert second["results"][0]["value"] == ["first"]


def record(verdict: str, name: str = "a case", **more: Any) -> dict[str, Any]:
    result = {"name": "loss", "verdict": verdict, "words": "why"}
    return {"case": name, "results": [result], "stderr": "", **more}


def test_the_file_is_whole_whatever_happens_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.json"
    kept = recording.Recording(file, {"device": None})
    kept.start_run("none")
    kept.add(record("agrees", "a"))
    before = file.read_text()

    def full(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(recording.os, "fsync", full)
        kept.add(record("agrees", "b"))
    assert file.read_text() == before
    assert "could not be written: no space left" in capsys.readouterr().err
    kept.add(record("died", "c"))
    assert [each["case"] for each in json.loads(file.read_text())["runs"][0]["cases"]] == [*"abc"]


def test_the_file_does_not_name_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/Users/jördis")
    kept = recording.Recording(tmp_path / "run.json", {"package": "/Users/jördis/venv"})
    kept.start_run("none")
    kept.add(record("died", traceback='File "/Users/jördis/kit.py"'))
    whole = json.loads((tmp_path / "run.json").read_text())
    assert whole["environment"]["package"] == "~/venv"
    assert whole["runs"][0]["cases"][0]["traceback"] == 'File "~/kit.py"'


def test_a_later_run_names_what_it_repeats(tmp_path: Path) -> None:
    kept = recording.Recording(tmp_path / "run.json", {})
    for layer, other in (("none", "agrees"), ("debug layer", "died")):
        kept.start_run(layer)
        kept.add(record("agrees", "a"))
        kept.add(record(other, "b"))
    first, second = json.loads(kept.text())["runs"]
    assert first == {"layer": "none", "cases": [record("agrees", "a"), record("agrees", "b")]}
    assert second["layer"] == "debug layer"
    assert second["cases"] == [{"case": "a", "same": True, "stderr": ""}, record("died", "b")]


# --- The report and the command ---

APPLE = {"device": {"name": "Apple M9", "kind": "metal", "is_paravirtual": False},
         "machine": {"system": "Darwin"}}  # fmt: skip


@pytest.fixture
def apple(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """A run on a Mac that fails in no case; the cases of each layer."""
    ran: dict[str, list[str]] = {}

    def run_cases(names: list[str], _: object, *, layer: str, **__: object) -> Any:
        ran[layer] = names
        return (record("agrees", name) for name in names)

    monkeypatch.setattr(report, "look_at", lambda _: APPLE)
    monkeypatch.setattr(report, "run_cases", run_cases)
    return ran


def test_a_mac_runs_the_cases_with_each_layer(apple: dict[str, list[str]]) -> None:
    assert report.run("metal", None, None, is_strict=True) == 0
    assert list(apple) == ["none", "debug layer", "shader validation"]
    assert all(names == list(CASES) for names in apple.values())


def test_layers_may_tell_why_the_smoke_cases_fail(
    apple: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "works", lambda record: record["case"] != "smoke/encode")
    assert report.run("metal", None, None, is_strict=False) == 1
    assert apple["none"] == list(CASES)
    assert apple["debug layer"] == apple["shader validation"] == ["smoke/kernel", "smoke/encode"]


@pytest.mark.parametrize(
    ("verdict", "code"), [("agrees", 0), ("recorded", 0), ("absent", 0), ("differs", 1),
                          ("refused", 1), ("died", 1), ("not run", 1)]
)  # fmt: skip
def test_a_difference_is_no_failure_unless_strict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verdict: str, code: int
) -> None:
    name = "header/Huber"
    monkeypatch.setattr(report, "run_cases", lambda *_, **__: iter([record(verdict, name)]))
    assert report.run("cpu", None, None, is_strict=False) == 0
    assert report.run("cpu", None, None, is_strict=True) == code
    assert report.SHOWN[verdict] in capsys.readouterr().out.splitlines()[0]


def test_what_was_done_before_ctrl_c_is_in_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run_cases(*_: object, **__: object) -> Any:
        yield record("agrees", "header/Huber")
        raise KeyboardInterrupt

    file = tmp_path / "run.json"
    monkeypatch.setattr(report, "run_cases", run_cases)
    assert report.run("cpu", file, None, is_strict=False) == 130
    (case,) = json.loads(file.read_text())["runs"][0]["cases"]
    assert case["case"] == "header/Huber"


def test_a_paravirtual_device_is_no_evidence(
    monkeypatch: pytest.MonkeyPatch, apple: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert environment.is_paravirtual("Apple Paravirtual device", "")
    assert environment.is_paravirtual("a name", "AppleParavirtualDevice")
    assert not environment.is_paravirtual("Apple M1", "AGXG13GDevice")
    assert report.run("metal", None, None, is_strict=False) == 0
    assert "no evidence" not in capsys.readouterr().out
    virtual = {**APPLE, "device": {**APPLE["device"], "is_paravirtual": True}}
    monkeypatch.setattr(report, "look_at", lambda _: virtual)
    assert report.run("metal", None, None, is_strict=False) == 0
    assert "no evidence" in capsys.readouterr().out


def test_cases_by_prefix_after_the_smoke_cases() -> None:
    result = conformance("--device", "cpu", "--case", "header/Huber", "--case", "header/states/h")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[:4] == [
        "recorded  smoke/kernel",
        "agrees    smoke/encode",
        "agrees    header/Huber",
        "agrees    header/states/huber",
    ]
    assert "4 cases: 3 agree, 1 agree with facts recorded," in result.stdout


def test_a_terminal_without_greek_letters_does_not_end_the_run() -> None:
    chosen = ["--device", "cpu", "--case", "special/Huber"]
    result = conformance(*chosen, PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONCOERCECLOCALE="0")
    assert (result.returncode, result.stderr) == (0, "")
    assert "agrees    special/Huber at \\u03b4" in result.stdout


def test_the_list_needs_no_device() -> None:
    result = conformance("--list", MPSNN_LOSS_DEVICE="toaster")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == list(CASES)
    chosen = ["--case", "special/NaN", "--case", "special/log", "--case", "object/c"]
    some = conformance("--list", *chosen).stdout.splitlines()
    assert some == ["special/log at 0", "special/NaN", "object/copy"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "toaster"], "MPSNN_LOSS_DEVICE must name a device that is here"),
        (["--case", "nothing"], "there is no case that begins with 'nothing'"),
        (["--json", "no/such.json"], "--json: must be a file in an existing folder"),
    ],
)
def test_a_mistaken_command_is_refused(arguments: list[str], said: str) -> None:
    result = conformance(*arguments)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_who_does_not_ask_for_metal_does_not_look_for_it(double: object) -> None:
    facts = workers.look_at("cpu")
    assert facts["device"]["kind"] == "cpu"
    assert "device_calls" not in facts
    assert "device_calls" in workers.look_at("metal")
