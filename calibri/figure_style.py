"""How a report's picture looks: its colours and Matplotlib settings."""

from __future__ import annotations

import re
from typing import Any

INK, FAINT, GRID = "#1f2937", "#6b7280", "#e5e7eb"
TRAINING, VALIDATION, PICK = "#2563eb", "#059669", "#dc2626"
FALL = "#b91c1c"  # what somebody should look at
STREAMS = {"image": "#2563eb", "text": "#d97706", "joint": "#0d9488", "": "#475569"}
BRANCH_STRENGTH = {"mlp": 0.5, "attention2": 0.75}  # opacity; other branches are solid
# Plain, then presets: colours that the colour-blind tell apart (Okabe and Ito), and markers.
VARIANTS = (("#4b5563", "o"), ("#0072b2", "s"), ("#d55e00", "^"), ("#009e73", "D"))
STYLE: Any = {
    "font.size": 10,
    "text.parse_math": False,  # a prompt may hold dollar signs
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": FAINT,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def true_minus(text: str) -> str:
    """The text with true minus signs before its numbers, as Matplotlib's axes have."""
    return re.sub(r"(?<![\w-])-(?=\d)", "−", text)
