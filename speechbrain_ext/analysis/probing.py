"""What a linear classifier reads from each layer of a frozen encoder."""

import csv

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from speechbrain_ext.dataio.audio import read_crop
from speechbrain_ext.utils.errors import InputError

MAX_DURATION = 10.0  # seconds of an utterance that are encoded
MAX_ITERATIONS = 200


def probe_speakers(encoder, utterances, sample_rate=16000):
    """Accuracy of a linear speaker classifier on each layer's mean.

    Every second utterance of a speaker trains the classifier, the others
    test it.

    Arguments
    ---------
    encoder : SSLEncoder
        Frozen.
    utterances : dict
        Utterances as `read_manifest` gives them.
    sample_rate : int
        Sample rate in Hz.

    Returns
    -------
    list of float
        Accuracy of each layer.

    Raises
    ------
    InputError
        If there are fewer than two speakers with two utterances.
    """
    of_speaker = {}
    for name, item in utterances.items():
        of_speaker.setdefault(item["speaker"], []).append(name)
    of_speaker = {s: names for s, names in of_speaker.items() if len(names) > 1}
    if len(of_speaker) < 2:
        raise InputError(
            "the speaker probe needs two speakers or more with two utterances"
        )
    means = {
        name: hidden_states.mean(1)
        for name, hidden_states in _encode(
            encoder,
            {n: utterances[n] for names in of_speaker.values() for n in names},
            sample_rate,
        )
    }
    train = [n for names in of_speaker.values() for n in names[::2]]
    test = [n for names in of_speaker.values() for n in names[1::2]]
    return [
        _accuracy(
            *(
                (
                    np.stack([means[n][layer] for n in names]),
                    [utterances[n]["speaker"] for n in names],
                )
                for names in (train, test)
            )
        )
        for layer in tqdm(range(encoder.n_layers), desc="Probing for speakers")
    ]


def probe_phones(
    encoder, utterances, phones, test_speakers, sample_rate=16000, n_frames=10000
):
    """Accuracy of a linear phone classifier on each layer's frames.

    Arguments
    ---------
    encoder : SSLEncoder
        Frozen.
    utterances : dict
        Utterances as `read_manifest` gives them.
    phones : dict
        What `read_phones` returned.
    test_speakers : set of str
        Speakers whose frames test the classifier; the other speakers' train it.
    sample_rate : int
        Sample rate in Hz.
    n_frames : int
        Most frames that train and test it.

    Returns
    -------
    list of float
        Accuracy of each layer.

    Raises
    ------
    InputError
        If no utterance of the test speakers or of others has phones.
    """
    frames = {"train": [], "test": []}
    labels = {"train": [], "test": []}
    aligned = {n: item for n, item in utterances.items() if n in phones}
    for name, hidden_states in _encode(encoder, aligned, sample_rate):
        split = "test" if aligned[name]["speaker"] in test_speakers else "train"
        starts, names = phones[name]
        n = hidden_states.shape[1]
        # A frame is labelled at its centre.
        centres = np.arange(n) * encoder.hop + encoder.receptive_field / 2
        at = np.searchsorted(starts, centres / sample_rate, side="right") - 1
        frames[split].append(hidden_states[:, at >= 0])
        labels[split] += [names[i] for i in at[at >= 0]]
    if not all(frames.values()):
        raise InputError(
            "the phone probe needs aligned utterances of test speakers and of others"
        )
    sampled = {}
    rng = np.random.default_rng(0)
    for split in frames:
        joined = np.concatenate(frames[split], axis=1)
        kept = rng.permutation(joined.shape[1])[:n_frames]
        sampled[split] = joined[:, kept], np.array(labels[split])[kept]
    return [
        _accuracy(*((features[layer], names) for features, names in sampled.values()))
        for layer in tqdm(range(encoder.n_layers), desc="Probing for phones")
    ]


def read_phones(path):
    """Reads phone alignments.

    Arguments
    ---------
    path : str or Path
        CSV with the columns id, start (seconds) and phone.

    Returns
    -------
    dict
        For each id, the starts, an array, and the names.

    Raises
    ------
    InputError
        If a column is missing.

    Example
    -------
    >>> path = getfixture("tmpdir") / "phones.csv"
    >>> path.write_text("id,start,phone\\na.wav,0.1,s\\na.wav,0.2,i\\n", "utf-8")
    >>> read_phones(path)["a.wav"][1]
    ['s', 'i']
    """
    phones = {}
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = {"id", "start", "phone"}.difference(reader.fieldnames or ())
        if missing:
            raise InputError(f"'{path}' has no column {', '.join(sorted(missing))}")
        for row in reader:
            starts, names = phones.setdefault(row["id"], ([], []))
            starts.append(float(row["start"]))
            names.append(row["phone"])
    return {n: (np.array(starts), names) for n, (starts, names) in phones.items()}


def _encode(encoder, utterances, sample_rate):
    device = next(encoder.parameters()).device
    for name, item in tqdm(utterances.items(), desc="Encoding"):
        wav = read_crop(item["wav"], sample_rate, 0.0, MAX_DURATION)
        with torch.no_grad():
            hidden_states, _ = encoder(wav.unsqueeze(0).to(device))
        yield name, hidden_states[:, 0].float().cpu().numpy()


def _accuracy(train, test):
    classifier = make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=MAX_ITERATIONS)
    )
    return float(classifier.fit(*train).score(*test))
