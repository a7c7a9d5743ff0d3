// Embedding, and copying pages of the cache.
//
//   embed       out[t] = table[token_ids[t]] as float32          bytes: 2 or 4 read and 4 written a value
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
    embed_kernel(const T* __restrict__ table, const int32_t* __restrict__ token_ids, float* __restrict__ out,
                 int64_t vocab_size, int64_t hidden_size) {
    let_next_kernel_start();
    wait_for_previous_kernel();
    const int64_t token = blockIdx.x;
    const int32_t token_id = token_ids[token];
    const bool is_known = token_id >= 0 && token_id < vocab_size;
    const T* const row = table + (is_known ? token_id : 0) * hidden_size;
    for (int64_t i = threadIdx.x; i < hidden_size; i += kThreads)
        out[token * hidden_size + i] = is_known ? widened(row[i]) : NAN;
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
        const int error = launch(device, copy_pages_kernel<Word>, dim3(blocks, pages, 2), dim3(kThreads), 0, stream,
                                 k_cache, v_cache, num_pages, words, src + first, dst + first);
        if (error) return error;
    }
    return PARLOR_OK;
}

}  // namespace
}  // namespace parlor

using namespace parlor;

extern "C" int embed(const void* table, int table_dtype, const int32_t* token_ids, float* out, int64_t num_tokens,
                     int64_t vocab_size, int64_t hidden_size, void* stream) {
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
                                       static_cast<const float*>(table), token_ids, out, vocab_size, hidden_size);
        case PARLOR_F16: return launch(device, embed_kernel<half>, grid, block, 0, stream,
                                       static_cast<const half*>(table), token_ids, out, vocab_size, hidden_size);
        case PARLOR_BF16: return launch(device, embed_kernel<BFloat16>, grid, block, 0, stream,
                                        static_cast<const BFloat16*>(table), token_ids, out, vocab_size, hidden_size);
        default: return PARLOR_ERROR_DTYPE;
    }
}

extern "C" int copy_pages(void* k_cache, void* v_cache, int64_t num_pages, int64_t page_bytes, const int32_t* src,
                          const int32_t* dst, int64_t count, void* stream) {
    if (count < 0 || num_pages < 1 || page_bytes < 1) return PARLOR_ERROR_SIZE;
    if (count == 0) return PARLOR_OK;
    if (!k_cache || !v_cache || !src || !dst || !is_aligned(src, 4) || !is_aligned(dst, 4)) return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    if (page_bytes % 16 == 0 && is_aligned(k_cache, 16) && is_aligned(v_cache, 16))
        return copy_words<uint4>(device, k_cache, v_cache, num_pages, page_bytes, src, dst, count, stream);
    return copy_words<unsigned char>(device, k_cache, v_cache, num_pages, page_bytes, src, dst, count, stream);
}
