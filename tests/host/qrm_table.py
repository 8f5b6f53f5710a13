"""What QRM may change in each family, held by `test_qrm_slots.py`, and the table of it."""

from __future__ import annotations

from comfyui_calibri.calibri.families import FAMILIES

# Families whose entry says what each chunk of its linears is.
LINEARS = {
    family.name
    for family in FAMILIES
    if any(getattr(branch, "norms", ()) for kind in family.kinds for branch in kind.branches)
}
# Family -> what its refusal says.
REFUSED = {
    "ace-step": "ff.point_conv.conv gives no channels along its last axis",
    "hunyuan3d-2.1": "computes all samples of a call in one sequence",
    "minimax-h3": "computes all samples of a call in one sequence",
    "mochi": "gates of the family mochi pass through tanh",
    "seedvr2": "computes all samples of a call in one sequence",
    "trellis2": "computes all samples of a call in one sequence",
}


def qrm_table() -> str:
    """Modes and the families that have them, in Markdown."""
    every = sorted({family.name for family in FAMILIES})
    gates = [name for name in every if name not in LINEARS and name not in REFUSED]
    rows = {
        "add, scale, gates": sorted(LINEARS),
        "gates": gates,
        **{
            f"refused: {why}": [n for n in every if REFUSED.get(n) == why]
            for why in REFUSED.values()
        },
    }
    lines = ["| modes | families |", "|---|---|"]
    lines += [
        f"| {modes} | {', '.join(f'`{n}`' for n in names)} |" for modes, names in rows.items()
    ]
    return "\n".join(lines)
