#ifndef ATTNFLEET_WORKER_TRAINER_CUDA_FUSED_WGMMA_CUH_
#define ATTNFLEET_WORKER_TRAINER_CUDA_FUSED_WGMMA_CUH_

// Hopper's tensor-core instruction (sm_90a) for tiles of 64 x 64: a warpgroup of four warps multiplies, right operands
// come from shared memory, and a warp's part of an accumulator has the layout of eight mma.m16n8 ones side by side.

#include "worker/trainer/cuda/fused_launch.cuh"

namespace attnfleet::trainer::fused {

using Accumulator = float[4][2][4];  // of 16 rows x 64 columns: [block of 16 columns][half of it][value]

// A tile of 64 x 64 in shared memory as ChunkOffset() lays it out: 128-byte swizzle, eight rows in 1024 bytes.
__device__ __forceinline__ uint64_t TileDescriptor(const char* tile) {
  constexpr uint64_t kLayout = uint64_t{1} << 62 | uint64_t{1024 >> 4} << 32 | uint64_t{1024 >> 4} << 16;
  return kLayout | (SharedAddress(tile) & 0x3FFFF) >> 4;
}
// The sum runs over a row's elements: the next 16 of them.
constexpr uint64_t kNextInRow = 32 >> 4;
// The sum runs over the rows: the next 16 of them.
constexpr uint64_t kNextRows = 16 * kRowBytes >> 4;

__device__ __forceinline__ void WgmmaFence() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ __forceinline__ void WgmmaCommit() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
template <int kPending>
__device__ __forceinline__ void WgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(kPending) : "memory");
}
// What ordinary instructions wrote into shared memory can be read by wgmma; before a barrier.
__device__ __forceinline__ void FenceSharedForWgmma() { asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory"); }

// Keeps the compiler from moving uses of an accumulator across a wait.
__device__ __forceinline__ void Pin(Accumulator& d) {
#pragma unroll
  for (int i = 0; i < 32; ++i) asm volatile("" : "+f"(d[i / 8][i / 4 % 2][i % 4])::"memory");
}

// d = a b^T, or added to d; both tiles in shared memory, the sum along their rows.
__device__ __forceinline__ void WgmmaShared(Accumulator& d, uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, "
      "%13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, %32, %33, p, 1, "
      "1, 0, 0;\n}\n"
      : "+f"(d[0][0][0]), "+f"(d[0][0][1]), "+f"(d[0][0][2]), "+f"(d[0][0][3]), "+f"(d[0][1][0]), "+f"(d[0][1][1]),
        "+f"(d[0][1][2]), "+f"(d[0][1][3]), "+f"(d[1][0][0]), "+f"(d[1][0][1]), "+f"(d[1][0][2]), "+f"(d[1][0][3]),
        "+f"(d[1][1][0]), "+f"(d[1][1][1]), "+f"(d[1][1][2]), "+f"(d[1][1][3]), "+f"(d[2][0][0]), "+f"(d[2][0][1]),
        "+f"(d[2][0][2]), "+f"(d[2][0][3]), "+f"(d[2][1][0]), "+f"(d[2][1][1]), "+f"(d[2][1][2]), "+f"(d[2][1][3]),
        "+f"(d[3][0][0]), "+f"(d[3][0][1]), "+f"(d[3][0][2]), "+f"(d[3][0][3]), "+f"(d[3][1][0]), "+f"(d[3][1][1]),
        "+f"(d[3][1][2]), "+f"(d[3][1][3])
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}

// d += a b; a from registers, the sum over the rows of b.
__device__ __forceinline__ void WgmmaRegisters(Accumulator& d, const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, "
      "%13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, {%32, %33, %34, "
      "%35}, %36, 1, 1, 1, 1;\n"
      : "+f"(d[0][0][0]), "+f"(d[0][0][1]), "+f"(d[0][0][2]), "+f"(d[0][0][3]), "+f"(d[0][1][0]), "+f"(d[0][1][1]),
        "+f"(d[0][1][2]), "+f"(d[0][1][3]), "+f"(d[1][0][0]), "+f"(d[1][0][1]), "+f"(d[1][0][2]), "+f"(d[1][0][3]),
        "+f"(d[1][1][0]), "+f"(d[1][1][1]), "+f"(d[1][1][2]), "+f"(d[1][1][3]), "+f"(d[2][0][0]), "+f"(d[2][0][1]),
        "+f"(d[2][0][2]), "+f"(d[2][0][3]), "+f"(d[2][1][0]), "+f"(d[2][1][1]), "+f"(d[2][1][2]), "+f"(d[2][1][3]),
        "+f"(d[3][0][0]), "+f"(d[3][0][1]), "+f"(d[3][0][2]), "+f"(d[3][0][3]), "+f"(d[3][1][0]), "+f"(d[3][1][1]),
        "+f"(d[3][1][2]), "+f"(d[3][1][3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// d = a b^T, or added to d, for 64 x 64 x 64. Between a fence and a commit.
__device__ __forceinline__ void MultiplyRows(Accumulator& d, uint64_t a, uint64_t b, bool add) {
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    WgmmaShared(d, a + step * kNextInRow, b + step * kNextInRow, add || step > 0);
  }
}
// d += a b for 64 x 64 x 64.
__device__ __forceinline__ void MultiplyColumns(Accumulator& d, const uint32_t (&a)[4][4], uint64_t b) {
#pragma unroll
  for (int t = 0; t < 4; ++t) WgmmaRegisters(d, a[t], b + t * kNextRows);
}

// The random bits of a warp's 16 query rows and a tile of keys.
template <bool kDropout>
__device__ __forceinline__ void Draw(Random128 (&draws)[4], const FusedForwardArguments& a, uint32_t call, int b, int h,
                                     int first, int tile, int lane) {
  if constexpr (kDropout) {
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      draws[t] = DrawForQueryRows(a.dropout, call, b * a.shape.heads + h, first, tile * kFusedTile + 16 * t, lane);
    }
  }
}

// The swizzle is one of addresses: tiles begin at multiples of 1024.
constexpr int kAlignment = 1024;
__device__ __forceinline__ char* AlignTiles(char* memory) {
  return memory + (-SharedAddress(memory) & (kAlignment - 1));
}

}  // namespace attnfleet::trainer::fused

#endif  // ATTNFLEET_WORKER_TRAINER_CUDA_FUSED_WGMMA_CUH_
