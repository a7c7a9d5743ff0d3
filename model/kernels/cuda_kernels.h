/* What the GPU's library exports beside the functions of kernels.h. The same rules hold. */
#ifndef PARLOR_CUDA_KERNELS_H
#define PARLOR_CUDA_KERNELS_H

#include "kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where kernels run, and what they need there between their own launches. What every function of this library calls its
 * stream is the address of one of these, on the host. Each engine has its own: calls of one follow each other on its
 * stream, those of two may come in any order. */
typedef struct {
    void* stream;            /* CUDA's */
    void* workspace;         /* on the GPU, 256-byte aligned, zero when it is first used; whatever was captured keeps it */
    int64_t workspace_bytes; /* a call that needs more returns PARLOR_ERROR_MEMORY */
    int32_t is_dependent;    /* 1: from compute capability 9.0 on kernels may start before the one in front has ended */
} cuda_queue;

/* sample() of kernels.h behind a step whose tokens the host does not know yet. */
PARLOR_API int sample_after(
    const float* logits, int64_t logits_stride, const sampling_row* const* rows,
    const int32_t* previous,   /* [num_sequences]: becomes the last entry of each history, before anything reads it; null: all
                                * are there */
    int32_t* chosen, float* probabilities, double* surprises, int64_t num_sequences, int64_t vocab_size, void* stream);

/* linear() of a quantized weight for queries, keys and values, and rope_write_kv() of what it gives: a float16 cache, heads of
 * 32, 64, 128 or 256 that are rotated as a whole. The same results, but keys and values stay what they were in `out`. */
PARLOR_API int linear_rope_write_kv(
    const float* x, int64_t x_stride, int64_t m, const float* norm_weight, float eps,
    const struct linear_weight* weight,
    float* out,                /* [m, num_heads * head_dim]: the queries, rows out_stride apart */
    int64_t out_stride,
    const float* cos_table, const float* sin_table, int64_t max_positions, const int32_t* positions,
    const int64_t* slot_mapping, void* k_cache, void* v_cache, int64_t num_pages, int64_t page_size,
    int64_t num_heads, int64_t num_kv_heads, int64_t head_dim, int is_interleaved, void* stream);

/* A product of many rows by another library, in steps: y = staged @ dequantized^T, then linear_finish(). */

/* The rows of x, normed, in the order of the packed weight's columns and scaled by a power of two, as float16. */
PARLOR_API int linear_stage(
    const float* x,            /* [m, k], rows x_stride apart */
    int64_t x_stride,
    int64_t m,
    const float* norm_weight,  /* [k] or null, as in linear() */
    float eps,
    const struct linear_weight* weight,
    uint16_t* staged,          /* float16 [m, padded_k] */
    float* factors,            /* [m]: what rows of the product must be multiplied by */
    void* stream);

/* Outputs first .. first + count - 1 of a quantized weight as float16; both multiples of 16 unless they end it. */
PARLOR_API int linear_dequantize(
    const struct linear_weight* weight, int64_t first, int64_t count,
    uint16_t* out,             /* float16 [count, padded_k] */
    void* stream);

/* y = product * factors + bias and the epilogue of linear(). */
PARLOR_API int linear_finish(
    const float* product,      /* [m, n] */
    const float* factors,      /* [m], or null for 1 */
    int64_t m, const struct linear_weight* weight,
    float* out,                /* [m, n], with SILU_MUL [m, n / 2], rows out_stride apart */
    int64_t out_stride, int epilogue, void* stream);

/* A layer's way of a prompt's rows through another library's products in float16: y = staged @ weight^T * factors + bias. What
 * is staged is float16 [m, padded_k] in the order of the packed weight's columns (of a dense one [m, k]), each row times a
 * power of two with which no product leaves float16. */

/* x += product, and x times norm staged for `weight`. */
PARLOR_API int prompt_add_stage(
    float* x,                   /* [m, size], rows x_stride apart */
    int64_t x_stride, int64_t m, int64_t size,
    const uint16_t* product,    /* float16 [m, size], or null: nothing is added */
    const float* factors,       /* [m], of the product */
    const float* bias,          /* [size] or null */
    const float* norm_weight,   /* [size] or null, as in linear() */
    float eps,
    const struct linear_weight* weight,  /* [., size] or null: nothing is staged */
    const float* bound,         /* [1]: the largest 2-norm of a row of the weight */
    uint16_t* staged,           /* 16-byte aligned */
    float* staged_factors,      /* [m] */
    void* stream);

/* silu(gate) * up, staged for `weight`. */
PARLOR_API int prompt_silu_stage(
    const uint16_t* product,    /* float16 [m, 2 * k]: gate, up */
    const float* factors, const float* bias, int64_t m, const struct linear_weight* weight, const float* bound,
    uint16_t* staged, float* staged_factors, void* stream);

/* Heads side by side, staged for `weight`. */
PARLOR_API int prompt_heads_stage(
    const uint16_t* heads,      /* float16 [m, k / head_dim, head_dim], rows and heads so far apart: */
    int64_t row_stride, int64_t head_stride, int64_t head_dim, int64_t m,
    const struct linear_weight* weight, const float* bound, uint16_t* staged, float* staged_factors, void* stream);

/* rope_write_kv() of a product in float16: a float16 cache, heads that are rotated as a whole. */
PARLOR_API int prompt_rope_keep(
    const uint16_t* product,    /* float16 [num_tokens, (num_heads + 2 * num_kv_heads) * head_dim] */
    const float* factors, const float* bias, const float* cos_table, const float* sin_table, int64_t max_positions,
    const int32_t* positions, const int64_t* slot_mapping, void* k_cache, void* v_cache, int64_t num_pages,
    int64_t page_size, int64_t num_tokens,
    int64_t offset,             /* of the first token in its page; another costs time only */
    int64_t num_heads, int64_t num_kv_heads, int64_t head_dim, int is_interleaved,
    uint16_t* queries,          /* float16 [num_tokens, num_heads, head_dim], 16-byte aligned */
    uint16_t* keys,             /* [num_tokens, num_kv_heads, head_dim] or null: in the cache only */
    uint16_t* values, void* stream);

/* What experts() looks weights up in: *nbytes of it to `table`, which lies on the host and is then to be copied to the GPU;
 * with null only the size is told. */
PARLOR_API int expert_table(const expert_weights* weights, void* table, int64_t* nbytes);

/* The cache of one sequence as plain tensors, for the attention of a prompt by another library; the values of keys that are
 * these, too, as if they had been kept. Keys of PARLOR_Q8 and _Q4 stay multiplied by the Hadamard matrix, as the queries of rope_write_kv are; values are not. */
PARLOR_API int gather_pages(
    const void* k_cache,   /* as in paged_attention() of kernels.h */
    const void* v_cache,
    int cache_dtype,
    int64_t num_pages, int64_t page_size, int64_t num_kv_heads, int64_t head_dim,
    const int32_t* pages,  /* [ceil(num_keys / page_size)] */
    int64_t num_keys,
    uint16_t* keys,        /* float16 [num_kv_heads, num_keys, head_dim], 4-byte aligned */
    uint16_t* values,      /* the same */
    void* stream);

#ifdef __cplusplus
}
#endif
#endif
