// What a warp multiplies at a time: a step of two tiles of a quantized weight by 8 or 16 rows. See linear.cu and multiply.cuh.
#pragma once

#include "linear.cuh"

namespace parlor {
namespace {

constexpr int kThreads = kRowThreads;
constexpr int kWarps = kThreads / 32;
constexpr int kTilesOfBlock = 2;

struct Product {
    Weight w;
    Activations a;
    const half* staged;      // [rows * parts, padded_k], or null: the block converts
    const float* factors;    // [rows], with `staged`
    float* out;
    int64_t out_stride;
    int rows, parts, epilogue;
    int splits, steps_of_split, steps_of_phase;
    int prefetched_rounds;   // steps of a warp that come as far as the L2 cache while the previous kernel runs
    int pairs;               // of tiles
    float* partial;          // [chunk][pair][split][2][16][8 * columns]
    unsigned* tickets;       // [chunk][pair]
    const float* row_factors;  // [rows], what rows of x are to be multiplied by; or null
};

// What a kernel is made for.
template <int bits, int columns, int zeros, bool shares>
struct Variant {
    static constexpr int kBits = bits;
    static constexpr int kColumns = columns;  // 8 rows each
    static constexpr int kZeros = zeros;      // PARLOR_ZERO_*
    static constexpr bool kShares = shares;   // both units of a step are of one group, so that they are scaled together
    static constexpr int kLoads = bits / 4;   // of a tile's step
    static constexpr int kScales = shares ? 1 : 2;
};

// What a lane needs of a tile for one step.
template <class V>
struct TileStep {
    uint4 codes[V::kLoads];
    uint32_t scales[V::kScales];  // pairs of float16
    uint32_t zeros[V::kScales];   // two bytes (of outputs g and g + 8), or a pair of float16
};

__device__ __forceinline__ int tile_of(const Product& p, int pair, int which) {
    return p.epilogue == PARLOR_EPILOGUE_SILU_MUL ? pair + which * p.pairs : 2 * pair + which;
}

// A lane's way through a warp's steps of a pair of tiles.
template <class V>
struct Stream {
    const uint4* codes;       // of the first tile
    int second_codes;         // from there to the second's
    int index, second_index;  // of the first group's scales and zero points
    int step;

    __device__ __forceinline__ Stream(const Product& p, int pair, int first_step) : step(first_step) {
        const int lane = threadIdx.x % 32, first = tile_of(p, pair, 0);
        int second = tile_of(p, pair, 1);
        second = second < p.w.tiles ? second : p.w.tiles - 1;  // an odd tile at the end: computed twice, stored once
        const int64_t of_tile = int64_t{p.w.steps} * (32 * V::kLoads);
        codes = static_cast<const uint4*>(p.w.codes) + first * of_tile + step * (32 * V::kLoads) + lane;
        second_codes = static_cast<int>((second - first) * of_tile);
        index = first * p.w.groups * 8 + lane / 4;
        second_index = second * p.w.groups * 8 + lane / 4;
    }

    __device__ __forceinline__ void forward() {
        codes += kWarps * 32 * V::kLoads;
        step += kWarps;
    }

    __device__ __forceinline__ TileStep<V> load(const Product& p, int tile) const {
        TileStep<V> loaded;
        const uint4* const own = tile == 0 ? codes : codes + second_codes;
#pragma unroll
        for (int j = 0; j < V::kLoads; ++j) loaded.codes[j] = __ldcs(own + 32 * j);
#pragma unroll
        for (int unit = 0; unit < V::kScales; ++unit) {
            const int at = (tile == 0 ? index : second_index) + 8 * p.w.group_of(2 * step + unit);
            loaded.scales[unit] = __ldg(reinterpret_cast<const uint32_t*>(p.w.scales) + at);
            loaded.zeros[unit] = V::kZeros == PARLOR_ZERO_F16  ? __ldg(static_cast<const uint32_t*>(p.w.zeros) + at)
                                 : V::kZeros == PARLOR_ZERO_U8 ? __ldg(static_cast<const uint16_t*>(p.w.zeros) + at)
                                                               : 0;
        }
        return loaded;
    }

    // Have the codes of the next `rounds` steps come as far as the L2 cache.
    __device__ __forceinline__ void prefetch(int rounds, int end) const {
        constexpr int kLoadsOfLine = 8;
        if (threadIdx.x % kLoadsOfLine != 0) return;
        const uint4* next = codes;
        for (int i = 1, at = step + kWarps; i <= rounds && at < end; ++i, at += kWarps) {
            next += kWarps * 32 * V::kLoads;
#pragma unroll
            for (int j = 0; j < V::kLoads; ++j) {
                prefetch_l2(next + 32 * j);
                prefetch_l2(next + second_codes + 32 * j);
            }
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
