"""Formulas as MathML, which browsers draw without a script or a font from elsewhere."""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert

_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)

#: A sign that begins an index, as in x_{<d}: it has no operand to stand apart from.
_BEFORE = "<mrow><mo>&#x0003C;</mo>"


def drawn(page: str) -> str:
    """Return a page's HTML with its formulas as MathML."""
    page = _BLOCK.sub(
        lambda found: f'<div class="formula">{_mathml(found[1], "block")}</div>', page
    )
    return _INLINE.sub(lambda found: _mathml(found[1], "inline"), page)


def _mathml(tex: str, display: str) -> str:
    drawn = str(convert(html.unescape(tex).strip(), display=display))
    drawn = drawn.replace(_BEFORE, _BEFORE.replace("<mo>", '<mo lspace="0" rspace="0">'))
    return drawn if display == "inline" else f'<div class="formula">{drawn}</div>'
