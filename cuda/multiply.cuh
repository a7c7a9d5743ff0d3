// How a block multiplies by tiles of a quantized weight, see linear.cu: for a whole weight there, for the chosen experts of a
// mixture in experts.cu.
#pragma once

#include "multiply_step.cuh"
#include "workspace.cuh"

namespace parlor {
namespace {

constexpr int kRowsConvertedByBlock = 2; // with more, reading float32 rows in each block costs more than a kernel
constexpr int kRowPadding = 32;          // halfs: lanes of neighbouring rows then read from different banks

// A split's steps go to eight slices by turns, and a warp takes one slice of one pair of tiles. A block of few rows has all
// slices of a pair. One of many rows may not have room for them: it has the columns of some only, for as many more pairs at
// a time. Slices are added up as a tree, so that it makes no difference to a result in how many blocks they are.
template <class V>
__host__ __device__ constexpr bool shares_slices() {
    return V::kColumns > 1;
}

// What a block has of the slices.
template <class V>
struct Slices {
    int bits;

    __host__ __device__ explicit Slices(const Product& p) : bits(shares_slices<V>() ? p.slice_bits : kAllSliceBits) {}
    __host__ __device__ int count() const { return 1 << bits; }
    __host__ __device__ int pairs() const { return kWarps >> bits; }  // at a time; as many blocks share a split
};

// The steps phase .. phase_end - 1, as far as they are of the block's slices, of the chunk's rows: as halfs in shared memory.
template <class V>
__device__ __forceinline__ void stage_rows(const Product& p, int first_row, int rows, const RowScale* scales, int phase,
                                           int phase_end, int first_slice, half* staged, int stride) {
    const Slices<V> slices(p);
    const int64_t padded_k = int64_t{p.w.steps} * kStep;
    if (!shares_slices<V>() && !p.staged) {
        const int64_t first = int64_t{phase} * kStep;
        const int count = (phase_end - phase) * kStep;
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
    const int words = ((phase_end - phase + kWarps - 1) / kWarps << slices.bits) * (kStep / 8);
#pragma unroll 2
    for (int i = threadIdx.x; i < rows * p.parts * words; i += kThreads) {
        const int row = i / words, c = i % words * 8, own = c / kStep;
        const int step = phase + (own >> slices.bits) * kWarps + first_slice + (own & (slices.count() - 1));
        if (step < phase_end)
            copy_async_16(staged + row * stride + c,
                          p.staged + (int64_t{first_row} * p.parts + row) * padded_k + int64_t{step} * kStep + c % kStep);
    }
    commit_copies();
    wait_for_copies<0>();
}

// A lane's sums of two tiles.
template <class V>
using Sums = float[kTilesOfBlock][V::kColumns][4];

template <class V>
__device__ __forceinline__ float4& four_of(float4* sums, int tile, int column) {
    return sums[(tile * V::kColumns + column) * 32 + threadIdx.x % 32];
}
template <class V>
__device__ __forceinline__ void put(const Sums<V>& acc, float4* sums) {
#pragma unroll
    for (int i = 0; i < kTilesOfBlock; ++i)
#pragma unroll
        for (int j = 0; j < V::kColumns; ++j)
            four_of<V>(sums, i, j) = make_float4(acc[i][j][0], acc[i][j][1], acc[i][j][2], acc[i][j][3]);
}

// Add up what the warps of a pair have: true in the one that has the sums then. A warp's place in `buffer` is another's only
// when that has read it.
template <class V>
__device__ __forceinline__ bool sum_of_warps(const Product& p, Sums<V>& acc, float4* buffer) {
    constexpr int kFours = kTilesOfBlock * V::kColumns * 32;
    const int warp = threadIdx.x / 32, slices = Slices<V>(p).count();
    __syncthreads();  // the sums before have been read
#pragma unroll
    for (int apart = 1; apart < kWarps; apart *= 2) {
        if (apart >= slices) break;
        if (warp % (2 * apart) == apart) put<V>(acc, buffer + warp / 2 * kFours);
        __syncthreads();
        if (warp % (2 * apart) != 0) continue;
#pragma unroll
        for (int i = 0; i < kTilesOfBlock; ++i)
#pragma unroll
            for (int j = 0; j < V::kColumns; ++j) {
                const float4 other = four_of<V>(buffer + (warp + apart) / 2 * kFours, i, j);
                acc[i][j][0] += other.x, acc[i][j][1] += other.y, acc[i][j][2] += other.z, acc[i][j][3] += other.w;
            }
    }
    return (warp & (slices - 1)) == 0;
}

__device__ __forceinline__ float4 sum_of(const float4& a, const float4& b) {
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}
// Of what kCount blocks left, the tree of their slices.
template <int kCount>
__device__ __forceinline__ float4 sum_of_tree(const float4* left, int64_t apart) {
    if constexpr (kCount == 1) return __ldcg(left);
    else return sum_of(sum_of_tree<kCount / 2>(left, apart), sum_of_tree<kCount / 2>(left + kCount / 2 * apart, apart));
}
template <class V>
__device__ __forceinline__ float4 sum_of_slices(const Product& p, const float4* left, int64_t apart) {
    switch (Slices<V>(p).pairs()) {
        case 2: return sum_of_tree<2>(left, apart);
        case 4: return sum_of_tree<4>(left, apart);
        case 8: return sum_of_tree<8>(left, apart);
        default: return sum_of_tree<1>(left, apart);
    }
}

// Leave this warp's sums for the last block to arrive; true in that one, which then has the sums of all.
template <class V>
__device__ __forceinline__ bool sum_of_blocks(const Product& p, int chunk, int pair, Sums<V>& acc) {
    constexpr int kFours = kTilesOfBlock * V::kColumns * 32;
    const int64_t task = static_cast<int64_t>(chunk) * p.pairs + pair;
    float4* const partial = reinterpret_cast<float4*>(p.partial) + task * gridDim.y * kFours;
    put<V>(acc, partial + static_cast<int64_t>(blockIdx.y) * kFours);
    __threadfence();
    __syncwarp();
    unsigned arrived = 0;
    if (threadIdx.x % 32 == 0) {
        arrived = atomicAdd(p.tickets + task, 1u);
        if (arrived == gridDim.y - 1) p.tickets[task] = 0;  // for the next product
    }
    if (__shfl_sync(0xffffffffu, arrived, 0) != gridDim.y - 1) return false;
    __threadfence();
    __syncwarp();  // what the first lane has seen arrive is there for the others
#pragma unroll
    for (int i = 0; i < kTilesOfBlock; ++i)
#pragma unroll
        for (int j = 0; j < V::kColumns; ++j) {
            float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            const float4* left = &four_of<V>(partial, i, j);
#pragma unroll 1
            for (int split = 0; split < p.splits; ++split, left += Slices<V>(p).pairs() * kFours)
                sum = sum_of(sum, sum_of_slices<V>(p, left, kFours));
            acc[i][j][0] = sum.x, acc[i][j][1] = sum.y, acc[i][j][2] = sum.z, acc[i][j][3] = sum.w;
        }
    return true;
}

// Sum number `which` of the 2 * kColumns that a lane has of each of four outputs; with two parts it and the next one together.
template <class V>
__device__ __forceinline__ void select(const Sums<V>& acc, int which, bool has_two_parts, float (&own)[kTilesOfBlock][2]) {
#pragma unroll
    for (int j = 0; j < 2 * V::kColumns; ++j) {
        if (j != which) continue;
#pragma unroll
        for (int i = 0; i < kTilesOfBlock; ++i)
#pragma unroll
            for (int upper = 0; upper < 2; ++upper) {
                own[i][upper] = acc[i][j / 2][2 * upper + j % 2];
                if (has_two_parts) own[i][upper] += acc[i][j / 2][2 * upper + 1];
            }
    }
}

// A lane has sums of the outputs g and g + 8 of both tiles, for the columns 2 * t and 2 * t + 1 of eight: rows, or with two parts
// the upper and the lower half of one.
template <class V>
__device__ __forceinline__ void store(const Product& p, int pair, int first_row, int rows, const Sums<V>& acc,
                                      const float* factors, const HeadPlace* places) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, n = static_cast<int>(p.w.n);
    const bool is_silu = p.epilogue == PARLOR_EPILOGUE_SILU_MUL, is_heads = p.epilogue == kHeadsEpilogue;
    const bool has_old = p.epilogue == PARLOR_EPILOGUE_ADD || p.epilogue == PARLOR_EPILOGUE_GATE;
#pragma unroll 1  // a column's code is long, and all of them would take the registers of the next pair's copies
    for (int which = 0; which < 2 * V::kColumns; which += p.parts) {
        const int row = (which / 2 * 8 + 2 * t + which % 2) >> (p.parts - 1);
        const bool is_there = row < rows;
        if (!is_there && !is_heads) continue;
        const float factor = p.row_factors ? factors[row] * p.row_factors[first_row + row] : factors[row];
        float* const out = p.out + (first_row + row) * p.out_stride;
        float values[kTilesOfBlock][2], old[kTilesOfBlock][2];
        select<V>(acc, which, p.parts == 2, values);
        int outputs[kTilesOfBlock][2];  // -1: there is none
#pragma unroll
        for (int i = 0; i < kTilesOfBlock; ++i)
#pragma unroll
            for (int upper = 0; upper < 2; ++upper) {  // all at once: each would wait for the memory
                const int output = tile_of(p, pair, i) * kTile + g + 8 * upper;
                const float bias = p.w.bias && output < n ? p.w.bias[output] : 0.0f;
                values[i][upper] = values[i][upper] * factor + bias;
                outputs[i][upper] = !is_silu ? (output < n ? output : -1) : i == 1 ? pair * kTile + g + 8 * upper : -1;
                old[i][upper] = has_old && outputs[i][upper] >= 0 ? out[outputs[i][upper]] : 0.0f;
            }
        if (is_heads) {
            store_head(p.heads, pair >> p.pair_bits, (pair & ((1 << p.pair_bits) - 1)) * kTile, values, places[row], is_there,
                       out);
            continue;
        }
#pragma unroll
        for (int i = 0; i < kTilesOfBlock; ++i)
#pragma unroll
            for (int upper = 0; upper < 2; ++upper)
                if (outputs[i][upper] >= 0)
                    out[outputs[i][upper]] = finished(p.epilogue, values[i][upper], values[0][upper], old[i][upper]);
    }
}

// Blocks that a multiprocessor is to have at once: two, so that one computes while the other begins or ends. Where registers
// allow there is room for one of the next kernel as well, which then copies its first steps before this one has ended. So
// much is promised to the compiler; launchers ask the driver what came of it.
constexpr int kBlocksAtOnce = 2;
template <class V>
__host__ __device__ constexpr int blocks_with_registers() {
    if (V::kColumns == 1) return V::kZeros == PARLOR_ZERO_ONE ? kBlocksAtOnce + 1 : kBlocksAtOnce;
    return V::kColumns == 2 && V::kZeros != PARLOR_ZERO_F16 ? kBlocksAtOnce : 1;
}

// Of a product whose warps have so many slices of a pair: where every second one leaves its sums.
template <class V>
__host__ __device__ constexpr int bytes_of_sums(int slices) {
    return slices > 1 ? kWarps / 2 * kTilesOfBlock * V::kColumns * 512 : 0;
}
// Halfs from row to row in shared memory.
__host__ __device__ constexpr int stride_of_rows(int steps, int slice_bits) {
    return ((steps + kWarps - 1) / kWarps * kStep << slice_bits) + kRowPadding;
}

// The tiles of this block: those of blockIdx.x by turns, the columns of split and slices blockIdx.y, rows first_row and
// following of at most 8 * kColumns / parts. `chunk` numbers what these rows share with no other block.
template <class V>
__device__ __forceinline__ void multiply_tiles(const Product& p, int chunk, int first_row) {
    constexpr int kColumns = V::kColumns;
    DYNAMIC_SHARED(unsigned char, shared);
    SHARED_ARRAY(RowScale, scales, kRowsConvertedByBlock);
    SHARED_ARRAY(float, factors, 8 * kColumns);
    SHARED_ARRAY(HeadPlace, places, 8 * kColumns);
    SHARED_ARRAY(float, measured, 2 * kWarps);
    unsigned char* const ring = shared + threadIdx.x / 32 * V::kRingBytes;  // of the warp
    float4* const sums_of_warps = reinterpret_cast<float4*>(shared + kWarps * V::kRingBytes);
    const Slices<V> slices(p);
    half* const staged = reinterpret_cast<half*>(shared + kWarps * V::kRingBytes + bytes_of_sums<V>(slices.count()));

    struct Steps {
        int begin, end, first_slice;
    };
    const auto steps_of_block = [&](int block) {
        const int first_slice = block % slices.pairs() << slices.bits;
        const int begin = block / slices.pairs() * p.steps_of_split;
        return Steps{begin, min(begin + p.steps_of_split, p.w.steps), first_slice};
    };
    const auto slice_of = [&](int thread) { return thread / 32 & (slices.count() - 1); };
    const Steps steps = steps_of_block(blockIdx.y);
    const int own_step = steps.begin + steps.first_slice + slice_of(threadIdx.x);
    const int pair_of_warp = threadIdx.x / 32 >> slices.bits, turn = static_cast<int>(gridDim.x) * slices.pairs();
    const int own_pair = static_cast<int>(blockIdx.x) * slices.pairs() + pair_of_warp;
    Copies<V> copies(p, own_pair, turn, own_step, steps.end);
#pragma unroll
    for (int i = 0; i < V::kStages - 1; ++i) copies.copy(p, ring + i * V::kStageBytes, turn, own_step, steps.end);
    if (copies.pair == own_pair && own_pair < p.pairs) copies.prefetch(p.prefetched_rounds, steps.end);
    let_next_kernel_start();
    wait_for_previous_kernel();

    const int rows = min(8 * kColumns >> (p.parts - 1), p.rows - first_row);
    const bool has_one_phase = p.steps_of_phase >= p.steps_of_split;
    const int stride = stride_of_rows(p.steps_of_phase, slices.bits);
    const bool is_converted = !p.staged && has_one_phase && has_whole_float4s(p.a, p.w);
    if (p.epilogue == kHeadsEpilogue && static_cast<int>(threadIdx.x) < rows)
        places[threadIdx.x] = place_of(p.heads, first_row + static_cast<int>(threadIdx.x));
    if (shares_slices<V>() || p.staged) {
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

    // The rows needed the registers of all this.
    const auto [begin, end, first_slice] = steps_of_block(unknown(blockIdx.y));
    const int first_step = begin + first_slice + slice_of(unknown(threadIdx.x));
    unsigned char* stage = ring;  // of the step that is multiplied
    const int first_pair = static_cast<int>(blockIdx.x) * slices.pairs();
    for (int pairs = first_pair; pairs < p.pairs; pairs += turn) {
        const int pair = pairs + pair_of_warp;
        Sums<V> acc = {};
        int step = pair < p.pairs ? first_step : end;
        for (int phase = begin; phase < end; phase += p.steps_of_phase) {
            const int phase_end = min(phase + p.steps_of_phase, end);
            if (!is_converted && (!has_one_phase || pairs == first_pair)) {
                __syncthreads();  // the phase before has been read
                stage_rows<V>(p, first_row, rows, scales, phase, phase_end, first_slice, staged, stride);
                __syncthreads();
            }
            const int thread = unknown(threadIdx.x);
            // Of a lane. Phases are whole turns of the slices, so that each begins with the same columns of `staged`.
            const half* x = staged + thread % 32 / 4 * stride + thread % 4 * 8 + slice_of(thread) * kStep;
#pragma unroll 1
            for (; step < phase_end; step += kWarps, x += kStep << slices.bits) {
                const StepOfRows<V> of_rows(x, stride, rows * p.parts);
                wait_for_copies<V::kStages - 2>();
                __syncwarp();  // other lanes have copied scales, and are done with the stage before, which is filled now
                const TileStep<V> first(stage, 0);
                multiply_step<V>(p, first, of_rows, acc[0]);
                const TileStep<V> second(stage, 1);
                copies.copy(p, stage == ring ? ring + V::kRingBytes - V::kStageBytes : stage - V::kStageBytes, turn, first_step,
                            end);
                stage += V::kStageBytes;
                if (stage == ring + V::kRingBytes) stage = ring;
                multiply_step<V>(p, second, of_rows, acc[1]);
            }
        }
        if (sum_of_warps<V>(p, acc, sums_of_warps) && pair < p.pairs &&
            (gridDim.y == 1 || sum_of_blocks<V>(p, chunk, pair, acc)))
            store<V>(p, pair, first_row, rows, acc, factors, places);
    }
}

// Fill in how the product of chunks of at most `rows` rows is shared out among blocks. Splits must not depend on the rows, or
// a row's result would; slices may. A multiprocessor has kBlocksAtOnce, if the memory of one is enough for all columns
// then. Bytes of dynamic memory, 0: there is too little.
template <class V>
int64_t share_out(const Device& device, Product* p, int rows) {
    p->splits = static_cast<int>(std::clamp<int64_t>(device.multiprocessors / p->pairs, 1, divide_up(p->w.steps, kWarps)));
    p->steps_of_split = static_cast<int>(divide_up(p->w.steps, p->splits));
    p->splits = static_cast<int>(divide_up(p->w.steps, p->steps_of_split));
    const int64_t staged_rows = int64_t{rows} * p->parts, turns = divide_up(p->steps_of_split, kWarps);
    const auto fixed_bytes = [&] { return kWarps * V::kRingBytes + bytes_of_sums<V>(1 << p->slice_bits); };
    const auto turns_in = [&](int at_once) {  // of slices, that there is room for
        const int64_t budget = device.shared_bytes / at_once - kMaxStaticShared - fixed_bytes();
        return (budget / (2 * staged_rows) - kRowPadding) / (kStep << p->slice_bits);
    };
    p->slice_bits = kAllSliceBits;
    while (shares_slices<V>() && p->slice_bits > 0 && turns_in(1) < turns) --p->slice_bits;
    const int64_t room = turns_in(turns_in(kBlocksAtOnce) >= turns ? kBlocksAtOnce : 1);
    if (room < 1) return 0;
    p->steps_of_phase = static_cast<int>(room >= turns ? p->steps_of_split : room * kWarps);
    return fixed_bytes() + staged_rows * stride_of_rows(p->steps_of_phase, p->slice_bits) * 2;
}

// Blocks that share the columns of a pair of tiles.
template <class V>
int blocks_of_columns(const Product& p) {
    return p.splits * Slices<V>(p).pairs();
}

// Half of the L2 cache for what `blocks` prefetch: more would push out what comes first.
template <class V>
void bound_prefetches(const Device& device, int64_t blocks, Product* p) {
    constexpr int64_t kBytes = int64_t{kWarps} * kTilesOfBlock * 32 * 16 * V::kLoads;  // of a block's round
    p->prefetched_rounds = static_cast<int>(std::clamp<int64_t>(device.l2_bytes / 2 / (blocks * kBytes) - (V::kStages - 1), 0, 64));
}

// Memory for the partial sums of `chunks` chunks.
template <class V>
int take_partials(Product* p, int64_t chunks, Scratch* scratch) {
    const int blocks = blocks_of_columns<V>(*p);
    if (blocks == 1) return PARLOR_OK;
    const int64_t values = int64_t{kTilesOfBlock} * kTile * 8 * V::kColumns * blocks;
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
