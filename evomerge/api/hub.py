"""Share a saved model: its folder and card, to the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.errors import EvomergeError, ResultsError, UserError

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

CONFIG = "config.json"
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
DENIED = (401, 403)
WEIGHTS = ["*.safetensors", "*.safetensors.index.json"]


def push(folder: str | Path, repo: str, *, private: bool = False) -> str:
    """Upload a saved model with its card to the Hub; a repository that is there gets a new commit.

    Args:
        folder: A results folder, whose `best/` is uploaded; or the folder of a saved model.
        repo: `USER/NAME`, `ORGANISATION/NAME`, or `NAME`: of the user who is logged in.
        private: Where the repository is made: only you, or the organisation, see it.

    Returns:
        The repository's address.

    Raises:
        UserError: There is no model, the name is wrong, nobody is logged in, or the Hub denies the access.
        EvomergeError: The Hub is out of reach, or does not take the files.
    """
    model = _model_in(Path(folder))
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    if get_token() is None:
        raise UserError(f"nobody is logged in to the Hub; {LOG_IN}")
    hub = HfApi(library_name="evomerge")
    try:
        made = hub.create_repo(repo, private=private, exist_ok=True)
        message = f"Upload {Path(folder).resolve().name} with evomerge"
        hub.upload_folder(
            repo_id=made.repo_id,
            folder_path=model,
            commit_message=message,
            delete_patterns=WEIGHTS,  # of an earlier model, which tools would load
        )
    except HFValidationError as error:
        raise UserError(f'found "{repo}", expected USER/NAME: {error}', field="REPO") from None
    except OfflineModeIsEnabled:
        raise UserError("HF_HUB_OFFLINE is set; unset it to upload") from None
    except HfHubHTTPError as error:
        raise _refused(repo, error) from None
    except Exception as error:  # of any client: the Hub is out of reach, a file cannot be read
        causes = (error, error.__cause__) if isinstance(error, RuntimeError) else (error,)
        why = " ".join(" ".join(map(str, causes)).split()) or type(error).__name__
        raise EvomergeError(f"{repo}: the upload to {hub.endpoint} failed: {why}") from error
    return str(made)


def _model_in(folder: Path) -> Path:
    """Return the folder of the model that is meant."""
    best = folder / "best"
    if (best / CONFIG).is_file():
        return best
    if (folder / CONFIG).is_file():
        return folder
    if (folder / "study.db").is_file():
        message = f"holds no saved model yet; finish it with `evomerge resume {folder}`"
        raise ResultsError(message, file=folder)
    found = "holds no model" if folder.is_dir() else "no such folder"
    message = f"{found}; expected a results folder, or the folder of a saved model"
    raise ResultsError(message, file=folder)


def _refused(repo: str, error: HfHubHTTPError) -> EvomergeError:
    """Say why the Hub does not take it, in one line."""
    status = error.response.status_code
    why = " ".join((error.server_message or str(error)).split())
    if status == DENIED[0]:
        return UserError(f"{repo}: the Hub does not accept the token ({why}); {LOG_IN}")
    if status == DENIED[1]:
        return UserError(
            f"{repo}: the token may not write there ({why}); use one with write access"
        )
    return EvomergeError(f"{repo}: the Hub does not take it (status {status}): {why}")
