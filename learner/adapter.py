"""Writing the adapter to disk, in plain PEFT format, so that no reader ever sees half of it."""

import shutil
from pathlib import Path

from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file

from actors.durable import sync


def write_adapter(model: PeftModel, folder: Path) -> None:
    """Make `folder` hold adapter_model.safetensors and adapter_config.json, loadable by peft and vLLM as they are.

    Written and synced beside it, then renamed: the folder appears complete or not at all. A folder of that name is
    replaced.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(weights, temporary / "adapter_model.safetensors", metadata={"format": "pt"})
    model.peft_config["default"].save_pretrained(str(temporary))
    for path in (*temporary.iterdir(), temporary):
        sync(path)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    sync(folder.parent)
