"""Values written out as an expression of known names: `prompt & ~positions(0, 2)`. No eval."""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.BitOr: operator.or_,
    ast.BitAnd: operator.and_,
    ast.Invert: operator.invert,
}


def evaluated(
    text: str,
    names: Mapping[str, Any],
    makers: Mapping[str, Callable[..., Any]],
    attributes: Mapping[str, Callable[[Any], Any]],
) -> Any:
    """What `text` says, of `names`, of calls of `makers` with numbers, and of |, & and ~.

    SyntaxError where it says anything else; the makers' own errors are theirs.
    """

    def value(node: ast.AST) -> Any:
        if isinstance(node, ast.Name) and node.id in names:
            return names[node.id]
        if isinstance(node, ast.Attribute) and not isinstance(node.value, ast.Attribute):
            return _known(node.attr, attributes)(value(node.value))
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](value(node.operand))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            return _known(node.func.id, makers)(*map(_number, node.args))
        raise SyntaxError(f"{text!r} says something else")

    return value(ast.parse(text.strip(), mode="eval").body)


def _known(name: str, among: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    if name not in among:
        raise SyntaxError(f"{name!r} is not known")
    return among[name]


def _number(node: ast.AST) -> Any:
    """A whole number, None, or a list of whole numbers."""
    try:
        found = ast.literal_eval(node)
    except ValueError as error:
        raise SyntaxError("no number") from error
    whole = all(type(one) is int for one in found) if isinstance(found, list) else False
    if found is None or type(found) is int or whole:
        return found
    raise SyntaxError("no whole number")
