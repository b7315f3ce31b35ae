# SPDX-License-Identifier: Apache-2.0
"""The text of a JSON struct, read as strictly as the real library reads it, on either interpreter.

The library uses serde_json. MicroPython's `json` takes commas and colons for blanks and accepts
`[1 2}`; CPython's lets NaN and half surrogate pairs through. What one end reads the other must not
refuse, so the grammar (RFC 8259) is walked here, byte by byte and without recursion.
"""

from .const import E_CORRUPT, JSON_MAX_DEPTH
from .errors import check

MYPY = False
if MYPY:
    from typing import Any, NoReturn

_ESCAPED = b'"\\/bfnrt'
_MEANT = b'"\\/\b\f\n\r\t'
_I64_MIN = -(1 << 63)
_U64_MAX = (1 << 64) - 1
_LONG_DIGITS = 20  # the most characters an i64 or u64 is written with


def json_text_value(text: bytes) -> object:
    """The value of `text`: None, bool, int, float, str, list or dict.

    Whole numbers outside i64 and u64 become floats, and so does -0. FeagiWireError(E_CORRUPT) for
    what is not JSON in UTF-8, goes deeper than 127 levels, has half a surrogate pair, or a number
    larger than this interpreter's floats hold. Allocates.
    """
    return _Text(text).value()


def _refuse() -> "NoReturn":
    check(E_CORRUPT)
    raise AssertionError  # for type checkers: check has raised


class _Text:
    def __init__(self, text: bytes) -> None:
        # a NUL belongs nowhere in JSON: behind the text it stops every loop
        self.text = text + b"\0"
        self.size = len(text)
        self.at = 0

    def value(self) -> object:
        open_parts: "list[Any]" = []
        keys = []
        while True:
            c = self._skip()
            if c == 91 or c == 123:  # [ {
                if len(open_parts) >= JSON_MAX_DEPTH:
                    _refuse()
                self.at += 1
                made: "Any" = [] if c == 91 else {}
                if self._skip() == c + 2:  # closed at once
                    self.at += 1
                else:
                    open_parts.append(made)
                    keys.append("" if c == 91 else self._key())
                    continue
            else:
                made = self._plain(c)
            while open_parts:
                into = open_parts[-1]
                close = 93
                if isinstance(into, dict):
                    close = 125
                    into[keys[-1]] = made
                else:
                    into.append(made)
                c = self._skip()
                self.at += 1
                if c == 44:  # ,
                    if close == 125:
                        keys[-1] = self._key()
                    break
                if c != close:
                    _refuse()
                keys.pop()
                made = open_parts.pop()
            else:
                self._skip()
                if self.at != self.size:
                    _refuse()
                return made

    def _skip(self) -> int:
        """Pass blanks; the byte that follows."""
        text = self.text
        i = self.at
        c = text[i]
        while c == 32 or c == 10 or c == 13 or c == 9:
            i += 1
            c = text[i]
        self.at = i
        return c

    def _key(self) -> str:
        if self._skip() != 34:
            _refuse()
        key = self._string()
        if self._skip() != 58:  # :
            _refuse()
        self.at += 1
        return key

    def _plain(self, c: int) -> object:
        if c == 34:
            return self._string()
        for word, meaning in ((b"null", None), (b"true", True), (b"false", False)):
            if c == word[0]:
                end = self.at + len(word)
                if self.text[self.at : end] != word:
                    _refuse()
                self.at = end
                return meaning
        return self._number()

    def _digits(self) -> None:
        text = self.text
        i = self.at
        while 48 <= text[i] <= 57:
            i += 1
        if i == self.at:
            _refuse()
        self.at = i

    def _number(self) -> object:
        text = self.text
        start = self.at
        if text[start] == 45:  # -
            self.at += 1
        if text[self.at] == 48:
            self.at += 1
        else:
            self._digits()
        whole = True
        if text[self.at] == 46:  # .
            whole = False
            self.at += 1
            self._digits()
        if text[self.at] == 101 or text[self.at] == 69:  # e E
            whole = False
            self.at += 1
            if text[self.at] == 43 or text[self.at] == 45:
                self.at += 1
            self._digits()
        word = str(text[start : self.at], "ascii")
        if whole and word != "-0" and len(word) <= _LONG_DIGITS:
            number = int(word)
            if _I64_MIN <= number <= _U64_MAX:
                return number
        value = float(word)
        if value - value != 0:  # infinite
            _refuse()
        return value

    def _string(self) -> str:
        text = self.text
        i = self.at + 1
        out = bytearray()
        while True:
            start = i
            c = text[i]
            while c != 34 and c != 92:
                if c < 32:
                    _refuse()
                i += 1 if c < 128 else _utf8_bytes(text, i)
                c = text[i]
            out += text[start:i]
            i += 1
            if c == 34:
                self.at = i
                return str(bytes(out), "utf-8")
            c = text[i]
            i += 1
            if c == 117:  # u
                code = _hex4(text, i)
                i += 4
                if 0xD800 <= code < 0xE000:
                    low = _hex4(text, i + 2) if text[i] == 92 and text[i + 1] == 117 else 0
                    if code >= 0xDC00 or low < 0xDC00 or low >= 0xE000:
                        _refuse()
                    i += 6
                    code = 0x10000 + ((code & 0x3FF) << 10) + (low & 0x3FF)
                out += chr(code).encode()
            else:
                k = _ESCAPED.find(bytes((c,)))
                if k < 0:
                    _refuse()
                out.append(_MEANT[k])


def _hex4(text: bytes, i: int) -> int:
    if i + 4 > len(text):
        _refuse()
    code = 0
    for k in range(i, i + 4):
        c = text[k] | 32
        if 48 <= text[k] <= 57:
            c -= 48
        elif 97 <= c <= 102:
            c -= 87
        else:
            _refuse()
        code = code << 4 | c
    return code


def _utf8_bytes(text: bytes, i: int) -> int:
    """Bytes of the character of several bytes at `i`; neither overlong nor a surrogate."""
    c = text[i]
    d = text[i + 1]
    if 0xC2 <= c <= 0xDF:
        n = 2
    elif c == 0xE0:
        n = 3 if d >= 0xA0 else 0
    elif c == 0xED:
        n = 3 if d <= 0x9F else 0
    elif 0xE1 <= c <= 0xEF:
        n = 3
    elif c == 0xF0:
        n = 4 if d >= 0x90 else 0
    elif c == 0xF4:
        n = 4 if d <= 0x8F else 0
    elif 0xF1 <= c <= 0xF3:
        n = 4
    else:
        n = 0
    for k in range(1, n):
        # the NUL behind the text is no continuation: this cannot run past the end
        if text[i + k] & 0xC0 != 0x80:
            _refuse()
    return n or _refuse()
