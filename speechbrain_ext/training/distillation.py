"""Distillation of embeddings: targets, heads, loss and Brain of a student."""

from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from torch import nn
from torch.nn import functional as F

from speechbrain_ext.dataio.datasets import training_dataset
from speechbrain_ext.dataio.embedding_store import (
    ROW_PARTS,
    EmbeddingStore,
    row_keys_of,
    same_parts,
)
from speechbrain_ext.training.brains import SpeakerBrain
from speechbrain_ext.utils.errors import InputError


class TargetEmbeddings:
    """A teacher's embeddings of the training utterances, of several kinds.

    Arguments
    ---------
    folder : str or Path
        Folder with a store <name>.safetensors for each target.
    names : list of str
        The targets, such as utterance and wide_bn.
    subtract_mean : bool
        Whether to subtract each target's mean over the utterances.

    Attributes
    ----------
    sizes : dict
        Dimension of each target.

    Raises
    ------
    InputError
        If the store of a target is missing.

    Example
    -------
    >>> folder = Path(getfixture("tmpdir"))
    >>> store = EmbeddingStore(["a/1"], torch.ones(1, 3), ["a"], [1.5], "f00")
    >>> store.save(folder / "utterance.safetensors")
    >>> targets = TargetEmbeddings(folder, ["utterance"])
    >>> targets.sizes, targets["a/1"]
    ({'utterance': 3}, tensor([1., 1., 1.]))
    """

    def __init__(self, folder, names, subtract_mean=False):
        stores = {}
        for name in names:
            path = Path(folder) / f"{name}.safetensors"
            if not path.is_file():
                raise InputError(
                    f"there are no targets '{path}'; "
                    "recipes/VoxCeleb/train_kd.py makes them"
                )
            stores[name] = EmbeddingStore.load(path)
        self.sizes = {name: store.embeddings.shape[1] for name, store in stores.items()}
        self._of_utterance = {}
        self._stores = list(stores.values())
        for store in stores.values():
            mean = store.embeddings.mean(0) if subtract_mean else 0.0
            for utterance, embedding in zip(store.ids, store.embeddings - mean):
                parts = self._of_utterance.setdefault(utterance, [])
                parts.append(embedding)

    def __getitem__(self, utterance):
        """All targets of an utterance, one after the other.

        Arguments
        ---------
        utterance : str
            Its id.

        Returns
        -------
        torch.Tensor
            Targets, of shape (sum of sizes,).
        """
        return torch.cat(self._of_utterance[utterance])

    def stale(self, utterances):
        """Utterances whose audio is not what a target was made from.

        By size and duration, so that a copy of the corpus elsewhere counts as
        the same.

        Arguments
        ---------
        utterances : dict
            Utterances as `read_manifest` gives them.

        Returns
        -------
        list of str
            Sorted.
        """
        compared = [ROW_PARTS.index(part) for part in ("size", "duration")]
        keys = row_keys_of(utterances)
        row_of = {name: row for row, name in enumerate(utterances)}
        found = set()
        for store in self._stores:
            if store.row_keys is None:
                continue
            rows = [row for row, name in enumerate(store.ids) if name in row_of]
            names = [store.ids[row] for row in rows]
            wanted = keys[[row_of[name] for name in names]]
            is_same = same_parts(store.row_keys[rows], wanted)[:, compared].all(dim=1)
            found.update(name for name, same in zip(names, is_same) if not same)
        return sorted(found)

    def missing(self, utterances):
        """Utterances that lack a target.

        Arguments
        ---------
        utterances : iterable of str
            Ids.

        Returns
        -------
        list of str
            Sorted.
        """
        return sorted(
            name
            for name in utterances
            if len(self._of_utterance.get(name, ())) < len(self.sizes)
        )


def distillation_dataset(
    utterances, label_encoder, sample_rate, crop_duration, speeds, targets
):
    """Random crops with speaker labels and the whole utterance's targets.

    Arguments
    ---------
    utterances : dict
        Utterances as `read_manifest` gives them.
    label_encoder : speechbrain.dataio.encoder.CategoricalEncoder
        Encoder of the speakers.
    sample_rate : int
        Sample rate in Hz.
    crop_duration : float
        Duration of a crop in seconds.
    speeds : list of int
        100 per cent alone, as the targets are of unchanged voices.
    targets : TargetEmbeddings
        Targets of these utterances.

    Returns
    -------
    DrawnDataset
        Data set with the keys of `training_dataset` and target.

    Raises
    ------
    InputError
        If an utterance has no targets or those of other audio, or there are
        other speeds.
    """
    if set(speeds) != {100}:
        raise InputError(
            f"speeds {list(speeds)}: a student needs [100], since the targets "
            "are of unchanged voices"
        )
    missing = targets.missing(utterances)
    if missing:
        raise InputError(
            f"{len(missing)} training utterances have no targets, such as "
            f"{missing[0]}: the teacher was trained on other data; give "
            "another teacher, a folder where it is or will be trained"
        )
    stale = targets.stale(utterances)
    if stale:
        raise InputError(
            f"the targets of {len(stale)} training utterances are of other audio, "
            f"such as {stale[0]}; recipes/VoxCeleb/train_kd.py makes them again"
        )
    dataset = training_dataset(utterances, label_encoder, sample_rate, crop_duration)

    @sb.utils.data_pipeline.takes("id")
    @sb.utils.data_pipeline.provides("target")
    def target_of(utterance):
        return targets[utterance]

    dataset.add_dynamic_item(target_of)
    dataset.set_output_keys(["id", "sig", "spk_id_encoded", "target"])
    return dataset


class DistillationHeads(nn.Module):
    """From a student's embedding to each target and to the speakers.

    Only training needs them: the student's embedding is what stays.

    Arguments
    ---------
    input_size : int
        Dimension of the student's embedding.
    out_neurons : int
        Speakers.
    target_sizes : dict
        Dimension of each target.
    classify : bool
        Whether there is a classifier of the speakers too.

    Example
    -------
    >>> heads = DistillationHeads(192, 10, {"utterance": 512, "wide_bn": 1500})
    >>> [name for name in heads(torch.rand(4, 1, 192))]
    ['utterance', 'wide_bn']
    """

    def __init__(self, input_size, out_neurons, target_sizes, classify=False):
        super().__init__()
        self.projections = nn.ModuleDict(
            {name: nn.Linear(input_size, size) for name, size in target_sizes.items()}
        )
        self.classifier = (
            Classifier(input_size, out_neurons=out_neurons) if classify else None
        )

    def forward(self, embeddings):
        """Predicts the targets and, where asked for, the speakers.

        Arguments
        ---------
        embeddings : torch.Tensor
            Embeddings, of shape (batch, 1, dim).

        Returns
        -------
        dict
            For each target, its prediction, of shape (batch, dim of target);
            with classify, speaker, cosines of shape (batch, 1, speaker).
        """
        predictions = {
            name: projection(embeddings.squeeze(1))
            for name, projection in self.projections.items()
        }
        if self.classifier is not None:
            predictions["speaker"] = self.classifier(embeddings)
        return predictions


class DistillationLoss(nn.Module):
    """Cosine distances to the teacher's embeddings (arXiv 2303.01125).

    Arguments
    ---------
    mse_weight : float
        Weight of the mean squared error to each target, added to its cosine
        distance.
    speaker_weight : float
        Weight of the loss of the labels; at 0 labels are not used.
    speaker_loss : callable
        Function from cosines and labels to the loss of the labels.

    Example
    -------
    >>> target = torch.eye(2)
    >>> loss = DistillationLoss()
    >>> loss({"utterance": 3 * target}, {"utterance": target})
    tensor(0.)
    """

    def __init__(self, mse_weight=0.0, speaker_weight=0.0, speaker_loss=None):
        super().__init__()
        self.speaker_weight = speaker_weight
        self.mse_weight = mse_weight
        self.speaker_loss = speaker_loss

    def forward(self, predictions, targets, speakers=None):
        """Computes the loss, a mean over the targets.

        Arguments
        ---------
        predictions : dict
            What `DistillationHeads` returned.
        targets : dict
            Target of each name, of shape (batch, dim).
        speakers : torch.Tensor
            Labels, of shape (batch, 1); for the loss of the labels.

        Returns
        -------
        torch.Tensor
            The loss.
        """
        losses = []
        for name, target in targets.items():
            predicted = predictions[name].float()
            loss = 1 - F.cosine_similarity(predicted, target).mean()
            if self.mse_weight:
                loss = loss + self.mse_weight * F.mse_loss(predicted, target)
            losses.append(loss)
        loss = torch.stack(losses).mean()
        if self.speaker_weight:
            of_labels = self.speaker_loss(predictions["speaker"], speakers)
            loss = loss + self.speaker_weight * of_labels
        return loss


class DistillationBrain(SpeakerBrain):
    """Trains a student to predict a teacher's embeddings.

    Validation is verification with the student's own embeddings.

    Needs in `modules`: classifier, `DistillationHeads`. Needs in `hparams`,
    beside what `SpeakerBrain` needs: target_embeddings; compute_cost is a
    `DistillationLoss`. Its dataset is of `distillation_dataset`.
    """

    def compute_objectives(self, predictions, batch, stage):
        """The distillation loss; in validation, keeps the embeddings.

        Arguments
        ---------
        predictions : dict or torch.Tensor
            What `compute_forward` returned.
        batch : PaddedBatch
            The batch.
        stage : Stage
            Stage.TRAIN or Stage.VALID.

        Returns
        -------
        torch.Tensor
            The loss; zero in validation.
        """
        if stage != sb.Stage.TRAIN:
            return super().compute_objectives(predictions, batch, stage)
        speakers, _ = batch.spk_id_encoded
        target, _ = batch.target
        if self.hparams.augment:
            speakers = self.hparams.wav_augment.replicate_labels(speakers)
            target = self.hparams.wav_augment.replicate_labels(target)
        sizes = self.hparams.target_embeddings.sizes
        targets = dict(zip(sizes, target.split(list(sizes.values()), dim=1)))
        return self.hparams.compute_cost(predictions, targets, speakers)
