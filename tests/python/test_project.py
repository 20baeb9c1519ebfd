"""Rules of the house: who may include whom, length of files, one version, documented names."""

from __future__ import annotations

import ast
import inspect
import os
import re
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_origin

import mpsnn_loss as ml
import pytest

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"
PACKAGE = ROOT / "python" / "mpsnn_loss"
# Who may include whom, below src. Any other folder is an engine, and sees the core alone.
MAY_INCLUDE: dict[str, set[str]] = {
    "core": set(),
    "objects": {"core"},
    "metal": {"core", "objects"},
    "bindings": {"core", "objects", "devices"},
}
ROOMS = {path.name if path.is_dir() else path.stem for path in SRC.glob("*")}

CODE = {".cpp", ".hpp", ".h", ".mm", ".py"}
LINES = 400

pytestmark = pytest.mark.skipif(
    not (SRC.is_dir() and (ROOT / "pyproject.toml").is_file()),
    reason="the sources are not beside the tests: an installed wheel is being tested",
)

INCLUDE = re.compile(r'^[ \t]*#[ \t]*(?:include|import)[ \t]*([<"])([^>"\n]+)[>"]', re.MULTILINE)
APPLE = re.compile(
    r"^(Metal|Foundation|CoreFoundation|MetalPerformanceShaders\w*|MetalKit|AppKit)/"
)
PYTHON = re.compile(r"^(pybind11/|Python\.h$|numpy/)")
INTRINSICS = re.compile(r"^(\w+intrin|arm_neon|arm_sve)\.h$")
SIGNATURE = re.compile(r"\A\w*\(.*\)( -> .*)?$", re.MULTILINE)  # pybind11 writes one by itself
STANDARD = re.compile(r"^[a-z_0-9]+$")


def may_include(here: str | None, there: str) -> bool:
    if here == "devices":
        return there != "bindings"
    return there in MAY_INCLUDE.get(here or "", {"core"})


def layer(path: PurePosixPath | None) -> str | None:
    """The room of a file below src: its folder, or its own stem at the top."""
    if path is None:
        return None
    return path.parts[0] if len(path.parts) > 1 else path.stem


def target(file: PurePosixPath, name: str) -> PurePosixPath | None:
    """The file below src that an include means, if it means one."""
    meant = []
    for base in (file.parent, PurePosixPath()):
        path = PurePosixPath(os.path.normpath(base / name))
        if (SRC / path).is_file():
            return path
        meant += [path] if layer(path) in ROOMS and path.suffix else []
    return next((path for path in reversed(meant) if layer(path) != layer(file)), None)


def speaks_objective_c(file: PurePosixPath) -> bool:
    """Sources of Metal, and those of its headers that say so."""
    path = SRC / file
    if not path.is_file() or layer(file) != "metal":
        return file.suffix == ".mm"
    opening = path.read_text("utf-8").split("#pragma once")[0].replace("\n// ", " ")
    return file.suffix == ".mm" or "For .mm files only" in opening


def breaches(file: PurePosixPath, text: str) -> list[str]:
    """What the include lines of one file do that the house forbids."""
    here = layer(file)
    found = []
    for quote, name in INCLUDE.findall(text):
        aim = target(file, name)
        there = layer(aim)
        rooms = [str(path.parent) for path in (file, aim) if path is not None]
        rules = {
            "it goes against the arrows": there is not None
            and there != here
            and not may_include(here, there),
            "core knows the standard library alone": here == "core"
            and there != "core"
            and not (quote == "<" and STANDARD.match(name)),
            "arrays and objects of Metal do not know each other": sorted(rooms)
            == ["metal/arrays", "metal/objects"],
            "what both need knows neither": rooms[0] == "metal/mps"
            and rooms[1:] in (["metal/arrays"], ["metal/objects"]),
            "Python stays in bindings": here != "bindings" and bool(PYTHON.match(name)),
            "Apple's headers stay in .mm files": file.suffix != ".mm" and bool(APPLE.match(name)),
            "intrinsics stay in cpu": here != "cpu" and bool(INTRINSICS.match(name)),
            "it speaks Objective-C": aim is not None
            and speaks_objective_c(aim)
            and not speaks_objective_c(file),
        }
        found += [f"{file} includes {name}: {rule}" for rule, broken in rules.items() if broken]
    return found


def sources(*folders: Path) -> list[Path]:
    return [path for f in folders for path in sorted(f.rglob("*")) if path.suffix in CODE]


def declared_version() -> str:
    project = (ROOT / "pyproject.toml").read_text().split("[project]", 1)[1].split("\n[", 1)[0]
    found = re.search(r'^version\s*=\s*"([^"]+)"', project, re.MULTILINE)
    assert found, "pyproject.toml declares no version"
    return found[1]


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("core/a.hpp", '#include "cpu/engine.hpp"'),
        ("core/a.hpp", '#include "objects/device.hpp"'),
        ("cpu/a.cpp", '#include "objects/completion.hpp"'),
        ("objects/a.cpp", '#include "cpu/engine.hpp"'),
        ("metal/arrays/a.mm", '#include "metal/objects/images.hpp"'),
        ("metal/objects/a.mm", '#include "metal/arrays/engine.hpp"'),
        ("metal/mps/a.mm", '#include "metal/objects/device.hpp"'),
        ("core/a.hpp", '#include "../bindings/arrays.hpp"'),
        ("core/a.hpp", "#include <sys/mman.h>"),
        ("cpu/a.cpp", '#include "metal/device.hpp"'),
        ("metal/a.mm", '#import "../cpu/engine.hpp"'),
        ("cpu/a.cpp", '#include "devices.hpp"'),
        ("cpu/a.cpp", "# include <pybind11/pybind11.h>"),
        ("devices.cpp", "#include <Python.h>"),
        ("metal/a.hpp", "#import <Metal/Metal.h>"),
        ("metal/a.cpp", "  #include <Foundation/Foundation.h>"),
        ("metal/a.hpp", '#include "metal/mps/objc_ptr.hpp"'),
        ("metal/foreign.hpp", '#include "metal/objects/device.hpp"'),
        ("core/a.cpp", "#include <immintrin.h>"),
        ("metal/a.mm", "#include <arm_neon.h>"),
        ("bindings/a.cpp", '#include "cpu/engine.hpp"'),
        ("bindings/a.cpp", '#include "metal/device.hpp"'),
    ],
)
def test_a_forbidden_include_is_noticed(file: str, line: str) -> None:
    assert breaches(PurePosixPath(file), line)


def test_every_include_goes_the_allowed_way() -> None:
    files = sources(SRC)
    assert {layer(PurePosixPath(path.relative_to(SRC).as_posix())) for path in files} >= {
        "core", "objects", "cpu", "metal", "devices", "bindings"}  # fmt: skip
    found = []
    for path in files:
        found += breaches(PurePosixPath(path.relative_to(SRC).as_posix()), path.read_text())
    assert found == []


def test_no_static_of_the_bindings_runs_python_while_it_is_made() -> None:
    """Python may give the GIL away then, and whoever takes it would wait for the static."""
    runs_python = re.compile(r"\bpy::|\bPy[A-Z]\w*\(|\bmake_array\(|\bnpy_api::get\(")
    statics = re.compile(r"^ +static (?!assert|constexpr)[^;={(]*=[^;]*;", re.MULTILINE)
    found = [
        f"{path.name}: {static[0]}"
        for path in sources(SRC / "bindings")
        for static in statics.finditer(path.read_text())
        if runs_python.search(static[0])
    ]
    assert found == []


UNNAMED = re.compile(r"^namespace \{\n(.*?)^\}  // namespace\n", re.MULTILINE | re.DOTALL)
DECLARED = re.compile(
    r"^(?!return|namespace|template|#|//|public|private|static_assert|using namespace)"
    r"(?:(?:class|struct|enum class|using) (\w+)"
    r"|[\w:][\w:<>,*&\[\] ]*[ *&](\w+)(?:\(|\[|\{| = |;))",
    re.MULTILINE,
)


def own_names(text: str) -> set[str]:
    """What a source declares for itself alone."""
    found = [match for block in UNNAMED.findall(text) for match in DECLARED.finditer(block)]
    return {match[1] or match[2] for match in found}


def test_any_sources_of_the_bindings_may_be_compiled_together() -> None:
    """The unity build puts several into one unit, so no two may have a name of the same kind."""
    assert own_names("namespace {\n\nint once(int x) {\n}\n}  // namespace\n") == {"once"}
    users: dict[str, list[str]] = {}
    for path in sources(SRC / "bindings"):
        for name in own_names(path.read_text("utf-8")):
            users.setdefault(name, []).append(path.name)
    assert {name: files for name, files in users.items() if len(files) > 1} == {}


BY_NAME = re.compile(r"\bLossType::[a-z]\w*|loss_type [!=]= \"")
KNOWS_LOSSES_BY_NAME = {"core/loss_type.hpp", "cpu/formulas.hpp"}


def test_no_code_asks_which_loss_it_is() -> None:
    """What is special about a loss is a field of its row in the table."""
    files = {str(path.relative_to(SRC)): path for path in SRC.rglob("*") if path.suffix in CODE}
    files |= {f"_reference/{path.name}": path for path in (PACKAGE / "_reference").glob("*.py")}
    asking = {name for name, path in files.items() if BY_NAME.search(path.read_text("utf-8"))}
    engines = ROOMS - MAY_INCLUDE.keys() - {"cpu", "devices"}
    assert asking - {f"{engine}/formulas.hpp" for engine in engines} == KNOWS_LOSSES_BY_NAME


def test_no_source_file_is_longer_than_a_sitting() -> None:
    lengths = {p.relative_to(ROOT).as_posix(): len(p.read_text().splitlines())
               for p in sources(SRC, ROOT / "python")}  # fmt: skip
    assert lengths
    assert {name: length for name, length in lengths.items() if length >= LINES} == {}


def test_the_version_stands_in_pyproject_only() -> None:
    version = declared_version()
    assert ml.__version__ == version
    literal = re.compile(rf"(?<![\d.]){re.escape(version)}(?![\d.])")
    files = [*sources(SRC, ROOT / "python"), *ROOT.glob("CMake*"), *ROOT.glob("cmake/*.cmake")]
    files += PACKAGE.glob("*.pyi")
    assert [str(path) for path in files if literal.search(path.read_text())] == []


def public_names() -> list[str]:
    return [name for name in ml.__all__ if not name.startswith("__")]


def own_doc(thing: Any) -> str:
    """The docstring that belongs to a class, function or property itself, not to its base."""
    doc = vars(thing).get("__doc__") if isinstance(thing, type) else thing.__doc__
    return SIGNATURE.sub("", (doc or "").strip()).strip()


def test_all_lists_what_the_package_offers() -> None:
    assert len(set(ml.__all__)) == len(ml.__all__)
    assert [name for name in ml.__all__ if not hasattr(ml, name)] == []
    unlisted = {name for name, thing in vars(ml).items()
                if not name.startswith("_") and not inspect.ismodule(thing)
                and getattr(thing, "__module__", "").startswith("mpsnn_loss")}  # fmt: skip
    assert unlisted <= set(ml.__all__)


@pytest.mark.parametrize("name", public_names())
def test_every_public_name_and_member_has_a_docstring(name: str) -> None:
    thing = getattr(ml, name)
    if get_origin(thing) is Literal:
        return
    assert own_doc(thing)
    if not isinstance(thing, type) or issubclass(thing, (Enum, BaseException)):
        return
    members = [
        member
        for member, value in vars(thing).items()
        if not member.startswith("_") and (callable(value) or hasattr(value, "__get__"))
    ]
    undocumented = [member for member in members if not own_doc(getattr(thing, member))]
    assert undocumented == []


def declared_names(path: Path) -> set[str]:
    """The names that a module or stub defines, or takes from a module other than the extension."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body if path.is_file() else []:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.Assign):
            names |= {part.id for part in node.targets if isinstance(part, ast.Name)}
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").endswith("_core"):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def test_every_public_name_stands_in_the_stub_or_the_package() -> None:
    declared = declared_names(PACKAGE / "_core.pyi") | declared_names(PACKAGE / "__init__.py")
    assert set(public_names()) - declared == set()


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


CITATION = re.compile(
    r"docs/contract\.md,\s+(?:(?:#|//|///)\s+)?sections?\s+(\d)(?:\s+(?:and|to)\s+(\d))?"
)


def test_every_citation_of_the_contract_names_a_section_that_it_has() -> None:
    headings = re.findall(r"^## (\d)\. ", (ROOT / "docs" / "contract.md").read_text(), re.MULTILINE)
    cited = [
        (path.name, section)
        for path in sources(SRC, ROOT / "python", ROOT / "tests")
        for numbers in CITATION.findall(path.read_text(encoding="utf-8"))
        for section in numbers
        if section
    ]
    assert len(cited) >= 5
    assert [(name, section) for name, section in cited if section not in headings] == []


def test_the_page_of_names_has_every_member_and_no_other() -> None:
    page = (ROOT / "docs" / "names.md").read_text(encoding="utf-8")
    words = set(re.findall(r"`([\w.]+)`", page))
    for member in (
        word for word in words if re.fullmatch(r"(MPS|Device|Command)\w*\.[a-z_]{2,}", word)
    ):
        owner, name = member.split(".")
        assert hasattr(getattr(ml, owner), name), member
    classes = [
        thing
        for thing in vars(ml).values()
        if isinstance(thing, type) and thing.__module__.startswith("mpsnn_loss")
        if not issubclass(thing, (Enum, Exception))
    ]
    missing = [
        f"{owner.__name__}.{name}"
        for owner in classes
        for name in vars(owner)
        if not name.startswith("_") and not {name, f"{owner.__name__}.{name}"} & words
    ]
    assert len(classes) >= 12
    assert missing == []
