"""Verification of a trained model, as the verification YAMLs say."""

from pathlib import Path

from speechbrain.utils.distributed import if_main_process

from speechbrain_ext.dataio.manifests import manifest_paths, read_manifest
from speechbrain_ext.dataio.prepare import prepare_trials
from speechbrain_ext.inference.extraction import extract_embeddings, store_path
from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.inference.verification import (
    TrialSet,
    cohort_embeddings,
    plot_attention,
    train_calibration,
    verify_embeddings,
)
from speechbrain_ext.metrics.conditions import read_genders
from speechbrain_ext.training.recipes import init_process_group, start_experiment
from speechbrain_ext.utils.distributed import device_of, on_main_process
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.precision import choose_precision


def run_verification(configuration):
    """Verifies a trained model from its embeddings, with any back end.

    Arguments
    ---------
    configuration : Configuration
        Configuration of a verification YAML.

    Returns
    -------
    dict or None
        The content of metrics.json; None in all processes but the main one.

    Raises
    ------
    InputError
        If the model, the corpus, the trial list or the back end cannot be used.
    """
    # Hyperparameters: the back end, not trained yet, is among them
    init_process_group(configuration.run_opts)
    hparams = configuration.build()
    configuration.check_effect([hparams])

    # Model: the best checkpoint of the training
    speaker_model = load_speaker_model(hparams, configuration.run_opts)
    start_experiment(configuration, hparams["output_folder"])

    # Trials, and the embeddings of their utterances
    manifest, trial_list = prepare_verification(hparams, speaker_model)
    trial_set = TrialSet.read(manifest, trial_list)
    store = extract_embeddings(
        speaker_model,
        trial_set.utterances,
        store_path(speaker_model, manifest, store_folder=hparams["output_folder"]),
        **extraction_options(hparams),
    )

    # Back end, from the embeddings of the training set where it needs them
    train_backend(hparams, speaker_model)

    # Calibration, scores, metrics and plots
    return score_and_report(hparams, speaker_model, store, trial_set)


def load_speaker_model(hparams, run_opts):
    """Loads the model that a verification YAML names.

    Arguments
    ---------
    hparams : dict
        Values of the YAML.
    run_opts : speechbrain.utils.run_opts.RunOptions
        SpeechBrain's options.

    Returns
    -------
    SpeakerRecognition
        The trained model.
    """
    speaker_model = SpeakerRecognition.from_training(
        hparams["trained_model"],
        device_of(run_opts),
        hparams["trust_source"],
    )
    speaker_model.precision = choose_precision(
        hparams["precision"], speaker_model.device
    )
    return speaker_model


def prepare_verification(hparams, speaker_model):
    """Prepares the trials; without trials_from they are those of the training.

    Arguments
    ---------
    hparams : dict
        Values of the YAML.
    speaker_model : SpeakerRecognition
        The trained model.

    Returns
    -------
    manifest : str
        Path of the utterances.
    trial_list : str
        Path of the trials.
    """
    of_training = manifest_paths(Path(hparams["trained_model"]) / "save")
    if hparams["trials_from"] is None:
        return of_training["test"], of_training["test_trials"]
    train_utterances = read_manifest(of_training["train"]).values()
    on_main_process(
        prepare_trials,
        dataset=hparams["trials_from"],
        data_folder=hparams["test_folder"],
        save_folder=hparams["output_folder"],
        sample_rate=speaker_model.sample_rate,
        verification_file=hparams["verification_file"],
        n_trials=hparams["n_test_trials"],
        min_duration=hparams["min_duration"],
        allow_broken=hparams["allow_broken"],
        train_speakers={i["speaker"] for i in train_utterances},
        seed=hparams["seed"],
        enrolment_file=hparams["enrolments"],
    )
    paths = manifest_paths(hparams["output_folder"])
    return paths["test"], paths["test_trials"]


def extraction_options(hparams):
    """Arguments of `extract_embeddings` in a verification YAML.

    Arguments
    ---------
    hparams : dict
        Values of the YAML.

    Returns
    -------
    dict
        Keyword arguments.
    """
    keys = ("max_batch_duration", "num_workers", "window_length", "window_overlap")
    return {key: hparams[key] for key in keys}


def train_backend(hparams, speaker_model):
    """Trains the back end, where it learns from the training set.

    Arguments
    ---------
    hparams : dict
        Values of the YAML.
    speaker_model : SpeakerRecognition
        The trained model.
    """
    if not hparams["backend"].needs_cohort:
        return
    cohort = cohort_embeddings(
        speaker_model,
        manifest_paths(Path(hparams["trained_model"]) / "save")["train"],
        hparams["utterances_per_training_speaker"],
        hparams["output_folder"],
        **extraction_options(hparams),
    )
    hparams["backend"].fit(cohort)


def score_and_report(hparams, speaker_model, store, trial_set, details=None):
    """Calibrates where asked, scores the trials and writes the results.

    Arguments
    ---------
    hparams : dict
        Values of the YAML, with a trained back end.
    speaker_model : SpeakerRecognition
        The trained model.
    store : EmbeddingStore
        Embeddings with the utterances of the trials.
    trial_set : TrialSet
        The trials.
    details : dict
        Further entries of metrics.json.

    Returns
    -------
    dict or None
        The content of metrics.json; None in all processes but the main one.
    """
    backend, calibration = hparams["backend"], None
    if hparams["average"] != "embeddings" and trial_set.enrolments is None:
        raise InputError(
            f"average '{hparams['average']}' has no effect: the trials have no "
            "enrolments of several utterances"
        )
    if hparams["calibration"] is not None:
        calibration = train_calibration(
            hparams["calibration"],
            speaker_model,
            backend,
            manifest_paths(Path(hparams["trained_model"]) / "save")["train"],
            hparams["output_folder"],
            hparams["n_calibration_trials"],
            hparams["seed"],
            hparams["output_folder"],
            **extraction_options(hparams),
        )
    if not if_main_process():
        return None
    # The threshold of the training is of cosines of single utterances.
    threshold = hparams["threshold"]
    of_cosines = backend.is_plain and calibration is None
    if threshold is None and of_cosines and trial_set.enrolments is None:
        threshold = speaker_model.threshold
    gender_of = None
    if hparams["speaker_genders"] is not None:
        gender_of = read_genders(hparams["speaker_genders"])
    metrics = verify_embeddings(
        store,
        trial_set,
        hparams["output_folder"],
        backend,
        threshold,
        calibration,
        gender_of,
        {"trained_model": str(hparams["trained_model"]), **(details or {})},
        hparams["average"],
    )
    plot_attention(
        speaker_model, trial_set, hparams["output_folder"], hparams["window_length"]
    )
    return metrics
