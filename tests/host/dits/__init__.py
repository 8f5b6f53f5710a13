"""Every DiT class that the backbone map knows, tiny and with random weights."""

from __future__ import annotations

from .audio import CASES as AUDIO
from .auraflow import CASES as AURAFLOW
from .case import DitCase
from .cogvideox import CASES as COGVIDEOX
from .cosmos import CASES as COSMOS
from .diffusers_models import CASES as DIFFUSERS
from .ernie_image import CASES as ERNIE_IMAGE
from .flux_and_sd3 import CASES as FLUX_AND_SD3
from .flux_kin import CASES as FLUX_KIN
from .hidream import CASES as HIDREAM
from .hidream_o1 import CASES as HIDREAM_O1
from .hunyuan_dit import CASES as HUNYUAN_DIT
from .hunyuan_video import CASES as HUNYUAN_VIDEO
from .ideogram4 import CASES as IDEOGRAM4
from .kandinsky5 import CASES as KANDINSKY5
from .krea2 import CASES as KREA2
from .ltx import CASES as LTX
from .lumina import CASES as LUMINA
from .minimax import CASES as MINIMAX
from .mochi import CASES as MOCHI
from .omnigen2 import CASES as OMNIGEN2
from .pixart import CASES as PIXART
from .pixeldit import CASES as PIXELDIT
from .qwen_image import CASES as QWEN_IMAGE
from .qwen_kin import CASES as QWEN_KIN
from .seedvr2 import CASES as SEEDVR2
from .three_d import CASES as THREE_D
from .trellis2 import CASES as TRELLIS2
from .wan import CASES as WAN
from .wan_variants import CASES as WAN_VARIANTS

CASES: tuple[DitCase, ...] = (
    *FLUX_AND_SD3,
    *QWEN_IMAGE,
    *QWEN_KIN,
    *FLUX_KIN,
    *HUNYUAN_VIDEO,
    *LTX,
    *WAN,
    *COGVIDEOX,
    *KANDINSKY5,
    *SEEDVR2,
    *MINIMAX,
    *MOCHI,
    *DIFFUSERS,
    *LUMINA,
    *AURAFLOW,
    *PIXART,
    *HUNYUAN_DIT,
    *PIXELDIT,
    *COSMOS,
    *AUDIO,
    *THREE_D,
    *WAN_VARIANTS,
    *OMNIGEN2,
    *IDEOGRAM4,
    *KREA2,
    *ERNIE_IMAGE,
    *HIDREAM,
    *TRELLIS2,
    *HIDREAM_O1,
)
