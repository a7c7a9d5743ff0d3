// How a block multiplies by tiles of a quantized weight, see linear.cu: for a whole weight there, for the chosen experts of a
// mixture in experts.cu.
#pragma once

#include "linear.cuh"
#include "workspace.cuh"

namespace parlor {
namespace {

constexpr int kWarps = 16;
constexpr int kThreads = 32 * kWarps;
constexpr int kTilesOfBlock = 2;
constexpr int kRowsConvertedByBlock = 2; // with more, reading float32 rows in each block costs more than a kernel
constexpr int kRowPadding = 32;          // halfs: lanes of neighbouring rows then read from different banks

struct Product {
    Weight w;
    Activations a;
    const half* staged;      // [rows * parts, padded_k], or null: the block converts
    const float* factors;    // [rows], with `staged`
    float* out;
    int64_t out_stride;
    int rows, parts, epilogue;
    int splits, steps_of_split, steps_of_phase;
    int pairs;               // of tiles
    float* partial;          // [chunk][pair][split][2][16][8 * columns]
    unsigned* tickets;       // [chunk][pair]
    const float* row_factors;  // [rows], what rows of x are to be multiplied by; or null
};

// What a lane needs of the weight for one step.
template <int kBits, bool kHalfZeros>
struct StepOfWeight {
    uint4 codes[kTilesOfBlock][kBits / 4];
    half2 scales[kTilesOfBlock][2];
    uint32_t zeros[kTilesOfBlock][kHalfZeros ? 2 : 1];  // two bytes (of outputs g and g + 8) a unit, or two float16s
};

// Goes through the steps of a warp, over all tiles of the block.
struct Cursor {
    int pair;
    int step;
};

__device__ __forceinline__ int tile_of(const Product& p, int pair, int which) {
    return p.epilogue == PARLOR_EPILOGUE_SILU_MUL ? pair + which * p.pairs : 2 * pair + which;
}

template <int kBits, bool kHalfZeros>
__device__ __forceinline__ StepOfWeight<kBits, kHalfZeros> load_step(const Product& p, const Cursor& at) {
    StepOfWeight<kBits, kHalfZeros> loaded;
    const int lane = threadIdx.x % 32, g = lane / 4;
#pragma unroll
    for (int i = 0; i < kTilesOfBlock; ++i) {
        int tile = tile_of(p, at.pair, i);
        tile = tile < p.w.tiles ? tile : p.w.tiles - 1;  // an odd tile at the end: computed twice, stored once
        const uint4* const codes =
            static_cast<const uint4*>(p.w.codes) + (int64_t{tile} * p.w.steps + at.step) * (32 * (kBits / 4)) + lane;
#pragma unroll
        for (int j = 0; j < kBits / 4; ++j) loaded.codes[i][j] = __ldcs(codes + 32 * j);
        if (!kHalfZeros) loaded.zeros[i][0] = static_cast<uint32_t>(p.w.zero) * 0x01010101u;
#pragma unroll
        for (int unit = 0; unit < 2; ++unit) {
            const int64_t index = (int64_t{tile} * p.w.groups + p.w.group_of(2 * at.step + unit)) * 8 + g;
            loaded.scales[i][unit] = __ldg(p.w.scales + index);
            if (kHalfZeros) {
                loaded.zeros[i][unit] = __ldg(static_cast<const uint32_t*>(p.w.zeros) + index);
            } else if (p.w.zero_kind == PARLOR_ZERO_U8) {
                const uint32_t pair = __ldg(static_cast<const uint16_t*>(p.w.zeros) + index);
                loaded.zeros[i][0] = unit == 0 ? pair : loaded.zeros[i][0] | pair << 16;
            }
        }
    }
    return loaded;
}

// Have the codes of a step come as far as the L2 cache.
template <int kBits>
__device__ __forceinline__ void prefetch_step(const Product& p, const Cursor& at) {
    constexpr int kLoadsOfLine = 8;
    const int lane = threadIdx.x % 32;
    if (lane % kLoadsOfLine != 0) return;
    for (int i = 0; i < kTilesOfBlock; ++i) {
        const int tile = tile_of(p, at.pair, i);
        if (tile >= p.w.tiles) return;
        const uint4* const codes =
            static_cast<const uint4*>(p.w.codes) + (int64_t{tile} * p.w.steps + at.step) * (32 * (kBits / 4)) + lane;
        for (int j = 0; j < kBits / 4; ++j) prefetch_l2(codes + 32 * j);
    }
}

// Columns first .. first + count - 1 of the chunk's rows, as halfs in shared memory.
template <int kColumns>
__device__ __forceinline__ void stage(const Product& p, int first_row, int rows, const RowScale* scales, int64_t first,
                                      int count, half* staged, int stride) {
    const int64_t padded_k = int64_t{p.w.steps} * kStep;
    if (kColumns <= 2 && !p.staged) {
        for (int row = 0; row < rows; ++row) {
            const float* const x = p.a.x + (first_row + row) * p.a.stride;
            uint32_t* const target = reinterpret_cast<uint32_t*>(staged + row * p.parts * stride);
            for (int c = 2 * threadIdx.x; c < count; c += 2 * kThreads) {
                const float low = activation(p.a, p.w, x, first + c, scales[row].up);
                const float high = activation(p.a, p.w, x, first + c + 1, scales[row].up);
                target[c / 2] = pair_bits(low, high);
                if (p.parts == 2) target[(stride + c) / 2] = pair_bits(rest(low), rest(high));
            }
        }
        return;
    }
    const int words = count / 8;
    for (int i = threadIdx.x; i < rows * p.parts * words; i += kThreads) {
        const int row = i / words, c = i % words * 8;
        copy_async_16(staged + row * stride + c, p.staged + (int64_t{first_row} * p.parts + row) * padded_k + first + c);
    }
    commit_copies();
    wait_for_copies<0>();
}

// acc += one step of two tiles, for 8 * kColumns rows.
template <int kBits, int kColumns, bool kHalfZeros>
__device__ __forceinline__ void multiply_step(const StepOfWeight<kBits, kHalfZeros>& weight, const half* x, int stride, int rows,
                                              float (&acc)[kTilesOfBlock][kColumns][4]) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int unit = 0; unit < 2; ++unit) {
        uint4 b[kColumns];
#pragma unroll
        for (int j = 0; j < kColumns; ++j) {
            b[j] = make_uint4(0, 0, 0, 0);
            if (8 * j + g < rows)
                b[j] = *reinterpret_cast<const uint4*>(x + (8 * j + g) * stride + unit * kUnit + 8 * t);
        }
        float sums[kColumns][4] = {};  // of the rows' activations; only for zero points that are no integers
        if (kHalfZeros) {
            const uint32_t ones[4] = {0x3c003c00u, 0x3c003c00u, 0x3c003c00u, 0x3c003c00u};
#pragma unroll
            for (int j = 0; j < kColumns; ++j) {
                const uint32_t first[2] = {b[j].x, b[j].y}, second[2] = {b[j].z, b[j].w};
                mma_m16n8k16(sums[j], ones, first);
                mma_m16n8k16(sums[j], ones, second);
            }
        }
#pragma unroll
        for (int i = 0; i < kTilesOfBlock; ++i) {
            const uint32_t zero = kHalfZeros ? 0 : weight.zeros[i][0] >> (16 * unit);
            const Zeros zeros = make_zeros<kBits>(zero & 0xff, zero >> 8 & 0xff);
            float part[kColumns][4] = {};
#pragma unroll
            for (int product = 0; product < 2; ++product) {
                uint32_t a[4];
                if (kBits == 4) {
                    const uint4 codes = weight.codes[i][0];
                    fragment(unit == 0 ? (product == 0 ? codes.x : codes.y) : (product == 0 ? codes.z : codes.w), zeros, a);
                } else {
                    const uint4 codes = weight.codes[i][kBits == 4 ? 0 : unit];
                    fragment(product == 0 ? codes.x : codes.z, product == 0 ? codes.y : codes.w, zeros, a);
                }
#pragma unroll
                for (int j = 0; j < kColumns; ++j) {
                    const uint32_t columns[2] = {product == 0 ? b[j].x : b[j].z, product == 0 ? b[j].y : b[j].w};
                    mma_m16n8k16(part[j], a, columns);
                }
            }
            const float2 scale = __half22float2(weight.scales[i][unit]);
            const float2 offset = kHalfZeros ? __half22float2(as_half2(weight.zeros[i][kHalfZeros ? unit : 0])) : make_float2(0.0f, 0.0f);
#pragma unroll
            for (int j = 0; j < kColumns; ++j)
#pragma unroll
                for (int v = 0; v < 4; ++v) {
                    const float value = kHalfZeros ? part[j][v] - (v < 2 ? offset.x : offset.y) * sums[j][v] : part[j][v];
                    acc[i][j][v] += value * (v < 2 ? scale.x : scale.y);
                }
        }
    }
}

// What the block's warps have summed of one tile: the value that this thread is to finish. Two barriers.
template <int kColumns>
__device__ __forceinline__ float sum_of_warps(const float (&acc)[kColumns][4], float* buffer) {
    constexpr int kRow = 8 * kColumns + 1;  // padded against bank conflicts
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    float* const mine = buffer + warp * kTile * kRow;
#pragma unroll
    for (int j = 0; j < kColumns; ++j)
#pragma unroll
        for (int v = 0; v < 4; ++v) mine[(g + v / 2 * 8) * kRow + 8 * j + 2 * t + v % 2] = acc[j][v];
    __syncthreads();
    float sum = 0.0f;
    const int output = threadIdx.x % kTile, column = threadIdx.x / kTile;
    if (column < 8 * kColumns)
        for (int i = 0; i < kWarps; ++i) sum += buffer[(i * kTile + output) * kRow + column];
    __syncthreads();
    return sum;
}

// Leave this split's sums for the last block to arrive; true in that block, which then has the sums of all.
template <int kColumns>
__device__ __forceinline__ bool sum_of_splits(const Product& p, int chunk, int pair, float (&sums)[kTilesOfBlock],
                                              unsigned* arrived) {
    constexpr int kValues = kTile * 8 * kColumns;
    const int64_t task = static_cast<int64_t>(chunk) * p.pairs + pair;
    float* const partial = p.partial + task * p.splits * (kTilesOfBlock * kValues);
    const bool has_value = threadIdx.x < kValues;
    if (has_value)
        for (int i = 0; i < kTilesOfBlock; ++i)
            partial[(static_cast<int64_t>(blockIdx.y) * kTilesOfBlock + i) * kValues + threadIdx.x] = sums[i];
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        *arrived = atomicAdd(p.tickets + task, 1u);
        if (*arrived == static_cast<unsigned>(p.splits) - 1) p.tickets[task] = 0;  // for the next product
    }
    __syncthreads();
    const bool is_last = *arrived == static_cast<unsigned>(p.splits) - 1;
    __syncthreads();
    if (!is_last) return false;
    __threadfence();
    for (int i = 0; i < kTilesOfBlock; ++i) {
        sums[i] = 0.0f;
        if (has_value)
            for (int split = 0; split < p.splits; ++split)
                sums[i] += __ldcg(partial + (static_cast<int64_t>(split) * kTilesOfBlock + i) * kValues + threadIdx.x);
    }
    return true;
}

template <int kColumns>
__device__ __forceinline__ void store(const Product& p, int pair, int first_row, int rows, float (&sums)[kTilesOfBlock],
                                      const float* factors) {
    const int output = threadIdx.x % kTile, column = threadIdx.x / kTile, row = column / p.parts;
    // The lower half of a row's sum is in the thread one column, that is half a warp, further.
    if (p.parts == 2)
        for (int i = 0; i < kTilesOfBlock; ++i) sums[i] += __shfl_down_sync(0xffffffffu, sums[i], kTile);
    if (row >= rows || column % p.parts != 0) return;
    const float factor = p.row_factors ? factors[row] * p.row_factors[first_row + row] : factors[row];
    float* const out = p.out + (first_row + row) * p.out_stride;
    float values[kTilesOfBlock];
    for (int i = 0; i < kTilesOfBlock; ++i) {
        const int64_t n = int64_t{tile_of(p, pair, i)} * kTile + output;
        values[i] = sums[i] * factor + (p.w.bias && n < p.w.n ? p.w.bias[n] : 0.0f);
        if (p.epilogue != PARLOR_EPILOGUE_SILU_MUL && n < p.w.n) finish(out + n, p.epilogue, values[i], 0.0f);
    }
    if (p.epilogue == PARLOR_EPILOGUE_SILU_MUL) finish(out + int64_t{pair} * kTile + output, p.epilogue, values[1], values[0]);
}

// Blocks that a multiprocessor is to have at once: two, so that one computes while the other begins or ends, where that
// leaves enough registers (before 9.0 the compiler would spill some).
template <int kBits, int kColumns, bool kHalfZeros>
__host__ __device__ constexpr int blocks_at_once() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
    return 1;
#else
    return kColumns == 1 && kBits == 4 && !kHalfZeros ? 2 : 1;
#endif
}

// The tiles of this block: those of blockIdx.x by turns, the columns of split blockIdx.y, rows first_row and following of at
// most 8 * kColumns / parts. `chunk` numbers what these rows share with no other block.
template <int kBits, int kColumns, bool kHalfZeros>
__device__ __forceinline__ void multiply_tiles(const Product& p, int chunk, int first_row) {
    DYNAMIC_SHARED(unsigned char, shared);
    SHARED_ARRAY(RowScale, scales, kRowsConvertedByBlock);
    SHARED_ARRAY(float, factors, 8 * kColumns);
    SHARED_ARRAY(float, measured, 2 * kWarps);
    SHARED_ARRAY(unsigned, arrived, 1);
    constexpr int kSumBytes = kWarps * kTile * (8 * kColumns + 1) * 4;
    float* const sums_of_warps = reinterpret_cast<float*>(shared);
    half* const staged = reinterpret_cast<half*>(shared + kSumBytes);

    const int warp = threadIdx.x / 32;
    const int begin = blockIdx.y * p.steps_of_split, end = min(begin + p.steps_of_split, p.w.steps);
    Cursor next{static_cast<int>(blockIdx.x), begin + warp};
    const bool has_steps = next.step < end;
    StepOfWeight<kBits, kHalfZeros> ahead = {};
    if (has_steps) {
        ahead = load_step<kBits, kHalfZeros>(p, next);
        for (int step = next.step + kWarps; step < end; step += kWarps) prefetch_step<kBits>(p, {next.pair, step});
    }
    let_next_kernel_start();
    wait_for_previous_kernel();

    const int rows = min(8 * kColumns / p.parts, p.rows - first_row);
    if (p.staged) {
        if (static_cast<int>(threadIdx.x) < rows) factors[threadIdx.x] = p.factors[first_row + threadIdx.x];
    } else {
        for (int row = 0; row < rows; ++row) {
            const RowScale scale = measure_row(p.a, first_row + row, p.w.k, measured);
            if (threadIdx.x == 0) scales[row] = scale, factors[row] = scale.factor;
        }
        __syncthreads();
    }
    const bool has_one_phase = p.steps_of_phase >= p.steps_of_split;
    const int stride = min(p.steps_of_phase, p.steps_of_split) * kStep + kRowPadding;

    for (int pair = blockIdx.x; pair < p.pairs; pair += gridDim.x) {
        float acc[kTilesOfBlock][kColumns][4] = {};
        for (int phase = begin; phase < end; phase += p.steps_of_phase) {
            const int phase_end = min(phase + p.steps_of_phase, end);
            if (!has_one_phase || pair == static_cast<int>(blockIdx.x)) {
                __syncthreads();  // the phase before has been read
                stage<kColumns>(p, first_row, rows, scales, int64_t{phase} * kStep, (phase_end - phase) * kStep, staged,
                                stride);
                __syncthreads();
            }
            while (has_steps && next.pair == pair && next.step < phase_end) {
                const StepOfWeight<kBits, kHalfZeros> now = ahead;
                const half* const x = staged + (next.step - phase) * kStep;
                next.step += kWarps;
                if (next.step >= end) next = {pair + static_cast<int>(gridDim.x), begin + warp};
                if (next.pair < p.pairs) ahead = load_step<kBits, kHalfZeros>(p, next);
                multiply_step<kBits, kColumns, kHalfZeros>(now, x, stride, rows * p.parts, acc);
            }
        }
        float sums[kTilesOfBlock];
        for (int i = 0; i < kTilesOfBlock; ++i) sums[i] = sum_of_warps<kColumns>(acc[i], sums_of_warps);
        if (p.splits == 1 || sum_of_splits<kColumns>(p, chunk, pair, sums, arrived))
            store<kColumns>(p, pair, first_row, rows, sums, factors);
    }
}

// Fill in how the product of `chunks` chunks of at most `rows` rows is shared out among blocks. The split must not depend on
// the rows, or a row's result would. Bytes of dynamic memory, 0: there is too little.
template <int kBits, int kColumns>
int64_t share_out(const Device& device, Product* p, int rows, int at_once) {
    constexpr int64_t kSumBytes = int64_t{kWarps} * kTile * (8 * kColumns + 1) * 4;
    p->splits = static_cast<int>(std::clamp<int64_t>(device.multiprocessors / p->pairs, 1, divide_up(p->w.steps, kWarps)));
    p->steps_of_split = static_cast<int>(divide_up(p->w.steps, p->splits));
    p->splits = static_cast<int>(divide_up(p->w.steps, p->steps_of_split));
    const int64_t staged_rows = int64_t{rows} * p->parts;
    const int64_t budget = device.shared_bytes / at_once - kMaxStaticShared - kSumBytes;
    const int64_t steps = (budget / (2 * staged_rows) - kRowPadding) / kStep;
    if (steps < 1) return 0;
    p->steps_of_phase = static_cast<int>(steps >= p->steps_of_split ? p->steps_of_split
                                         : steps >= kWarps          ? steps / kWarps * kWarps
                                                                    : steps);
    return kSumBytes + staged_rows * (p->steps_of_phase * kStep + kRowPadding) * 2;
}

// Memory for the partial sums of `chunks` chunks.
template <int kColumns>
int take_partials(Product* p, int64_t chunks, Scratch* scratch) {
    if (p->splits == 1) return PARLOR_OK;
    const int64_t values = int64_t{kTilesOfBlock} * kTile * 8 * kColumns * p->splits;
    p->partial = scratch->take<float>(int64_t{p->pairs} * chunks * values);
    return p->partial && p->pairs * chunks <= kTickets ? PARLOR_OK : PARLOR_ERROR_MEMORY;
}

}  // namespace
}  // namespace parlor
