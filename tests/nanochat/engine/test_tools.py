import time

import pytest

from nanochat.engine.tools import MAX_CHARS, calculate


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("1+1", "2"),
        ("48/2", "24"),
        ("7/2", "3.5"),
        ("0.1+0.2", "0.3"),
        ("(3 + 4) * -2", "-14"),
        ("1,200*3", "3600"),
        ("7//2", "3"),
        (" 5 ", "5"),
        ("'banana'.count('a')", "3"),
        ('"strawberry".count("r")', "3"),
        ("'profile'.count('file')", "1"),
        ("'a,b'.count(',')", "1"),
        ("99999999999999999999*3", "299999999999999999997"),
        ("99999999999.99", "99999999999.99"),
        ("99999999999.99*1", "99999999999.99"),
        ("123456789012345.678", "123456789012345.67"),  # all that a float holds
        ("1/3", "0.333333333333333"),
        ("1.1*1.1*1.1", "1.331"),
        ("4.35*100", "435"),
    ],
)
def test_expressions_that_are_calculated(expression, result):
    assert calculate(expression) == result


@pytest.mark.parametrize(
    "expression",
    [
        "",
        " ",
        "1/0",
        "1+",
        "2**9",
        "9**9**9**9",
        "abc",
        "__import__('os').system('true')",
        "'a'.upper()",
        "'a'.count('a', 0)",
        "('a'*9).count('a')",
        "'a'.count(open('x'))",
        "[].count(1)",
        "f'{1}'.count('1')",
        "1 if 1 else 2",
        "1e999",
        "1;2",
        "True",
        "lambda: 1",
        "1+1\n2+2",
        "\x00",
    ],
)
def test_expressions_that_are_refused(expression):
    assert calculate(expression) is None


@pytest.mark.parametrize("expression", ["9*" * 127 + "9", "(" * 120 + "1" + ")" * 120, "-" * 255 + "1", "9" * MAX_CHARS])
def test_long_expressions_are_quick(expression):
    start = time.monotonic()
    calculate(expression)
    assert time.monotonic() - start < 0.2


def test_an_expression_that_is_too_long_is_refused():
    assert calculate("1" + "+1" * (MAX_CHARS // 2)) is None
