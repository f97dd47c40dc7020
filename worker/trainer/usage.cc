#include "worker/trainer/config.h"

namespace attnfleet::trainer {

std::string UsageText() {
  return R"(attnfleet-trainer trains LayoutLMv3 on synthetic batches with one attention backend at one shape, and measures it.

  attnfleet-trainer --model=tiny --backend=eager --batch=4 --sequence-length=128 --steps=20     on any CPU
  attnfleet-trainer --backend=sdpa --batch=32 --sequence-length=512                             the model people train
  attnfleet-trainer --backend=sdpa --batch=32 --sequence-length=512 --norelative-bias --nospatial-bias \
      --optimizer=adam --learning-rate=0.02 --boxes=unit                                        as published
  attnfleet-trainer --list-backends [--json]

What to run
  --backend=NAME             attention backend (sdpa); see --list-backends
  --batch=N                  sequences in a batch, 1 to 65536 (8)
  --sequence-length=N        tokens in a sequence, 1 to 8192 (512)
  --model=SIZE               tiny, base or large (base)
  --labels=N                 labels of the token classifier, 2 to 1000 (10)
  --relative-bias=BOOL       1-D attention bias (true)
  --spatial-bias=BOOL        2-D attention bias, over x and y (true)
  --hidden-dropout=P         dropout of hidden states, 0 <= P < 1 (0.1)
  --attention-dropout=P      dropout of attention probabilities, 0 <= P < 1 (0.1)
  --image=BOOL               197 visual tokens behind the text (false)
  --train-bias-tables=BOOL   train the bias tables, as Microsoft's model does (false: as Hugging Face's)
  --dropout-placement=WHAT   what attention dropout drops: probabilities, or the output of attention (probabilities)
  --boxes=LAYOUT             document (pages of lines and columns, padded to unequal lengths), random, or unit: every
                             box is (1, 1, 1, 1) (document)
  --data=FILE                real documents instead of synthetic ones: JSON Lines of {"ids", "boxes", "labels"}
  --weights=FILE             begin with this checkpoint (safetensors; F32, F16 or BF16; with or without "layoutlmv3.")
                             instead of random weights. Parts that the model has switched off (image, biases) are left
                             out; without a classifier the head begins random; any other difference is an error
  --save=FILE                write the trained weights there, as Hugging Face reads them
How to run it
  --device=DEVICE            auto, cpu or cuda; auto takes the first GPU, else the CPU (auto)
  --precision=PRECISION      auto, fp32, tf32 (fp32 with TF32 products), bf16-mixed (autocast over fp32 weights) or
                             bf16; auto is bf16-mixed on CUDA, fp32 on the CPU (auto)
  --optimizer=NAME           adam or adamw (adamw)
  --step=STEP                reference (LibTorch's operations one by one), fused (own operations between the matrix
                             products; with precision fp32, tf32 or bf16-mixed), or fused-bf16-stream (those with the
                             residual stream in bf16: less exact; with bf16-mixed) (reference)
  --learning-rate=RATE       0 < RATE <= 1 (1e-5)
  --warmup=N, --steps=N      untimed and timed steps (10, 100)
  --warmup-limit=N           warm-up goes on until the speed is stable, for at most N steps (as --warmup)
  --ci-width=PART            stop once the 95 % confidence interval of it/s is no wider than this part of it, such as
                             0.5%; --steps is then the limit (0: never)
  --check=BOOL               compare with eager attention in fp64 after the timed steps (false)
  --data-loader-threads=N    threads that make batches, 0 to 256; 0: between the steps (16)
  --seed=N                   of weights, batches and dropout (0)
Instead of training
  --verify=FILE              run the case in FILE (safetensors: weights, input, expected loss, logits and gradients;
                             described in tests/golden/README.md) in fp32 with --backend and print the largest errors.
                             On the CPU, or with --device=cuda on the GPU. Exit status 1: beyond the bound of rounding,
                             2: FILE cannot be used
  --write-data=FILE          write the synthetic sequences of --steps batches as --data reads them (JSON Lines), for other
                             programs to train on what a run with the same seed and shape trains on
Where LibTorch 2.11 is
  --torch=DIR                the torch folder of a PyTorch installation; without it $ATTNFLEET_TORCH, then the build
                             tree's, then the one of the host's python3
Other
  --parent-pid=N             die when process N, the parent, dies
  --version, --help

MFU is model_flops_per_iteration x it/s / peak_flops_per_second, with
  model_flops_per_iteration = 6 x weights x tokens + 12 x layers x S x hidden x tokens
where weights are those of the layers' and the head's matrix products (85.5 million in base), tokens = batch x S with
padding, S counts an image's 197 visual tokens, which the head does not see; peak_flops_per_second is the dense figure
of the vendor's data sheet at the run's precision.

Standard output is one JSON document a line, each a TrainerEvent of proto/attnfleet/v1/trainer.proto: "started",
"progress" at most five times a second, and last "result". Messages go to standard error. SIGTERM or Ctrl-C stops at the
next step with the outcome OUTCOME_CANCELLED; a second one stops at once.

On the CPU a run may take what memory the host, or its cgroup, has to spare; what needs more ends as out of memory.

Exit status: 0 a result was written (measured, out of memory, unsupported or cancelled), 1 it failed, 2 the flags are
wrong, 3 there is no usable LibTorch.
)";
}

}  // namespace attnfleet::trainer
