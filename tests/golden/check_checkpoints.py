"""Checks by hand that checkpoints go both ways between Hugging Face and the trainer, on tiny models of random weights:
Hugging Face saves, the trainer reads (--weights), trains two steps and writes (--save), Hugging Face reads that again
with no name missing or surplus and every weight as it should be.

  /tmp/golden/bin/python tests/golden/check_checkpoints.py build/release/bin/attnfleet-trainer

Needs the environment of make_layoutlmv3_golden.py.
"""

import itertools
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file
from transformers import LayoutLMv3Config, LayoutLMv3ForTokenClassification

# The trainer's --model=tiny.
TINY = dict(hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512, vocab_size=1000,
            max_position_embeddings=514, type_vocab_size=1, max_2d_position_embeddings=1024, coordinate_size=21,
            shape_size=22)


def train(trainer, *flags):
    command = [trainer, "--model=tiny", "--device=cpu", "--backend=eager", "--batch=2", "--sequence-length=16",
               "--warmup=0", "--steps=2", "--hidden-dropout=0", "--attention-dropout=0", *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])["result"]


def check(trainer, folder, image, labels, prefix, dtype):
    config = LayoutLMv3Config(**TINY, num_labels=labels, visual_embed=image)
    torch.manual_seed(7)
    model = LayoutLMv3ForTokenClassification(config)
    begun = folder / "begun"
    model.to(dtype).save_pretrained(begun)
    file = begun / "model.safetensors"
    if not prefix:
        tensors = load_file(file)
        save_file({name.removeprefix("layoutlmv3."): value for name, value in tensors.items()}, file)
    saved = folder / "saved"
    saved.mkdir()
    config.save_pretrained(saved)
    flags = [f"--weights={file}", f"--image={str(image).lower()}", f"--labels={labels}"]

    # A step too small to change any float but 0: what comes back is what was read.
    train(trainer, *flags, f"--save={saved / 'model.safetensors'}", "--optimizer=adam", "--learning-rate=1e-30")
    again, info = LayoutLMv3ForTokenClassification.from_pretrained(saved, dtype=torch.float32, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    for (name, ours), (other, theirs) in zip(again.named_parameters(), model.float().named_parameters()):
        assert name == other and (ours - theirs).abs().max() < 1e-28, name

    # Two real steps.
    trained = train(trainer, *flags, f"--save={saved / 'model.safetensors'}", "--learning-rate=1e-3")
    again, info = LayoutLMv3ForTokenClassification.from_pretrained(saved, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    moved = max((a - b).abs().max().item() for a, b in zip(again.parameters(), model.parameters()))
    assert 1e-4 < moved < 1e-2, moved
    first, last = trained["measurement"]["first_loss"], trained["measurement"]["last_loss"]
    print(f"image {image}, {labels} labels, prefix {prefix}, {dtype}: read back equal; trained, losses {first} {last}, "
          f"weights moved by {moved:.1e}")


for image, labels, (prefix, dtype) in itertools.product(
        [False, True], [7, 12], [(True, torch.float32), (False, torch.float32), (True, torch.bfloat16),
                                 (False, torch.float16)]):
    with tempfile.TemporaryDirectory() as folder:
        check(sys.argv[1], pathlib.Path(folder), image, labels, prefix, dtype)
