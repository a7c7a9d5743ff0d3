// C entry points of the vectorised operations: every argument is checked here, then the selected set's code runs.
#include "operations.h"

#include <cstring>

#include "attention/prompt.h"
#include "checks.h"
#include "kernels.h"
#include "thread_team.h"

namespace parlor {
namespace {

bool aligned_as(const void* p, int dtype) {
    const bool has_halves = dtype == PARLOR_F16 || dtype == PARLOR_BF16;
    return p != nullptr && reinterpret_cast<uintptr_t>(p) % (has_halves ? 2 : 4) == 0;
}

bool is_quantized(int dtype) { return dtype == PARLOR_Q8 || dtype == PARLOR_Q4; }

bool is_cache_dtype(int dtype) { return dtype == PARLOR_F32 || dtype == PARLOR_F16 || is_quantized(dtype); }

// Words of codes are whole: 8 codes of a key, 8 values of a page. Sums over a page fit 32 bits.
bool is_block_size(int dtype, int64_t page_size, int64_t head_dim) {
    return !is_quantized(dtype) ||
           (page_size % 8 == 0 && page_size <= 512 && head_dim % 8 == 0 && head_dim <= 1024);
}

bool is_rotary(int64_t rotary_dim, int64_t head_dim) {
    return rotary_dim >= 0 && rotary_dim % 2 == 0 && rotary_dim <= head_dim;
}

// The queries of the batch and the pages they read, see paged_attention() in kernels.h.
int check_batch(const int32_t* cu_seqlens, const int32_t* seq_lens, const int32_t* block_table, int64_t stride,
                int64_t max_pages, int64_t num_sequences, int64_t num_tokens, int64_t num_pages, int64_t page_size) {
    if (cu_seqlens[0] != 0 || cu_seqlens[num_sequences] != num_tokens) return PARLOR_ERROR_SIZE;
    for (int64_t s = 0; s < num_sequences; ++s) {
        const int64_t rows = int64_t{cu_seqlens[s + 1]} - cu_seqlens[s];
        if (rows < 0) return PARLOR_ERROR_SIZE;
        if (rows == 0) continue;
        if (seq_lens[s] < rows || seq_lens[s] > max_pages * page_size) return PARLOR_ERROR_SIZE;
        const int64_t pages = (seq_lens[s] + page_size - 1) / page_size;
        if (!all_within(block_table + s * stride, pages, 0, num_pages)) return PARLOR_ERROR_INDEX;
    }
    return PARLOR_OK;
}

int check_attention(const AttentionArgs& a, int64_t num_tokens, int64_t num_pages, int64_t max_pages) {
    if (a.window <= -kMaxSize || !(a.softcap >= 0)) return PARLOR_ERROR_VALUE;
    if (a.sinks && !aligned(a.sinks)) return PARLOR_ERROR_POINTER;
    if (!all_positive(num_pages, a.page_size, max_pages, a.num_sequences, num_tokens, a.num_heads, a.num_kv_heads,
                      a.head_dim) ||
        a.num_heads % a.num_kv_heads != 0 || a.q_stride < a.num_heads * a.head_dim || a.block_table_stride < max_pages)
        return PARLOR_ERROR_SIZE;
    if (!is_cache_dtype(a.cache_dtype)) return PARLOR_ERROR_DTYPE;
    if (!is_block_size(a.cache_dtype, a.page_size, a.head_dim)) return PARLOR_ERROR_SIZE;
    if (!aligned(a.q) || !aligned_as(a.k_cache, a.cache_dtype) ||
        (a.v_cache && !aligned_as(a.v_cache, a.cache_dtype)) || !aligned(a.block_table) || !aligned(a.cu_seqlens) || !aligned(a.seq_lens) || !aligned(a.out))
        return PARLOR_ERROR_POINTER;
    return check_batch(a.cu_seqlens, a.seq_lens, a.block_table, a.block_table_stride, max_pages, a.num_sequences,
                       num_tokens, num_pages, a.page_size);
}

// Adapters that some row has; all of them are few.
int check_adapters(const LoraArgs& a, int64_t n) {
    if (!all_within(a.row_adapters, a.num_rows, INT32_MIN, a.num_adapters)) return PARLOR_ERROR_INDEX;
    for (const lora_adapter* of = a.adapters; of < a.adapters + a.num_adapters; ++of) {
        if (of->rank == 0) continue;
        if (of->dtype != PARLOR_F32 && of->dtype != PARLOR_F16 && of->dtype != PARLOR_BF16) return PARLOR_ERROR_DTYPE;
        const int dtype = static_cast<int>(of->dtype);
        if (!aligned_as(of->down, dtype) || !aligned_as(of->up, dtype)) return PARLOR_ERROR_POINTER;
        if (of->rank < 0 || of->rank > PARLOR_LORA_RANK || of->num_segments < 0 || of->num_segments > PARLOR_LORA_SEGMENTS)
            return PARLOR_ERROR_SIZE;
        for (int64_t i = 0; i < of->num_segments; ++i) {
            const auto& s = of->segments[i];
            if (s.first < 0 || s.count < 0 || s.count > n - s.first || s.first_rank < 0 || s.rank < 0 ||
                s.rank > of->rank - s.first_rank || s.up_start < 0)
                return PARLOR_ERROR_SIZE;
        }
    }
    return PARLOR_OK;
}

int attend_in_set(const AttentionArgs& args) {
#if PARLOR_BUILT_DOTPROD
    if (selected_isa() >= Isa::kDotprod) return dotprod::attend(args);
#endif
    return PARLOR_PICK(attend)(args);
}

}  // namespace
}  // namespace parlor

using namespace parlor;

extern "C" int embed(const void* table, int table_dtype, const int32_t* token_ids, float* out, float scale,
                     int64_t num_tokens, int64_t vocab_size, int64_t hidden_size, void*) {
    if (num_tokens == 0) return PARLOR_OK;
    if (!all_positive(num_tokens, vocab_size, hidden_size)) return PARLOR_ERROR_SIZE;
    if (table_dtype != PARLOR_F32 && table_dtype != PARLOR_F16 && table_dtype != PARLOR_BF16)
        return PARLOR_ERROR_DTYPE;
    if (!aligned_as(table, table_dtype) || !aligned(token_ids) || !aligned(out)) return PARLOR_ERROR_POINTER;
    if (!all_within(token_ids, num_tokens, 0, vocab_size)) return PARLOR_ERROR_INDEX;
    PARLOR_PICK(embed_rows)({table, table_dtype, token_ids, out, scale, num_tokens, hidden_size});
    return PARLOR_OK;
}

extern "C" int norm_rows(const float* x, int64_t x_stride, const float* weight, const float* bias, int is_shared,
                         float eps, int kind, float* out, int64_t out_stride, int add, float scale, int64_t num_rows,
                         int64_t num_groups, int64_t size, void*) {
    if (num_rows == 0) return PARLOR_OK;
    if (!all_positive(num_rows, num_groups, size) || x_stride < num_groups * size || out_stride < num_groups * size)
        return PARLOR_ERROR_SIZE;
    if (!aligned(x) || !aligned(out) || (weight && !aligned(weight)) || (bias && !aligned(bias)))
        return PARLOR_ERROR_POINTER;
    if (kind < PARLOR_NORM_NONE || kind > PARLOR_NORM_LAYER || !(eps >= 0)) return PARLOR_ERROR_VALUE;
    PARLOR_PICK(normalize)({x, x_stride, weight, bias, is_shared ? 0 : size, eps, kind, out, out_stride, add != 0, scale,
                            num_rows, num_groups, size});
    return PARLOR_OK;
}

extern "C" int activate(const float* x, int64_t x_stride, float* out, int64_t out_stride, int kind, int is_gated,
                        int64_t num_rows, int64_t size, void*) {
    if (num_rows == 0) return PARLOR_OK;
    if (!all_positive(num_rows, size) || x_stride < (is_gated ? 2 : 1) * size || out_stride < size)
        return PARLOR_ERROR_SIZE;
    if (!aligned(x) || !aligned(out)) return PARLOR_ERROR_POINTER;
    if (kind < PARLOR_ACTIVATION_SILU || kind > PARLOR_ACTIVATION_NONE) return PARLOR_ERROR_VALUE;
    PARLOR_PICK(activate_rows)({x, x_stride, is_gated ? x + size : nullptr, x_stride, out, out_stride, kind, num_rows, size});
    return PARLOR_OK;
}

extern "C" int gate_rows(const float* x, int64_t x_stride, const float* gate, int64_t gate_stride, float* out,
                         int64_t out_stride, int kind, int64_t num_rows, int64_t size, void*) {
    if (num_rows == 0) return PARLOR_OK;
    if (!all_positive(num_rows, size) || x_stride < size || gate_stride < size || out_stride < size)
        return PARLOR_ERROR_SIZE;
    if (!aligned(x) || !aligned(gate) || !aligned(out)) return PARLOR_ERROR_POINTER;
    if (kind < PARLOR_ACTIVATION_SILU || kind > PARLOR_ACTIVATION_NONE || kind == PARLOR_ACTIVATION_CLAMPED)
        return PARLOR_ERROR_VALUE;
    PARLOR_PICK(activate_rows)({gate, gate_stride, x, x_stride, out, out_stride, kind, num_rows, size});
    return PARLOR_OK;
}

extern "C" int softplus_rows(const float* x, int64_t x_stride, const float* bias, const float* scale, float low,
                             float high, float* out, int64_t out_stride, int64_t num_rows, int64_t size, void*) {
    if (num_rows == 0) return PARLOR_OK;
    if (!all_positive(num_rows, size) || x_stride < size || out_stride < size) return PARLOR_ERROR_SIZE;
    if (!aligned(x) || !aligned_or_null(bias) || !aligned_or_null(scale) || !aligned(out)) return PARLOR_ERROR_POINTER;
    if (!(low <= high)) return PARLOR_ERROR_VALUE;
    PARLOR_PICK(softplus)({x, x_stride, bias, scale, low, high, out, out_stride, num_rows, size});
    return PARLOR_OK;
}

extern "C" int xielu_rows(const float* x, int64_t x_stride, float* out, int64_t out_stride, float above, float below,
                          int64_t num_rows, int64_t size, void*) {
    if (num_rows == 0) return PARLOR_OK;
    if (!all_positive(num_rows, size) || x_stride < size || out_stride < size) return PARLOR_ERROR_SIZE;
    if (!aligned(x) || !aligned(out)) return PARLOR_ERROR_POINTER;
    PARLOR_PICK(xielu)({x, x_stride, out, out_stride, above, below, num_rows, size});
    return PARLOR_OK;
}

extern "C" int cut_rows(float* x, int64_t x_stride, float deviations, int64_t num_rows, int64_t size, void*) {
    if (num_rows == 0) return PARLOR_OK;
    if (!all_positive(num_rows, size) || x_stride < size) return PARLOR_ERROR_SIZE;
    if (!aligned(x)) return PARLOR_ERROR_POINTER;
    PARLOR_PICK(cut)({x, x_stride, deviations, num_rows, size});
    return PARLOR_OK;
}

extern "C" int match_rows(float* x, int64_t x_stride, const float* like, int64_t like_stride, float eps,
                          int64_t num_rows, int64_t size, void*) {
    if (num_rows == 0) return PARLOR_OK;
    if (!all_positive(num_rows, size) || x_stride < size || like_stride < size) return PARLOR_ERROR_SIZE;
    if (!aligned(x) || !aligned(like)) return PARLOR_ERROR_POINTER;
    if (!(eps > 0)) return PARLOR_ERROR_VALUE;
    PARLOR_PICK(match)({x, x_stride, like, like_stride, eps, num_rows, size});
    return PARLOR_OK;
}

extern "C" int mix_rows(const float* x, int64_t x_stride, const float* shares, int64_t shares_stride, float* out,
                        int64_t out_stride, int add, int64_t num_rows, int64_t num_inputs, int64_t num_outputs,
                        int64_t size, void*) {
    if (num_rows == 0) return PARLOR_OK;
    if (!all_positive(num_rows, num_inputs, num_outputs, size) || x_stride < num_inputs * size ||
        shares_stride < num_outputs * num_inputs || out_stride < num_outputs * size)
        return PARLOR_ERROR_SIZE;
    if (!aligned(x) || !aligned(shares) || !aligned(out)) return PARLOR_ERROR_POINTER;
    PARLOR_PICK(mix)({x, x_stride, shares, shares_stride, out, out_stride, add != 0, num_rows, num_inputs, num_outputs,
                      size});
    return PARLOR_OK;
}

extern "C" int cap_rows(float* x, int64_t x_stride, float scale, float cap_value, int64_t num_rows, int64_t size, void*) {
    if (num_rows == 0) return PARLOR_OK;
    if (!all_positive(num_rows, size) || x_stride < size) return PARLOR_ERROR_SIZE;
    if (!aligned(x)) return PARLOR_ERROR_POINTER;
    if (!(cap_value >= 0)) return PARLOR_ERROR_VALUE;
    PARLOR_PICK(cap)({x, x_stride, scale, cap_value, num_rows, size});
    return PARLOR_OK;
}

extern "C" int rotate_heads(float* x, int64_t x_stride, const float* cos_table, const float* sin_table,
                            int64_t max_positions, const int32_t* positions, int is_interleaved, int64_t num_tokens,
                            int64_t num_heads, int64_t head_dim, int64_t rotary_dim, void*) {
    if (num_tokens == 0) return PARLOR_OK;
    if (!all_positive(max_positions, num_tokens, num_heads, head_dim, rotary_dim) || head_dim > 1024 ||
        !is_rotary(rotary_dim, head_dim) || x_stride < num_heads * head_dim)
        return PARLOR_ERROR_SIZE;
    if (!aligned(x) || !aligned(cos_table) || !aligned(sin_table) || !aligned(positions)) return PARLOR_ERROR_POINTER;
    if (!all_within(positions, num_tokens, 0, max_positions)) return PARLOR_ERROR_INDEX;
    PARLOR_PICK(rotate_rows)({x, x_stride, cos_table, sin_table, positions, is_interleaved != 0, num_tokens, num_heads,
                              head_dim, rotary_dim});
    return PARLOR_OK;
}

extern "C" int rope_write_kv(float* qkv, int64_t qkv_stride, const float* cos_table, const float* sin_table,
                             const float* query_scale, int64_t max_positions, const int32_t* positions,
                             const int64_t* slot_mapping, void* k_cache, void* v_cache, int cache_dtype,
                             int64_t num_pages, int64_t page_size, int64_t num_tokens, int64_t num_heads,
                             int64_t num_kv_heads, int64_t head_dim, int64_t rotary_dim, int is_interleaved, void*) {
    if (num_tokens == 0) return PARLOR_OK;
    if (!all_positive(max_positions, num_pages, page_size, num_tokens, num_heads, num_kv_heads, head_dim) ||
        head_dim % 2 != 0 || head_dim > 1024 || !is_rotary(rotary_dim, head_dim) ||
        qkv_stride < (num_heads + (v_cache ? 2 : 1) * num_kv_heads) * head_dim)
        return PARLOR_ERROR_SIZE;
    if (!is_cache_dtype(cache_dtype)) return PARLOR_ERROR_DTYPE;
    if (!is_block_size(cache_dtype, page_size, head_dim)) return PARLOR_ERROR_SIZE;
    if (!aligned(qkv) || (cos_table && (!aligned(cos_table) || !aligned(sin_table))) ||
        (query_scale && !aligned(query_scale)) || !aligned(positions) || !aligned(slot_mapping) ||
        !aligned_as(k_cache, cache_dtype) || (v_cache && !aligned_as(v_cache, cache_dtype)))
        return PARLOR_ERROR_POINTER;
    if (!all_within(positions, num_tokens, 0, max_positions) ||
        !all_within(slot_mapping, num_tokens, INT64_MIN, num_pages * page_size))
        return PARLOR_ERROR_INDEX;
    PARLOR_PICK(rope_rows)({qkv, qkv_stride, cos_table, sin_table, query_scale, positions, slot_mapping, k_cache, v_cache,
                            cache_dtype, page_size, num_tokens, num_heads, num_kv_heads, head_dim, rotary_dim,
                            is_interleaved != 0});
    return PARLOR_OK;
}

extern "C" int paged_attention(const float* q, int64_t q_stride, const void* k_cache, const void* v_cache,
                               int cache_dtype, int64_t num_pages, int64_t page_size, const int32_t* block_table,
                               int64_t block_table_stride, int64_t max_pages, const int32_t* cu_seqlens,
                               const int32_t* seq_lens, float* out, int64_t num_sequences, int64_t num_tokens,
                               int64_t num_heads, int64_t num_kv_heads, int64_t head_dim, float scale, int64_t window,
                               float softcap, const float* sinks, void*) {
    if (num_tokens == 0) return PARLOR_OK;
    const AttentionArgs args{q, q_stride, k_cache, v_cache, cache_dtype, page_size, block_table, block_table_stride,
                             cu_seqlens, seq_lens, out, num_sequences, num_heads, num_kv_heads, head_dim, scale,
                             window, softcap, sinks};
    if (const int error = check_attention(args, num_tokens, num_pages, max_pages)) return error;
    return attend_in_set(args);
}

extern "C" int prompt_attention(const float* q, int64_t q_stride, const void* k_cache, const void* v_cache,
                                int cache_dtype, int64_t num_pages, int64_t page_size, const int32_t* pages,
                                int64_t max_pages, int64_t num_keys, float* out, int64_t num_tokens,
                                int64_t num_heads, int64_t num_kv_heads, int64_t head_dim, float scale, int64_t window,
                                float softcap, const float* sinks, void*) {
    if (num_tokens == 0) return PARLOR_OK;
    if (num_tokens < 0 || num_keys < num_tokens || num_keys > INT32_MAX) return PARLOR_ERROR_SIZE;
    const int32_t bounds[2] = {0, static_cast<int32_t>(num_tokens)}, length = static_cast<int32_t>(num_keys);
    const AttentionArgs args{q, q_stride, k_cache, v_cache, cache_dtype, page_size, pages, max_pages, bounds, &length, out,
                             1, num_heads, num_kv_heads, head_dim, scale, window, softcap, sinks};
    if (const int error = check_attention(args, num_tokens, num_pages, max_pages)) return error;
#if PARLOR_BUILT_AMX
    if (selected_isa() >= Isa::kAmx && amx::takes_prompts(args)) return amx::attend_to_prompts(args);
#endif
    return attend_in_set(args);
}

extern "C" int copy_pages(void* k_cache, void* v_cache, int64_t num_pages, int64_t page_bytes, const int32_t* src,
                          const int32_t* dst, int64_t count, void*) {
    if (count == 0) return PARLOR_OK;
    if (!all_positive(num_pages, page_bytes, count)) return PARLOR_ERROR_SIZE;
    if (!k_cache || !aligned(src) || !aligned(dst)) return PARLOR_ERROR_POINTER;
    if (!all_within(src, count, 0, num_pages) || !all_within(dst, count, 0, num_pages)) return PARLOR_ERROR_INDEX;
    team().parallel_for((v_cache ? 2 : 1) * count, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
            char* cache = static_cast<char*>(i < count ? k_cache : v_cache);
            std::memcpy(cache + dst[i % count] * page_bytes, cache + src[i % count] * page_bytes,
                        static_cast<size_t>(page_bytes));
        }
    });
    return PARLOR_OK;
}

extern "C" int lora(const float* x, int64_t x_stride, const float* norm_weight, float eps, const int32_t* row_adapters,
                    const lora_adapter* adapters, int64_t num_adapters, int64_t n, int64_t k, float* out,
                    int64_t out_stride, int64_t m, void*) {
    if (m == 0) return PARLOR_OK;
    if (!all_positive(num_adapters, n, k, m) || x_stride < k || out_stride < n) return PARLOR_ERROR_SIZE;
    if (!aligned(x) || !aligned_or_null(norm_weight) || !aligned(row_adapters) || !aligned(out) || !adapters ||
        reinterpret_cast<uintptr_t>(adapters) % alignof(lora_adapter) != 0)
        return PARLOR_ERROR_POINTER;
    if (!(eps >= 0)) return PARLOR_ERROR_VALUE;
    const LoraArgs arguments{x, x_stride, norm_weight, eps, row_adapters, adapters, num_adapters, k, out, out_stride, m};
    if (const int error = check_adapters(arguments, n)) return error;
    return PARLOR_PICK(add_lora)(arguments);
}
