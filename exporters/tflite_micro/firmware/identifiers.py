"""Untrusted names in C sources: identifiers, string literals, and which Add method registers an operator."""

from __future__ import annotations

import re

_KEYWORDS = frozenset(
    [
        "alignas",
        "alignof",
        "and",
        "and_eq",
        "asm",
        "auto",
        "bitand",
        "bitor",
        "bool",
        "break",
        "case",
        "catch",
        "char",
        "char16_t",
        "char32_t",
        "class",
        "compl",
        "const",
        "constexpr",
        "const_cast",
        "continue",
        "decltype",
        "default",
        "delete",
        "do",
        "double",
        "dynamic_cast",
        "else",
        "enum",
        "explicit",
        "export",
        "extern",
        "false",
        "float",
        "for",
        "friend",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "mutable",
        "namespace",
        "new",
        "noexcept",
        "not",
        "not_eq",
        "nullptr",
        "operator",
        "or",
        "or_eq",
        "private",
        "protected",
        "public",
        "register",
        "reinterpret_cast",
        "restrict",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "static_assert",
        "static_cast",
        "struct",
        "switch",
        "template",
        "this",
        "thread_local",
        "throw",
        "true",
        "try",
        "typedef",
        "typeid",
        "typename",
        "union",
        "unsigned",
        "using",
        "virtual",
        "void",
        "volatile",
        "wchar_t",
        "while",
        "xor",
        "xor_eq",
        "main",
        "std",
        "tflite",
    ]
)

#: Methods of MicroMutableOpResolver whose name does not follow from the operator's.
_METHODS = {
    "CONV_2D": "AddConv2D",
    "DEPTHWISE_CONV_2D": "AddDepthwiseConv2D",
    "AVERAGE_POOL_2D": "AddAveragePool2D",
    "MAX_POOL_2D": "AddMaxPool2D",
    "BATCH_MATMUL": "AddBatchMatMul",
    "PADV2": "AddPadV2",
    "ethos-u": "AddEthosU",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "AddUnidirectionalSequenceLSTM",
}

LONGEST_IDENTIFIER = 48


def identifier(name: str) -> str:
    """A C identifier made from any name: never empty, no keyword, no leading digit, no reserved underscores."""
    cleaned = re.sub(r"_+", "_", re.sub(r"[^A-Za-z0-9]", "_", name)).strip("_").lower()[:LONGEST_IDENTIFIER].strip("_")
    if not cleaned:
        return "model"
    return f"model_{cleaned}" if cleaned[0].isdigit() or cleaned in _KEYWORDS else cleaned


def c_string(text: str) -> str:
    """A C string literal; what is not plain printable ASCII becomes octal escapes, so no text can end it early."""
    plain = (
        set(map(ord, " !#$%&'()*+,-./:;<=>@[]^_`{|}~")) | set(range(48, 58)) | set(range(65, 91)) | set(range(97, 123))
    )
    return (
        '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode(errors="replace")) + '"'
    )


def resolver_method(builtin: str) -> str:
    """The MicroMutableOpResolver method that registers an operator ("SOFTMAX" → "AddSoftmax")."""
    return _METHODS.get(builtin, "Add" + "".join(word.capitalize() for word in builtin.split("_")))


def macro(name: str) -> str:
    """An include guard or macro prefix."""
    return f"EDGEDEPLOY_{identifier(name).upper()}"
