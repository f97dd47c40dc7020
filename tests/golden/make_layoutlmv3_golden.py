"""Makes the golden files that tests/worker/trainer compares the trainer's model with: LayoutLMv3ForTokenClassification
of Hugging Face on the CPU in fp32, its inputs, weights, logits, loss and every gradient; and buckets.json, where the
buckets of the attention bias step.

Needs a throw-away virtual environment (5 GB), not the project's:

  python3 -m venv /tmp/golden && /tmp/golden/bin/pip install torch==2.11.0 transformers==5.17.0 numpy safetensors &&
      /tmp/golden/bin/python tests/golden/make_layoutlmv3_golden.py

README.md beside this file describes the format and the cases.
"""

import contextlib
import inspect
import json
import pathlib
import textwrap

import torch
from safetensors.torch import save_file
from transformers import LayoutLMv3Config, LayoutLMv3ForTokenClassification
from transformers.models.layoutlmv3 import modeling_layoutlmv3 as modeling

FOLDER = pathlib.Path(__file__).parent
PAD = 1
# layoutlmv3's dimensions, reduced: two heads, and narrow, since boxes need all 1,024 rows of the 2-D tables.
DIMENSIONS = dict(num_attention_heads=2, intermediate_size=40, vocab_size=50, type_vocab_size=1,
                  max_2d_position_embeddings=1024, patch_size=16)
# Trained tables are of this size, and a wrong bucket then shows in every logit.
BIAS_DEVIATION = 8.0
MOST_DIFFERENCE = 2048  # of positions, in buckets.json


@contextlib.contextmanager
def trained_tables(enabled):
    """The look-up of the bias tables with a gradient, as in Microsoft's model: Hugging Face's code without no_grad."""
    names = ["_cal_1d_pos_emb", "_cal_2d_pos_emb"] if enabled else []
    saved = {name: getattr(modeling.LayoutLMv3Encoder, name) for name in names}
    for name, function in saved.items():
        source = textwrap.dedent(inspect.getsource(function))
        assert source.count("with torch.no_grad():") == 1
        scope = {**vars(modeling)}
        exec(source.replace("with torch.no_grad():", "if True:"), scope)
        setattr(modeling.LayoutLMv3Encoder, name, scope[name])
    yield
    for name, function in saved.items():
        setattr(modeling.LayoutLMv3Encoder, name, function)


def make_boxes(batch, length, generator):
    corners = torch.randint(0, 1001, (batch, length, 2, 2), generator=generator)
    # Half of the boxes lie close together, so that the small differences have their buckets too.
    corners[:, ::2] = 480 + corners[:, ::2] % 64
    low, high = corners.min(dim=2).values, corners.max(dim=2).values
    return torch.cat([low, high], dim=-1)


def set_weights(model, generator):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "rel_pos" in name:
                parameter.normal_(0, BIAS_DEVIATION, generator=generator)
            elif name.lower().endswith("norm.weight"):
                parameter.normal_(1, 0.2, generator=generator)
            elif "patch_embed" in name:  # 768 pixels add up
                parameter.normal_(0, 0.05, generator=generator)
            else:  # wider than the initial 0.02: an untrained attention would be flat
                parameter.normal_(0, 0.3, generator=generator)


def gradients(model):
    """Of an embedding the rows alone that are not zero, and their numbers: most of a table is untouched."""
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            continue
        rows = parameter.grad.flatten(1).ne(0).any(dim=1).nonzero().flatten() if parameter.dim() == 2 else None
        if rows is None or len(rows) > len(parameter.grad) // 2:
            yield "gradient." + name, parameter.grad
        else:
            yield "gradient." + name, parameter.grad[rows]
            yield "gradient_rows." + name, rows


def make_case(name, seed, *, labels=7, relative=True, spatial=True, length=40, layers=2, width=24, lengths=(40, 31),
              left=False, pads_inside=False, image_size=0, train_tables=False):
    """A batch with one sequence for each of `lengths`, padded to `length`."""
    generator = torch.Generator().manual_seed(seed)
    settings = dict(**DIMENSIONS, hidden_size=width, coordinate_size=width // 6, shape_size=width // 6,
                    num_hidden_layers=layers, num_labels=labels, max_position_embeddings=length + 2,
                    has_relative_attention_bias=relative, has_spatial_attention_bias=spatial,
                    visual_embed=image_size > 0, input_size=image_size or 224)
    config = LayoutLMv3Config(**settings, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
                              attn_implementation="eager")
    torch.manual_seed(seed)
    model = LayoutLMv3ForTokenClassification(config).float().train()
    set_weights(model, generator)

    batch = len(lengths)
    ids = torch.randint(2, DIMENSIONS["vocab_size"], (batch, length), generator=generator)
    boxes = make_boxes(batch, length, generator)
    mask = torch.ones_like(ids)
    for row, real in enumerate(lengths):
        mask[row, slice(0, length - real) if left else slice(real, length)] = 0
    ids[mask == 0] = PAD
    if pads_inside:
        ids[:, 5::9] = PAD  # real tokens with the padding's id, which take no position
        ids[mask == 0] = torch.where(torch.arange(int((mask == 0).sum())) % 2 == 0, PAD, 17)  # and padding with another
    targets = torch.randint(0, labels, (batch, length), generator=generator)
    targets[mask == 0] = -100
    targets[0, ::7] = -100
    tensors = {"input.ids": ids, "input.boxes": boxes, "input.attention_mask": mask, "input.labels": targets}
    pixels = None
    if image_size:  # bf16 in the file to keep it small
        pixels = torch.randn((batch, 3, image_size, image_size), generator=generator).bfloat16()
        tensors["input.image"] = pixels
        pixels = pixels.float()

    with trained_tables(train_tables):
        output = model(input_ids=ids, bbox=boxes, attention_mask=mask, labels=targets, pixel_values=pixels)
    output.loss.backward()
    tensors |= {"logits": output.logits.detach(), "loss": output.loss.detach()}
    tensors |= {"weight." + key: value.detach() for key, value in model.named_parameters()}
    tensors |= dict(gradients(model))
    path = FOLDER / f"{name}.safetensors"
    metadata = {key: str(int(value)) for key, value in {**settings, "train_bias_tables": train_tables}.items()}
    save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata)
    print(f"{path.name}: {path.stat().st_size} bytes, loss {output.loss.item():.6f}")


def make_buckets():
    """The bucket of every difference from -MOST_DIFFERENCE on, run-length encoded: [first difference, bucket]."""
    encoder = modeling.LayoutLMv3Encoder(LayoutLMv3Config(num_hidden_layers=0))
    differences = torch.arange(-MOST_DIFFERENCE, MOST_DIFFERENCE + 1)
    runs = {"largest": MOST_DIFFERENCE}
    for key, buckets, distance in [("relative", encoder.rel_pos_bins, encoder.max_rel_pos),
                                   ("spatial", encoder.rel_2d_pos_bins, encoder.max_rel_2d_pos)]:
        values = encoder.relative_position_bucket(differences, num_buckets=buckets, max_distance=distance).tolist()
        runs[key] = [[difference, value] for i, (difference, value) in enumerate(zip(differences.tolist(), values))
                     if i == 0 or values[i - 1] != value]
    (FOLDER / "buckets.json").write_text(json.dumps(runs) + "\n")


make_buckets()
make_case("both_biases_two_layer_head", 1, labels=11)
make_case("both_biases_one_layer_head", 2, layers=1)
make_case("relative_bias", 3, layers=1, spatial=False)
make_case("no_bias", 4, labels=10, relative=False, spatial=False)
make_case("no_padding", 5, length=43, lengths=(43,), layers=1)
make_case("left_padding", 6, length=37, lengths=(21, 37, 36), layers=1, left=True)
make_case("padding_ids_inside", 7, length=45, lengths=(45, 27, 8), layers=1, labels=12, pads_inside=True)
make_case("positions_beyond_512", 8, length=531, lengths=(531, 519), layers=1, width=12)
make_case("trained_tables", 9, length=41, lengths=(41, 30), train_tables=True)
make_case("trained_relative_table", 10, length=41, lengths=(41, 30), layers=1, spatial=False, train_tables=True)
make_case("image", 11, labels=10, length=29, lengths=(29, 18), width=12, image_size=224)
make_case("image_no_bias", 12, length=29, lengths=(18, 29), width=12, relative=False, spatial=False, left=True,
          image_size=64)
make_case("image_trained_tables", 13, length=30, lengths=(30, 11), width=12, image_size=64, train_tables=True)
