"""Times the stages of an i-vector training at the sizes of hparams/ivector.yaml.

    python benchmarks/ivector.py --threads 1

and says what they make of VoxCeleb1: its 148,642 utterances of training speakers
are 340 hours, of which four fifths are taken to be speech. With one thread it is
processor time, and the hours are those of one core. What a pass takes beside its
batches, seconds, is left out.
"""

import torch
from measure import alternate, read_options, report

from speechbrain_ext.config import HPARAMS, read_configuration
from speechbrain_ext.nnet.gaussian_mixture import GaussianMixture

HOURS, UTTERANCES, SPEECH = 340, 148_642, 0.8
FRAMES = int(HOURS * 3600 * 100 * SPEECH)
BATCH, SECONDS = 4, 8
TINY = ["--ubm_components=16", "--emb_dim=8"]


@torch.no_grad()
def main():
    """Measures and reports."""
    options = read_options(__doc__, repeats=2)
    torch.manual_seed(0)
    arguments = [str(HPARAMS / "ivector.yaml"), *(TINY if options.tiny else [])]
    hparams = read_configuration(arguments, demo=False).build()
    encoder, extractor = hparams["encoder"], hparams["embedding_model"]
    ubm = extractor.ubm
    wavs, lengths = torch.randn(BATCH, SECONDS * 16000), torch.ones(BATCH)
    frames = torch.randn(BATCH, int(SECONDS * 100 * SPEECH), encoder.channels)
    flat = frames.flatten(0, 1)
    diagonal = GaussianMixture(encoder.channels, ubm.n_components)
    for mixture in (diagonal, ubm):
        mixture._maximise = lambda *sums: None
    counts, deviations = extractor.statistics(frames, lengths)
    many = counts.repeat(8, 1), deviations.repeat(8, 1, 1)
    jobs = {
        "MFCCs": lambda: encoder(wavs, lengths),
        "start of the UBM": lambda: diagonal.em_step([flat]),
        "UBM": lambda: ubm.em_step([flat]),
        "statistics": lambda: extractor.statistics(frames, lengths),
        # The sums for T are as large a product as that of the posteriors.
        "total variability": lambda: [extractor.posterior(*many) for _ in range(2)],
    }
    ubm_passes, tv_passes = hparams["ubm_iterations"], hparams["tv_iterations"]
    work = {
        "MFCCs": (len(flat), FRAMES, 1 + ubm_passes + tv_passes),
        "start of the UBM": (
            len(flat), hparams["n_ubm_frames"], hparams["ubm_start_iterations"],
        ),
        "UBM": (len(flat), FRAMES, ubm_passes),
        "statistics": (len(flat), FRAMES, tv_passes),
        "total variability": (len(many[0]), UTTERANCES, tv_passes),
    }  # fmt: skip
    rows = []
    for name, times in alternate(jobs, options.repeats).items():
        n, n_of_corpus, n_passes = work[name]
        rate = n / times.seconds()
        rows.append(
            {
                "stage": name,
                "a second": rate,
                "of": n_of_corpus,
                "passes": n_passes,
                "hours": n_passes * n_of_corpus / rate / 3600,
            }
        )
    report("ivector", rows, options, hours=sum(row["hours"] for row in rows))


if __name__ == "__main__":
    main()
