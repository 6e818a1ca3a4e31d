"""Steps of a training that the recipes call by name, from top to bottom."""

from pathlib import Path

from speechbrain_ext.dataio.datasets import (
    embedding_loader,
    own_share,
    speaker_classes,
    speaker_encoder,
)
from speechbrain_ext.dataio.hidden_states import hidden_state_crops, hidden_state_loader
from speechbrain_ext.dataio.manifests import manifest_paths, read_manifest
from speechbrain_ext.dataio.shards import read_shards
from speechbrain_ext.dataio.windows import check_whole
from speechbrain_ext.inference.hidden_state_cache import cache_hidden_states
from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.inference.verification import verify
from speechbrain_ext.lobes.encoders.stored_states import StoredStates
from speechbrain_ext.training.checks import build_classifier
from speechbrain_ext.training.recipes import run_details
from speechbrain_ext.utils.checkpoints import check_architecture, start_classifier
from speechbrain_ext.utils.distributed import device_of, on_main_process
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import read_json, write_json


def prepare_data(hparams):
    """Writes manifests and trial lists, in the main process.

    Arguments
    ---------
    hparams : dict
        Values of the training.

    Returns
    -------
    dict
        Their paths, as of `manifest_paths`.

    Raises
    ------
    InputError
        If a recording to validate or test on is too long to be embedded as a whole.
    """
    on_main_process(hparams["prepare_data"])
    paths = manifest_paths(hparams["save_folder"])
    for split in ("valid", "test"):
        for item in read_manifest(paths[split]).values():
            check_whole(
                item["duration"],
                f"'{item['wav']}' of the {split} trials",
                "cut it or leave it out, and verify it later with window_length",
            )
    return paths


def training_utterances(hparams, manifest):
    """Reads what to train on: files, or where shards_folder is given their shards.

    Arguments
    ---------
    hparams : dict
        Values of the training.
    manifest : str or Path
        Manifest of its utterances.

    Returns
    -------
    dict
        Utterances as of `read_manifest` or `read_shards`.
    """
    if hparams["shards_folder"] is None:
        return read_manifest(manifest)
    return read_shards(hparams["shards_folder"], manifest)


def training_speakers(hparams, manifest):
    """Lists the classes of a training and leaves them in speakers.json.

    Arguments
    ---------
    hparams : dict
        Values of the training.
    manifest : str or Path
        Manifest of its utterances.

    Returns
    -------
    list of str
        Speakers, as `speaker_classes` gives them.

    Raises
    ------
    InputError
        If there is a checkpoint to go on from, and it is of other speakers.
    """
    speakers = speaker_classes(read_manifest(manifest), hparams["speeds"])
    speakers_file = Path(hparams["save_folder"]) / "speakers.json"
    checkpoint = hparams["checkpointer"].find_checkpoint()
    if checkpoint is not None and speakers_file.is_file():
        others = sorted(set(read_json(speakers_file)).symmetric_difference(speakers))
        if others:
            raise InputError(
                f"the checkpoint in '{hparams['save_folder']}' is of other speakers: "
                f"{', '.join(others[:5])}{' ...' if len(others) > 5 else ''} are not "
                "in both; give the data, seed and speeds that it was trained with, or "
                "another output_folder"
            )
    on_main_process(write_json, speakers_file, speakers)
    return speakers


def speaker_datasets(hparams, paths, speakers):
    """The data set to train on and the loader of whole utterances to validate.

    Arguments
    ---------
    hparams : dict
        Values of the training.
    paths : dict
        Paths of the manifests.
    speakers : list of str
        What `training_speakers` returned.

    Returns
    -------
    train_data : DynamicItemDataset
        Data set of crops and their speakers.
    valid_loader : SaveableDataLoader
        Loader of the utterances of the validation trials, under torchrun of this
        process' share of them.
    """
    train_data = hparams["training_dataset"](
        training_utterances(hparams, paths["train"]),
        speaker_encoder(speakers),
        hparams["sample_rate"],
        hparams["sentence_len"],
        hparams["speeds"],
    )
    valid_loader = embedding_loader(
        own_share(read_manifest(paths["valid"])),
        hparams["sample_rate"],
        hparams["max_batch_duration"],
        hparams["num_workers"],
    )
    return train_data, valid_loader


def hidden_state_datasets(hparams, paths, speakers, encoder, run_opts):
    """As `speaker_datasets`, of the encoder's hidden states in place of waveforms.

    They are computed first where they are not in hidden_state_cache.

    Arguments
    ---------
    hparams : dict
        Values of the training.
    paths : dict
        Paths of the manifests.
    speakers : list of str
        What `training_speakers` returned.
    encoder : Encoder
        A frozen encoder.
    run_opts : speechbrain.utils.run_opts.RunOptions
        SpeechBrain's options: where to compute.

    Returns
    -------
    train_data : DynamicItemDataset
        As of `hidden_state_crops`.
    valid_loader : SaveableDataLoader
        As of `hidden_state_loader`.

    Raises
    ------
    InputError
        As of `cache_hidden_states`.
    """
    train, valid = (read_manifest(paths[split]) for split in ("train", "valid"))
    train_states, valid_states = cache_hidden_states(
        encoder,
        [train, valid],
        hparams["hidden_state_cache"],
        device_of(run_opts),
        hparams["max_batch_duration"],
        hparams["num_workers"],
    )
    n_samples = round(hparams["sentence_len"] * hparams["sample_rate"])
    train_data = hidden_state_crops(
        train_states,
        train,
        speaker_encoder(speakers),
        max(1, encoder.frames_of(n_samples)),
    )
    valid_loader = hidden_state_loader(
        valid_states,
        own_share(valid),
        hparams["max_batch_duration"],
        hparams["num_workers"],
    )
    return train_data, valid_loader


def training_data(hparams, paths, speakers, modules, run_opts):
    """What is trained on and with: crops, or an encoder's hidden states of them.

    Arguments
    ---------
    hparams : dict
        Values of the training.
    paths : dict
        Paths of the manifests.
    speakers : list of str
        What `training_speakers` returned.
    modules : dict
        What `speaker_modules` returned.
    run_opts : speechbrain.utils.run_opts.RunOptions
        SpeechBrain's options: where hidden states are computed.

    Returns
    -------
    modules : dict
        The same; with a hidden_state_cache `StoredStates` are the encoder.
    train_data : DynamicItemDataset
        As of `speaker_datasets` or `hidden_state_datasets`.
    valid_loader : SaveableDataLoader
        Likewise.
    """
    if hparams.get("hidden_state_cache") is None:
        return modules, *speaker_datasets(hparams, paths, speakers)
    datasets = hidden_state_datasets(
        hparams, paths, speakers, modules["encoder"], run_opts
    )
    return {**modules, "encoder": StoredStates()}, *datasets


def speaker_modules(hparams, speakers):
    """The modules of the YAML and a classifier of the speakers.

    The classifier is added to the checkpointer. Where the YAML says start_from, it
    starts from the best checkpoint of that training, as the modules have done.

    Arguments
    ---------
    hparams : dict
        Values of the training.
    speakers : list of str
        What `training_speakers` returned.

    Returns
    -------
    dict
        encoder, embedding_model and classifier.

    Raises
    ------
    InputError
        If the classifier cannot be built, or start_from or the checkpoint to go on
        from is of other speakers.
    """
    modules, checkpointer = hparams["modules"], hparams["checkpointer"]
    modules["classifier"] = build_classifier(hparams["classifier"], len(speakers))
    if hparams["start_from"] is not None:
        start_classifier(modules["classifier"], hparams["start_from"], speakers)
    checkpointer.add_recoverable("classifier", modules["classifier"])
    check_architecture(checkpointer, ["classifier"])
    return modules


def verify_training(configuration, hparams, paths, device):
    """Verifies the best checkpoint on the test trials, and writes test/.

    Arguments
    ---------
    configuration : Configuration
        Configuration of the training.
    hparams : dict
        What it built.
    paths : dict
        Paths of manifests and trial lists.
    device : str
        Where to compute.
    """
    # Its YAML has just been run as a whole.
    speaker_model = SpeakerRecognition.from_training(
        hparams["output_folder"], device, trust_source=True
    )
    verify(
        speaker_model,
        paths["test"],
        paths["test_trials"],
        Path(hparams["output_folder"]) / "test",
        threshold=speaker_model.threshold,
        details=run_details(configuration, hparams),
        max_batch_duration=hparams["max_batch_duration"],
        num_workers=hparams["num_workers"],
    )
