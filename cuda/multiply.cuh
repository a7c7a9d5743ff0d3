// How a block multiplies by tiles of a quantized weight, see linear.cu: for a whole weight there, for the chosen experts of a
// mixture in experts.cu.
#pragma once

#include "multiply_step.cuh"
#include "workspace.cuh"

namespace parlor {
namespace {

constexpr int kRowsConvertedByBlock = 2; // with more, reading float32 rows in each block costs more than a kernel
constexpr int kRowPadding = 32;          // halfs: lanes of neighbouring rows then read from different banks

// Columns first .. first + count - 1 of the chunk's rows, as halfs in shared memory.
template <int kColumns>
__device__ __forceinline__ void stage(const Product& p, int first_row, int rows, const RowScale* scales, int64_t first,
                                      int count, half* staged, int stride) {
    const int64_t padded_k = int64_t{p.w.steps} * kStep;
    if (kColumns <= 2 && !p.staged) {
#pragma unroll 1
        for (int row = 0; row < rows; ++row) {
            const float* const x = p.a.x + (first_row + row) * p.a.stride;
            uint32_t* const target = reinterpret_cast<uint32_t*>(staged + row * p.parts * stride);
#pragma unroll 1  // it is rare, and would take the registers of what is not
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
#pragma unroll 2
    for (int i = threadIdx.x; i < rows * p.parts * words; i += kThreads) {
        const int row = i / words, c = i % words * 8;
        copy_async_16(staged + row * stride + c, p.staged + (int64_t{first_row} * p.parts + row) * padded_k + first + c);
    }
    commit_copies();
    wait_for_copies<0>();
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
#pragma unroll 4
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
// leaves enough registers. So much is promised to the compiler; launchers ask the driver what came of it.
template <class V>
__host__ __device__ constexpr int blocks_at_once() {
    return V::kColumns == 1 && V::kBits == 4 && V::kShares ? 2 : 1;
}

// The tiles of this block: those of blockIdx.x by turns, the columns of split blockIdx.y, rows first_row and following of at
// most 8 * kColumns / parts. `chunk` numbers what these rows share with no other block.
template <class V>
__device__ __forceinline__ void multiply_tiles(const Product& p, int chunk, int first_row) {
    constexpr int kColumns = V::kColumns;
    DYNAMIC_SHARED(unsigned char, shared);
    SHARED_ARRAY(RowScale, scales, kRowsConvertedByBlock);
    SHARED_ARRAY(float, factors, 8 * kColumns);
    SHARED_ARRAY(float, measured, 2 * kWarps);
    SHARED_ARRAY(unsigned, arrived, 1);
    constexpr int kSumBytes = kWarps * kTile * (8 * kColumns + 1) * 4;
    float* const sums_of_warps = reinterpret_cast<float*>(shared);
    half* const staged = reinterpret_cast<half*>(shared + kSumBytes);

    struct Steps {
        int begin, end;
    };
    const auto steps_of_split = [&](int split) {
        const int begin = split * p.steps_of_split;
        return Steps{begin, min(begin + p.steps_of_split, p.w.steps)};
    };
    const Steps steps = steps_of_split(blockIdx.y);
    TileStep<V> tiles[kTilesOfBlock] = {};
    if (const int step = steps.begin + threadIdx.x / 32; step < steps.end) {
        const Stream<V> stream(p, blockIdx.x, step);
        for (int i = 0; i < kTilesOfBlock; ++i) tiles[i] = stream.load(p, i);
        stream.prefetch(p.prefetched_rounds, steps.end);
    }
    let_next_kernel_start();
    wait_for_previous_kernel();

    const int rows = min(8 * kColumns >> (p.parts - 1), p.rows - first_row);
    const bool has_one_phase = p.steps_of_phase >= p.steps_of_split;
    const int stride = min(p.steps_of_phase, p.steps_of_split) * kStep + kRowPadding;
    const bool is_converted = !p.staged && has_one_phase && has_whole_float4s(p.a, p.w);
    if (p.staged) {
        if (static_cast<int>(threadIdx.x) < rows) factors[threadIdx.x] = p.factors[first_row + threadIdx.x];
    } else {
#pragma unroll 1
        for (int row = 0; row < rows; ++row) {
            RowScale scale;
            if (is_converted) {
                scale = convert_row(p.a, first_row + row, static_cast<int>(p.w.k), p.parts, steps.begin * kStep,
                                    (steps.end - steps.begin) * kStep, staged + row * p.parts * stride, stride, measured);
            } else {
                scale = measure_row(p.a, first_row + row, p.w.k, measured);
            }
            if (threadIdx.x == 0) scales[row] = scale, factors[row] = scale.factor;
        }
        __syncthreads();
    }

    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const half* const own = staged + g * stride + 8 * t;  // of a lane
    // The rows needed the registers of all this.
    const auto [begin, end] = steps_of_split(unknown(blockIdx.y));
    const int first_step = begin + unknown(threadIdx.x) / 32;
    Stream<V> stream(p, blockIdx.x, first_step);
    const auto load_tile = [&](int i) { tiles[i] = stream.load(p, i); };
    for (int pair = blockIdx.x; pair < p.pairs; pair += gridDim.x) {
        const int next_pair = pair + static_cast<int>(gridDim.x);
        float acc[kTilesOfBlock][kColumns][4] = {};
        int step = first_step;
        for (int phase = begin; phase < end; phase += p.steps_of_phase) {
            const int phase_end = min(phase + p.steps_of_phase, end);
            if (!is_converted && (!has_one_phase || pair == static_cast<int>(blockIdx.x))) {
                __syncthreads();  // the phase before has been read
                stage<kColumns>(p, first_row, rows, scales, int64_t{phase} * kStep, (phase_end - phase) * kStep, staged,
                                stride);
                __syncthreads();
            }
            // A tile's next step is loaded into the registers of the one that has been multiplied.
            const half* x = own + (step - phase) * kStep;
            for (; step + kWarps < phase_end; step += kWarps, x += kWarps * kStep) {
                const StepOfRows<V> of_rows(x, stride, rows * p.parts);
                stream.forward();
                multiply_step<V>(p, tiles[0], of_rows, acc[0]);
                load_tile(0);
                multiply_step<V>(p, tiles[1], of_rows, acc[1]);
                load_tile(1);
            }
            if (step >= phase_end) continue;
            const StepOfRows<V> of_rows(x, stride, rows * p.parts);
            step += kWarps;
            const bool has_next = step < end || next_pair < p.pairs;
            if (step < end) stream.forward();
            else if (has_next) stream = Stream<V>(p, next_pair, first_step);
            multiply_step<V>(p, tiles[0], of_rows, acc[0]);
            if (has_next) load_tile(0);
            multiply_step<V>(p, tiles[1], of_rows, acc[1]);
            if (has_next) load_tile(1);
        }
        float sums[kTilesOfBlock];
        for (int i = 0; i < kTilesOfBlock; ++i) sums[i] = sum_of_warps<kColumns>(acc[i], sums_of_warps);
        if (p.splits == 1 || sum_of_splits<kColumns>(p, chunk, pair, sums, arrived))
            store<kColumns>(p, pair, first_row, rows, sums, factors);
    }
}

// Fill in how the product of `chunks` chunks of at most `rows` rows is shared out among blocks. The split must not depend on
// the rows, or a row's result would. Bytes of dynamic memory, 0: there is too little.
template <class V>
int64_t share_out(const Device& device, Product* p, int rows, int at_once) {
    constexpr int64_t kSumBytes = int64_t{kWarps} * kTile * (8 * V::kColumns + 1) * 4;
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

// Half of the L2 cache for what `blocks` prefetch: more would push out what comes first.
template <class V>
void bound_prefetches(const Device& device, int64_t blocks, Product* p) {
    constexpr int64_t kBytes = int64_t{kWarps} * kTilesOfBlock * 32 * 16 * V::kLoads;  // of a block's round
    p->prefetched_rounds = static_cast<int>(std::clamp<int64_t>(device.l2_bytes / 2 / (blocks * kBytes) - 1, 0, 64));
}

// Memory for the partial sums of `chunks` chunks.
template <class V>
int take_partials(Product* p, int64_t chunks, Scratch* scratch) {
    if (p->splits == 1) return PARLOR_OK;
    const int64_t values = int64_t{kTilesOfBlock} * kTile * 8 * V::kColumns * p->splits;
    p->partial = scratch->take<float>(int64_t{p->pairs} * chunks * values);
    return p->partial && p->pairs * chunks <= kTickets ? PARLOR_OK : PARLOR_ERROR_MEMORY;
}

// Whether both units of a step are scaled together: of one group, with one zero point for all.
__host__ __device__ inline bool shares_scales(const Weight& w) {
    return w.zero_kind == PARLOR_ZERO_ONE && w.units_per_group % 2 == 0;
}

// launch(Variant{}) with what fits the weight, for 8 * kColumns rows; with zero points of 8-bit codes that are no integers
// always for 8 rows, as they are rare.
template <int kColumns, class Launch>
int with_variant(int kind, const Weight& w, const Launch& launch) {
    constexpr int kOne = PARLOR_ZERO_ONE, kBytes = PARLOR_ZERO_U8, kHalfs = PARLOR_ZERO_F16;
    const bool is_short = kind == PARLOR_LINEAR_Q4;
    if (shares_scales(w))
        return is_short ? launch(Variant<4, kColumns, kOne, true>{}) : launch(Variant<8, kColumns, kOne, true>{});
    if (w.zero_kind == kOne)
        return is_short ? launch(Variant<4, kColumns, kOne, false>{}) : launch(Variant<8, kColumns, kOne, false>{});
    if (w.zero_kind == kBytes)
        return is_short ? launch(Variant<4, kColumns, kBytes, false>{}) : launch(Variant<8, kColumns, kBytes, false>{});
    return is_short ? launch(Variant<4, kColumns, kHalfs, false>{}) : launch(Variant<8, 1, kHalfs, false>{});
}

}  // namespace
}  // namespace parlor
