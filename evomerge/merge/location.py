"""From a model's name to a folder on this machine: local, of the zoo, or from the Hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HFValidationError

from evomerge import zoo
from evomerge.config.model_names import is_folder, parts
from evomerge.errors import ModelError
from evomerge.merge.quantised import gguf_error

TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "*.tiktoken",
)
"""A folder with one of these files has a tokenizer."""
SECOND_COPY = "*consolidated*.safetensors"
"""The same weights once more, as Mistral publishes them, which transformers does not load."""
PICKLES = "pytorch_model*.bin"
"""The same weights once more, which nothing reads beside safetensors."""
PATTERNS = (
    *("*.safetensors", "*.json", "*.jinja", "*.txt", *TOKENIZERS),
    "README.md",  # its licence
)


def split_adapter(model: str) -> tuple[str, str | None]:
    """Split mergekit's `MODEL+ADAPTER`; a folder whose own name has a plus is left whole.

    Raises:
        ModelError: It can be split at several places, and no folder tells which is meant.
    """
    found = parts(model)
    if len(found) == 2:
        return found[0], found[1]
    if "+" in model and not is_folder(model):
        raise ModelError(f'found "{model}", expected MODEL or MODEL+ADAPTER')
    return model, None


def locate(model: str, *, allow_pickle: bool = False, trust_remote_code: bool = False) -> Path:
    """Return the folder that holds a model or an adapter, downloaded from the Hub if it is not local.

    Args:
        model: A folder, `zoo:NAME`, or a Hub id such as `org/name` or `org/name@revision`.
        allow_pickle: Also download PyTorch pickles.
        trust_remote_code: Also download the model's own Python files.

    Raises:
        ModelError: No such folder or model of the zoo, and no such repository on the Hub or the Hub is out
            of reach.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if model.startswith(zoo.PREFIX):
        try:
            return zoo.resolve(model)
        except ModelError as error:
            raise ModelError(error.message, file=model) from None
    if folder.exists():
        if folder.suffix == ".gguf":
            raise gguf_error(folder)
        raise ModelError(
            "is a file; expected a folder with config.json and safetensors", file=model
        )
    if model.startswith(("/", ".", "~")) or model.count("/") != 1:
        raise ModelError("no such folder; expected a model folder or a Hub id", file=model)
    name, _, revision = model.partition("@")
    patterns = [*PATTERNS]
    if allow_pickle:
        patterns.append("*.bin")
    if trust_remote_code:
        patterns.append("*.py")
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=patterns,
                ignore_patterns=_ignored(name, revision or None),
            )
        )
    except HFValidationError:
        raise ModelError("no such folder, and not a Hub id either", file=model) from None
    except OSError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"no such folder, and the Hub does not give it: {reason}", file=model
        ) from None


def _ignored(name: str, revision: str | None) -> list[str]:
    """Return what need not be downloaded of a repository."""
    try:
        files = HfApi().list_repo_files(name, revision=revision)
    except Exception:  # noqa: BLE001 - of any client; the download says what is wrong, or needs no Hub
        return []
    has_safetensors = {"model.safetensors", "model.safetensors.index.json"} & {*files}
    return [SECOND_COPY, PICKLES] if has_safetensors else []


def commit(model: str, folder: Path) -> str | None:
    """Return the commit that the Hub's files of a model are of; None: they are of this machine.

    Args:
        model: Its name, without an adapter.
        folder: Where it was located.
    """
    of_hub = folder.parent.name == "snapshots" and not is_folder(model)
    return folder.name if of_hub else None


def has_tokenizer(folder: Path) -> bool:
    """Tell whether a folder holds a tokenizer."""
    return any(next(folder.glob(pattern), None) is not None for pattern in TOKENIZERS)
