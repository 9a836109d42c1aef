"""The calculator that a model may call: arithmetic, and `str.count` on a literal. It never calls `eval`."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable

MAX_CHARS = 256  # bounds all work: without powers, a product has at most as many digits as the expression
NOISE = 1e-15  # relative: the rounding errors of a few operations
ARITHMETIC = frozenset("0123456789*+-/.() ")
Number = int | float
OPERATORS: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


def calculate(expression: str) -> str | None:
    """Return the value of an expression such as `48/2`, `1,200 * 3` or `'banana'.count('a')`, as text.

    None when the expression is anything else or has no finite value. It differs from nanochat's calculator, which is Python's
    `eval` behind a filter, in what it writes: a whole number has no decimal point ("24", not "24.0"), and rounding errors of the last
    digit are removed ("0.3", not "0.30000000000000004"). GSM8K's own solutions are written so. It also refuses what is neither
    arithmetic nor a count, such as `'a'.upper().count('A')`.
    """
    if len(expression) > MAX_CHARS:
        return None
    plain = expression.replace(",", "")
    try:
        if plain.strip() and set(plain) <= ARITHMETIC:
            return _shown(_number(ast.parse(plain.strip(), mode="eval").body))
        return _counted(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None


def _number(node: ast.expr) -> Number:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value  # type: ignore[return-value]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _number(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_number(node.left), _number(node.right))
    raise ValueError("not arithmetic")


def _shown(value: Number) -> str:
    if not math.isfinite(value):
        raise ValueError("no finite value")
    if isinstance(value, int) or (value.is_integer() and abs(value) < 2**53):
        return str(int(value))
    short = f"{value:.15g}"  # 0.1 + 0.2 is 0.3
    return short if math.isclose(float(short), value, rel_tol=NOISE) else repr(value)


def _counted(node: ast.expr) -> str | None:
    match node:
        case ast.Call(
            func=ast.Attribute(value=ast.Constant(value=str(word)), attr="count"),
            args=[ast.Constant(value=str(part))],
            keywords=[],
        ):
            return str(word.count(part))
    return None
