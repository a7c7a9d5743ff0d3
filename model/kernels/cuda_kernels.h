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

/* What experts() looks weights up in: *nbytes of it to `table`, which lies on the host and is then to be copied to the GPU;
 * with null only the size is told. */
PARLOR_API int expert_table(const expert_weights* weights, void* table, int64_t* nbytes);

/* The cache of one sequence as plain tensors, for the attention of a prompt by another library. Keys of PARLOR_Q8 and
 * _Q4 stay multiplied by the Hadamard matrix, as the queries of rope_write_kv are; values are not. */
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
