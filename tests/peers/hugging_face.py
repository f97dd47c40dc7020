"""Peer: the training step of Hugging Face's LayoutLMv3ForTokenClassification in PyTorch, for numbers beside attnfleet's.

Eager attention is transformers' own. LayoutLMv3 has no other there, so `sdpa` replaces the attention of each layer by
scaled_dot_product_attention, with the two biases as a dense mask; `compiled` is that model under torch.compile. `flex`
looks the biases up inside FlexAttention, with the fastest of eight settings of its tiles; `flex-compiled` compiles the
model around it as well. FlexAttention has no dropout, so theirs is left out. Batches lie on the GPU before the clock
starts, and Adam is PyTorch's fused one. Prints one JSON object a line. Needs torch, transformers and a GPU:

  python3 tests/peers/hugging_face.py --preset=published --shapes=32x512 --implementations=eager,sdpa
  attnfleet-trainer --write-data=d.jsonl --batch=32 --sequence-length=512 --seed=1 --steps=4      # the preset's documents
  python3 tests/peers/hugging_face.py --preset=stock --shapes=32x512 --data=d.jsonl
"""

import argparse
import gc
import json
import math
import sys
import time

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import flex_attention
import transformers.models.layoutlmv3.modeling_layoutlmv3 as layoutlmv3
from transformers import LayoutLMv3Config

EAGER_FORWARD = layoutlmv3.LayoutLMv3SelfAttention.forward
VOCABULARY = 50265
LABELS = 10
IMPLEMENTATIONS = ["eager", "sdpa", "compiled", "flex", "flex-compiled"]
# Of FlexAttention's kernels: with its own choice they ask for more shared memory than there is.
FORWARD_TILES = [{"num_stages": 1}, {"BLOCK_M": 64, "BLOCK_N": 64, "num_stages": 1},
                 {"BLOCK_M": 128, "BLOCK_N": 64, "num_stages": 1, "num_warps": 8},
                 {"BLOCK_M": 64, "BLOCK_N": 64, "num_stages": 2, "num_warps": 4}]
BACKWARD_TILES = {"BLOCK_M1": 32, "BLOCK_N1": 64, "BLOCK_M2": 64, "BLOCK_N2": 32}
TILES = FORWARD_TILES + [{**tiles, **BACKWARD_TILES} for tiles in FORWARD_TILES]


class Sdpa:
    """Stands in for LayoutLMv3SelfAttention.forward."""

    def __init__(self, drop_output):
        self.drop_output = drop_output  # as the published benchmark did
        self.mask = None                # of the step whose biases or padding are `mask_of`
        self.mask_of = None

    def dense_mask(self, addends, size, dtype):
        """What is added to the scores, made once a step: all layers are given the same biases and padding."""
        if self.mask_of is None or any(new is not old for new, old in zip(addends, self.mask_of)):
            biases = [bias / math.sqrt(size) for bias in addends[:2] if bias is not None]
            padding = [] if addends[2] is None else [addends[2]]
            self.mask = None
            if biases or padding:
                # Of fp32's lowest value bf16 would make minus infinity.
                self.mask = sum(biases + padding).clamp(min=torch.finfo(dtype).min).to(dtype)
            self.mask_of = addends
        return self.mask

    def __call__(self, module, hidden_states, attention_mask=None, rel_pos=None, rel_2d_pos=None, **_):
        batch, length, width = hidden_states.shape
        heads, size = module.num_attention_heads, module.attention_head_size
        query, key, value = (linear(hidden_states).view(batch, length, heads, size).transpose(1, 2)
                             for linear in (module.query, module.key, module.value))
        mask = self.dense_mask((rel_pos, rel_2d_pos, attention_mask), size, query.dtype)
        dropout = module.dropout.p if module.training else 0.0
        output = F.scaled_dot_product_attention(query, key, value, attn_mask=mask,
                                                dropout_p=0.0 if self.drop_output else dropout)
        if self.drop_output:
            output = module.dropout(output)
        return output.transpose(1, 2).reshape(batch, length, width), None


class CompiledSdpa(Sdpa):
    """The same for torch.compile, which sees for itself that all layers' masks are one."""

    def dense_mask(self, addends, size, dtype):
        biases = [bias / math.sqrt(size) for bias in addends[:2] if bias is not None]
        terms = biases + ([] if addends[2] is None else [addends[2]])
        return sum(terms).clamp(min=torch.finfo(dtype).min).to(dtype) if terms else None


class Flex:
    """Stands in for LayoutLMv3SelfAttention.forward; the biases are looked up in tables of all differences."""

    def __init__(self, batch, length, compile_attention):
        self.length = length
        self.attention = torch.compile(flex_attention, dynamic=False) if compile_attention else flex_attention
        self.tiles = 0
        # Overwritten by every batch: other tensors would be compiled for again.
        self.x, self.y = (torch.zeros(batch, length, dtype=torch.long, device="cuda") for _ in range(2))
        self.hidden = torch.zeros(batch, length, device="cuda")  # minus infinity for padding
        self.tables = None

    def use_model(self, encoder):
        """Takes the model's tables, as they are, and spares it the S x S biases."""
        if not encoder.has_relative_attention_bias:
            return

        def table(weight, reach, buckets, max_distance):
            differences = torch.arange(-reach, reach + 1, device="cuda")
            bucket = encoder.relative_position_bucket(differences, num_buckets=buckets, max_distance=max_distance)
            return (weight.t()[bucket].t() / 8).contiguous()

        with torch.no_grad():
            self.tables = (table(encoder.rel_pos_bias.weight, self.length, 32, 128),
                           table(encoder.rel_pos_x_bias.weight, 1024, 64, 256),
                           table(encoder.rel_pos_y_bias.weight, 1024, 64, 256))
        encoder._cal_1d_pos_emb = encoder._cal_2d_pos_emb = lambda *_: None

    def use_batch(self, batch):
        self.x.copy_(batch["bbox"][:, :, 0])
        self.y.copy_(batch["bbox"][:, :, 3])
        self.hidden.copy_(torch.zeros_like(self.hidden).masked_fill(batch["attention_mask"] == 0, -math.inf))

    def score(self, score, batch, head, query, key):
        if self.tables is not None:
            relative, across, down = self.tables
            score = (score + relative[head, key - query + self.length] +
                     across[head, self.x[batch, key] - self.x[batch, query] + 1024] +
                     down[head, self.y[batch, key] - self.y[batch, query] + 1024])
        return score + self.hidden[batch, key]

    def choose_tiles(self, candidates):
        """The fastest forward and backward pass at this shape, of these settings."""
        shape = (self.x.shape[0], 12, self.length, 64)
        query, key, value = (torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True)
                             for _ in range(3))
        fastest = math.inf
        for tiles in candidates:
            torch._dynamo.reset()
            attention = torch.compile(flex_attention, dynamic=False)
            try:
                for repetition in range(8):
                    if repetition == 3:
                        torch.cuda.synchronize()
                        begin = time.perf_counter()
                    attention(query, key, value, score_mod=self.score,
                              kernel_options=TILES[tiles]).backward(value.detach())
                torch.cuda.synchronize()
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever Inductor says of tiles that do not fit
                print(f"flex, {TILES[tiles]}: {str(error)[:120]!r}", file=sys.stderr)
                continue
            if time.perf_counter() - begin < fastest:
                fastest, self.tiles = time.perf_counter() - begin, tiles
        if fastest == math.inf:
            raise RuntimeError("FlexAttention compiles with none of its settings")
        torch._dynamo.reset()

    def __call__(self, module, hidden_states, *_, **__):
        batch, length, width = hidden_states.shape
        heads, size = module.num_attention_heads, module.attention_head_size
        query, key, value = (linear(hidden_states).view(batch, length, heads, size).transpose(1, 2)
                             for linear in (module.query, module.key, module.value))
        output = self.attention(query, key, value, score_mod=self.score, kernel_options=TILES[self.tiles])
        return output.transpose(1, 2).reshape(batch, length, width), None


def make_batch(batch, length, boxes):
    corners = torch.randint(0, 1001, (batch, length, 2, 2), device="cuda").sort(dim=2).values
    return {
        "input_ids": torch.randint(0, VOCABULARY, (batch, length), device="cuda"),
        "bbox": corners.flatten(2) if boxes == "random" else torch.ones(batch, length, 4, dtype=torch.long, device="cuda"),
        "attention_mask": torch.ones(batch, length, dtype=torch.long, device="cuda"),
        "labels": torch.randint(0, LABELS, (batch, length), device="cuda"),
    }


def read_batches(path, batch, length):
    """The batches of a file in attnfleet's --data format, padded on the right."""
    padding = {"ids": 1, "boxes": [0, 0, 0, 0], "labels": -100}
    with open(path) as lines:
        documents = [json.loads(line) for line in lines]

    def stack(name):
        rows = [document[name][:length] for document in documents]
        return torch.tensor([row + [padding[name]] * (length - len(row)) for row in rows], device="cuda").split(batch)

    lengths = torch.tensor([min(length, len(document["ids"])) for document in documents], device="cuda")
    masks = (torch.arange(length, device="cuda") < lengths[:, None]).long().split(batch)
    return [{"input_ids": ids, "bbox": boxes, "attention_mask": mask, "labels": labels}
            for ids, boxes, mask, labels in zip(stack("ids"), stack("boxes"), masks, stack("labels"))]


def make_batches(batch, length, options):
    if options.data:
        return read_batches(options.data, batch, length)
    return [make_batch(batch, length, "unit" if options.preset == "published" else "random") for _ in range(4)]


def train(batch, length, implementation, options):
    published = options.preset == "published"
    compiled = implementation.endswith("compiled")
    flex = Flex(batch, length, compile_attention=not compiled) if implementation.startswith("flex") else None
    attention = flex or (CompiledSdpa if compiled else Sdpa)(drop_output=published)
    torch._dynamo.reset()
    forward = EAGER_FORWARD if implementation == "eager" else lambda module, *a, **k: attention(module, *a, **k)
    layoutlmv3.LayoutLMv3SelfAttention.forward = forward
    config = LayoutLMv3Config(max_position_embeddings=max(514, length + 2), type_vocab_size=1, num_labels=LABELS,
                              has_relative_attention_bias=not published, has_spatial_attention_bias=not published,
                              visual_embed=False, attn_implementation="eager")
    model = layoutlmv3.LayoutLMv3ForTokenClassification(config).cuda().train()
    optimizer = (torch.optim.Adam(model.parameters(), lr=0.02, fused=True) if published else
                 torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True))
    batches = make_batches(batch, length, options)
    if flex:
        flex.use_model(model.layoutlmv3.encoder)
        flex.use_batch(batches[0])
        flex.choose_tiles(options.flex_tiles)
    run = torch.compile(model) if compiled else model

    def step(index):
        inputs = batches[index % len(batches)]
        if flex:
            flex.use_batch(inputs)
        with torch.autocast("cuda", torch.bfloat16):
            loss = run(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for index in range(options.warmup):
        step(index)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    for index in range(options.steps):
        step(index)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - begin
    result = {"iterations_per_second": options.steps / seconds,
              "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
              "peak_reserved_bytes": torch.cuda.max_memory_reserved()}
    return {**result, "flex_tiles": flex.tiles} if flex else result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=["published", "stock"], default="stock",
                        help="published: biases off, Adam, unit boxes; stock: biases on, AdamW, random boxes")
    parser.add_argument("--shapes", default="32x512", help="BATCHxLENGTH,...")
    parser.add_argument("--data", help="documents for one shape, as attnfleet-trainer --write-data writes them")
    parser.add_argument("--implementations", default="eager,sdpa", help=", ".join(IMPLEMENTATIONS))
    parser.add_argument("--flex-tiles", type=lambda text: [int(index) for index in text.split(",")],
                        default=list(range(len(TILES))), help="settings of FlexAttention's tiles to choose from")
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    torch.manual_seed(0)
    properties = torch.cuda.get_device_properties(0)
    for shape in options.shapes.split(","):
        batch, length = map(int, shape.split("x"))
        for implementation in options.implementations.split(","):
            if implementation not in IMPLEMENTATIONS:
                parser.error(f"--implementations: {implementation}; there are {', '.join(IMPLEMENTATIONS)}")
            result = {"implementation": implementation, "batch": batch, "sequence_length": length,
                      "preset": options.preset, "data": "documents" if options.data else "generated",
                      "unix_seconds": time.time(), "device_name": properties.name,
                      "device_uuid": f"GPU-{properties.uuid}", "timed_steps": options.steps}
            try:
                result.update(outcome="measured", **train(batch, length, implementation, options))
            except torch.OutOfMemoryError:
                result["outcome"] = "out of memory"
            print(json.dumps(result), flush=True)
            gc.collect()
            torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
