"""What compiler flags of the environment must not change: arithmetic, language, process."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUARD = "core/strict_semantics.hpp"
COMPILERS = [name for name in ("g++", "clang++", "clang++-19") if shutil.which(name)]

pytestmark = [
    pytest.mark.skipif(
        not (ROOT / "cmake").is_dir(),
        reason="the sources are not beside the tests: an installed wheel is being tested",
    ),
    pytest.mark.skipif(not COMPILERS, reason="there is no compiler here"),
]

FORBIDDEN = {
    "g++": [
        "-ffast-math", "-Ofast", "-funsafe-math-optimizations", "-ffinite-math-only",
        "-fno-signed-zeros", "-freciprocal-math", "-fno-threadsafe-statics", "-mfpmath=387",
        "-fsingle-precision-constant", "-fassociative-math -fno-signed-zeros -fno-trapping-math",
    ],
    "clang++": ["-ffast-math", "-Ofast", "-ffinite-math-only"],
}  # fmt: skip
HARMLESS_ONCE_OVERRULED = [
    "-march=native", "-mavx512f", "-mfma", "-mno-avx2", "-fopenmp", "-flto", "-fshort-enums",
    "-fpack-struct", "-fno-exceptions", "-fno-rtti", "-fno-aligned-new", "-frounding-math",
    "-freciprocal-math", "-ffp-contract=fast", "-std=c++98", "-fvisibility=default",
]  # fmt: skip
# All but the last two link crtfastmath.o.
LINKED = [
    "-ffast-math", "-Ofast", "-funsafe-math-optimizations", "-mdaz-ftz", "-fopenmp", "-flto",
]  # fmt: skip

PROJECT = """
cmake_minimum_required(VERSION 3.22...3.31)
project(probe LANGUAGES CXX)
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(MPSNN_LOSS_X86_64_LEVELS v3 v4)
include(ROOT/cmake/Warnings.cmake)
include(ROOT/cmake/StrictSemantics.cmake)
include(ROOT/cmake/InstructionSets.cmake)
add_library(probe MODULE whole.cpp)
target_include_directories(probe PRIVATE ROOT/src)
target_link_libraries(probe PRIVATE mpsnn_options)
add_instruction_sets(probe level.cpp)
"""
# A bit for each thing that a flag can change: underflow, order of sums, NaN, signed zero, layout,
# contraction.
WHOLE = """
#include "core/half.hpp"
#include "core/loss_type.hpp"
namespace { enum Small { one }; struct Packed { char a; double b; }; }
extern "C" int probe(double small, double large, double nan, double third) {
  return (small / 4 != 0) | (third + large - large == 0) << 1 | (nan != nan) << 2 |
         (1 / (-(third - third)) > 0) << 3 | (sizeof(Small) == sizeof(int)) << 4 |
         (sizeof(Packed) == 16) << 5 | (third * third - 1.0 / 9 == 0) << 6;
}
"""
EVERYTHING_IS_RIGHT = 0b1110111  # all but 1 / -0 > 0
LEVEL = """
#define NAME_(isa) level_of_##isa
#define NAME(isa) NAME_(isa)
extern "C" int NAME(MPSNN_ISA)() {
  int level = 0;
#if defined(__AVX__) || defined(__FMA__) || defined(__F16C__)
  level = 1;
#endif
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
  level = 3;
#endif
#if defined(__AVX512F__)
  level = 4;
#endif
  return level;
}
"""
REPORT = """
import ctypes, json, sys
ctypes.CDLL(None)
library = ctypes.CDLL(sys.argv[1])
library.probe.argtypes = [ctypes.c_double] * 4
levels = [getattr(library, "level_of_" + name)() for name in
          ("baseline", "x86_64_v3", "x86_64_v4") if hasattr(library, "level_of_" + name)]
small = 2.0 ** -1022
print(json.dumps([library.probe(small, 1e20, float("nan"), 1 / 3), levels, small / 4 != 0]))
"""


def forbidden(compiler: str) -> list[str]:
    return FORBIDDEN[compiler.removesuffix("-19")]


def compile_guard(compiler: str, options: list[str], folder: Path) -> str:
    """What the compiler says of a file that includes the guard; nothing is right."""
    source = folder / "whole.cpp"
    source.write_text(WHOLE)
    command = [compiler, *options, "-std=c++20", f"-I{ROOT / 'src'}", "-fsyntax-only", str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode != 0) == (" error: " in done.stderr)
    return done.stderr if done.returncode else ""


def links(compiler: str, flag: str, folder: Path) -> bool:
    """Whether this compiler knows the flag, and has the library that it may need."""
    source = folder / "empty.cpp"
    source.write_text("int main() {}")
    command = [compiler, *flag.split(), str(source), "-o", str(folder / "empty")]
    return subprocess.run(command, capture_output=True).returncode == 0


def build(compiler: str, flags: str, linker_flags: str, folder: Path, *defines: str) -> Path:
    """A library built with the project's own CMake files, with these flags in the environment."""
    for name, text in (("CMakeLists.txt", PROJECT), ("whole.cpp", WHOLE), ("level.cpp", LEVEL)):
        (folder / name).write_text(text.replace("ROOT", ROOT.as_posix()))
    environment = os.environ | {"CXX": compiler, "CXXFLAGS": flags, "LDFLAGS": linker_flags}
    binary = folder / "build"
    for arguments in (["-S", str(folder), "-B", str(binary), *defines], ["--build", str(binary)]):
        done = subprocess.run(
            ["cmake", *arguments], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return binary


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_build_without_the_projects_flags_is_refused(compiler: str, tmp_path: Path) -> None:
    assert compile_guard(compiler, [], tmp_path) == ""
    accepted = [flag for flag in forbidden(compiler)
                if GUARD not in compile_guard(compiler, flag.split(), tmp_path)]  # fmt: skip
    assert accepted == []


@pytest.mark.skipif(not shutil.which("cmake"), reason="there is no cmake here")
@pytest.mark.parametrize("compiler", COMPILERS)
def test_flags_of_the_environment_do_not_decide(compiler: str, tmp_path: Path) -> None:
    hostile = [flag for flag in (*forbidden(compiler), *HARMLESS_ONCE_OVERRULED)
               if links(compiler, flag, tmp_path)]  # fmt: skip
    linked = [flag for flag in LINKED if links(compiler, flag, tmp_path)]
    binary = build(compiler, " ".join(hostile), " ".join(linked), tmp_path,
                   "-DCMAKE_CXX_FLAGS_RELEASE=-Ofast", "-DCMAKE_BUILD_TYPE=Release")  # fmt: skip
    (library,) = binary.glob("libprobe.*")
    report = subprocess.run([sys.executable, "-c", REPORT, str(library)], check=True,
                            capture_output=True, text=True)  # fmt: skip
    result, levels, subnormals_are_left_alone = json.loads(report.stdout)
    assert result == EVERYTHING_IS_RIGHT
    assert levels == [0, 3, 4][: len(levels)]
    assert subnormals_are_left_alone

    # Each by itself, before the options that the file was compiled with.
    commands = json.loads((binary / "compile_commands.json").read_text())
    (command,) = (each["command"] for each in commands if each["file"].endswith("whole.cpp"))
    ours = [word for word in shlex.split(command)[1:] if word not in " ".join(hostile).split()]
    ours = ours[: ours.index("-o")]
    wrong = {flag: compile_guard(compiler, [*flag.split(), *ours], tmp_path) for flag in hostile}
    assert {flag: said for flag, said in wrong.items() if said} == {}


@pytest.mark.skipif(not shutil.which("cmake"), reason="there is no cmake here")
@pytest.mark.parametrize("flag", ["-mpc32", "-mpc64"])
def test_a_flag_that_cannot_be_overruled_is_refused_with_a_sentence(
    flag: str, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=f"expected no -mpc32.*\n?.*got\n?.*{flag}"):
        build(COMPILERS[0], "", flag, tmp_path)
