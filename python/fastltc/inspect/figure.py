"""What all pictures share: colours, names of any script, and the PNG file."""

from __future__ import annotations

import functools
import io
import textwrap
import warnings

from matplotlib import font_manager
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.text import Text

DPI = 120
BLUE = "#1864ab"
ORANGE = "#e8590c"
GREY = "#868e96"
# Of neurons by their kind, and of what is written on them.
FILL = {
    "sensory": "#e9ecef",
    "inter": "#ffec99",
    "command": "#66d9e8",
    "motor": "#d0bfff",
}
INK = "#343a40"
# Between the two lie synapses whose reversal potential is near 0.
SIGNED = LinearSegmentedColormap.from_list("signed", [ORANGE, "#f1f3f5", BLUE])
# For names in scripts that DejaVu Sans, which comes with matplotlib, does not have.
_FALLBACKS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans CJK KR",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "PingFang SC",
    "Hiragino Sans",
    "Arial Unicode MS",
)


def wrapped(name: str, width: int = 22, lines: int = 3) -> str:
    """A name in lines of at most ``width`` letters; what does not fit in them is left out."""
    return "\n".join(textwrap.wrap(name, width, max_lines=lines, placeholder=" ..."))


def shortened(name: str, length: int) -> str:
    """A name with its middle left out, where it is longer."""
    if len(name) <= length:
        return name
    tail = (length - 3) // 2
    return f"{name[: length - 3 - tail]}...{name[len(name) - tail :]}"


def to_png(figure: Figure, of: str = "", about: str = "") -> bytes:
    """The figure as a PNG file.

    Args:
        figure: with constrained layout.
        of: the checkpoint that it shows, written below and into the file (``Description``).
        about: what the file says instead, where that is too long to be written below.
    """
    if of:
        figure.supxlabel(of, x=0.99, ha="right", fontsize=6.5, color=GREY)
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        # Names of classes and files are no formulas, whatever dollar signs are in them.
        text.set_parse_math(False)
        text.set_fontfamily([*text.get_fontfamily(), *_installed_fallbacks()])
    buffer = io.BytesIO()
    description = of or about
    with warnings.catch_warnings():
        # Of a script that no font here has: boxes, which say as much as the warning of each.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(
            buffer,
            format="png",
            dpi=DPI,
            metadata={"Description": description} if description else None,
        )
    return buffer.getvalue()


@functools.cache
def _installed_fallbacks() -> tuple[str, ...]:
    """Fonts of this machine with letters that matplotlib's own has not."""
    installed = set(font_manager.get_font_names())
    return tuple(name for name in _FALLBACKS if name in installed)
