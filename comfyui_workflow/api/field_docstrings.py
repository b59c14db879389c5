"""Descriptions of the fields of a schema, from the docstrings below them.

pydantic can read them itself, when the class is created. That is a tenth of the server's start, and only the
OpenAPI document needs them. So they are read when the document is made.
"""

import ast
import inspect
import sys
from collections.abc import Mapping
from functools import cache
from itertools import pairwise

from pydantic import BaseModel


def describe_fields(model: type[BaseModel]) -> None:
    """Adds the descriptions to the fields of the model, its inherited ones included."""
    for base in reversed(model.__mro__):
        for name, text in _docstrings(base.__module__).get(base.__name__, {}).items():
            model.model_fields[name].description = text


@cache
def _docstrings(module: str) -> Mapping[str, Mapping[str, str]]:
    """Returns the docstrings of all fields of a module's classes, by the names of class and field."""
    if not module.startswith(__name__.partition(".")[0]):
        return {}
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return {each.name: _docstrings_of(each) for each in classes}


def _docstrings_of(definition: ast.ClassDef) -> dict[str, str]:
    found = {}
    for field, text in pairwise(definition.body):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[field.target.id] = inspect.cleandoc(str(text.value.value))
    return found
