"""Development sessions. `nox` runs the quick ones, `nox -l` lists all."""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "cpp", "tests"]

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
CPP_SUFFIXES = {".cpp", ".hpp", ".h", ".mm"}
SMOKE_TEST = "tests/python/test_minimal.py"


# Clang with its sanitizers, and GNUstep. The Objective-C runtime goes with the gcc that is there.
DOUBLE_PACKAGES = [
    "clang-19",
    "libclang-rt-19-dev",
    "llvm-19",
    "libgnustep-base-dev",
    "doctest-dev",
]


def run_cpp_tests(session: nox.Session, preset: str, *definitions: str) -> None:
    session.run("cmake", "--preset", preset, "-G", "Ninja", *definitions)
    session.run("cmake", "--build", "--preset", preset)
    session.run("ctest", "--preset", preset)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The Python tests."""
    session.install(".[demo,test]")
    session.run("pytest", *session.posargs)


@nox.session
def cpp(session: nox.Session) -> None:
    """The C++ tests."""
    session.install("cmake", "ninja")
    run_cpp_tests(session, "default")


@nox.session
@nox.parametrize("preset", ["asan", "tsan"])
def sanitizers(session: nox.Session, preset: str) -> None:
    """The C++ tests with sanitizers."""
    session.install("cmake", "ninja")
    run_cpp_tests(session, preset)


def run_double_tests(session: nox.Session, preset: str) -> None:
    """The C++ tests, those of the Metal backend on its double among them; clang for everything."""
    gcc = session.run("gcc", "-dumpversion", external=True, silent=True)
    runtime = f"libobjc-{str(gcc).strip().split('.')[0]}-dev"
    session.run("sh", ".ci/system-packages", *DOUBLE_PACKAGES, runtime, external=True)
    session.install("cmake", "ninja")
    names = [f"clang++-{version}" for version in range(19, 13, -1)] + ["clang++"]
    compiler = next(filter(None, map(shutil.which, names)))
    run_cpp_tests(session, preset, f"-DCMAKE_CXX_COMPILER={compiler}")


@nox.session
def metal_double(session: nox.Session) -> None:
    """The Metal backend on its double: C++ tests with sanitizers, Python tests, the kit."""
    run_double_tests(session, "double")
    settings = ["build-dir=build/double-{wheel_tag}"]
    settings += ["cmake.define.MPSNN_LOSS_SOFTMETAL=ON", "cmake.define.MPSNN_LOSS_X86_64_LEVELS="]
    session.install(".[demo,test]", *(word for s in settings for word in ("-C", s)))
    # The CPU engine has its tests in other sessions, and so has what knows no device; all cases of
    # the kit run below.
    pytest = ["pytest", "-n", "2", "-k", "not CPU and not every_case_agrees", *session.posargs]
    others = ("bench", "build_flags", "command_line", "differential", "hostile", "same_bits")
    ignored = [f"--ignore=tests/python/test_{name}.py" for name in others]
    session.run(*pytest, *ignored, env={"SOFTMETAL_STORAGE": "managed"})
    # No header states some defaults of inherited properties, so nothing may rest on them.
    tests = [f"tests/python/test_{name}.py" for name in ("metal", "kernels", "properties")]
    session.run(*pytest, *tests, env={"SOFTMETAL_FAULT": "other_defaults"})
    tests = [f"tests/python/test_{name}.py" for name in ("metal", "images", "kernels", "functions")]
    session.run(*pytest, *tests, env={"SOFTMETAL_STORAGE": "shared"})
    session.run("python", "-m", "mpsnn_loss", "conformance", "--device", "metal", "--strict")


@nox.session
def python_sanitizers(session: nox.Session) -> None:
    """The Python tests on an extension with AddressSanitizer and UndefinedBehaviorSanitizer."""
    settings = ["build-dir=build/asan-{wheel_tag}", "cmake.build-type=RelWithDebInfo"]
    settings += ["cmake.define.MPSNN_LOSS_SANITIZE=address,undefined"]
    settings += ["cmake.define.CMAKE_CXX_COMPILER=g++", "cmake.define.MPSNN_LOSS_X86_64_LEVELS=v3"]
    session.install(".[demo,test]", *(word for s in settings for word in ("-C", s)))
    # Python itself knows no sanitizer, so gcc's runtime is loaded first, with the C++ library
    # whose exceptions it watches. Python's own leaks at exit are not looked for.
    libraries = [
        str(session.run("g++", f"-print-file-name={name}", external=True, silent=True)).strip()
        for name in ("libasan.so", "libubsan.so", "libstdc++.so")
    ]
    environment = {
        "LD_PRELOAD": " ".join(libraries),
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }
    session.run("pytest", "-n", "2", *session.posargs, env=environment)


@nox.session
def differential(session: nox.Session) -> None:
    """A random comparison with the reference: `nox -s differential -- --seed 7 --cases 100000`."""
    session.install(".")
    session.run("python", "-m", "tests.differential", *session.posargs)


@nox.session
def metal_double_tsan(session: nox.Session) -> None:
    """The C++ tests, those of the Metal backend among them, with ThreadSanitizer."""
    run_double_tests(session, "double-tsan")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types, and the stubs against the compiled module."""
    groups = nox.project.load_toml("pyproject.toml")
    session.install(".", *nox.project.dependency_groups(groups, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    files = [
        str(path)
        for folder in ("src", "tests/cpp", "tests/softmetal")
        for path in sorted(Path(folder).rglob("*"))
        if path.suffix in CPP_SUFFIXES
    ]
    session.run("clang-format", "--dry-run", "--Werror", *files)
    allowed = "tests/stubtest_allowlist.txt"
    session.run("python", "-m", "mypy.stubtest", "mpsnn_loss", "--allowlist", allowed)


@nox.session
def wheels(session: nox.Session) -> None:
    """An sdist, a wheel made from it, and the smoke test on that wheel in a fresh environment."""
    session.install("build")
    built = Path(session.create_tmp()).resolve() / "dist"
    session.run("python", "-m", "build", "--outdir", str(built))
    (wheel,) = built.glob("*.whl")
    fresh = built.parent / "fresh"
    session.run("python", "-m", "venv", "--clear", str(fresh))
    python = str(fresh / "bin" / "python")
    session.run(python, "-m", "pip", "install", str(wheel), "pytest", external=True)
    session.run(python, "-m", "pytest", SMOKE_TEST, external=True)


# What is asked of every installation, from another folder.
CHECK = """
import mpsnn_loss as ml
loss, gradient = ml.loss_and_gradient([[1.0, 2.0]], [[3.0, 2.0]], "mean_squared_error")
assert loss == 2.0 and gradient.tolist() == [[-2.0, 0.0]], (loss, gradient)
"""


@nox.session
def installs(session: nox.Session) -> None:
    """Each way to install, once, from a folder whose name has a space and a letter beyond ASCII."""
    place = Path(session.create_tmp()).resolve() / "a plåce"
    shutil.rmtree(place, ignore_errors=True)
    tree, target, dist = place / "tree", place / "target", place / "dist"
    shutil.copytree(
        ".", tree, ignore=shutil.ignore_patterns("build", "dist", ".git", ".nox", ".venv")
    )
    session.run("python", "-m", "venv", str(place / "venv"))
    python = str(place / "venv" / "bin" / "python")

    def run(*command: str, **variables: str) -> None:
        session.run(python, *command, external=True, env={"PYTHONPATH": ""} | variables)

    def check(way: str, **variables: str) -> None:
        session.log(f"installed: {way}")
        with session.chdir(place):
            run("-c", CHECK, **variables)

    def install(way: str, *options: str) -> None:
        run("-m", "pip", "install", "-q", "--force-reinstall", "--no-deps", *options)
        check(way)

    backend = nox.project.load_toml("pyproject.toml")["build-system"]["requires"]
    run("-m", "pip", "install", "-q", "numpy", "build", "cmake", "ninja", *backend)
    bare = ["--no-build-isolation"]
    with session.chdir(tree):
        install("from the tree", ".")
        install("from the tree, without isolation", *bare, ".")
        install("editable", "-e", ".")
        install("editable, without isolation", *bare, "-e", ".")
        install("editable, rebuilt on import", *bare, "-C", "editable.rebuild=true", "-e", ".")
        (tree / "src" / "devices.cpp").touch()
        check("editable, after a change")
        run("-m", "pip", "uninstall", "-q", "-y", "mpsnn-loss")
        run("-m", "pip", "install", "-q", "--no-deps", "--target", str(target), *bare, ".")
        check("into a folder", PYTHONPATH=str(target))
        run("-m", "pip", "wheel", "-q", "--no-deps", "-w", str(dist / "pip"), *bare, ".")
        run("-m", "build", "--no-isolation", "--outdir", str(dist / "build"), ".")
        for way in ("pip/*.whl", "build/*.whl", "build/*.tar.gz"):
            (file,) = dist.glob(way)
            install(way, *bare, str(file))


@nox.session
def demo(session: nox.Session) -> None:
    """The demo."""
    session.install(".[demo]")
    session.run("python", "-m", "mpsnn_loss", "demo", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Every loss against other libraries, hours long, or `nox -s bench -- --quick`."""
    groups = nox.project.load_toml("pyproject.toml")
    session.install(".", *nox.project.dependency_groups(groups, "bench"))
    session.run("python", "-m", "tests.bench", *session.posargs)
