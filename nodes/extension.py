"""The pack as ComfyUI sees it: its folders and its nodes."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import folders
from .ahpa_router import CalibriLoadAHPARouter, CalibriSaveAHPARouter
from .analyze import CalibriAnalyzeBlocks
from .apply import CalibriApply
from .background import job
from .background.node import CalibriCalibrateBackground
from .background.slice_node import CalibriSlice
from .bake import CalibriSaveWeightPatch
from .calibrate import CalibriCalibrate
from .combine_rewards import CalibriCombineRewards, CalibriRewardFloor
from .compositional_rewards import CalibriCompositionalReward, CalibriScoreDetections
from .demo import CalibriLoadDemoTextEncoder
from .demo_pictures import CalibriDemoPictures
from .editing import CalibriBlendPresets, CalibriConvertPreset, CalibriEdit
from .evaluate import CalibriEvaluate
from .external_rewards import CalibriLoadExternalReward
from .inspect_ahpa import CalibriAHPARouter
from .inspect_qrm import CalibriInspectQRM
from .library import routes as library
from .official import CalibriExportCheckpoint, CalibriImportCheckpoint
from .preset_in_workflow import CalibriPresetInWorkflow
from .presets import CalibriLoadPreset, CalibriSavePreset
from .prompt_tools import CalibriLoadPrompts, CalibriPromptTemplate, CalibriSplitPrompts
from .prompts import CalibriPromptSet
from .qrm import CalibriApplyQRM, CalibriLoadQRM, CalibriSaveQRM
from .rewards import CalibriDemoReward, CalibriLoadReward
from .scoring import CalibriPickBest, CalibriScoreImages
from .settings import CalibriLoadSettings
from .train_ahpa import CalibriTrainAHPA
from .train_qrm import CalibriTrainQRM
from .workflow_reward import CalibriRewardInput, CalibriWorkflowReward


class CalibriExtension(ComfyExtension):
    """Registers the model folders and lists the nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        # Not in on_load, which ComfyUI 0.3.64 does not call.
        folders.register()
        job.start()
        library.start()
        return [
            CalibriAHPARouter,
            CalibriAnalyzeBlocks,
            CalibriApply,
            CalibriApplyQRM,
            CalibriBlendPresets,
            CalibriCalibrate,
            CalibriCalibrateBackground,
            CalibriCombineRewards,
            CalibriCompositionalReward,
            CalibriConvertPreset,
            CalibriDemoPictures,
            CalibriDemoReward,
            CalibriEdit,
            CalibriEvaluate,
            CalibriExportCheckpoint,
            CalibriImportCheckpoint,
            CalibriInspectQRM,
            CalibriLoadAHPARouter,
            CalibriLoadDemoTextEncoder,
            CalibriLoadExternalReward,
            CalibriLoadPreset,
            CalibriLoadPrompts,
            CalibriLoadQRM,
            CalibriLoadReward,
            CalibriLoadSettings,
            CalibriPickBest,
            CalibriPresetInWorkflow,
            CalibriPromptSet,
            CalibriPromptTemplate,
            CalibriRewardFloor,
            CalibriRewardInput,
            CalibriSaveAHPARouter,
            CalibriSavePreset,
            CalibriSaveQRM,
            CalibriScoreDetections,
            CalibriSaveWeightPatch,
            CalibriScoreImages,
            CalibriSlice,
            CalibriSplitPrompts,
            CalibriTrainAHPA,
            CalibriTrainQRM,
            CalibriWorkflowReward,
        ]
