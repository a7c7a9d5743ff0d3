// Rotary embedding of queries and keys, and writing keys and values into the cache: plain, or multiplied by a
// Hadamard matrix and rounded to 8 or 4 bits.
//
// One block a token and head, of many tokens a run of them. Bound by the launch when decoding (a token of 32 heads is 48 KB,
// 0.01 us at 4.3 TB/s), and by memory for prompts: 4 bytes a number of qkv, read, and written for the queries, plus the
// cache's bytes. Keys lie transposed in their page, so those of a run are stored along its tokens.
// A word of 4-bit values is shared by eight tokens, so their codes are put in with atomic and, or: no order matters.
// Reference: rope_write_kv() in model/kernels/reference/operations.py.
#include <cmath>

#include "cache.cuh"

namespace parlor {
namespace {

constexpr int kThreads = 128;
constexpr int kRun = 16;        // tokens of a block where there are many
constexpr int kFewTokens = 64;  // of fewer each has blocks of its own
constexpr int kRunHeadDim = 512;  // a run of longer ones is more than the 48 KB that any kernel may have

struct Rope {
    float* qkv;
    int64_t qkv_stride;
    const float *cos_table, *sin_table;  // null: nothing is rotated
    const float* query_scale;            // or null
    int rotary_dim;
    bool is_interleaved;
    int64_t max_positions;
    const int32_t* positions;
    const int64_t* slots;
    int64_t num_heads;
    Cache cache;
};

// The threads that share a row: of the block or of a warp.
struct Team {
    int first, count;
};

// out = the first rotary_dim of x rotated, times factor.
__device__ __forceinline__ void rotate_pairs(const float* x, const float* cosines, const float* sines, int rotary_dim,
                                             bool is_interleaved, float factor, float* out, Team team) {
    const int half_dim = rotary_dim / 2;
#pragma unroll 2
    for (int i = team.first; i < half_dim; i += team.count) {
        const int first = is_interleaved ? 2 * i : i, second = is_interleaved ? 2 * i + 1 : i + half_dim;
        const float low = x[first], high = x[second], cosine = cosines[i], sine = sines[i];
        out[first] = (low * cosine - high * sine) * factor;
        out[second] = (high * cosine + low * sine) * factor;
    }
}

// Grid: tokens, heads. In place: a pair is one thread's own.
__global__ void __launch_bounds__(kThreads)
    rotate_heads_kernel(float* x, int64_t x_stride, const float* __restrict__ cos_table, const float* __restrict__ sin_table,
                        int64_t max_positions, const int32_t* __restrict__ positions, bool is_interleaved, int64_t head_dim,
                        int rotary_dim) {
    let_next_kernel_start();
    wait_for_previous_kernel();
    const int32_t position = positions[blockIdx.x];
    const bool is_known = position >= 0 && position < max_positions;
    const int64_t first = (is_known ? position : 0) * int64_t{rotary_dim / 2};
    float* const head = x + blockIdx.x * x_stride + blockIdx.y * head_dim;
    rotate_pairs(head, cos_table + first, sin_table + first, rotary_dim, is_interleaved, is_known ? 1.0f : NAN, head,
                 {static_cast<int>(threadIdx.x), kThreads});
}

// One code of each dimension of a key: the words are this token's own.
template <int kKind>
__device__ __forceinline__ void store_key_codes(const Cache& c, char* block, int64_t slot, const unsigned* codes) {
    constexpr int kCodes = codes_of_word(kKind);
    uint32_t* const words = reinterpret_cast<uint32_t*>(block);
    for (int i = threadIdx.x; i < c.head_dim / kCodes; i += kThreads) {
        uint32_t word = 0;
        for (int j = 0; j < kCodes; ++j) word |= codes[i * kCodes + j] << (32 / kCodes * j);
        words[i * c.page_size + slot] = word;
    }
}

template <int kKind>
__device__ __forceinline__ void store_value_codes(const Cache& c, char* block, int64_t slot, const unsigned* codes) {
    constexpr int kCodes = codes_of_word(kKind), kBits = 32 / kCodes;
    uint32_t* const words = reinterpret_cast<uint32_t*>(block) + slot / kCodes * c.head_dim;
    const int shift = static_cast<int>(slot % kCodes) * kBits;
    for (int d = threadIdx.x; d < c.head_dim; d += kThreads) {
        if (kKind == PARLOR_Q8) {
            reinterpret_cast<uint8_t*>(words + d)[slot % kCodes] = static_cast<uint8_t>(codes[d]);
        } else {
            atomicAnd(words + d, ~(15u << shift));
            atomicOr(words + d, codes[d] << shift);
        }
    }
}

// `values` [head_dim], rotated: its codes and scales into the block.
template <int kKind>
__device__ __forceinline__ void store_rounded(const Cache& c, bool is_key, char* block, int64_t slot, const float* values,
                                              unsigned* codes) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, head_dim = static_cast<int>(c.head_dim);
    for (int group = warp; group * kScaleGroup < head_dim; group += kThreads / 32) {
        const int d = group * kScaleGroup + lane;
        const float value = d < head_dim ? values[d] : 0.0f;
        const half scale = __float2half_rn(warp_max(fabsf(value)) / (kKind == PARLOR_Q8 ? 127.0f : 8.0f));
        const float step = __half2float(scale), inverse = step == 0.0f ? 0.0f : 1.0f / step;
        const float code = kKind == PARLOR_Q8 ? fminf(fmaxf(rintf(value * inverse), -127.0f), 127.0f)
                                              : fminf(fmaxf(floorf(value * inverse) + 8.0f, 0.0f), 15.0f);
        if (d < head_dim) codes[d] = static_cast<unsigned>(static_cast<int>(code)) & (kKind == PARLOR_Q8 ? 0xffu : 15u);
        if (lane == 0) *scale_of<kKind>(c, block, group, slot) = scale;
    }
    __syncthreads();
    if (is_key)
        store_key_codes<kKind>(c, block, slot, codes);
    else
        store_value_codes<kKind>(c, block, slot, codes);
}

template <int kKind>
__device__ __forceinline__ void store_plain(const Cache& c, bool is_key, char* block, int64_t slot, const float* values,
                                            Team team) {
    for (int64_t d = team.first; d < c.head_dim; d += team.count) {
        const int64_t index = is_key ? d * c.page_size + slot : slot * c.head_dim + d;
        if (kKind == PARLOR_F32)
            reinterpret_cast<float*>(block)[index] = values[d];
        else
            reinterpret_cast<half*>(block)[index] = __float2half_rn(values[d]);
    }
}

// One of the heads side by side in a row of qkv.
struct Head {
    int64_t index;  // among the keys or the values, unless it is a query
    bool is_query, is_value;
};
__device__ __forceinline__ Head head_of(const Rope& r, int64_t head) {
    const bool is_query = head < r.num_heads, is_value = head >= r.num_heads + r.cache.num_kv_heads;
    return {head - (is_query ? 0 : r.num_heads) - (is_value ? r.cache.num_kv_heads : 0), is_query, is_value};
}

// values = the head x of a token, rotated unless it is a value.
__device__ __forceinline__ void rotate_row(const Rope& r, const Head& head, int64_t token, const float* x, float* values,
                                           Team team) {
    const int32_t position = r.positions[token];
    const bool is_known = position >= 0 && position < r.max_positions;
    const int rotary_dim = head.is_value || !r.cos_table ? 0 : r.rotary_dim;
    const float factor = !head.is_query || !r.query_scale ? 1.0f : is_known ? r.query_scale[position] : NAN;
    if (rotary_dim > 0) {
        const int64_t first = (is_known ? position : 0) * int64_t{rotary_dim / 2};
        rotate_pairs(x, r.cos_table + first, r.sin_table + first, rotary_dim, r.is_interleaved, is_known ? factor : NAN,
                     values, team);
    }
    for (int64_t d = rotary_dim + team.first; d < r.cache.head_dim; d += team.count) values[d] = x[d] * factor;
}

// Grid: tokens, heads (queries, keys, values).
template <int kKind>
__global__ void __launch_bounds__(kThreads) rope_kernel(const Rope r) {
    SHARED_ARRAY(float, values, kMaxHeadDim);
    SHARED_ARRAY(unsigned, codes, is_rounded(kKind) ? kMaxHeadDim : 1);
    let_next_kernel_start();
    wait_for_previous_kernel();
    const Cache& c = r.cache;
    const int64_t token = blockIdx.x;
    const Head head = head_of(r, blockIdx.y);
    const Team team{static_cast<int>(threadIdx.x), kThreads};
    float* const x = r.qkv + token * r.qkv_stride + blockIdx.y * c.head_dim;
    const int64_t slot = head.is_query ? 0 : r.slots[token];
    if (slot < 0 || slot >= c.num_pages * c.page_size) return;  // the same for the whole block
    rotate_row(r, head, token, x, values, team);
    __syncthreads();
    if (is_rounded(kKind)) rotate_head(values, static_cast<int>(c.head_dim));
    if (head.is_query) {
        for (int64_t d = threadIdx.x; d < c.head_dim; d += kThreads) x[d] = values[d];
        return;
    }
    char* const block = block_of(c, head.is_value ? c.values : c.keys, slot / c.page_size, head.index);
    if constexpr (is_rounded(kKind))
        store_rounded<kKind>(c, !head.is_value, block, slot % c.page_size, values, codes);
    else
        store_plain<kKind>(c, !head.is_value, block, slot % c.page_size, values, team);
}

// The same for many tokens and caches that are not rounded. Grid: runs of tokens, heads.
template <int kKind>
__global__ void __launch_bounds__(kThreads) rope_run_kernel(const Rope r, int64_t num_tokens) {
    DYNAMIC_SHARED(float, values);  // [kRun][head_dim + 1]: written along dimensions, keys are read along tokens
    SHARED_ARRAY(int64_t, offsets, kRun);  // in bytes, of the blocks that they are written to
    SHARED_ARRAY(int, slots, kRun);        // in these; -1: it is not written
    let_next_kernel_start();
    wait_for_previous_kernel();
    const Cache& c = r.cache;
    const int64_t first = static_cast<int64_t>(blockIdx.x) * kRun;
    const Head head = head_of(r, blockIdx.y);
    const int count = static_cast<int>(num_tokens - first < kRun ? num_tokens - first : kRun);
    const int head_dim = static_cast<int>(c.head_dim), stride = head_dim + 1, thread = threadIdx.x, warp = thread / 32;
    const Team lanes{thread % 32, 32};
    float* const x = r.qkv + first * r.qkv_stride + blockIdx.y * c.head_dim;
    if (thread < count) {
        const int64_t slot = head.is_query ? 0 : r.slots[first + thread];
        const bool is_known = slot >= 0 && slot < c.num_pages * c.page_size;
        slots[thread] = is_known ? static_cast<int>(slot % c.page_size) : -1;
        offsets[thread] = ((is_known ? slot / c.page_size : 0) * c.num_kv_heads + head.index) * c.block_bytes;
    }
    for (int t = warp; t < count; t += kThreads / 32) {
        rotate_row(r, head, first + t, x + t * r.qkv_stride, values + t * stride, lanes);
        __syncwarp();
        if (!head.is_query) continue;
        for (int d = lanes.first; d < head_dim; d += lanes.count) x[t * r.qkv_stride + d] = values[t * stride + d];
    }
    __syncthreads();
    if (head.is_query) return;
    char* const cache = static_cast<char*>(head.is_value ? c.values : c.keys);
    if (head.is_value) {
        for (int t = warp; t < count; t += kThreads / 32)
            if (slots[t] >= 0) store_plain<kKind>(c, false, cache + offsets[t], slots[t], values + t * stride, lanes);
    } else {
        const int t = thread % kRun;
        if (t < count && slots[t] >= 0)
            store_plain<kKind>(c, true, cache + offsets[t], slots[t], values + t * stride,
                               {thread / kRun, kThreads / kRun});
    }
}

template <int kKind>
int launch_rope(const Device& device, const Rope& r, int64_t num_tokens, int64_t heads, void* stream) {
    const unsigned width = static_cast<unsigned>(heads);
    if constexpr (!is_rounded(kKind)) {
        const dim3 grid(static_cast<unsigned>(divide_up(num_tokens, kRun)), width);
        const size_t shared = static_cast<size_t>(kRun * (r.cache.head_dim + 1)) * sizeof(float);
        if (num_tokens >= kFewTokens && r.cache.head_dim <= kRunHeadDim)
            return launch(device, rope_run_kernel<kKind>, grid, dim3(kThreads), shared, stream, r, num_tokens);
    }
    const dim3 grid(static_cast<unsigned>(num_tokens), width);
    return launch(device, rope_kernel<kKind>, grid, dim3(kThreads), 0, stream, r);
}

}  // namespace
}  // namespace parlor

using namespace parlor;

extern "C" int rotate_heads(float* x, int64_t x_stride, const float* cos_table, const float* sin_table,
                            int64_t max_positions, const int32_t* positions, int is_interleaved, int64_t num_tokens,
                            int64_t num_heads, int64_t head_dim, int64_t rotary_dim, void* stream) {
    if (num_tokens < 0 || num_tokens > kMaxGridX || num_heads < 1 || num_heads > kMaxGridY || max_positions < 1 ||
        head_dim < 1 || head_dim > kMaxHeadDim || rotary_dim < 2 || rotary_dim % 2 != 0 || rotary_dim > head_dim ||
        x_stride < num_heads * head_dim)
        return PARLOR_ERROR_SIZE;
    if (num_tokens == 0) return PARLOR_OK;
    if (!x || !cos_table || !sin_table || !positions || !is_aligned(x, 4) || !is_aligned(positions, 4))
        return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    const dim3 grid(static_cast<unsigned>(num_tokens), static_cast<unsigned>(num_heads));
    return launch(device, rotate_heads_kernel, grid, dim3(kThreads), 0, stream, x, x_stride, cos_table, sin_table,
                  max_positions, positions, is_interleaved != 0, head_dim, static_cast<int>(rotary_dim));
}

extern "C" int rope_write_kv(float* qkv, int64_t qkv_stride, const float* cos_table, const float* sin_table,
                             const float* query_scale, int64_t max_positions, const int32_t* positions,
                             const int64_t* slot_mapping, void* k_cache, void* v_cache, int cache_dtype,
                             int64_t num_pages, int64_t page_size, int64_t num_tokens, int64_t num_heads,
                             int64_t num_kv_heads, int64_t head_dim, int64_t rotary_dim, int is_interleaved, void* stream) {
    if (const int error = check_cache(k_cache, v_cache, cache_dtype, num_pages, page_size, num_kv_heads, head_dim))
        return error;
    const int64_t heads = num_heads + (v_cache ? 2 : 1) * num_kv_heads;
    if (num_tokens < 0 || num_tokens > kMaxGridX || num_heads < 1 || heads > kMaxGridY || max_positions < 1 ||
        qkv_stride < heads * head_dim || rotary_dim < 0 || rotary_dim % 2 != 0 || rotary_dim > head_dim)
        return PARLOR_ERROR_SIZE;
    if (num_tokens == 0) return PARLOR_OK;
    if (!qkv || (cos_table && !sin_table) || !positions || !slot_mapping || !is_aligned(qkv, 4) ||
        !is_aligned(positions, 4) || !is_aligned(slot_mapping, 8))
        return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    const Rope r{qkv, qkv_stride, cos_table, sin_table, query_scale, static_cast<int>(rotary_dim),
                 is_interleaved != 0, max_positions, positions, slot_mapping, num_heads,
                 {k_cache, v_cache, num_pages, page_size, num_kv_heads, head_dim,
                  cache_block_bytes(cache_dtype, page_size, head_dim)}};
    switch (cache_dtype) {
        case PARLOR_F32: return launch_rope<PARLOR_F32>(device, r, num_tokens, heads, stream);
        case PARLOR_F16: return launch_rope<PARLOR_F16>(device, r, num_tokens, heads, stream);
        case PARLOR_Q8: return launch_rope<PARLOR_Q8>(device, r, num_tokens, heads, stream);
        default: return launch_rope<PARLOR_Q4>(device, r, num_tokens, heads, stream);
    }
}
