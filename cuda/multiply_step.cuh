// What a warp multiplies at a time: a step of two tiles of a quantized weight by 8 to 32 rows. See linear.cu and multiply.cuh.
#pragma once

#include "heads.cuh"
#include "linear.cuh"

namespace parlor {
namespace {

constexpr int kThreads = kRowThreads;
constexpr int kWarps = kThreads / 32;
constexpr int kTilesOfBlock = 2;
constexpr int kAllSliceBits = 3;  // see Slices in multiply.cuh
static_assert(1 << kAllSliceBits == kWarps, "a slice is a warp's");

struct Product {
    Weight w;
    Activations a;
    const half* staged;      // [rows * parts, padded_k], or null: the block converts
    const float* factors;    // [rows], with `staged`
    float* out;
    int64_t out_stride;
    int rows, parts, epilogue;
    int splits, steps_of_split, steps_of_phase;
    int slice_bits;          // 2^slice_bits slices of a split have blocks of many rows
    int prefetched_rounds;   // steps of a warp that come as far as the L2 cache while the previous kernel runs
    int pairs;               // of tiles
    float* partial;          // [chunk][pair][block of columns][2][columns][32 lanes][4]
    unsigned* tickets;       // [chunk][pair]
    const float* row_factors;  // [rows], what rows of x are to be multiplied by; or null
    int pair_bits;             // the tiles of a pair are 2^pair_bits apart
    Heads heads;               // with kHeadsEpilogue
};
constexpr int kHeadsEpilogue = -1;  // of linear_rope_write_kv(), beside PARLOR_EPILOGUE_*

// What a kernel is made for.
template <int bits, int columns, int zeros, bool shares>
struct Variant {
    static constexpr int kBits = bits;
    static constexpr int kColumns = columns;  // 8 rows each
    static constexpr int kZeros = zeros;      // PARLOR_ZERO_*
    static constexpr bool kShares = shares;   // both units of a step are of one group, so that they are scaled together
    static constexpr int kLoads = bits / 4;   // of a tile's step
    static constexpr int kScales = shares ? 1 : 2;

    // What a warp copies for a step, in bytes: two tiles' codes as they lie, then [tile][scale] the scales of 16 outputs and
    // likewise their zero points.
    static constexpr int kStages = bits == 4 ? 4 : 2;  // steps of a warp that there is room for
    static constexpr int kCodeBytes = kTilesOfBlock * kLoads * 512;
    static constexpr int kScaleBytes = kTilesOfBlock * kScales * 32;
    static constexpr int kZeroBytes = zeros == PARLOR_ZERO_F16 ? kScaleBytes : zeros == PARLOR_ZERO_U8 ? kScaleBytes / 2 : 0;
    static constexpr int kStageBytes = kCodeBytes + kScaleBytes + kZeroBytes;
    static constexpr int kRingBytes = kStages * kStageBytes;
};

// What a lane needs of a tile for one step.
template <class V>
struct TileStep {
    uint4 codes[V::kLoads];
    uint32_t scales[V::kScales];  // pairs of float16
    uint32_t zeros[V::kScales];   // two bytes (of outputs g and g + 8), or a pair of float16

    // stage: what the warp has copied.
    __device__ __forceinline__ TileStep(const unsigned char* stage, int tile) {
        const int lane = threadIdx.x % 32, group = tile * V::kScales * 8 + lane / 4;
#pragma unroll
        for (int j = 0; j < V::kLoads; ++j) codes[j] = reinterpret_cast<const uint4*>(stage)[(tile * V::kLoads + j) * 32 + lane];
        const unsigned char* const of_groups = stage + V::kCodeBytes;
#pragma unroll
        for (int unit = 0; unit < V::kScales; ++unit) {
            const int at = group + 8 * unit;
            scales[unit] = reinterpret_cast<const uint32_t*>(of_groups)[at];
            zeros[unit] = V::kZeros == PARLOR_ZERO_F16  ? reinterpret_cast<const uint32_t*>(of_groups + V::kScaleBytes)[at]
                          : V::kZeros == PARLOR_ZERO_U8 ? reinterpret_cast<const uint16_t*>(of_groups + V::kScaleBytes)[at]
                                                        : 0;
        }
    }
};

__device__ __forceinline__ int tile_of(const Product& p, int pair, int which) {
    if (p.epilogue == PARLOR_EPILOGUE_SILU_MUL) return pair + which * p.pairs;
    return (((pair >> p.pair_bits) * 2 + which) << p.pair_bits) + (pair & ((1 << p.pair_bits) - 1));
}

// A warp's way through its steps of its pairs of tiles: copies what each step needs to shared memory, ahead of what is
// multiplied. A lane copies the codes that it will read itself; few lanes copy scales and zero points for all.
template <class V>
struct Copies {
    static constexpr int kLoadsOfScales = V::kScaleBytes / 16, kLoadsOfZeros = V::kZeroBytes / 16;

    const uint4* codes;           // of the first tile
    int second_codes;             // from there to the second's
    const unsigned char* groups;  // what this lane copies of its tile's first group
    int next_codes, next_groups;  // from the last step of a pair to the first of the block's next one
    int pair, step;

    // turn: from a pair to the warp's next one, a multiple of 2^pair_bits if there is one.
    __device__ __forceinline__ Copies(const Product& p, int pair, int turn, int first_step, int end)
        : pair(pair), step(first_step) {
        const int lane = threadIdx.x % 32, of_tile = p.w.steps * (32 * V::kLoads);
        const int tiles = turn * (p.epilogue == PARLOR_EPILOGUE_SILU_MUL ? 1 : 2);
        const int64_t first = tile_of(p, pair, 0);
        codes = static_cast<const uint4*>(p.w.codes) + first * of_tile + step * (32 * V::kLoads) + lane;
        second_codes = (tile_of(p, pair, 1) - tile_of(p, pair, 0)) * of_tile;
        next_codes = tiles * of_tile - (end - first_step + kWarps - 1) / kWarps * (kWarps * 32 * V::kLoads);
        next_groups = tiles * bytes_of_tile(p);
        const int half = bytes_of_group() == 32 ? lane % 2 : 0;
        groups = static_cast<const unsigned char*>(lane >= kLoadsOfScales ? p.w.zeros : p.w.scales) +
                 int64_t{tile_of(p, pair, tile_of_lane())} * bytes_of_tile(p) + 16 * half;
        stay_inside(p);
        if (first_step >= end) this->pair = p.pairs;  // there are more warps than steps
    }

    // An odd tile at the end is computed twice and stored once.
    __device__ __forceinline__ void stay_inside(const Product& p) {
        if (tile_of(p, pair, 1) < p.w.tiles) return;
        second_codes = 0;
        if (tile_of_lane() == 1) groups -= bytes_of_tile(p);
    }

    __device__ __forceinline__ int bytes_of_group() const {
        return V::kZeros == PARLOR_ZERO_U8 && threadIdx.x % 32 >= kLoadsOfScales ? 16 : 32;
    }
    __device__ __forceinline__ int bytes_of_tile(const Product& p) const { return p.w.groups * bytes_of_group(); }
    // Of a lane that copies scales or zero points, the number of 16 bytes counted by tile, scale and half.
    __device__ __forceinline__ int place_of_lane() const {
        constexpr int kOfLoad = V::kZeros == PARLOR_ZERO_U8 ? 2 : 1;
        const int lane = threadIdx.x % 32;
        return lane < kLoadsOfScales ? lane : (lane - kLoadsOfScales) * kOfLoad;
    }
    __device__ __forceinline__ int tile_of_lane() const { return place_of_lane() / (2 * V::kScales); }

    // Begin to copy the next step, if there is one: part of a group of copies either way, so that these count steps.
    __device__ __forceinline__ void copy(const Product& p, unsigned char* stage, int turn, int first_step, int end) {
        if (pair < p.pairs) {
            const int lane = threadIdx.x % 32;
#pragma unroll
            for (int j = 0; j < V::kLoads; ++j) {
                copy_async_16(stage + (j * 32 + lane) * 16, codes + 32 * j);
                copy_async_16(stage + ((V::kLoads + j) * 32 + lane) * 16, codes + second_codes + 32 * j);
            }
            if (lane < kLoadsOfScales + kLoadsOfZeros) {
                const int unit = V::kShares ? 0 : place_of_lane() / 2 % 2;
                copy_async_16(stage + V::kCodeBytes + 16 * lane, groups + p.w.group_of(2 * step + unit) * bytes_of_group());
            }
            codes += kWarps * 32 * V::kLoads;
            step += kWarps;
            if (step >= end) {
                pair += turn;
                step = first_step;
                codes += next_codes;
                groups += next_groups;
                stay_inside(p);
            }
        }
        commit_copies();
    }

    // Have the codes of the next `rounds` steps of this pair come as far as the L2 cache.
    __device__ __forceinline__ void prefetch(int rounds, int end) const {
        constexpr int kLoadsOfLine = 8;
        if (threadIdx.x % kLoadsOfLine != 0) return;
        const uint4* next = codes;
        for (int i = 0, at = step; i < rounds && at < end; ++i, at += kWarps, next += kWarps * 32 * V::kLoads)
#pragma unroll
            for (int j = 0; j < V::kLoads; ++j) {
                prefetch_l2(next + 32 * j);
                prefetch_l2(next + second_codes + 32 * j);
            }
    }
};

// The activations of a step: of each unit what a lane multiplies by, and the sums over the unit where zero points need them.
template <class V>
struct StepOfRows {
    uint4 values[2][V::kColumns];
    float sums[2][V::kColumns][4];

    // x: the lane's first of the step.
    __device__ __forceinline__ StepOfRows(const half* x, int stride, int rows) {
        const int g = threadIdx.x % 32 / 4;
#pragma unroll
        for (int unit = 0; unit < 2; ++unit)
#pragma unroll
            for (int j = 0; j < V::kColumns; ++j) {
                values[unit][j] = make_uint4(0, 0, 0, 0);
                if (8 * j + g < rows)
                    values[unit][j] = *reinterpret_cast<const uint4*>(x + 8 * j * stride + unit * kUnit);
            }
        if (V::kZeros != PARLOR_ZERO_F16) return;
        const uint32_t ones[4] = {0x3c003c00u, 0x3c003c00u, 0x3c003c00u, 0x3c003c00u};
#pragma unroll
        for (int unit = 0; unit < 2; ++unit)
#pragma unroll
            for (int j = 0; j < V::kColumns; ++j) {
#pragma unroll
                for (int v = 0; v < 4; ++v) sums[unit][j][v] = 0.0f;
#pragma unroll
                for (int product = 0; product < 2; ++product) multiply(ones, unit, j, product, sums[unit][j]);
            }
    }

    // sum += weights * the rows 8 * j and following, at the columns of a product.
    __device__ __forceinline__ void multiply(const uint32_t (&weights)[4], int unit, int j, int product, float (&sum)[4]) const {
        const uint4 all = values[unit][j];
        mma_m16n8k16(sum, weights, product == 0 ? all.x : all.z, product == 0 ? all.y : all.w);
    }
};

// acc += one step of a tile, for 8 * kColumns rows.
template <class V>
__device__ __forceinline__ void multiply_step(const Product& p, const TileStep<V>& tile, const StepOfRows<V>& rows,
                                              float (&acc)[V::kColumns][4]) {
    float part[V::kColumns][4];
#pragma unroll
    for (int unit = 0; unit < 2; ++unit) {
        const int group = V::kShares ? 0 : unit;
        const Zeros zeros = make_zeros<V::kBits>(V::kZeros == PARLOR_ZERO_ONE  ? static_cast<uint32_t>(p.w.zero) * 0x0101u
                                                 : V::kZeros == PARLOR_ZERO_U8 ? tile.zeros[group]
                                                                               : 0);
        if (unit == 0 || !V::kShares)
#pragma unroll
            for (int j = 0; j < V::kColumns; ++j)
#pragma unroll
                for (int v = 0; v < 4; ++v) part[j][v] = 0.0f;
#pragma unroll
        for (int product = 0; product < 2; ++product) {
            uint32_t a[4];
            const uint4 codes = tile.codes[V::kBits == 4 ? 0 : unit];
            if (V::kBits == 4)
                fragment(unit == 0 ? (product == 0 ? codes.x : codes.y) : (product == 0 ? codes.z : codes.w), zeros, a);
            else
                fragment(product == 0 ? codes.x : codes.z, product == 0 ? codes.y : codes.w, zeros, a);
#pragma unroll
            for (int j = 0; j < V::kColumns; ++j) rows.multiply(a, unit, j, product, part[j]);
        }
        if (unit == 0 && V::kShares) continue;
        const float2 scale = floats_of(tile.scales[group]);
        const float2 offset = V::kZeros == PARLOR_ZERO_F16 ? floats_of(tile.zeros[group]) : make_float2(0.0f, 0.0f);
#pragma unroll
        for (int j = 0; j < V::kColumns; ++j)
#pragma unroll
            for (int v = 0; v < 4; ++v) {
                float value = part[j][v];
                if (V::kZeros == PARLOR_ZERO_F16) value -= (v < 2 ? offset.x : offset.y) * rows.sums[unit][j][v];
                acc[j][v] += value * (v < 2 ? scale.x : scale.y);
            }
    }
}

}  // namespace
}  // namespace parlor
