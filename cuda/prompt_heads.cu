// Queries, keys and values of a prompt, of a product in float16: rotated, put into the cache, and left as tensors for another
// library's attention. Where a sequence has nothing else in the cache its keys need not be gathered from there.
//
// A block has a head of the tokens of a page, a thread eight dimensions and those that are rotated with them. Bound by memory:
// 4 bytes a number of queries, 6 of keys and values; 2,048 rows of Llama-2-7B are 134 MB, 31 us at 4.3 TB/s.
// Reference: rope_write_kv() in model/kernels/reference/operations.py.
#include <cmath>

#include "cache.cuh"
#include "prompts.cuh"

namespace parlor {
namespace {

constexpr int kRun = 32;        // tokens of a block
constexpr int kRunPadding = 2;  // halfs: rows of the tile then begin in different banks

struct Projected {
    Halfs product;  // [tokens, heads of queries, keys and values]
    const float *cosines, *sines;
    int64_t max_positions;
    const int32_t* positions;
    const int64_t* slots;
    int64_t num_tokens;
    int num_heads, offset;  // offset: tokens of the first run that belong to what was there before
    bool is_interleaved;
    Cache cache;
    half *queries, *keys, *values;  // [tokens, heads, head_dim]; keys and values null: not wanted
};

// Eight numbers of the lower half of a head, and those that are rotated with them: of the upper half, or neighbours.
__device__ __forceinline__ void rotate_8(const Projected& p, int64_t angles, int d, int half_dim, float factor,
                                         float (&low)[kAtOnce], float (&high)[kAtOnce]) {
    if (p.is_interleaved) {
#pragma unroll
        for (int upper = 0; upper < 2; ++upper) {
            float* const values = upper ? high : low;
            const int64_t first = angles + (d + upper * half_dim) / 2;
#pragma unroll
            for (int i = 0; i < kAtOnce / 2; ++i) {
                const float cosine = p.cosines[first + i] * factor, sine = p.sines[first + i] * factor;
                const float x = values[2 * i], y = values[2 * i + 1];
                values[2 * i] = x * cosine - y * sine;
                values[2 * i + 1] = y * cosine + x * sine;
            }
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
        const float cosine = p.cosines[angles + d + i] * factor, sine = p.sines[angles + d + i] * factor;
        const float x = low[i], y = high[i];
        low[i] = x * cosine - y * sine;
        high[i] = y * cosine + x * sine;
    }
}

// Grid: runs of tokens that lie in a page each, if slots follow each other; heads. Keys lie transposed in their page: they go
// through shared memory, and eight of a dimension are stored at once.
__global__ void __launch_bounds__(kRowThreads) rope_keep_kernel(const Projected p) {
    DYNAMIC_SHARED(half, tile);  // [head_dim][kRun + kRunPadding]
    SHARED_ARRAY(int64_t, slots, kRun);  // -1: not kept
    let_next_kernel_start();
    wait_for_previous_kernel();
    const Cache& c = p.cache;
    constexpr int kStride = kRun + kRunPadding;
    const int head_dim = static_cast<int>(c.head_dim), half_dim = head_dim / 2, kv_heads = static_cast<int>(c.num_kv_heads);
    const int head = blockIdx.y, of_query = p.num_heads;
    const bool is_query = head < of_query, is_value = head >= of_query + kv_heads;
    const int own = head - (is_query ? 0 : of_query) - (is_value ? kv_heads : 0), heads = is_query ? of_query : kv_heads;
    const int64_t first = static_cast<int64_t>(blockIdx.x) * kRun - p.offset;
    const auto is_there = [&](int t) { return first + t >= 0 && first + t < p.num_tokens; };
    if (threadIdx.x < kRun) {
        const int64_t slot = is_there(threadIdx.x) && !is_query ? p.slots[first + threadIdx.x] : -1;
        slots[threadIdx.x] = slot >= 0 && slot < c.num_pages * c.page_size ? slot : -1;
    }
    __syncthreads();
    half* const out = is_query ? p.queries : is_value ? p.values : p.keys;
    const int chunks = half_dim / kAtOnce;
    for (int i = threadIdx.x; i < kRun * chunks; i += kRowThreads) {
        const int t = i / chunks, d = i % chunks * kAtOnce;
        if (!is_there(t)) continue;
        const int64_t token = first + t, column = int64_t{head} * head_dim + d;
        const float factor = p.product.factors[token];
        float low[kAtOnce], high[kAtOnce];
        const uint4 of_low = load_product_8(p.product, token, column), of_high = load_product_8(p.product, token, column + half_dim);
        numbers_of_8(of_low, p.product, column, factor, low);
        numbers_of_8(of_high, p.product, column + half_dim, factor, high);
        if (!is_value) {
            const int32_t position = p.positions[token];
            const bool is_known = position >= 0 && position < p.max_positions;
            rotate_8(p, (is_known ? position : 0) * int64_t{half_dim}, d, half_dim, is_known ? 1.0f : NAN, low, high);
        }
        const uint4 words[2] = {bits_of_8(low, 1.0f), bits_of_8(high, 1.0f)};
#pragma unroll
        for (int upper = 0; upper < 2; ++upper) {
            const int at = d + upper * half_dim;
            if (out) *reinterpret_cast<uint4*>(out + (token * heads + own) * head_dim + at) = words[upper];
            if (is_value && slots[t] >= 0) {
                half* const block = reinterpret_cast<half*>(block_of(c, c.values, slots[t] / c.page_size, own));
                *reinterpret_cast<uint4*>(block + slots[t] % c.page_size * head_dim + at) = words[upper];
            }
            if (is_query || is_value) continue;
            const float* const numbers = upper ? high : low;
#pragma unroll
            for (int j = 0; j < kAtOnce; ++j) tile[(at + j) * kStride + t] = __float2half_rn(numbers[j]);
        }
    }
    if (is_query || is_value) return;
    __syncthreads();
    constexpr int kChunks = kRun / kAtOnce;
    for (int i = threadIdx.x; i < head_dim * kChunks; i += kRowThreads) {
        const int d = i / kChunks, t = i % kChunks * kAtOnce;
        const half* const numbers = tile + d * kStride + t;
        bool is_run = slots[t] >= 0 && slots[t] % kAtOnce == 0;
#pragma unroll
        for (int j = 1; j < kAtOnce; ++j) is_run = is_run && slots[t + j] == slots[t] + j;
        const auto place = [&](int64_t slot) {
            return reinterpret_cast<half*>(block_of(c, c.keys, slot / c.page_size, own)) + d * c.page_size + slot % c.page_size;
        };
        if (is_run) {
            const uint32_t* const pairs = reinterpret_cast<const uint32_t*>(numbers);
            *reinterpret_cast<uint4*>(place(slots[t])) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
            continue;
        }
        for (int j = 0; j < kAtOnce; ++j)
            if (slots[t + j] >= 0) *place(slots[t + j]) = numbers[j];
    }
}

}  // namespace
}  // namespace parlor

using namespace parlor;

extern "C" int prompt_rope_keep(const uint16_t* product, const float* factors, const float* bias, const float* cos_table,
                                const float* sin_table, int64_t max_positions, const int32_t* positions,
                                const int64_t* slot_mapping, void* k_cache, void* v_cache, int64_t num_pages,
                                int64_t page_size, int64_t num_tokens, int64_t offset, int64_t num_heads,
                                int64_t num_kv_heads, int64_t head_dim, int is_interleaved, uint16_t* queries,
                                uint16_t* keys, uint16_t* values, void* stream) {
    if (const int error = check_cache(k_cache, v_cache, PARLOR_F16, num_pages, page_size, num_kv_heads, head_dim)) return error;
    const int64_t heads = num_heads + 2 * num_kv_heads;
    if (num_tokens < 0 || num_heads < 1 || heads > kMaxGridY || max_positions < 1 || head_dim % (2 * kAtOnce) != 0 ||
        head_dim > kMaxHeadDim || page_size % kAtOnce != 0 || offset < 0 || offset >= kRun ||
        divide_up(num_tokens + offset, kRun) > kMaxGridX)
        return PARLOR_ERROR_SIZE;
    if (num_tokens == 0) return PARLOR_OK;
    if (!product || !factors || !v_cache || !cos_table || !sin_table || !positions || !slot_mapping || !queries ||
        !is_aligned(product, 16) || !is_aligned(k_cache, 16) || !is_aligned(v_cache, 16) || !is_aligned(queries, 16) ||
        !is_aligned(keys, 16) || !is_aligned(values, 16) || !is_aligned(positions, 4) || !is_aligned(slot_mapping, 8))
        return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    const Projected p{{reinterpret_cast<const half*>(product), factors, bias, heads * head_dim}, cos_table, sin_table,
                      max_positions, positions, slot_mapping, num_tokens, static_cast<int>(num_heads),
                      static_cast<int>(offset), is_interleaved != 0,
                      {k_cache, v_cache, num_pages, page_size, num_kv_heads, head_dim,
                       cache_block_bytes(PARLOR_F16, page_size, head_dim)},
                      reinterpret_cast<half*>(queries), reinterpret_cast<half*>(keys), reinterpret_cast<half*>(values)};
    const dim3 grid(static_cast<unsigned>(divide_up(num_tokens + offset, kRun)), static_cast<unsigned>(heads));
    const size_t shared = sizeof(half) * static_cast<size_t>(head_dim) * (kRun + kRunPadding);
    return launch(device, rope_keep_kernel, grid, dim3(kRowThreads), shared, stream, p);
}
