"""The PyTorch side of `benchmark sample` and `benchmark train`; runs in an environment of its own.

python -m venv port; port/bin/pip install torch==2.13.0 transformers==4.44.2 "numpy<2"

Runs the port of Jukebox in transformers, of the sizes that it reads as JSON from its first line
(`against.SIZES`). Each line of stdin names a method of `Tasks`; it is done once, then "done" is
printed. Anything that the libraries print goes to stderr.
"""

import functools
import json
import os
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads free the cores
os.environ["HF_HUB_OFFLINE"] = "1"
answers, sys.stdout = sys.stdout, sys.stderr

import torch  # noqa: E402
from transformers.models.deprecated.jukebox import (  # noqa: E402
    JukeboxPrior,
    JukeboxPriorConfig,
    JukeboxVQVAE,
    JukeboxVQVAEConfig,
)

sizes = json.loads(sys.stdin.readline())
torch.set_num_threads(sizes["threads"])
torch.manual_seed(0)
LABELS = 4 + 5  # length, offset, duration, artist and up to five genres


def make_prior():
    config = JukeboxPriorConfig(
        level=0, attention_pattern="raw_column_previous_row_attention", mask=True,
        hidden_size=sizes["width"], num_layers=sizes["depth"], n_heads=sizes["heads"],
        n_ctx=sizes["context"], blocks=sizes["blocks"], is_encoder_decoder=False,
        merged_decoder=False, nb_relevant_lyric_tokens=0, encoder_loss_fraction=0.0,
        metadata_dims=[sizes["genres"], sizes["artists"]], max_nb_genres=5, timing_dims=128,
        min_duration=60.0, max_duration=600.0, init_scale=0.2,
    )  # fmt: skip
    prior = JukeboxPrior(config, level=0)
    prior.apply(prior._init_weights)  # linear weights are not initialised before
    return prior


def labels(batch):
    y = torch.full((batch, LABELS), -1, dtype=torch.long)
    y[:, 0], y[:, 1], y[:, 2], y[:, 3], y[:, 4] = 180 * 44100, 0, sizes["context"] * 128, 10, 3
    return y


class Tasks:
    """The tasks by name; models are made when first needed."""

    prior = functools.cached_property(lambda self: make_prior().eval())

    @functools.cached_property
    def trained(self):
        prior = make_prior().train().requires_grad_(True)
        codes = torch.randint(0, 2048, (sizes["train_batch"], sizes["context"]))
        return prior, torch.optim.Adam(prior.parameters(), lr=3e-4), codes

    @functools.cached_property
    def vqvae(self):
        model = JukeboxVQVAE(JukeboxVQVAEConfig(sample_length=sizes["samples"])).eval()
        for level in model.bottleneck.level_blocks:
            level.codebook.normal_()
        return model

    @functools.cached_property
    def codes(self):
        return self.encode()

    @torch.no_grad()
    def sample(self, batch):
        self.prior.sample(batch, metadata=labels(batch), sample_tokens=sizes["tokens"])

    def train(self):
        prior, optimizer, codes = self.trained
        audio, metadata, _ = prior.get_cond(None, labels(len(codes)))
        prior.prior(codes, audio, metadata, None)[0].backward()
        optimizer.step()
        optimizer.zero_grad()

    @torch.no_grad()
    def encode(self):
        return self.vqvae.encode(0.1 * torch.randn(1, sizes["samples"], 1))

    @torch.no_grad()
    def decode(self):
        self.vqvae.decode(self.codes, start_level=0)

    def vqvae_gradients(self):
        model = self.vqvae.requires_grad_(True)
        x = 0.1 * torch.randn(1, 1, sizes["gradient_samples"])
        for encoder, decoder in zip(model.encoders, model.decoders):  # noqa: B905
            ((decoder([encoder(x)[-1]], all_levels=False) - x) ** 2).mean().backward()
        model.zero_grad()
        model.requires_grad_(False)


tasks = Tasks()
for line in sys.stdin:
    name, _, batch = line.strip().partition(":")
    run = getattr(tasks, name)
    run(int(batch)) if batch else run()
    print("done", file=answers, flush=True)
