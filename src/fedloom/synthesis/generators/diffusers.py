"""Pictures by a diffusion model of one's own: from words, or from words and a private picture at strength s.

Rombach et al., 2022, https://arxiv.org/abs/2112.10752, generates from words; Meng et al., 2022, SDEdit,
https://arxiv.org/abs/2108.01073, section 3: a guide is noised to the share s of the way and denoised from there.

Deviations: a strength so small that no step would be taken is raised to one step. A picture that the model's own
checker blacked out counts as one that did not come.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedloom.base import rng
from fedloom.base.errors import ConfigError, DataError, MissingFileError, ModelError
from fedloom.base.extras import library
from fedloom.base.files import file_sha256
from fedloom.base.machine import Device, device_of
from fedloom.base.plugin import AtLeast, NonNegative, plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.generation import ORIGIN, Generated, Generator, Place, Request
from fedloom.contracts.labelled import Picture
from fedloom.text.pretrained import load, one_line, quiet

__all__ = ["Diffusers"]


@plugin("diffusers")
class Diffusers(Generator):
    """A text-to-image pipeline in a local folder, as `diffusers` saves it."""

    needs = ("diffusers", "PIL")
    makes = (Picture,)
    text_guided = True
    data_guided = True

    path: str = ""
    """Folder of the pipeline."""
    size: tuple[AtLeast, ...] = ()
    """Height and width at which it draws, before pictures are scaled to the clients' size; left out: its own."""
    steps: AtLeast = 50
    """Denoising steps."""
    guidance_scale: NonNegative = 7.5
    """Weight of the words (classifier-free guidance)."""
    negative: str = ""
    """What pictures shall not show."""
    device: Device = "auto"
    """Where it runs."""
    to: tuple[AtLeast, ...] = (3, 32, 32)
    """Channels, height and width of the clients' pictures, to which its own are scaled."""

    def check(self) -> None:
        """Refuse sizes that are none."""
        if self.size and len(self.size) != 2:
            raise ConfigError(f"size: found {list(self.size)}, allowed is [height, width].")
        if len(self.to) != 3 or self.to[0] not in (1, 3):
            raise ConfigError(f"to: found {list(self.to)}, allowed is [channels, height, width] with 1 or 3 channels.")

    def identity(self) -> str:
        """Return the hashes of the pipeline's files."""
        root = self._root()
        files = sorted(file for file in root.rglob("*") if file.is_file())
        return json.dumps([[str(file.relative_to(root)), file_sha256(file)] for file in files])

    def model_bytes(self, place: Place) -> int:
        """Return the size of its weights."""
        return sum(file.stat().st_size for file in self._root().rglob("*.safetensors"))

    def __call__(self, requests: Sequence[Request], place: Place) -> Generated:
        """Return a picture for each request, one after another: each is drawn by its own seed."""
        if not requests:
            return Generated(())
        pipes = {guided: self._pipeline(guided=guided) for guided in {one.guide is not None for one in requests}}
        return Generated([self._picture(one, pipes[one.guide is not None]) for one in requests])

    def _root(self) -> Path:
        if not self.path or not (Path(self.path) / "model_index.json").is_file():
            raise MissingFileError(
                f"generator 'diffusers': {self.path or 'path'}: no pipeline there (model_index.json); give the folder "
                "that `save_pretrained` wrote."
            )
        return Path(self.path)

    def _pipeline(self, *, guided: bool) -> Any:
        found, root = library("diffusers", "generator 'diffusers'"), self._root()
        kind = found.AutoPipelineForImage2Image if guided else found.AutoPipelineForText2Image
        library("diffusers.utils.logging").disable_progress_bar()
        try:
            with quiet():
                pipe = load(kind, root, use_safetensors=True)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise ModelError(
                f"generator 'diffusers': {self.path}: is no pipeline for it ({one_line(error)})."
            ) from error
        pipe.set_progress_bar_config(disable=True)
        return pipe.to(device_of(self.device))

    def _picture(self, request: Request, pipe: Any) -> Picture | None:
        how: dict[str, Any] = {
            "prompt": request.prompt,
            "negative_prompt": self.negative or None,
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance_scale,
            "generator": rng.generator("diffusers", request.seed),
        }
        how |= self._start(request.guide, request.strength) if request.guide is not None else self._measures()
        with quiet():
            told = pipe(**how)
        blacked = told.get("nsfw_content_detected") or (False,)
        return None if blacked[0] else self._scaled(told.images[0], request.label)

    def _measures(self) -> Mapping[str, int]:
        return {"height": self.size[0], "width": self.size[1]} if self.size else {}

    def _start(self, guide: Example, strength: float) -> Mapping[str, Any]:
        if not isinstance(guide, Picture):
            raise DataError(f"generator 'diffusers': a guide is a {type(guide).__name__}, allowed are pictures.")
        pixels_CHW = np.frombuffer(guide.pixels, np.uint8).reshape(guide.shape)
        pillow: Any = library("PIL.Image")
        image = pillow.fromarray(pixels_CHW[0] if guide.shape[0] == 1 else pixels_CHW.transpose(1, 2, 0)).convert("RGB")
        if self.size:
            image = image.resize((self.size[1], self.size[0]), pillow.Resampling.BILINEAR)
        return {"image": image, "strength": max(strength, 1 / self.steps)}

    def _scaled(self, image: Any, label: str) -> Picture:
        colours, height, width = self.to
        pillow: Any = library("PIL.Image")
        image = image.convert("L" if colours == 1 else "RGB").resize((width, height), pillow.Resampling.BILINEAR)
        pixels_HWC = np.asarray(image, np.uint8).reshape(height, width, colours)
        pixels_CHW = np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1))
        tags = {"label": label, ORIGIN: "generated"}
        return Picture(pixels_CHW.tobytes(), (colours, height, width), label, tags)
