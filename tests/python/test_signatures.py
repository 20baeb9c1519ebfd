"""Signatures and help: every public callable answers inspect.signature as the stub has it."""

from __future__ import annotations

import ast
import inspect
import pydoc
import re
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import mpsnn_loss as ml
import numpy as np
import pytest

PACKAGE = Path(ml.__file__).parent
STUB = ast.parse((PACKAGE / "_core.pyi").read_text())
Parameter = inspect.Parameter


def is_property(function: ast.FunctionDef) -> bool:
    return any(
        ast.unparse(decorator).endswith(("property", ".setter"))
        for decorator in function.decorator_list
    )


def functions_in(nodes: list[ast.stmt]) -> dict[str, list[ast.FunctionDef]]:
    """By name, the overloads of each, in order."""
    found: dict[str, list[ast.FunctionDef]] = {}
    for node in nodes:
        if isinstance(node, ast.FunctionDef) and not is_property(node):
            found.setdefault(node.name, []).append(node)
    return found


FUNCTIONS = functions_in(STUB.body)
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}
METHODS = {name: functions_in(node.body) for name, node in CLASSES.items()}


def parameters_of(overloads: list[ast.FunctionDef]) -> list[tuple[str, Any, Any]]:
    """Name, kind and default, which not all overloads may have."""
    per_overload = [parameters_of_one(overload) for overload in overloads]
    return [
        next((row for row in rows if row[2] is not Parameter.empty), rows[0])
        for rows in zip(*per_overload, strict=True)
    ]


def parameters_of_one(function: ast.FunctionDef) -> list[tuple[str, Any, Any]]:
    arguments = function.args
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    kinds = [Parameter.POSITIONAL_ONLY] * len(arguments.posonlyargs)
    kinds += [Parameter.POSITIONAL_OR_KEYWORD] * len(arguments.args)
    rows = list(zip(plain, kinds, defaults, strict=True))
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        rows.append((argument, Parameter.KEYWORD_ONLY, default))
    return [(argument.arg, kind, value_of(default) if default is not None else Parameter.empty)
            for argument, kind, default in rows]  # fmt: skip


def value_of(default: ast.expr) -> Any:
    return eval(ast.unparse(default), vars(ml))


def plain(signature: inspect.Signature) -> list[tuple[str, Any, Any]]:
    return [(p.name, p.kind, p.default) for p in signature.parameters.values()]


def is_our_class(thing: object) -> bool:
    """Calls of enumerations and exceptions are Python's."""
    return isinstance(thing, type) and not issubclass(thing, (Enum, BaseException))


PUBLIC_CLASSES = [name for name in ml.__all__ if is_our_class(getattr(ml, name))]


CLASS_METHODS = [
    (name, method)
    for name in PUBLIC_CLASSES
    for method in METHODS[name]
    if method not in ("__init__", "__buffer__")  # Python's own, from 3.12 on
]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_the_signature_of_the_stub(name: str) -> None:
    assert plain(inspect.signature(getattr(ml, name))) == parameters_of(FUNCTIONS[name])


@pytest.mark.parametrize(("name", "method"), CLASS_METHODS)
def test_methods_have_the_signature_of_the_stub(name: str, method: str) -> None:
    found = plain(inspect.signature(getattr(getattr(ml, name), method)))
    expected = parameters_of(METHODS[name][method])
    if expected and expected[0][0] == "self":  # positional only where C defines the method
        assert found[0][0] == "self"
        found, expected = found[1:], expected[1:]
    assert found == expected


@pytest.mark.parametrize("name", PUBLIC_CLASSES)
def test_classes_have_the_signature_of_their_constructor(name: str) -> None:
    constructor = METHODS[name].get("__init__")
    expected = parameters_of(constructor)[1:] if constructor is not None else []
    assert plain(inspect.signature(getattr(ml, name))) == expected
    if constructor is not None:
        assert plain(inspect.signature(getattr(ml, name).__init__))[1:] == expected


@pytest.mark.parametrize("name", ["MPSNNForwardLoss", "MPSNNLossGradient"])
def test_bound_methods_and_kernels_that_are_called_have_signatures(name: str) -> None:
    kernel = getattr(ml, name)(ml.cpu_device(), ml.MPSCNNLossDescriptor("huber", "sum"))
    for method, bound in (("__call__", kernel), ("copy", kernel.copy)):
        assert plain(inspect.signature(bound)) == parameters_of(METHODS[name][method])[1:]


@pytest.mark.parametrize("name", [name for name in ml.__all__ if callable(getattr(ml, name))])
def test_every_callable_has_a_signature(name: str) -> None:
    assert inspect.signature(getattr(ml, name)) is not None


# What pybind11 would call things in help.
OF_CPP = re.compile(r"mpsnn_loss\._core\.|\bhandle\b|std::|\barg\d|[Cc]apsule|function_record")


@pytest.mark.parametrize("name", [name for name in ml.__all__ if not name.startswith("_")])
def test_help_speaks_of_python(name: str) -> None:
    words = pydoc.plain(pydoc.render_doc(getattr(ml, name)))
    assert OF_CPP.findall(words) == []
    assert "\n--\n" not in words


def test_the_doc_strings_of_classes_begin_with_words() -> None:
    for name in [*PUBLIC_CLASSES, "DeviceError"]:
        assert not (getattr(ml, name).__doc__ or "").startswith(f"{name}("), name


def test_the_literals_name_what_the_enumerations_have() -> None:
    losses = [member.name.lower() for member in ml.MPSCNNLossType]
    reductions = [member.name.lower() for member in ml.MPSCNNReductionType]
    assert list(get_args(ml.LossName)) == losses
    assert list(get_args(ml.ReductionName)) == [*reductions, "mean_by_weights"]
    with pytest.raises(AttributeError, match="LosName"):
        ml.LosName  # noqa: B018


def wrong_calls() -> dict[str, Any]:
    """Every constructor, and every method of one object of each class, by the name that it says."""
    queue = ml.cpu_device().make_command_queue()
    descriptor = ml.MPSCNNLossDescriptor("hinge", "sum")
    kernels = [
        cls(ml.cpu_device(), descriptor) for cls in (ml.MPSNNForwardLoss, ml.MPSNNLossGradient)
    ]
    images = ml.MPSImageBatch.from_array(ml.cpu_device(), np.ones((1, 1, 1, 2), "f4"))
    objects = [ml.cpu_device(), queue, queue.make_command_buffer(), *kernels, images, images[0],
               ml.MPSNNInitialGradient(ml.cpu_device())]  # fmt: skip
    calls: dict[str, Any] = {
        cls.__name__: cls
        for cls in (type(x) for x in (descriptor, *objects))
        if "__init__" in METHODS.get(cls.__name__, {})
    }
    for x in objects:
        for cls in type(x).__mro__:
            names = (name for name in METHODS.get(cls.__name__, {}) if not name.startswith("_"))
            calls |= {f"{type(x).__name__}.{name}": getattr(x, name) for name in names}
    for name in ("index", "count"):  # of collections.abc.Sequence
        del calls[f"MPSImageBatch.{name}"]
    return calls | {name: getattr(ml, name) for name in FUNCTIONS}


@pytest.mark.parametrize("name", wrong_calls())
def test_a_wrong_call_reads_as_one_of_python_would(name: str) -> None:
    call, function = wrong_calls()[name], name.rpartition(".")[2]
    with pytest.raises(
        TypeError, match=rf"^{function}\(\) got an unexpected keyword argument 'bogus'"
    ):
        call(bogus=1)
    with pytest.raises(TypeError, match=rf"^{function}\(\) takes at most \d+ positional argument"):
        call(*range(30))
