"""What users see: every public name has an example that is run, every function says what it takes and gives."""

import ast
import doctest
import importlib
import inspect
import typing
from pathlib import Path

import docstring_parser
import pytest

import sps_jax as sps
from sps_jax import compression
from sps_jax.simulation.choices import Choices

PACKAGE = Path(sps.__file__).parent
TABLES = {"ALGORITHMS", "CRITERIA", "ENCODINGS", "STRUCTURES"}
DOCUMENTED = (
    "compression.bits",
    "compression.criteria",
    "datasets.partition",
    "layout",
    "problem",
    "results.files",
    "results.reading",
)
"""Modules whose public functions have an example too."""


def functions(name):
    """The public functions that a module defines, by full name."""
    module = importlib.import_module(f"sps_jax.{name}")
    members = inspect.getmembers(module, inspect.isfunction)
    return {f"{name}.{key}": f for key, f in members if f.__module__ == module.__name__ and not key.startswith("_")}


PUBLIC = {name: getattr(sps, name) for name in sps.__all__ if name not in TABLES}
PUBLIC |= {
    f"compression.{name}": getattr(compression, name) for name in compression.__all__ if name not in {*TABLES, "SCOPES"}
}
PUBLIC |= {name: function for module in DOCUMENTED for name, function in functions(module).items()}


def untyped(source):
    """Functions in ``source`` that leave out the type of an argument or of what they return."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            own = node.args
            given = [*own.posonlyargs, *own.args, *own.kwonlyargs, *filter(None, (own.vararg, own.kwarg))]
            if node.returns is None or any(a.annotation is None for a in given if a.arg not in ("self", "cls")):
                yield node.name


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_an_example(name):
    assert inspect.getdoc(PUBLIC[name])
    assert any(found.examples for found in doctest.DocTestFinder().find(PUBLIC[name], name, module=False))


def test_the_examples_are_run(pytestconfig):
    assert "sps_jax" in pytestconfig.getini("testpaths") and pytestconfig.getoption("doctestmodules")


@pytest.mark.parametrize("name", [name for name in sps.__all__ if name not in TABLES])
def test_types_of_a_public_name_mean_something(name):
    assert typing.get_type_hints(getattr(sps, name))


@pytest.mark.parametrize("name", ["prepare", "simulate", "iterate", "stream", "sweep"])
def test_the_choices_of_a_simulation_are_in_signature_and_docstring(name):
    """Each with its default and its words, and a misspelt one is refused with the nearest name."""
    function, choices = getattr(sps, name), Choices.__annotations__
    parameters = inspect.signature(function).parameters
    told = [p.arg_name for p in docstring_parser.parse(function.__doc__).params if p.description]
    assert sorted(one for many in told for one in many.split(", ")) == sorted(parameters)
    assert {each: parameters[each].default for each in choices} == {
        each: kind.__metadata__[0] for each, kind in choices.items()
    }
    with pytest.raises(TypeError, match=rf"^unknown option of {name} 'transfrom': did you mean 'transform'\?"):
        function(transfrom=None)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_function_is_typed(path):
    assert not list(untyped(path.read_text(encoding="utf-8")))


def test_what_is_not_typed_is_found():
    assert list(untyped("def f(a, b: int) -> int: ...")) == ["f"]
    assert list(untyped("def f(a: int, *b: int): ...")) == ["f"]
    assert list(untyped("def f(a: int):\n    def g(**c) -> int: ...")) == ["f", "g"]
    assert not list(untyped("class A:\n    def f(self, a: int) -> None: ..."))


def test_users_of_the_package_have_its_types():
    assert (PACKAGE / "py.typed").is_file()
