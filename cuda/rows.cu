// Rows one by one (embeddings, norms, activations, what is done to logits), and copying pages of the cache.
//
//   embed       out[t] = table[token_ids[t]] * scale             bytes: 2 or 4 read and 4 written a value
//   norm_rows   a block for each group of a row                  bytes: 8 read and 4 written a value
//   activate, gate_rows, softplus_rows, cap_rows                 bytes: 4 or 8 read and 4 written a value
//   cut_rows, match_rows, a block for a row, and mix_rows        bytes: 8 to 12 read and 4 written a value
//   copy_pages  page dst[i] = page src[i] in both caches         bytes: each read once and written once
//
// Bound by memory; the floor is those bytes over the bandwidth (2,048 rows of 4,096 halfs: 50 MB, 12 us at 4.3 TB/s),
// and when decoding by the launch. An index that lies outside its table cannot be reported without waiting for the GPU:
// the row of such a token becomes NaN, such a page is not copied.
// Reference: the functions of these names in model/kernels/reference/operations.py.
#include <cmath>

#include "launch.cuh"

namespace parlor {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ float widened(float value) { return value; }
__device__ __forceinline__ float widened(half value) { return __half2float(value); }
struct BFloat16 {
    unsigned short bits;
};
__device__ __forceinline__ float widened(BFloat16 value) { return __uint_as_float(static_cast<unsigned>(value.bits) << 16); }

template <class T>
__global__ void __launch_bounds__(kThreads)
    embed_kernel(const T* __restrict__ table, const int32_t* token_ids, float* __restrict__ out, float scale,
                 int64_t vocab_size, int64_t hidden_size) {
    let_next_kernel_start();
    wait_for_previous_kernel();
    const int64_t token = blockIdx.x;
    const int32_t token_id = token_ids[token];
    const bool is_known = token_id >= 0 && token_id < vocab_size;
    const T* const row = table + (is_known ? token_id : 0) * hidden_size;
    for (int64_t i = threadIdx.x; i < hidden_size; i += kThreads)
        out[token * hidden_size + i] = is_known ? widened(row[i]) * scale : NAN;
}

struct Norm {
    const float* x;
    int64_t x_stride;
    const float *weight, *bias;  // or null
    int64_t weight_stride;       // from group to group
    float eps;
    int kind;
    float* out;
    int64_t out_stride;
    bool add;
    float scale;
    int64_t size;
};

constexpr int kNormThreads = 128;

// The sum over the block, the same for all its threads and in a fixed order.
__device__ __forceinline__ float block_sum(float value, float* of_warps) {
    value = warp_sum(value);
    __syncthreads();
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
    __syncthreads();
    float total = 0.0f;
    for (int warp = 0; warp < kNormThreads / 32; ++warp) total += of_warps[warp];
    return total;
}

// Grid: rows, groups. In place: a value is one thread's own.
__global__ void __launch_bounds__(kNormThreads) norm_rows_kernel(const Norm n) {
    SHARED_ARRAY(float, of_warps, kNormThreads / 32);
    let_next_kernel_start();
    wait_for_previous_kernel();
    const float* const x = n.x + blockIdx.x * n.x_stride + blockIdx.y * n.size;
    float* const out = n.out + blockIdx.x * n.out_stride + blockIdx.y * n.size;
    const float* const weight = n.weight ? n.weight + blockIdx.y * n.weight_stride : nullptr;
    const float* const bias = n.bias ? n.bias + blockIdx.y * n.weight_stride : nullptr;
    float mean = 0.0f, factor = 1.0f;
    if (n.kind == PARLOR_NORM_LAYER) {
        float sum = 0.0f;
        for (int64_t i = threadIdx.x; i < n.size; i += kNormThreads) sum += x[i];
        mean = block_sum(sum, of_warps) / static_cast<float>(n.size);
    }
    if (n.kind != PARLOR_NORM_NONE) {
        float squares = 0.0f;
        for (int64_t i = threadIdx.x; i < n.size; i += kNormThreads) squares += (x[i] - mean) * (x[i] - mean);
        factor = 1.0f / sqrtf(block_sum(squares, of_warps) / static_cast<float>(n.size) + n.eps);
    }
    for (int64_t i = threadIdx.x; i < n.size; i += kNormThreads) {
        const float y = ((x[i] - mean) * factor * (weight ? weight[i] : 1.0f) + (bias ? bias[i] : 0.0f)) * n.scale;
        out[i] = n.add ? out[i] + y : y;
    }
}

__device__ __forceinline__ float activated(float a, int kind) {
    switch (kind) {
        case PARLOR_ACTIVATION_SILU: return a / (1.0f + expf(-a));
        case PARLOR_ACTIVATION_GELU: return 0.5f * a * (1.0f + erff(a * 0.7071067811865476f));
        case PARLOR_ACTIVATION_GELU_TANH:
            return 0.5f * a * (1.0f + tanhf(0.7978845608028654f * (a + 0.044715f * a * a * a)));
        case PARLOR_ACTIVATION_RELU2: return a > 0.0f ? a * a : 0.0f;
        case PARLOR_ACTIVATION_RELU: return fmaxf(a, 0.0f);
        case PARLOR_ACTIVATION_CLAMPED: return fminf(a, 7.0f) / (1.0f + expf(-1.702f * fminf(a, 7.0f)));
        case PARLOR_ACTIVATION_SIGMOID: return 1.0f / (1.0f + expf(-a));
        default: return a;
    }
}

__device__ __forceinline__ float gated(float a, int kind) {
    return kind == PARLOR_ACTIVATION_CLAMPED ? fminf(fmaxf(a, -7.0f), 7.0f) + 1.0f : a;
}

// Grid: rows, parts of a row. What is gated may be null; out may be one of the others.
__global__ void __launch_bounds__(kThreads)
    activate_kernel(const float* x, int64_t x_stride, const float* up, int64_t up_stride, float* out, int64_t out_stride,
                    int kind, int64_t size) {
    let_next_kernel_start();
    wait_for_previous_kernel();
    const float* const row = x + blockIdx.x * x_stride;
    const float* const up_row = up ? up + blockIdx.x * up_stride : nullptr;
    for (int64_t i = blockIdx.y * kThreads + threadIdx.x; i < size; i += int64_t{gridDim.y} * kThreads)
        out[blockIdx.x * out_stride + i] = activated(row[i], kind) * (up_row ? gated(up_row[i], kind) : 1.0f);
}

// Grid: rows, parts of a row.
__global__ void __launch_bounds__(kThreads)
    softplus_rows_kernel(const float* x, int64_t x_stride, const float* __restrict__ bias, const float* __restrict__ scale,
                         float low, float high, float* out, int64_t out_stride, int64_t size) {
    let_next_kernel_start();
    wait_for_previous_kernel();
    for (int64_t i = blockIdx.y * kThreads + threadIdx.x; i < size; i += int64_t{gridDim.y} * kThreads) {
        const float a = x[blockIdx.x * x_stride + i] + (bias ? bias[i] : 0.0f);
        const float y = log1pf(expf(-fabsf(a))) + (a > 0.0f ? a : 0.0f);
        const float bounded = y < low ? low : y > high ? high : y;
        out[blockIdx.x * out_stride + i] = scale ? bounded * scale[i] : bounded;
    }
}

// Grid: rows, parts of a row.
__global__ void __launch_bounds__(kThreads)
    xielu_kernel(const float* x, int64_t x_stride, float* out, int64_t out_stride, float above, float below, int64_t size) {
    let_next_kernel_start();
    wait_for_previous_kernel();
    for (int64_t i = blockIdx.y * kThreads + threadIdx.x; i < size; i += int64_t{gridDim.y} * kThreads) {
        const float a = x[blockIdx.x * x_stride + i];
        out[blockIdx.x * out_stride + i] = 0.5f * a + (a > 0.0f ? above * a * a : below * (expm1f(a) - a));
    }
}

// Grid: rows.
__global__ void __launch_bounds__(kNormThreads)
    cut_rows_kernel(float* x, int64_t x_stride, float deviations, int64_t size) {
    SHARED_ARRAY(float, of_warps, kNormThreads / 32);
    let_next_kernel_start();
    wait_for_previous_kernel();
    float* const row = x + blockIdx.x * x_stride;
    float sum = 0.0f, squares = 0.0f;
    for (int64_t i = threadIdx.x; i < size; i += kNormThreads) sum += row[i];
    const float mean = block_sum(sum, of_warps) / static_cast<float>(size);
    for (int64_t i = threadIdx.x; i < size; i += kNormThreads) squares += (row[i] - mean) * (row[i] - mean);
    const float limit = mean + deviations * sqrtf(block_sum(squares, of_warps) / static_cast<float>(size));
    for (int64_t i = threadIdx.x; i < size; i += kNormThreads) row[i] = fmaxf(row[i] - limit, 0.0f);
}

// Grid: rows.
__global__ void __launch_bounds__(kNormThreads)
    match_rows_kernel(float* x, int64_t x_stride, const float* __restrict__ like, int64_t like_stride, float eps,
                      int64_t size) {
    SHARED_ARRAY(float, of_warps, kNormThreads / 32);
    let_next_kernel_start();
    wait_for_previous_kernel();
    float* const row = x + blockIdx.x * x_stride;
    const float* const model = like + blockIdx.x * like_stride;
    float own = 0.0f, wanted = 0.0f;
    for (int64_t i = threadIdx.x; i < size; i += kNormThreads) {
        own += row[i] * row[i];
        wanted += model[i] * model[i];
    }
    own = block_sum(own, of_warps) / static_cast<float>(size);
    wanted = block_sum(wanted, of_warps) / static_cast<float>(size);
    const float factor = sqrtf(wanted / fmaxf(own, eps));
    for (int64_t i = threadIdx.x; i < size; i += kNormThreads) row[i] *= factor;
}

// Grid: rows, parts of a row.
__global__ void __launch_bounds__(kThreads)
    mix_rows_kernel(const float* __restrict__ x, int64_t x_stride, const float* __restrict__ shares, int64_t shares_stride,
                    float* __restrict__ out, int64_t out_stride, int add, int64_t num_inputs, int64_t num_outputs,
                    int64_t size) {
    let_next_kernel_start();
    wait_for_previous_kernel();
    const float* const row = x + blockIdx.x * x_stride;
    for (int64_t i = blockIdx.y * kThreads + threadIdx.x; i < num_outputs * size; i += int64_t{gridDim.y} * kThreads) {
        const float* const own = shares + blockIdx.x * shares_stride + i / size * num_inputs;
        float sum = add ? out[blockIdx.x * out_stride + i] : 0.0f;
        for (int64_t j = 0; j < num_inputs; ++j) sum = fmaf(row[j * size + i % size], own[j], sum);
        out[blockIdx.x * out_stride + i] = sum;
    }
}

// Grid: rows, parts of a row.
__global__ void __launch_bounds__(kThreads)
    cap_rows_kernel(float* x, int64_t x_stride, float scale, float cap, int64_t size) {
    let_next_kernel_start();
    wait_for_previous_kernel();
    float* const row = x + blockIdx.x * x_stride;
    for (int64_t i = blockIdx.y * kThreads + threadIdx.x; i < size; i += int64_t{gridDim.y} * kThreads)
        row[i] = cap > 0.0f ? cap * tanhf(row[i] * scale / cap) : row[i] * scale;
}

dim3 rows_and_parts(int64_t num_rows, int64_t size) {
    return dim3(static_cast<unsigned>(num_rows), static_cast<unsigned>(std::min<int64_t>(divide_up(size, kThreads), 64)));
}

template <class Word>
__global__ void __launch_bounds__(kThreads)
    copy_pages_kernel(Word* k_cache, Word* v_cache, int64_t num_pages, int64_t words, const int32_t* __restrict__ src,
                      const int32_t* __restrict__ dst) {
    let_next_kernel_start();
    wait_for_previous_kernel();
    const int64_t from = src[blockIdx.y], to = dst[blockIdx.y];
    if (from < 0 || to < 0 || from >= num_pages || to >= num_pages) return;
    Word* const cache = blockIdx.z == 0 ? k_cache : v_cache;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < words; i += gridDim.x * kThreads)
        cache[to * words + i] = cache[from * words + i];
}

template <class Word>
int copy_words(const Device& device, void* k_cache, void* v_cache, int64_t num_pages, int64_t page_bytes,
               const int32_t* src, const int32_t* dst, int64_t count, void* stream) {
    const int64_t words = page_bytes / static_cast<int64_t>(sizeof(Word));
    const unsigned blocks = static_cast<unsigned>(std::min<int64_t>(divide_up(words, kThreads), 64));
    for (int64_t first = 0; first < count; first += kMaxGridY) {
        const unsigned pages = static_cast<unsigned>(std::min(count - first, kMaxGridY));
        const int error = launch(device, copy_pages_kernel<Word>, dim3(blocks, pages, v_cache ? 2 : 1), dim3(kThreads), 0,
                                 stream, k_cache, v_cache, num_pages, words, src + first, dst + first);
        if (error) return error;
    }
    return PARLOR_OK;
}

}  // namespace
}  // namespace parlor

using namespace parlor;

extern "C" int embed(const void* table, int table_dtype, const int32_t* token_ids, float* out, float scale,
                     int64_t num_tokens, int64_t vocab_size, int64_t hidden_size, void* stream) {
    if (num_tokens < 0 || vocab_size < 1 || hidden_size < 1 || num_tokens > kMaxGridX) return PARLOR_ERROR_SIZE;
    if (num_tokens == 0) return PARLOR_OK;
    if (!table || !token_ids || !out || !is_aligned(token_ids, 4) || !is_aligned(out, 4) ||
        !is_aligned(table, table_dtype == PARLOR_F32 ? 4 : 2))
        return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    const dim3 grid(static_cast<unsigned>(num_tokens)), block(kThreads);
    switch (table_dtype) {
        case PARLOR_F32: return launch(device, embed_kernel<float>, grid, block, 0, stream,
                                       static_cast<const float*>(table), token_ids, out, scale, vocab_size, hidden_size);
        case PARLOR_F16: return launch(device, embed_kernel<half>, grid, block, 0, stream,
                                       static_cast<const half*>(table), token_ids, out, scale, vocab_size, hidden_size);
        case PARLOR_BF16: return launch(device, embed_kernel<BFloat16>, grid, block, 0, stream,
                                        static_cast<const BFloat16*>(table), token_ids, out, scale, vocab_size, hidden_size);
        default: return PARLOR_ERROR_DTYPE;
    }
}

extern "C" int norm_rows(const float* x, int64_t x_stride, const float* weight, const float* bias, int is_shared,
                         float eps, int kind, float* out, int64_t out_stride, int add, float scale, int64_t num_rows,
                         int64_t num_groups, int64_t size, void* stream) {
    if (num_rows < 0 || num_rows > kMaxGridX || num_groups < 1 || num_groups > kMaxGridY || size < 1 ||
        x_stride < num_groups * size || out_stride < num_groups * size)
        return PARLOR_ERROR_SIZE;
    if (kind < PARLOR_NORM_NONE || kind > PARLOR_NORM_LAYER || !(eps >= 0.0f)) return PARLOR_ERROR_VALUE;
    if (num_rows == 0) return PARLOR_OK;
    if (!x || !out || !is_aligned(x, 4) || !is_aligned(out, 4) || (weight && !is_aligned(weight, 4)) ||
        (bias && !is_aligned(bias, 4)))
        return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    const Norm n{x, x_stride, weight, bias, is_shared ? 0 : size, eps, kind, out, out_stride, add != 0, scale, size};
    const dim3 grid(static_cast<unsigned>(num_rows), static_cast<unsigned>(num_groups));
    return launch(device, norm_rows_kernel, grid, dim3(kNormThreads), 0, stream, n);
}

extern "C" int activate(const float* x, int64_t x_stride, float* out, int64_t out_stride, int kind, int is_gated,
                        int64_t num_rows, int64_t size, void* stream) {
    if (num_rows < 0 || num_rows > kMaxGridX || size < 1 || x_stride < (is_gated ? 2 : 1) * size || out_stride < size)
        return PARLOR_ERROR_SIZE;
    if (kind < PARLOR_ACTIVATION_SILU || kind > PARLOR_ACTIVATION_NONE) return PARLOR_ERROR_VALUE;
    if (num_rows == 0) return PARLOR_OK;
    if (!x || !out || !is_aligned(x, 4) || !is_aligned(out, 4)) return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    return launch(device, activate_kernel, rows_and_parts(num_rows, size), dim3(kThreads), 0, stream, x, x_stride,
                  is_gated ? x + size : nullptr, x_stride, out, out_stride, kind, size);
}

extern "C" int gate_rows(const float* x, int64_t x_stride, const float* gate, int64_t gate_stride, float* out,
                         int64_t out_stride, int kind, int64_t num_rows, int64_t size, void* stream) {
    if (num_rows < 0 || num_rows > kMaxGridX || size < 1 || x_stride < size || gate_stride < size || out_stride < size)
        return PARLOR_ERROR_SIZE;
    if (kind < PARLOR_ACTIVATION_SILU || kind > PARLOR_ACTIVATION_NONE || kind == PARLOR_ACTIVATION_CLAMPED)
        return PARLOR_ERROR_VALUE;
    if (num_rows == 0) return PARLOR_OK;
    if (!x || !gate || !out || !is_aligned(x, 4) || !is_aligned(gate, 4) || !is_aligned(out, 4))
        return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    return launch(device, activate_kernel, rows_and_parts(num_rows, size), dim3(kThreads), 0, stream, gate, gate_stride, x,
                  x_stride, out, out_stride, kind, size);
}

extern "C" int softplus_rows(const float* x, int64_t x_stride, const float* bias, const float* scale, float low,
                             float high, float* out, int64_t out_stride, int64_t num_rows, int64_t size, void* stream) {
    if (num_rows < 0 || num_rows > kMaxGridX || size < 1 || x_stride < size || out_stride < size) return PARLOR_ERROR_SIZE;
    if (!(low <= high)) return PARLOR_ERROR_VALUE;
    if (num_rows == 0) return PARLOR_OK;
    if (!x || !out || !is_aligned(x, 4) || !is_aligned(out, 4) || !is_aligned(bias, 4) || !is_aligned(scale, 4))
        return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    return launch(device, softplus_rows_kernel, rows_and_parts(num_rows, size), dim3(kThreads), 0, stream, x, x_stride,
                  bias, scale, low, high, out, out_stride, size);
}

extern "C" int xielu_rows(const float* x, int64_t x_stride, float* out, int64_t out_stride, float above, float below,
                          int64_t num_rows, int64_t size, void* stream) {
    if (num_rows < 0 || num_rows > kMaxGridX || size < 1 || x_stride < size || out_stride < size) return PARLOR_ERROR_SIZE;
    if (num_rows == 0) return PARLOR_OK;
    if (!x || !out || !is_aligned(x, 4) || !is_aligned(out, 4)) return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    return launch(device, xielu_kernel, rows_and_parts(num_rows, size), dim3(kThreads), 0, stream, x, x_stride, out,
                  out_stride, above, below, size);
}

extern "C" int cut_rows(float* x, int64_t x_stride, float deviations, int64_t num_rows, int64_t size, void* stream) {
    if (num_rows < 0 || num_rows > kMaxGridX || size < 1 || x_stride < size) return PARLOR_ERROR_SIZE;
    if (num_rows == 0) return PARLOR_OK;
    if (!x || !is_aligned(x, 4)) return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    return launch(device, cut_rows_kernel, dim3(static_cast<unsigned>(num_rows)), dim3(kNormThreads), 0, stream, x, x_stride,
                  deviations, size);
}

extern "C" int match_rows(float* x, int64_t x_stride, const float* like, int64_t like_stride, float eps,
                          int64_t num_rows, int64_t size, void* stream) {
    if (num_rows < 0 || num_rows > kMaxGridX || size < 1 || x_stride < size || like_stride < size) return PARLOR_ERROR_SIZE;
    if (!(eps > 0.0f)) return PARLOR_ERROR_VALUE;
    if (num_rows == 0) return PARLOR_OK;
    if (!x || !like || !is_aligned(x, 4) || !is_aligned(like, 4)) return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    return launch(device, match_rows_kernel, dim3(static_cast<unsigned>(num_rows)), dim3(kNormThreads), 0, stream, x,
                  x_stride, like, like_stride, eps, size);
}

extern "C" int mix_rows(const float* x, int64_t x_stride, const float* shares, int64_t shares_stride, float* out,
                        int64_t out_stride, int add, int64_t num_rows, int64_t num_inputs, int64_t num_outputs,
                        int64_t size, void* stream) {
    if (num_rows < 0 || num_rows > kMaxGridX || num_inputs < 1 || num_outputs < 1 || size < 1 ||
        x_stride < num_inputs * size || shares_stride < num_outputs * num_inputs || out_stride < num_outputs * size)
        return PARLOR_ERROR_SIZE;
    if (num_rows == 0) return PARLOR_OK;
    if (!x || !shares || !out || !is_aligned(x, 4) || !is_aligned(shares, 4) || !is_aligned(out, 4))
        return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    return launch(device, mix_rows_kernel, rows_and_parts(num_rows, num_outputs * size), dim3(kThreads), 0, stream, x,
                  x_stride, shares, shares_stride, out, out_stride, add, num_inputs, num_outputs, size);
}

extern "C" int cap_rows(float* x, int64_t x_stride, float scale, float cap, int64_t num_rows, int64_t size, void* stream) {
    if (num_rows < 0 || num_rows > kMaxGridX || size < 1 || x_stride < size) return PARLOR_ERROR_SIZE;
    if (!(cap >= 0.0f)) return PARLOR_ERROR_VALUE;
    if (num_rows == 0) return PARLOR_OK;
    if (!x || !is_aligned(x, 4)) return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    return launch(device, cap_rows_kernel, rows_and_parts(num_rows, size), dim3(kThreads), 0, stream, x, x_stride, scale,
                  cap, size);
}

extern "C" int copy_pages(void* k_cache, void* v_cache, int64_t num_pages, int64_t page_bytes, const int32_t* src,
                          const int32_t* dst, int64_t count, void* stream) {
    if (count < 0 || num_pages < 1 || page_bytes < 1) return PARLOR_ERROR_SIZE;
    if (count == 0) return PARLOR_OK;
    if (!k_cache || !src || !dst || !is_aligned(src, 4) || !is_aligned(dst, 4)) return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    if (page_bytes % 16 == 0 && is_aligned(k_cache, 16) && is_aligned(v_cache, 16))
        return copy_words<uint4>(device, k_cache, v_cache, num_pages, page_bytes, src, dst, count, stream);
    return copy_words<unsigned char>(device, k_cache, v_cache, num_pages, page_bytes, src, dst, count, stream);
}
