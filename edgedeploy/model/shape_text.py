"""Symbolic sizes as text: torch evaluates them as Python source, so each is parsed, bounded and never evaluated here.

What is allowed is what sympy's ``srepr`` writes of integer arithmetic (``torch/_export/serde/serialize.py``).
"""

from __future__ import annotations

import ast
import re

_ARITHMETIC = frozenset({"Add", "Mul", "Pow", "Max", "Min", "Symbol", "Integer", "Float", "Rational"})
_CALLS = _ARITHMETIC | frozenset(
    {
        "Mod", "Abs", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "Equality", "Unequality", "StrictLessThan", "LessThan",
        "StrictGreaterThan", "GreaterThan", "And", "Or", "Not", "Piecewise", "ITE", "floor", "ceiling", "FloorDiv",
        "ModularIndexing", "Where", "PythonMod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv", "LShift", "RShift",
        "PowByNatural", "FloatPow", "FloatTrueDiv", "IntTrueDiv", "IsNonOverlappingAndDenseIndicator", "TruncToFloat",
        "TruncToInt", "RoundToInt", "RoundDecimal", "ToFloat", "Identity", "ExprCondPair", "Tuple",
    }
)  # fmt: skip
_NAMES = frozenset({"true", "false", "oo", "int_oo"})
#: A symbol as torch and users name them; the number bounds counters that torch advances one by one.
SYMBOL = re.compile(r"[a-zA-Z_]{1,60}\d{0,6}(_[a-zA-Z]{1,30})*", re.ASCII)
_FLOAT = re.compile(r"-?\d{1,30}(\.\d{1,40})?([eE][+-]?\d{1,3})?")

_MAX_LETTERS = 4000
_MAX_NODES = 400
_MAX_DEPTH = 40
#: Terms of the expression multiplied out: torch expands what it compares.
_MAX_TERMS = 1000
_MAX_BITS = 512
_MAX_EXPONENT = 8
#: sympy compares the arguments of Max and Min with each other.
_MAX_CHOICES = 16


def fault_in_shape(text: str) -> str:
    """What is wrong with the text of a shape, or "" where it is arithmetic of bounded cost."""
    if len(text) > _MAX_LETTERS:
        return f"{len(text):,} letters"
    if text.count("(") > _MAX_NODES:
        return "too many brackets"
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return "no expression"
    nodes = sum(1 for _ in ast.walk(tree))
    if nodes > 8 * _MAX_NODES:
        return f"{nodes:,} parts"
    reader = _Reader()
    try:
        terms, bits = reader.cost(tree, 0)
    except _FaultError as fault:
        return str(fault)
    if terms > _MAX_TERMS:
        return f"more than {_MAX_TERMS:,} terms when multiplied out"
    return "numbers too large" if bits > _MAX_BITS else ""


class _FaultError(Exception):
    """What is wrong."""


class _Reader:
    """Bounds the cost of an expression, bottom up: (terms when multiplied out, bits of its largest number)."""

    def __init__(self) -> None:
        self._choices = 0
        self._nodes = 0

    def cost(self, node: ast.expr, depth: int) -> tuple[int, int]:
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise _FaultError(f"more than {_MAX_NODES} parts")
        if depth > _MAX_DEPTH:
            raise _FaultError(f"nested deeper than {_MAX_DEPTH}")
        match node:
            case ast.Constant(value=bool()):
                return 1, 1
            case ast.Constant(value=int() as number):
                return 1, self._bits(number)
            case ast.Constant(value=float()):
                return 1, 64
            case ast.Name(id=name):
                if name not in _NAMES and not (SYMBOL.fullmatch(name) and "__" not in name):
                    raise _FaultError(f"the name {name!r}")
                return 1, 1
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
                return self.cost(operand, depth + 1)
            case ast.BinOp(left=left, op=operator, right=right):
                return self._binary(operator, left, right, depth)
            case ast.Compare(left=left, comparators=others, ops=operators):
                if not all(
                    isinstance(op, ast.Eq | ast.NotEq | ast.Lt | ast.LtE | ast.Gt | ast.GtE) for op in operators
                ):
                    raise _FaultError("Python code")
                return self._added([left, *others], depth)
            case ast.Tuple(elts=parts):
                return self._added(parts, depth)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords):
                return self._call(name, arguments, keywords, depth)
        raise _FaultError(f"Python code ({type(node).__name__})")

    def _call(self, name: str, arguments: list[ast.expr], keywords: list[ast.keyword], depth: int) -> tuple[int, int]:
        if name not in _CALLS:
            raise _FaultError(f"Python code (a call of {name!r})")
        for keyword in keywords:
            value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
            fits = isinstance(value, bool) or (
                isinstance(value, int) and 0 <= value <= 200 and keyword.arg == "precision"
            )
            if not (fits and keyword.arg and name in ("Symbol", "Float", "Add", "Mul", "Pow", "Max", "Min")):
                raise _FaultError(f"Python code (an argument of {name})")
        if name in ("Symbol", "Float"):
            pattern = SYMBOL if name == "Symbol" else _FLOAT
            match arguments:
                case [ast.Constant(value=str() as text)] if pattern.fullmatch(text) and "__" not in text:
                    return 1, 64 if name == "Float" else 1
                case [ast.Constant(value=float() | int())] if name == "Float":
                    return self.cost(arguments[0], depth + 1)
            raise _FaultError(f"a {name} that is none")
        if name in ("Pow", "PowByNatural", "FloatPow"):
            if len(arguments) != 2:
                raise _FaultError(f"a {name} of {len(arguments)} arguments")
            return self._power(arguments[0], arguments[1], depth)
        if name in ("LShift", "RShift"):
            return (
                self._binary(ast.LShift(), arguments[0], arguments[1], depth) if len(arguments) == 2 else (0, 1 << 30)
            )
        if name == "Mul":
            return self._multiplied(arguments, depth)
        if name in ("Max", "Min"):
            self._choices += len(arguments)
            if self._choices > _MAX_CHOICES:
                raise _FaultError(f"more than {_MAX_CHOICES} arguments of Max and Min")
        return self._added(arguments, depth)

    def _binary(self, operator: ast.operator, left: ast.expr, right: ast.expr, depth: int) -> tuple[int, int]:
        match operator:
            case ast.Mult():
                return self._multiplied([left, right], depth)
            case ast.Pow():
                return self._power(left, right, depth)
            case ast.LShift():
                amount = _integer(right)
                if amount is None or not 0 <= amount < 64:
                    raise _FaultError("a shift by something else than a small number")
                terms, bits = self.cost(left, depth + 1)
                return terms, bits + amount
            case ast.Add() | ast.Sub() | ast.Div() | ast.FloorDiv() | ast.Mod():
                return self._added([left, right], depth)
        raise _FaultError("Python code")

    def _power(self, base: ast.expr, exponent: ast.expr, depth: int) -> tuple[int, int]:
        power = _integer(exponent)
        terms, bits = self.cost(base, depth + 1)
        if power is None and isinstance(exponent, ast.Call) and _halves(exponent):
            power = 1
        if power is None or abs(power) > _MAX_EXPONENT:
            raise _FaultError("a power of something else than a small number")
        return self._bounded(terms ** max(abs(power), 1), bits * max(abs(power), 1))

    def _multiplied(self, parts: list[ast.expr], depth: int) -> tuple[int, int]:
        terms, bits = 1, 0
        for part in parts:
            more, wider = self.cost(part, depth + 1)
            terms, bits = self._bounded(terms * more, bits + wider)
        return terms, bits

    def _added(self, parts: list[ast.expr], depth: int) -> tuple[int, int]:
        costs = [self.cost(part, depth + 1) for part in parts]
        return self._bounded(sum(terms for terms, _ in costs) or 1, max((bits for _, bits in costs), default=1) + 1)

    def _bounded(self, terms: int, bits: int) -> tuple[int, int]:
        if terms > _MAX_TERMS:
            raise _FaultError(f"more than {_MAX_TERMS:,} terms when multiplied out")
        if bits > _MAX_BITS:
            raise _FaultError("numbers too large")
        return terms, bits

    def _bits(self, number: int) -> int:
        if number.bit_length() > 64:
            raise _FaultError("numbers too large")
        return max(number.bit_length(), 1)


def _integer(node: ast.expr) -> int | None:
    match node:
        case ast.Constant(value=int() as number) if not isinstance(number, bool):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _integer(operand)
            return None if inner is None else -inner
        case ast.Call(func=ast.Name(id="Integer"), args=[argument], keywords=[]):
            return _integer(argument)
    return None


def _halves(node: ast.Call) -> bool:
    """A square root is written ``Pow(x, Rational(1, 2))``."""
    is_rational = isinstance(node.func, ast.Name) and node.func.id == "Rational" and not node.keywords
    numbers = [_integer(argument) for argument in node.args]
    return is_rational and len(numbers) == 2 and all(number is not None and abs(number) <= 4 for number in numbers)
