"""The list of nodes that the host gets."""

from comfy_api.latest import ComfyExtension, io

from .capture import CaptureFeatures
from .compare import CompareImages
from .demo_model import register_demo_model
from .evaluate_set import EvaluateSet
from .example import ExamplePicture
from .fastsam import FastSAMMask
from .feature_pca import FeaturePCA
from .feature_similarity import FeatureSimilarity
from .guider import InjectedLoRAGuider
from .host_fastsam_weights import register_fastsam_folder
from .host_metric_files import register_metric_folders
from .injection_settings import InjectionSettingsNode
from .invert import DDIMInvert
from .paste import PasteContent
from .preview import PreviewStyles
from .ramp import SpatialRampMask
from .reconstruction import ReconstructionReport
from .sampler import InjectedLoRASampler
from .style import StyleNode
from .switch import LoraSwitch
from .train import TrainStyleLoRA


class DiffStylerExtension(ComfyExtension):
    """The DiffStyler pack."""

    async def on_load(self) -> None:
        """Makes the demo checkpoint loadable by the stock Load Checkpoint node, and adds the pack's model folders."""
        register_demo_model()
        register_fastsam_folder()
        register_metric_folders()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Every node of the pack."""
        return [
            TrainStyleLoRA,
            DDIMInvert,
            CaptureFeatures,
            InjectionSettingsNode,
            InjectedLoRASampler,
            InjectedLoRAGuider,
            StyleNode,
            LoraSwitch,
            SpatialRampMask,
            PreviewStyles,
            PasteContent,
            ExamplePicture,
            FastSAMMask,
            FeaturePCA,
            FeatureSimilarity,
            ReconstructionReport,
            CompareImages,
            EvaluateSet,
        ]
