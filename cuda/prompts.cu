// The rows of a prompt between products that another library does in float16: each kernel takes a product as it comes, does
// what is done with it, and leaves float16 for the next one.
//
//   add_stage    x += product; staged = x times norm                 bytes: 12 a number of the hidden state
//   stage        staged = silu(gate) * up of a product, or heads     bytes: 6 a number, 4
//
// Queries, keys and values: prompt_heads.cu. Bound by memory: 2,048 rows of Llama-2-7B are 100 MB twice a layer, 135 MB and
// 34 MB, 86 us at 4.3 TB/s beside 1,050 us of products.
//
// float16 ends at 65,504. A row is multiplied by the power of two with which neither a number of it nor of its product can
// be beyond 2^15: the latter is at most its 2-norm times the largest 2-norm of a row of the weight (Cauchy and Schwarz), which
// is the caller's `bound`. What products are to be multiplied by is left in `factors`.
// Reference: linear() and rope_write_kv() in model/kernels/reference/.
#include <cmath>

#include "cache.cuh"
#include "prompts.cuh"

namespace parlor {
namespace {

constexpr int kKeptOfRow = 4;  // such loads of a row whose numbers a thread keeps

// Where a row goes for the next product; `staged` null: nowhere.
struct Staging {
    half* staged;            // [rows, padded_k]
    float* factors;
    const float* bound;      // [1]
    const int32_t* columns;  // as in Weight
    int k, padded_k;
};

// The largest of a row's numbers as they are staged, and its squares before and after the norm; of the block in every thread.
struct Extent {
    float largest = 0.0f, own = 0.0f, squares = 0.0f;

    __device__ __forceinline__ void add(float x, float staged) {
        own += x * x;
        squares += staged * staged;
        largest = fmaxf(largest, fabsf(staged));
    }
    __device__ __forceinline__ void add_up(float* partial) {
        constexpr int kWarps = kRowThreads / 32;
        largest = warp_max(largest), own = warp_sum(own), squares = warp_sum(squares);
        const int warp = static_cast<int>(threadIdx.x) / 32;
        if (threadIdx.x % 32 == 0) partial[warp] = largest, partial[kWarps + warp] = own, partial[2 * kWarps + warp] = squares;
        __syncthreads();
        largest = own = squares = 0.0f;
        for (int i = 0; i < kWarps; ++i)
            largest = fmaxf(largest, partial[i]), own += partial[kWarps + i], squares += partial[2 * kWarps + i];
    }
};
constexpr int kExtents = 3 * kRowThreads / 32;

__device__ __forceinline__ int exponent_of(float positive) { return static_cast<int>(__float_as_uint(positive) >> 23) - 127; }

// 2^e, and leaves what undoes it; see above. Infinities and NaN stay what they are. Where squares have no room in float32 the
// 2-norm is taken for as large as k of the largest would make it.
__device__ __forceinline__ float scale_up(const Extent& extent, float bound, int k, float rest, float* factor) {
    constexpr int kHighest = 13, kHighestProduct = 14, kMost = 126;
    constexpr float kFewest = 1e-24f, kMostSquares = 1e24f;
    const int of_row = exponent_of(extent.largest);
    const bool has_room = extent.squares > kFewest && extent.squares < kMostSquares;
    const int of_product = has_room ? exponent_of(sqrtf(extent.squares) * bound)
                                    : of_row + 2 + exponent_of(sqrtf(static_cast<float>(k)) * bound);
    int up = min(kHighest - of_row, kHighestProduct - of_product);
    up = of_row == 128 ? 0 : up > kMost ? kMost : up;
    if (threadIdx.x == 0) *factor = __uint_as_float(static_cast<uint32_t>(127 - up) << 23) * rest;
    return __uint_as_float(static_cast<uint32_t>(up + 127) << 23);
}

__device__ __forceinline__ float number_of(const half* values, int64_t at, float factor, const float* bias, int64_t column) {
    return __half2float(values[at]) * factor + (bias ? bias[column] : 0.0f);
}

// The row of a block to halfs, in any order of columns: number(c) is its number c as it is staged.
template <class Number>
__device__ __forceinline__ void store_columns(const Staging& s, half* target, float up, Number number) {
    for (int c = 2 * threadIdx.x; c < s.padded_k; c += 2 * kRowThreads) {
        float pair[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int source = s.columns ? s.columns[c + i] : c + i < s.k ? c + i : -1;
            pair[i] = source < 0 ? 0.0f : number(source) * up;
        }
        reinterpret_cast<uint32_t*>(target)[c / 2] = pair_bits(pair[0], pair[1]);
    }
}

// Four numbers of x, and of what is added to them if there is something.
struct Four {
    float4 own;
    uint2 product;

    __device__ __forceinline__ Four() : own(make_float4(0.0f, 0.0f, 0.0f, 0.0f)), product(make_uint2(0, 0)) {}
    __device__ __forceinline__ void load(const float* x, const Halfs& added, int64_t row, int64_t column) {
        own = *reinterpret_cast<const float4*>(x + column);
        if (added.values) product = *reinterpret_cast<const uint2*>(added.values + row * added.n + column);
    }
    // Add up and keep it; what is left is as it is staged.
    __device__ __forceinline__ void add(float* x, const Halfs& added, int64_t column, float factor, const float* norm,
                                        Extent* extent) {
        if (added.values) {
            const float2 low = floats_of(product.x), high = floats_of(product.y);
            float4 bias = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (added.bias) bias = __ldg(reinterpret_cast<const float4*>(added.bias + column));
            own.x += low.x * factor + bias.x, own.y += low.y * factor + bias.y;
            own.z += high.x * factor + bias.z, own.w += high.y * factor + bias.w;
            *reinterpret_cast<float4*>(x + column) = own;
        }
        const float4 before = own;
        if (norm) {
            const float4 factors = __ldg(reinterpret_cast<const float4*>(norm + column));
            own = make_float4(own.x * factors.x, own.y * factors.y, own.z * factors.z, own.w * factors.w);
        }
        extent->add(before.x, own.x);
        extent->add(before.y, own.y);
        extent->add(before.z, own.z);
        extent->add(before.w, own.w);
    }
};

// Grid: rows. is_wide: everything lies in whole float4s.
__global__ void __launch_bounds__(kRowThreads) add_stage_kernel(float* x, int64_t x_stride, int size, Halfs product,
                                                                const float* norm, float eps, Staging s, bool is_wide) {
    SHARED_ARRAY(float, partial, kExtents);
    let_next_kernel_start();
    wait_for_previous_kernel();
    const int64_t row = blockIdx.x;
    float* const own = x + row * x_stride;
    const float factor = product.values ? product.factors[row] : 0.0f;
    const bool keeps_order = is_wide && !s.columns;
    Extent extent;
    Four kept[kKeptRounds];
    const int first = 4 * static_cast<int>(threadIdx.x);
    if (is_wide) {
#pragma unroll
        for (int round = 0; round < kKeptRounds; ++round)  // all are on their way before one is stored
            if (first + round * kRoundColumns < size) kept[round].load(own, product, row, first + round * kRoundColumns);
#pragma unroll
        for (int round = 0; round < kKeptRounds; ++round) {
            const int column = first + round * kRoundColumns;
            if (column < size) kept[round].add(own, product, column, factor, norm, &extent);
        }
#pragma unroll 1
        for (int column = first + kKeptRounds * kRoundColumns; column < size; column += kRoundColumns) {
            Four four;
            four.load(own, product, row, column);
            four.add(own, product, column, factor, norm, &extent);
        }
    } else {
        for (int column = threadIdx.x; column < size; column += kRowThreads) {
            if (product.values) own[column] += number_of(product.values, row * product.n + column, factor, product.bias, column);
            extent.add(own[column], norm ? own[column] * norm[column] : own[column]);
        }
    }
    if (!s.staged) return;
    extent.add_up(partial);
    const float rest = norm ? 1.0f / sqrtf(extent.own / static_cast<float>(size) + eps) : 1.0f;
    const float up = scale_up(extent, *s.bound, s.k, rest, s.factors + row);
    half* const target = s.staged + row * s.padded_k;
    if (!keeps_order) {
        store_columns(s, target, up, [&](int c) { return norm ? own[c] * norm[c] : own[c]; });
        return;
    }
#pragma unroll
    for (int round = 0; round < kKeptRounds; ++round) {
        const int column = first + round * kRoundColumns;
        if (column < s.padded_k) store_4(kept[round].own, up, 1, target + column, 0);
    }
    Extent again;
#pragma unroll 2
    for (int column = first + kKeptRounds * kRoundColumns; column < s.padded_k; column += kRoundColumns) {
        Four four;
        if (column < size) four.load(own, Halfs{}, row, column), four.add(own, Halfs{}, column, 0.0f, norm, &again);
        store_4(four.own, up, 1, target + column, 0);
    }
}

// silu(gate) * up of a product that has both, each of half its columns.
struct SiluRows {
    Halfs product;

    __device__ __forceinline__ float factor(int64_t row) const { return product.factors[row]; }
    __device__ __forceinline__ float number(int64_t row, int c, float factor) const {
        const int64_t half_n = product.n / 2, at = row * product.n + c;
        return silu(number_of(product.values, at, factor, product.bias, c)) *
               number_of(product.values, at + half_n, factor, product.bias, half_n + c);
    }
    struct Loaded {
        uint4 gate, up;
    };
    __device__ __forceinline__ Loaded load(int64_t row, int c) const {
        return {load_product_8(product, row, c), load_product_8(product, row, product.n / 2 + c)};
    }
    __device__ __forceinline__ void numbers(const Loaded& loaded, int c, float factor, float (&values)[kAtOnce]) const {
        float gates[kAtOnce];
        numbers_of_8(loaded.gate, product, c, factor, gates);
        numbers_of_8(loaded.up, product, product.n / 2 + c, factor, values);
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) values[i] *= silu(gates[i]);
    }
};

// What attention gives: the heads of a row side by side, wherever they lie.
struct HeadRows {
    const half* values;
    int64_t row_stride, head_stride;
    int head_dim;

    __device__ __forceinline__ const half* at(int64_t row, int c) const {
        return values + row * row_stride + c / head_dim * head_stride + c % head_dim;
    }
    __device__ __forceinline__ float factor(int64_t) const { return 1.0f; }
    __device__ __forceinline__ float number(int64_t row, int c, float) const { return __half2float(*at(row, c)); }
    typedef uint4 Loaded;
    __device__ __forceinline__ uint4 load(int64_t row, int c) const { return *reinterpret_cast<const uint4*>(at(row, c)); }
    __device__ __forceinline__ void numbers(const uint4& loaded, int, float, float (&values)[kAtOnce]) const {
        floats_of_8(loaded, values);
    }
};

// Grid: rows. is_wide: eight numbers can be read at once.
template <class Rows>
__global__ void __launch_bounds__(kRowThreads) stage_rows_kernel(const Rows rows, Staging s, bool is_wide) {
    SHARED_ARRAY(float, partial, kExtents);
    let_next_kernel_start();
    wait_for_previous_kernel();
    constexpr int kColumns = kAtOnce * kRowThreads;
    const int64_t row = blockIdx.x;
    const float factor = rows.factor(row);
    half* const target = s.staged + row * s.padded_k;
    const int first = kAtOnce * static_cast<int>(threadIdx.x);
    Extent extent;
    float kept[kKeptOfRow][kAtOnce] = {};
    const auto add = [&](const float (&values)[kAtOnce]) {
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) extent.add(0.0f, values[i]);
    };
    if (is_wide) {
        typename Rows::Loaded loaded[kKeptOfRow];
#pragma unroll
        for (int round = 0; round < kKeptOfRow; ++round)
            if (first + round * kColumns < s.k) loaded[round] = rows.load(row, first + round * kColumns);
#pragma unroll
        for (int round = 0; round < kKeptOfRow; ++round) {
            if (first + round * kColumns >= s.k) break;
            rows.numbers(loaded[round], first + round * kColumns, factor, kept[round]);
            add(kept[round]);
        }
#pragma unroll 1
        for (int column = first + kKeptOfRow * kColumns; column < s.k; column += kColumns) {
            float values[kAtOnce];
            rows.numbers(rows.load(row, column), column, factor, values);
            add(values);
        }
    } else {
        for (int c = threadIdx.x; c < s.k; c += kRowThreads) extent.add(0.0f, rows.number(row, c, factor));
    }
    extent.add_up(partial);
    const float up = scale_up(extent, *s.bound, s.k, 1.0f, s.factors + row);
    if (!is_wide || s.columns) {
        store_columns(s, target, up, [&](int c) { return rows.number(row, c, factor); });
        return;
    }
#pragma unroll
    for (int round = 0; round < kKeptOfRow; ++round) {
        const int column = first + round * kColumns;
        if (column < s.padded_k) *reinterpret_cast<uint4*>(target + column) = bits_of_8(kept[round], up);
    }
#pragma unroll 1
    for (int column = first + kKeptOfRow * kColumns; column < s.padded_k; column += kColumns) {
        float values[kAtOnce] = {};
        if (column < s.k) rows.numbers(rows.load(row, column), column, factor, values);
        *reinterpret_cast<uint4*>(target + column) = bits_of_8(values, up);
    }
}

Staging staging_of(const linear_weight& w, const float* bound, uint16_t* staged, float* factors) {
    const bool is_packed = is_quantized(w);
    return {reinterpret_cast<half*>(staged), factors, bound, is_packed ? static_cast<const int32_t*>(w.blocks) : nullptr,
            static_cast<int>(w.k), static_cast<int>(is_packed ? w.padded_k : w.k)};
}

int check_staging(const linear_weight* weight, int64_t m, const float* bound, const uint16_t* staged, const float* factors) {
    if (const int error = check_weight(weight)) return error;
    if (m < 0 || m > kMaxGridX || (!is_quantized(*weight) && weight->k % 2 != 0)) return PARLOR_ERROR_SIZE;
    return bound && staged && factors && is_aligned(staged, 16) && is_aligned(factors, 4) ? PARLOR_OK : PARLOR_ERROR_POINTER;
}

}  // namespace
}  // namespace parlor

using namespace parlor;

extern "C" int prompt_add_stage(float* x, int64_t x_stride, int64_t m, int64_t size, const uint16_t* product,
                                const float* factors, const float* bias, const float* norm_weight, float eps,
                                const linear_weight* weight, const float* bound, uint16_t* staged, float* staged_factors,
                                void* stream) {
    if (weight)
        if (const int error = check_staging(weight, m, bound, staged, staged_factors)) return error;
    if (m < 0 || m > kMaxGridX || size < 1 || size > 0x7fffffff / 2 || x_stride < size || (weight && weight->k != size))
        return PARLOR_ERROR_SIZE;
    if (m == 0) return PARLOR_OK;
    if (!x || !is_aligned(x, 4) || (product && !factors)) return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    const bool is_wide = size % 4 == 0 && x_stride % 4 == 0 && is_aligned(x, 16) && is_aligned(product, 8) &&
                         is_aligned(bias, 16) && is_aligned(norm_weight, 16);
    const Staging s = weight ? staging_of(*weight, bound, staged, staged_factors) : Staging{};
    return launch(device, add_stage_kernel, dim3(static_cast<unsigned>(m)), dim3(kRowThreads), 0, stream, x, x_stride,
                  static_cast<int>(size), Halfs{reinterpret_cast<const half*>(product), factors, bias, size}, norm_weight, eps, s,
                  is_wide);
}

extern "C" int prompt_silu_stage(const uint16_t* product, const float* factors, const float* bias, int64_t m,
                                 const linear_weight* weight, const float* bound, uint16_t* staged, float* staged_factors,
                                 void* stream) {
    if (const int error = check_staging(weight, m, bound, staged, staged_factors)) return error;
    if (m == 0) return PARLOR_OK;
    if (!product || !factors) return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    const SiluRows rows{{reinterpret_cast<const half*>(product), factors, bias, 2 * weight->k}};
    const bool is_wide = weight->k % kAtOnce == 0 && is_aligned(product, 16);
    return launch(device, stage_rows_kernel<SiluRows>, dim3(static_cast<unsigned>(m)), dim3(kRowThreads), 0, stream, rows,
                  staging_of(*weight, bound, staged, staged_factors), is_wide);
}

extern "C" int prompt_heads_stage(const uint16_t* heads, int64_t row_stride, int64_t head_stride, int64_t head_dim, int64_t m,
                                  const linear_weight* weight, const float* bound, uint16_t* staged, float* staged_factors,
                                  void* stream) {
    if (const int error = check_staging(weight, m, bound, staged, staged_factors)) return error;
    if (head_dim < 1 || head_dim > kMaxHeadDim || weight->k % head_dim != 0) return PARLOR_ERROR_SIZE;
    if (m == 0) return PARLOR_OK;
    if (!heads) return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    const HeadRows rows{reinterpret_cast<const half*>(heads), row_stride, head_stride, static_cast<int>(head_dim)};
    const bool is_wide = (row_stride | head_stride | head_dim) % kAtOnce == 0 && is_aligned(heads, 16);
    return launch(device, stage_rows_kernel<HeadRows>, dim3(static_cast<unsigned>(m)), dim3(kRowThreads), 0, stream, rows,
                  staging_of(*weight, bound, staged, staged_factors), is_wide);
}

