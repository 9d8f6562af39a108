"""An export on a model hub: asked for by name, private at first, refused before anything is written."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

from fedloom.base.errors import RunError
from fedloom.base.extras import http_errors
from fedloom.text.pretrained import one_line

__all__ = ["publish", "refuse_offline"]


def refuse_offline(name: str) -> None:
    """Refuse to begin where the hub cannot be reached or knows nobody here; `name` is what is to be uploaded to."""
    with _refusals(name):
        HfApi().whoami()


def publish(folder: Path, name: str) -> str:
    """Upload an export to a hub repository, made private if it is new, and return its address."""
    config = folder / "adapter_config.json"
    base = json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"] if config.is_file() else ""
    if base and Path(base).is_absolute():
        raise RunError(
            f"--push-to-hub {name}: the base is a folder of this machine; say with --base what others call it."
        )
    with _refusals(name):
        api = HfApi()
        address = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder)
    return str(address)


@contextmanager
def _refusals(name: str) -> Generator[None]:
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise RunError(f"--push-to-hub {name}: nobody is logged in to a hub here; `hf auth login` first.") from error
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError, *http_errors()) as error:
        raise RunError(
            f"--push-to-hub {name}: the hub did not take it ({one_line(error)}); leave it out, the export is a folder."
        ) from error
