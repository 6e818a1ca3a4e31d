"""The model card of an exported model, in Hugging Face's format."""

import io
import textwrap

from ruamel.yaml import YAML

# Names of the corpora on the Hugging Face hub
HUB_DATASETS = {"voxceleb1": "voxceleb", "voxceleb2": "voxceleb"}
DECISIONS = "## Decisions"  # heading of the section


def model_card(name, description, scoring, license, examples, header=None):
    """Writes a model card.

    Arguments
    ---------
    name : str
        Name of the model.
    description : dict
        Content of model.json.
    scoring : ModelScoring
        How the model decides.
    license : str
        Licence, as Hugging Face writes it.
    examples : list of str
        Recordings in the folder.
    header : dict
        Further entries of the header.

    Returns
    -------
    str
        Markdown with a YAML header.
    """
    metrics = description["metrics"]
    header = {
        **(header or {}),
        "license": license,
        "library_name": "speechbrain",
        "pipeline_tag": "audio-classification",
        "tags": [
            "speaker-verification",
            "speaker-recognition",
            "speaker-embeddings",
            "speechbrain",
            "speechbrain_ext",
        ],
        "metrics": ["eer"],
    }
    dataset = description["dataset"]
    if dataset in HUB_DATASETS:
        header["datasets"] = [HUB_DATASETS[dataset]]
    if metrics is not None:
        header["model-index"] = [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": "speaker-verification"},
                        "dataset": {
                            "name": f"test trials of {dataset}",
                            "type": str(dataset),
                        },
                        "metrics": [
                            {"type": "eer", "value": round(100 * metrics["EER"], 4)},
                            {
                                "type": "minDCF_0.01",
                                "value": round(metrics["minDCF_0.01"], 4),
                            },
                        ],
                    }
                ],
            }
        ]
    stream = io.StringIO()
    YAML().dump(header, stream)
    sections = [
        f"---\n{stream.getvalue()}---\n",
        f"# {name}\n",
        _what_it_is(description),
        _results(metrics, dataset),
        _how_to_use(name, examples),
        _decision(scoring),
        _limits(description),
    ]
    return "\n".join(sections)


def with_decision(card, scoring):
    """Replaces what a model card says of decisions, as after a new threshold.

    Arguments
    ---------
    card : str
        Model card, as of `model_card`.
    scoring : ModelScoring
        How the model decides now.

    Returns
    -------
    str
        The card; as it was where it has no such section.

    Example
    -------
    >>> from speechbrain_ext.inference.model_scoring import ModelScoring
    >>> card = "# x\\n\\n## Decisions\\n\\nAbove 0.2.\\n\\n## Limits\\n\\n- Noise\\n"
    >>> scoring = ModelScoring(threshold=0.3, threshold_from="my trials")
    >>> print(with_decision(card, scoring))
    # x
    <BLANKLINE>
    ## Decisions
    <BLANKLINE>
    Scores are cosines of embeddings. Two recordings count as one speaker above 0.3000,
    which is from: my trials.
    <BLANKLINE>
    ## Limits
    <BLANKLINE>
    - Noise
    <BLANKLINE>
    """
    before, heading, after = card.partition(f"{DECISIONS}\n")
    if not heading:
        return card
    _, following, rest = after.partition("\n## ")
    return before + _decision(scoring) + following + rest


def _what_it_is(description):
    parameters = description["parameters"]
    sizes = ", ".join(f"{n} {count:,}" for n, count in parameters.items())
    speakers = description["training_speakers"]
    speakers = "" if speakers is None else f" ({speakers} classes of speakers)"
    return f"""Embeddings of speakers, for verification and identification:
`{description["back_end"]}` on `{description["encoder"]}`. An embedding has
{description["emb_dim"]} dimensions and does not depend on the batch that its
recording is in.

- Trained on: {description["dataset"] or "not recorded"}{speakers}
- Input: speech at {description["sample_rate"]} Hz, one channel; files of other rates
  and channels are converted
- Parameters: {sizes}
- Exported by speechbrain_ext {description["speechbrain_ext"]}
"""


def _results(metrics, dataset):
    if metrics is None:
        return "## Results\n\nThe model was exported without results of a test.\n"
    rows = [("EER", f"{100 * metrics['EER']:.2f} %{_interval(metrics, 'EER_95')}")]
    if "EER_star" in metrics:
        rows.append(
            (
                "Error rate at the validation threshold (EER*)",
                f"{100 * metrics['EER_star']:.2f} %",
            )
        )
    rows += [
        (f"minDCF (target prior {prior})", f"{metrics[f'minDCF_{prior}']:.3f}")
        for prior in ("0.01", "0.05")
    ]
    if "calibrated" in metrics:
        rows.append(("Cllr", f"{metrics['calibrated']['Cllr']:.3f}"))
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"""## Results

On {metrics["n_target"]} target and {metrics["n_nontarget"]} non-target trials of
{dataset}:

| Metric | Value |
| --- | --- |
{table}
"""


def _interval(metrics, key):
    if key not in metrics:
        return ""
    low, high = metrics[key]
    return f" (95 % interval {100 * low:.2f} to {100 * high:.2f} %)"


def _how_to_use(name, examples):
    first, second = [*examples, "first.wav", "second.wav"][:2]
    return f"""## How to use

```python
from speechbrain_ext.inference.speaker import SpeakerRecognition

# This folder, or user/name on the hub
model = SpeakerRecognition.from_hparams("{name}")
result = model.verify_files("{first}", "{second}")
print(result.score, result.decision, result.log_likelihood_ratio)
```

SpeechBrain loads it too, where speechbrain_ext is installed;
`foreign_class` decides by the model's own threshold:

```python
from speechbrain.inference.interfaces import foreign_class
from speechbrain.inference.speaker import EncoderClassifier

encoder = EncoderClassifier.from_hparams("{name}")
verification = foreign_class(
    "{name}",
    pymodule_file="custom_interface.py",
    classname="CalibratedSpeakerRecognition",
)
```
"""


def _decision(scoring):
    parts = ["Scores are cosines of embeddings"]
    score_norm = scoring.backend.get("score_norm")
    if score_norm is not None:
        size = scoring.backend.get("cohort_size")
        adaptive = "" if size is None else f" over the {size} nearest speakers"
        parts[0] += f", normalised ({score_norm}{adaptive})"
    if scoring.threshold is not None:
        parts.append(
            f"Two recordings count as one speaker above {scoring.threshold:.4f}, which "
            f"is from: {scoring.threshold_from}"
        )
    if scoring.calibration is not None:
        parts.append(
            "A calibration turns scores into natural log-likelihood ratios and, at "
            "equal priors, probabilities"
        )
    return f"{DECISIONS}\n\n" + textwrap.fill(". ".join(parts) + ".", 88) + "\n"


def _limits(description):
    return f"""## Limits

- The threshold and the calibration are of the data named above. On other microphones,
  languages, ages or noise the error rates are others: set the threshold on trials of
  your own.
- Recordings with less than about a second of speech, several speakers, or music give
  embeddings that say little.
- It does not tell living speech from recordings or synthetic voices, and is no
  protection against them.
- Embeddings of people's voices are biometric data; laws on these apply to them.
- Nothing is known here of differences between groups of speakers that
  {description["dataset"] or "the training data"} represents badly.
"""
