"""The list of nodes that the host gets."""

from comfy_api.latest import ComfyExtension, io

from .evaluate.compare import CompareResult
from .evaluate.evaluate_set import EvaluateSet
from .evaluate.feature_pca import FeaturePCA
from .evaluate.feature_similarity import FeatureSimilarity
from .evaluate.frame_consistency import FrameConsistency
from .evaluate.reconstruction import ReconstructionReport
from .examples.clip import ExampleClip
from .examples.example import ExamplePicture
from .host.demo_model import register_demo_model
from .host.describe.folders import register_vision_language_folder
from .host.image_prompt.files import register_deadiff_folder
from .host.networks.files import register_metric_folders
from .host.segment.weights import register_fastsam_folder
from .masks.fastsam import FastSAMMask
from .masks.paste import PasteContent
from .masks.preview import PreviewStyles
from .masks.ramp import SpatialRampMask
from .masks.styles_from_masks import StylesFromMasks
from .pipeline.adain_latent import AdaINLatent
from .pipeline.apply_injection import ApplyInjection
from .pipeline.apply_styles import ApplyStyles
from .pipeline.capture import CaptureFeatures
from .pipeline.cycle_invert import CycleDiffusionInvert
from .pipeline.guider import InjectedLoRAGuider
from .pipeline.injection_settings import InjectionSettingsNode
from .pipeline.invert import DDIMInvert
from .pipeline.sampler import InjectedLoRASampler
from .pipeline.scale_picture import ScalePicture
from .pipeline.share_frames import ShareFrames
from .pipeline.stochastic import StochasticInversion
from .pipeline.style import StyleNode
from .pipeline.style_from_features import StyleFromFeatures
from .pipeline.switch import LoraSwitch
from .pipeline.train import TrainStyleLoRA
from .pipeline.train_embedding import TrainStyleEmbedding
from .prompts.blend import BlendConditionings
from .prompts.describe_style import DescribeStyle
from .prompts.encode_deadiff import DEADiffEncode
from .prompts.joint_attention import JointTextImageAttention
from .prompts.layer_split import LayerSplitConditioning
from .prompts.load_deadiff import LoadDEADiff


class DiffStylerExtension(ComfyExtension):
    """The DiffStyler pack."""

    async def on_load(self) -> None:
        """Makes the demo checkpoint loadable by the stock Load Checkpoint node, and adds the pack's model folders."""
        register_demo_model()
        register_fastsam_folder()
        register_metric_folders()
        register_deadiff_folder()
        register_vision_language_folder()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Every node of the pack."""
        return [
            TrainStyleLoRA,
            DDIMInvert,
            CaptureFeatures,
            InjectionSettingsNode,
            InjectedLoRASampler,
            InjectedLoRAGuider,
            ApplyInjection,
            ApplyStyles,
            ShareFrames,
            StyleNode,
            StylesFromMasks,
            LoraSwitch,
            StyleFromFeatures,
            AdaINLatent,
            CycleDiffusionInvert,
            BlendConditionings,
            TrainStyleEmbedding,
            StochasticInversion,
            DescribeStyle,
            LayerSplitConditioning,
            LoadDEADiff,
            DEADiffEncode,
            JointTextImageAttention,
            SpatialRampMask,
            FastSAMMask,
            PreviewStyles,
            PasteContent,
            ExamplePicture,
            ExampleClip,
            ScalePicture,
            FeaturePCA,
            FeatureSimilarity,
            ReconstructionReport,
            CompareResult,
            FrameConsistency,
            EvaluateSet,
        ]
