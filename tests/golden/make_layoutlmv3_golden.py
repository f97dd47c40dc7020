"""Makes the golden files that tests/worker/trainer compares the trainer's model with: LayoutLMv3ForTokenClassification
of Hugging Face on the CPU in fp32, its inputs, weights, logits, loss and every gradient.

Needs a throw-away virtual environment (5 GB), not the project's:

  python3 -m venv /tmp/golden && /tmp/golden/bin/pip install torch==2.11.0 transformers==5.17.0 numpy safetensors &&
      /tmp/golden/bin/python tests/golden/make_layoutlmv3_golden.py

Each case is CASE.safetensors beside this file: input.*, weight.NAME, gradient.NAME, logits, loss, and the configuration
in the metadata. Zero rows of the embeddings' gradients are most of them, so the vocabulary and the tables are small.
"""

import pathlib

import torch
from safetensors.torch import save_file
from transformers import LayoutLMv3Config, LayoutLMv3ForTokenClassification

FOLDER = pathlib.Path(__file__).parent
BATCH, LENGTH = 2, 40
# layoutlmv3's dimensions, reduced: 2 layers of width 24 with 2 heads of 12. Boxes need all 1,024 rows of the 2-D tables,
# which are therefore narrow: 4 * 4 + 2 * 4 = 24.
DIMENSIONS = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40, vocab_size=50,
                  max_position_embeddings=LENGTH + 2, type_vocab_size=1, max_2d_position_embeddings=1024,
                  coordinate_size=4, shape_size=4)
# Trained tables are of this size, and a wrong bucket then shows in every logit.
BIAS_DEVIATION = 8.0


def make_inputs(generator):
    ids = torch.randint(2, DIMENSIONS["vocab_size"], (BATCH, LENGTH), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 31:] = 0
    ids[1, 31:] = 1  # the padding id, so that padded tokens keep position 1
    corners = torch.randint(0, 1001, (BATCH, LENGTH, 2, 2), generator=generator)
    # Half of the boxes lie close together, so that the small differences have their buckets too.
    corners[:, ::2] = 480 + corners[:, ::2] % 64
    low, high = corners.min(dim=2).values, corners.max(dim=2).values
    boxes = torch.cat([low, high], dim=-1)
    return ids, boxes, mask


def make_case(name, labels, relative, spatial, seed):
    generator = torch.Generator().manual_seed(seed)
    config = LayoutLMv3Config(**DIMENSIONS, num_labels=labels, has_relative_attention_bias=relative,
                              has_spatial_attention_bias=spatial, hidden_dropout_prob=0.0,
                              attention_probs_dropout_prob=0.0, visual_embed=False, attn_implementation="eager")
    torch.manual_seed(seed)
    model = LayoutLMv3ForTokenClassification(config).float().train()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "rel_pos" in parameter_name:
                parameter.normal_(0, BIAS_DEVIATION, generator=generator)
            elif "LayerNorm.weight" in parameter_name:
                parameter.normal_(1, 0.2, generator=generator)
            else:  # wider than the initial 0.02: an untrained attention would be flat
                parameter.normal_(0, 0.3, generator=generator)
    ids, boxes, mask = make_inputs(generator)
    targets = torch.randint(0, labels, (BATCH, LENGTH), generator=generator)
    targets[mask == 0] = -100
    targets[0, ::7] = -100
    output = model(input_ids=ids, bbox=boxes, attention_mask=mask, labels=targets)
    output.loss.backward()

    tensors = {"input.ids": ids, "input.boxes": boxes, "input.attention_mask": mask, "input.labels": targets,
               "logits": output.logits.detach(), "loss": output.loss.detach()}
    for parameter_name, parameter in model.named_parameters():
        tensors["weight." + parameter_name] = parameter.detach()
        if parameter.grad is not None:
            tensors["gradient." + parameter_name] = parameter.grad
    metadata = {**DIMENSIONS, "num_labels": labels, "has_relative_attention_bias": int(relative),
                "has_spatial_attention_bias": int(spatial)}
    path = FOLDER / f"{name}.safetensors"
    save_file({key: value.contiguous() for key, value in tensors.items()}, path,
              {key: str(value) for key, value in metadata.items()})
    print(f"{path.name}: {path.stat().st_size} bytes, loss {output.loss.item():.6f}")


make_case("both_biases_two_layer_head", labels=11, relative=True, spatial=True, seed=1)
make_case("both_biases_one_layer_head", labels=7, relative=True, spatial=True, seed=2)
make_case("relative_bias", labels=7, relative=True, spatial=False, seed=3)
make_case("no_bias", labels=10, relative=False, spatial=False, seed=4)
