// Causal attention over the paged cache for decode steps: the keys of a query row and key head in runs (splits), which
// blocks take by turns.
//
// Bound by reading the cache: 2 * head_dim * b bytes a key and key head, b = 2 (float16), 1.0625 (Q8), 0.5625 (Q4).
// Floor: those bytes over the bandwidth; Llama-2-7B at 2,048 keys reads 33.6 MB a layer in float16, 7.8 us at 4.3 TB/s.
// To get there 10 KB and more must be on their way for a multiprocessor: four blocks of four warps, 16 loads of 64 bytes each.
// The queries that share a key head (at most 8 a block) read each key once. Keys lie transposed in their page: a thread
// has a key for the scores, a dimension for the sum of values, and neighbours read neighbouring words. Where the keys are the
// values, too, a thread reads its dimension of one key after the other: 16 of float16 are one sector of the first cache.
// Values of their own and keys in float16, of heads of 64 or 128: with at most four queries see attention_pages.cuh, with more
// attention_groups.cuh.
//
// Arithmetic of one row, always the same: keys in blocks of 128, an online softmax over the blocks of a split, splits
// merged in ascending order by the last of their blocks to arrive. Splits follow from the number of keys that a row sees,
// so neither the other rows nor the size of a chunk nor the longest possible changes a bit, and a block that finds none left
// has nothing to do. Rows of a prompt work as well, but read the cache once each: for long prompts gather_pages() and a
// matrix product do better.
// Reference: paged_attention() in model/kernels/reference/operations.py.
#include "attention_kernel.cuh"

namespace parlor {
namespace {

template <int kKind, int kDims>
int attend_by_heads(const Device& device, const Attention& a, int64_t num_tokens, void* stream) {
    const bool is_large = a.cache.head_dim > 256;  // eight heads would not fit shared memory
    if (a.group == 1 || is_large) return launch_attention<kKind, 1, kDims>(device, a, num_tokens, stream);
    if (a.group <= 4 || kDims > 0) return launch_attention<kKind, 4, kDims>(device, a, num_tokens, stream);
    return launch_attention<kKind, 8, 0>(device, a, num_tokens, stream);
}

template <int kKind>
int attend(const Device& device, const Attention& a, int64_t num_tokens, void* stream) {
    const Cache& c = a.cache;
    if (!c.values) return launch_attention<kKind, 4, 0, true>(device, a, num_tokens, stream);  // of latents: large
    if constexpr (kKind == PARLOR_F16) {
        const bool has_runs = c.page_size % kRun == 0 && is_aligned(c.keys, 16) && is_aligned(c.values, 16);
        if (has_runs && c.head_dim == 64 && a.group <= 4) return attend_by_heads<kKind, 64>(device, a, num_tokens, stream);
        if (has_runs && c.head_dim == 128 && a.group <= 4) return attend_by_heads<kKind, 128>(device, a, num_tokens, stream);
        if (has_runs && a.group > 4 && (c.head_dim == 64 || c.head_dim == 128)) {
            const int error = attend_in_groups(device, a, num_tokens, stream);
            if (error != PARLOR_ERROR_MEMORY) return error;
        }
    }
    return attend_by_heads<kKind, 0>(device, a, num_tokens, stream);
}

}  // namespace
}  // namespace parlor

using namespace parlor;

extern "C" int paged_attention(const float* q, int64_t q_stride, const void* k_cache, const void* v_cache, int cache_dtype,
                               int64_t num_pages, int64_t page_size, const int32_t* block_table,
                               int64_t block_table_stride, int64_t max_pages, const int32_t* cu_seqlens,
                               const int32_t* seq_lens, float* out, int64_t num_sequences, int64_t num_tokens,
                               int64_t num_heads, int64_t num_kv_heads, int64_t head_dim, float scale, int64_t window,
                               float softcap, const float* sinks, void* stream) {
    if (const int error = check_cache(k_cache, v_cache, cache_dtype, num_pages, page_size, num_kv_heads, head_dim))
        return error;
    if (num_sequences < 0 || num_tokens < 0 || num_heads < 1 || num_heads % num_kv_heads != 0 || max_pages < 1 ||
        num_sequences > kMaxGridX || num_heads > (1 << 20) || num_pages > kMaxGridX ||
        q_stride < num_heads * head_dim || block_table_stride < max_pages)
        return PARLOR_ERROR_SIZE;
    if (window <= -(int64_t{1} << 40) || !(softcap >= 0.0f)) return PARLOR_ERROR_VALUE;
    if (num_tokens == 0 || num_sequences == 0) return PARLOR_OK;
    if (sinks && !is_aligned(sinks, 4)) return PARLOR_ERROR_POINTER;
    if (!q || !block_table || !cu_seqlens || !seq_lens || !out || !is_aligned(q, 4) || !is_aligned(out, 4) ||
        !is_aligned(block_table, 4) || !is_aligned(cu_seqlens, 4) || !is_aligned(seq_lens, 4))
        return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    Attention a{};
    a.q = q, a.q_stride = q_stride;
    a.cache = {const_cast<void*>(k_cache), const_cast<void*>(v_cache), num_pages, page_size, num_kv_heads, head_dim,
               cache_block_bytes(cache_dtype, page_size, head_dim)};
    a.block_table = block_table, a.block_table_stride = block_table_stride, a.max_pages = max_pages;
    a.cu_seqlens = cu_seqlens, a.seq_lens = seq_lens, a.out = out, a.num_sequences = static_cast<int>(num_sequences);
    a.num_heads = static_cast<int>(num_heads), a.group = static_cast<int>(num_heads / num_kv_heads), a.scale = scale;
    a.window = window, a.softcap = softcap, a.sinks = sinks;
    a.max_splits = static_cast<int>(std::min<int64_t>(kMaxSplits, divide_up(max_pages * page_size, kBlockKeys)));
    switch (cache_dtype) {
        case PARLOR_F32: return attend<PARLOR_F32>(device, a, num_tokens, stream);
        case PARLOR_F16: return attend<PARLOR_F16>(device, a, num_tokens, stream);
        case PARLOR_Q8: return attend<PARLOR_Q8>(device, a, num_tokens, stream);
        default: return attend<PARLOR_Q4>(device, a, num_tokens, stream);
    }
}
