// The cache of one sequence as two plain tensors, for the attention of a prompt by another library's matrix products.
//
//   keys, values  float16 [num_kv_heads, num_keys, head_dim]
//
// Keys of the rounded kinds stay multiplied by the Hadamard matrix, as the queries that rope_write_kv leaves are; values
// are not, so that a product with them is the result. A block has 16 keys of a head, or 32 of float16 in whole pages.
// Bound by memory: the cache's bytes read and 4 bytes a number written (2,048 keys of Llama-2-7B, float16: 67 MB a
// layer, 16 us at 4.3 TB/s), which a prompt's chunk does once.
// Reference: read_keys() and read_values() in model/kernels/reference/cache.py.
#include <cmath>

#include "cache.cuh"

namespace parlor {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kKeys = 16;
constexpr int kRun = 32;        // keys of a block of float16 that lie in whole runs in their pages
constexpr int kOfLoad = 8;      // numbers that a thread reads with one load
constexpr int kRunPadding = 2;  // halfs: rows of the tile then begin in different banks

struct Gather {
    Cache cache;
    const int32_t* pages;
    int64_t num_keys;
    half *keys, *values;
};

// Number d of the key or value in `slot`.
template <int kKind>
__device__ __forceinline__ float read_number(const Cache& c, char* block, bool is_key, int64_t slot, int d) {
    if constexpr (is_rounded(kKind)) {
        constexpr int kCodes = codes_of_word(kKind);
        const uint32_t* const words = reinterpret_cast<const uint32_t*>(block);
        const uint32_t word = is_key ? words[d / kCodes * c.page_size + slot] : words[slot / kCodes * c.head_dim + d];
        const int index = (is_key ? d : static_cast<int>(slot)) % kCodes;
        return number_of<kKind>(word, index) * __half2float(*scale_of<kKind>(c, block, d / kScaleGroup, slot));
    } else {
        const int64_t index = is_key ? d * c.page_size + slot : slot * c.head_dim + d;
        return kKind == PARLOR_F32 ? reinterpret_cast<const float*>(block)[index]
                                   : __half2float(reinterpret_cast<const half*>(block)[index]);
    }
}

// Grid: runs of 16 keys, heads, keys or values.
template <int kKind>
__global__ void __launch_bounds__(kThreads) gather_kernel(const Gather g) {
    DYNAMIC_SHARED(float, tile);  // [kKeys][head_dim + 1]: written along keys, read along dimensions
    SHARED_ARRAY(int64_t, offsets, kKeys);  // in bytes, of the block of each key's page
    SHARED_ARRAY(int, slots, kKeys);        // in it; -1: there is no such page
    let_next_kernel_start();
    wait_for_previous_kernel();
    const Cache& c = g.cache;
    const int head_dim = static_cast<int>(c.head_dim), stride = head_dim + 1;
    const int64_t first = static_cast<int64_t>(blockIdx.x) * kKeys, head = blockIdx.y;
    const int count = static_cast<int>(g.num_keys - first < kKeys ? g.num_keys - first : kKeys);
    const bool is_key = blockIdx.z == 0;
    const bool lies_as_key = is_key || !c.values;
    char* const cache = static_cast<char*>(lies_as_key ? c.keys : c.values);
    const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
    if (thread < count) {  // once: divisions of 64 bits take a hundred instructions
        const int64_t page = g.pages[(first + thread) / c.page_size];
        const bool is_known = page >= 0 && page < c.num_pages;
        offsets[thread] = ((is_known ? page : 0) * c.num_kv_heads + head) * c.block_bytes;
        slots[thread] = is_known ? static_cast<int>((first + thread) % c.page_size) : -1;
    }
    __syncthreads();
    const auto read = [&](int row, int first_number, int step) {
        const int slot = slots[row];
        char* const block = cache + offsets[row];
#pragma unroll 8
        for (int d = first_number; d < head_dim; d += step) {
            const float number = read_number<kKind>(c, block, lies_as_key, slot < 0 ? 0 : slot, d);
            tile[row * stride + d] = slot < 0 ? NAN : number;
        }
    };
    if (!lies_as_key)
        for (int row = warp; row < count; row += kWarps) read(row, lane, 32);
    else if (thread % kKeys < count)
        read(thread % kKeys, thread / kKeys, kThreads / kKeys);
    __syncthreads();
    if (is_rounded(kKind) && !is_key)
        for (int row = 0; row < count; ++row) rotate_head(tile + row * stride, head_dim);
    half* const out = (is_key ? g.keys : g.values) + (head * g.num_keys + first) * head_dim;
    for (int row = warp; row < count; row += kWarps) {
        const float* const numbers = tile + row * stride;
        half2* const pairs = reinterpret_cast<half2*>(out + row * head_dim);
        for (int i = lane; i < head_dim / 2; i += 32) pairs[i] = __floats2half2_rn(numbers[2 * i], numbers[2 * i + 1]);
    }
}

// The same of float16 in pages of whole runs: all of a block's numbers are on their way at once, by 16 bytes. Values lie as
// they are wanted; keys are turned in shared memory. Grid: runs of kRun keys, heads, keys or values.
__global__ void __launch_bounds__(kThreads) gather_runs_kernel(const Gather g) {
    DYNAMIC_SHARED(half, tile);  // [kRun][head_dim + kRunPadding]
    let_next_kernel_start();
    wait_for_previous_kernel();
    const Cache& c = g.cache;
    const int head_dim = static_cast<int>(c.head_dim), stride = head_dim + kRunPadding, loads = head_dim * kRun / kOfLoad;
    const int64_t first = static_cast<int64_t>(blockIdx.x) * kRun, head = blockIdx.y;
    const int count = static_cast<int>(g.num_keys - first < kRun ? g.num_keys - first : kRun);
    const bool is_key = blockIdx.z == 0, lies_as_key = is_key || !c.values;
    const int64_t page = g.pages[first / c.page_size], slot = first % c.page_size;
    const bool is_known = page >= 0 && page < c.num_pages;
    const char* const block = block_of(c, lies_as_key ? c.keys : c.values, is_known ? page : 0, head);
    uint4* const out = reinterpret_cast<uint4*>((is_key ? g.keys : g.values) + (head * g.num_keys + first) * head_dim);
    const uint32_t nan = is_known ? 0 : 0x7fff7fffu;  // or-ed into what lies elsewhere
    const int of_key = head_dim / kOfLoad;
    if (!lies_as_key) {
        const uint4* const values = reinterpret_cast<const uint4*>(block) + slot * of_key;
#pragma unroll 4
        for (int i = threadIdx.x; i < count * of_key; i += kThreads) {
            const uint4 loaded = values[i];
            out[i] = make_uint4(loaded.x | nan, loaded.y | nan, loaded.z | nan, loaded.w | nan);
        }
        return;
    }
    constexpr int kChunks = kRun / kOfLoad;
    const half* const keys = reinterpret_cast<const half*>(block) + slot;
#pragma unroll 4
    for (int i = threadIdx.x; i < loads; i += kThreads) {
        const int d = i / kChunks, key = i % kChunks * kOfLoad;
        const uint4 loaded = *reinterpret_cast<const uint4*>(keys + d * c.page_size + key);
        const uint32_t words[4] = {loaded.x | nan, loaded.y | nan, loaded.z | nan, loaded.w | nan};
#pragma unroll
        for (int j = 0; j < kOfLoad; ++j)
            tile[(key + j) * stride + d] = __ushort_as_half(static_cast<unsigned short>(words[j / 2] >> (16 * (j % 2))));
    }
    __syncthreads();
    for (int i = threadIdx.x; i < count * of_key; i += kThreads) {
        const uint32_t* const words = reinterpret_cast<const uint32_t*>(tile + i / of_key * stride + i % of_key * kOfLoad);
        out[i] = make_uint4(words[0], words[1], words[2], words[3]);
    }
}

}  // namespace
}  // namespace parlor

using namespace parlor;

extern "C" int gather_pages(const void* k_cache, const void* v_cache, int cache_dtype, int64_t num_pages, int64_t page_size,
                            int64_t num_kv_heads, int64_t head_dim, const int32_t* pages, int64_t num_keys, uint16_t* keys,
                            uint16_t* values, void* stream) {
    if (const int error = check_cache(k_cache, v_cache, cache_dtype, num_pages, page_size, num_kv_heads, head_dim))
        return error;
    if (num_keys < 0 || divide_up(num_keys, kKeys) > kMaxGridX) return PARLOR_ERROR_SIZE;
    if (num_keys == 0) return PARLOR_OK;
    if (!pages || !keys || !values || !is_aligned(pages, 4) || !is_aligned(keys, 4) || !is_aligned(values, 4))
        return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    const size_t shared = static_cast<size_t>(kKeys * (head_dim + 1)) * sizeof(float);
    if (static_cast<int64_t>(shared) > device.shared_bytes) return PARLOR_ERROR_SIZE;
    const Gather g{{const_cast<void*>(k_cache), const_cast<void*>(v_cache), num_pages, page_size, num_kv_heads, head_dim,
                    cache_block_bytes(cache_dtype, page_size, head_dim)},
                   pages, num_keys, reinterpret_cast<half*>(keys), reinterpret_cast<half*>(values)};
    if (cache_dtype == PARLOR_F16 && page_size % kRun == 0 && head_dim % kOfLoad == 0 && is_aligned(k_cache, 16) &&
        is_aligned(v_cache, 16) && is_aligned(keys, 16) && is_aligned(values, 16)) {
        const dim3 runs(static_cast<unsigned>(divide_up(num_keys, kRun)), static_cast<unsigned>(num_kv_heads), 2);
        const size_t bytes = sizeof(half) * static_cast<size_t>(kRun * (head_dim + kRunPadding));
        return launch(device, gather_runs_kernel, runs, dim3(kThreads), bytes, stream, g);
    }
    const dim3 grid(static_cast<unsigned>(divide_up(num_keys, kKeys)), static_cast<unsigned>(num_kv_heads), 2);
    switch (cache_dtype) {
        case PARLOR_F32: return launch(device, gather_kernel<PARLOR_F32>, grid, dim3(kThreads), shared, stream, g);
        case PARLOR_F16: return launch(device, gather_kernel<PARLOR_F16>, grid, dim3(kThreads), shared, stream, g);
        case PARLOR_Q8: return launch(device, gather_kernel<PARLOR_Q8>, grid, dim3(kThreads), shared, stream, g);
        default: return launch(device, gather_kernel<PARLOR_Q4>, grid, dim3(kThreads), shared, stream, g);
    }
}
