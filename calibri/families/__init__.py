"""One declarative entry for each family of Diffusion Transformers; `FAMILIES` lists them all."""

from __future__ import annotations

from .audio import ACE_STEP, ACE_STEP_1_5, MINIMAX_MUSIC_3, STABLE_AUDIO, STABLE_AUDIO_3
from .auraflow import AURAFLOW
from .cogvideox import COGVIDEOX
from .cosmos import ANIMA, COSMOS, COSMOS_PREDICT2
from .diffusers import FLUX_IN_DIFFUSERS, SD3_IN_DIFFUSERS
from .entry import Family
from .ernie_image import ERNIE_IMAGE
from .flux import FLUX
from .flux_kin import CHROMA, FLUX_2, LONGCAT_IMAGE, OVIS_IMAGE
from .hidream import HIDREAM
from .hidream_o1 import HIDREAM_O1
from .hunyuan_dit import HUNYUAN_DIT
from .hunyuan_video import HUNYUAN_IMAGE, HUNYUAN_IMAGE_REFINER, HUNYUAN_VIDEO, HUNYUAN_VIDEO_15
from .ideogram4 import IDEOGRAM_4
from .joyimage import JOYIMAGE
from .kandinsky5 import KANDINSKY_5
from .krea2 import KREA_2
from .ltx import LTX_2, LTX_VIDEO
from .lumina import LUMINA2, Z_IMAGE
from .minimax import MINIMAX_H3
from .mochi import MOCHI
from .omnigen2 import BOOGU, OMNIGEN2
from .pixart import PIXART
from .pixeldit import PID, PIXELDIT
from .qwen_image import QWEN_IMAGE
from .qwen_kin import LENS, MAGE_FLOW
from .sd3 import SD3
from .seedvr2 import SEEDVR2
from .three_d import HUNYUAN_3D_2, HUNYUAN_3D_2_1, TRELLIS_2, TRIPOSPLAT
from .wan import WAN

# The first entry that fits a model completely is its family.
FAMILIES: tuple[Family, ...] = (
    FLUX,
    SD3,
    QWEN_IMAGE,
    MAGE_FLOW,
    LENS,
    JOYIMAGE,
    FLUX_2,
    CHROMA,
    OVIS_IMAGE,
    LONGCAT_IMAGE,
    HUNYUAN_VIDEO,
    HUNYUAN_VIDEO_15,
    HUNYUAN_IMAGE,
    HUNYUAN_IMAGE_REFINER,
    LTX_VIDEO,
    LTX_2,
    WAN,
    COGVIDEOX,
    KANDINSKY_5,
    SEEDVR2,
    MINIMAX_H3,
    MOCHI,
    FLUX_IN_DIFFUSERS,
    SD3_IN_DIFFUSERS,
    LUMINA2,
    Z_IMAGE,
    AURAFLOW,
    PIXART,
    HUNYUAN_DIT,
    PIXELDIT,
    PID,
    ANIMA,
    COSMOS,
    COSMOS_PREDICT2,
    STABLE_AUDIO,
    STABLE_AUDIO_3,
    ACE_STEP,
    ACE_STEP_1_5,
    MINIMAX_MUSIC_3,
    HUNYUAN_3D_2,
    HUNYUAN_3D_2_1,
    TRIPOSPLAT,
    OMNIGEN2,
    BOOGU,
    IDEOGRAM_4,
    KREA_2,
    ERNIE_IMAGE,
    HIDREAM,
    TRELLIS_2,
    HIDREAM_O1,
)
