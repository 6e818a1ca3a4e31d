"""Upload of an exported model to the Hugging Face hub."""

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from speechbrain_ext.inference.model_folder import (
    CALIBRATION,
    CARD,
    EXAMPLES,
    FILES,
    WEIGHTS,
    find_model,
)
from speechbrain_ext.utils.errors import InputError


def push_model(folder, name, token=None, private=False):
    """Uploads a model folder to the Hugging Face hub.

    Arguments
    ---------
    folder : str or Path
        Folder that `export_model` wrote.
    name : str
        user/name on the hub; made where it does not exist.
    token : str
        Token for the hub; the one that is logged in with if None.
    private : bool
        Whether a new one can be seen by its owner only.

    Returns
    -------
    str
        Address of the upload.

    Raises
    ------
    InputError
        If the folder is no model folder, or the hub refuses.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder '{folder}'; export a model first")
    find_model(folder)
    missing = [
        file for file in (WEIGHTS, CALIBRATION, CARD) if not (folder / file).is_file()
    ]
    if missing:
        raise InputError(f"'{folder}' lacks {', '.join(missing)}; export it again")
    api = HfApi(token=token)
    try:
        api.create_repo(name, private=private, exist_ok=True)
        # What else lies in the folder is not ours to publish.
        commit = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            allow_patterns=[*FILES, f"{EXAMPLES}/*"],
            commit_message="Upload a speaker model of speechbrain_ext",
        )
    except HFValidationError as error:
        raise InputError(
            f"'{name}' is no name on the hub, which is user/name"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"'{name}' could not be uploaded to the Hugging Face hub ({reason[0]}); "
            "log in with `hf auth login`, or give a token that may write"
        ) from error
    return str(commit)
