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
from speechbrain_ext.utils.distributed import without_wrapper
from speechbrain_ext.utils.errors import InputError

ALL_TARGETS = "targets"


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
    max_dim : int
        Wider targets are projected on their so many principal axes, those that
        keep most of their inner products; as wide as they are if None.

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

    def __init__(self, folder, names, subtract_mean=False, max_dim=None):
        stores = {}
        for name in names:
            path = Path(folder) / f"{name}.safetensors"
            if not path.is_file():
                raise InputError(
                    f"there are no targets '{path}'; "
                    "recipes/VoxCeleb/train_kd.py makes them"
                )
            stores[name] = EmbeddingStore.load(path)
        self.sizes = {}
        self._of_utterance = {}
        self._stores = list(stores.values())
        for name, store in stores.items():
            embeddings = store.embeddings
            if subtract_mean:
                embeddings = embeddings - embeddings.mean(0)
            if max_dim is not None and embeddings.shape[1] > max_dim:
                embeddings = embeddings @ principal_axes(embeddings, max_dim)
            self.sizes[name] = embeddings.shape[1]
            for utterance, embedding in zip(store.ids, embeddings):
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


def principal_axes(embeddings, n_axes):
    """Directions that keep most of the vectors' inner products.

    Arguments
    ---------
    embeddings : torch.Tensor
        Vectors, of shape (vector, dim).
    n_axes : int
        Number of directions, at most dim.

    Returns
    -------
    torch.Tensor
        Orthonormal columns, of shape (dim, n_axes), those of most energy first.

    Example
    -------
    >>> principal_axes(torch.tensor([[0.0, 2.0], [0.0, -3.0]]), 1).abs()
    tensor([[0.],
            [1.]])
    """
    _, vectors = torch.linalg.eigh((embeddings.T @ embeddings).double())
    return vectors[:, -n_axes:].flip(1).to(embeddings.dtype)


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
    dataset.add_dynamic_item(targets.__getitem__, "id", "target")
    dataset.set_output_keys(["id", "sig", "spk_id_encoded", "target"])
    return dataset


class DistillationHeads(nn.Module):
    """From a student's embedding to what it is compared with.

    The embedding itself is compared with all targets, one after the other
    (arXiv 2303.01125), or, with separate heads, a linear prediction with each of
    them; of the heads only training has need.

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
    separate_heads : bool
        Whether a head predicts each target from an embedding of another size.

    Raises
    ------
    InputError
        If without heads embedding and targets differ in size.

    Example
    -------
    >>> sizes = {"utterance": 512, "wide_bn": 1500}
    >>> heads = DistillationHeads(192, 10, sizes, separate_heads=True)
    >>> [name for name in heads(torch.rand(4, 1, 192))]
    ['utterance', 'wide_bn']
    """

    def __init__(
        self,
        input_size,
        out_neurons,
        target_sizes,
        classify=False,
        separate_heads=False,
    ):
        super().__init__()
        dim = sum(target_sizes.values())
        if separate_heads:
            self.sizes = dict(target_sizes)
            self.projections = nn.ModuleDict(
                {name: nn.Linear(input_size, size) for name, size in self.sizes.items()}
            )
        elif input_size != dim:
            raise InputError(
                f"emb_dim: the embedding has {input_size} dimensions, its targets have "
                f"{dim}; recipes/VoxCeleb/train_kd.py sets it, or give "
                "--separate_heads=True"
            )
        else:
            self.sizes = {ALL_TARGETS: dim}
            self.projections = nn.ModuleDict({ALL_TARGETS: nn.Identity()})
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
        sizes = without_wrapper(self.modules.classifier).sizes
        targets = dict(zip(sizes, target.split(list(sizes.values()), dim=1)))
        return self.hparams.compute_cost(predictions, targets, speakers)
