"""Takes out of a log line or a span what nobody must read there: whoever writes it cannot always know."""

import re

_RULES = (
    # JSON Web Tokens, ours and others', and whatever follows `Bearer`.
    (re.compile(r"\beyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?"), "[token]"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]+"), r"\1 [token]"),
    # Stripe's keys and client secrets.
    (re.compile(r"\b(?:sk|rk|whsec)_[\w+/=-]+"), "[key]"),
    (re.compile(r"\b((?:pi|seti)_\w+?)_secret_\w+"), r"\1_secret_[key]"),
    # A password in an address, and one with its name before it.
    (re.compile(r"(://[^:/@\s]*):[^/@\s]+@"), r"\1:[password]@"),
    (
        re.compile(
            r"""(?i)((?:password|secret|refresh_?token|qr_?payload)["']?\s*[=:]\s*)("[^"]*"|'[^']*'|[^\s,;)]+)"""
        ),
        r"\1[hidden]",
    ),
    # PostgreSQL shows the values of a row that it refuses.
    (re.compile(r"(?m)^(DETAIL:\s+).*$"), r"\1[hidden]"),
    (re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]+@[\w-]+(?:\.[\w-]+)+"), "[e-mail]"),
    # Card numbers: 13 to 19 digits, maybe in groups.
    (re.compile(r"(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-])"), "[number]"),
)


def scrub(text: str) -> str:
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text
