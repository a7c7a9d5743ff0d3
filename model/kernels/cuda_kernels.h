/* What the GPU's library exports beside the functions of kernels.h. The same rules hold. */
#ifndef PARLOR_CUDA_KERNELS_H
#define PARLOR_CUDA_KERNELS_H

#include "kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Lend device memory to the kernels of the present GPU, for as long as the library is used. Products of few rows,
 * attention and sampling need it; calls that do run on one stream. 256-byte aligned, 1.25 MiB at least; a call that
 * needs more returns PARLOR_ERROR_MEMORY. */
PARLOR_API int set_workspace(void* memory, int64_t bytes, void* stream);

/* The cache of one sequence as plain tensors, for the attention of a prompt by another library. Keys of PARLOR_Q8 and
 * _Q4 stay multiplied by the Hadamard matrix, as the queries of rope_write_kv are; values are not. */
PARLOR_API int gather_pages(
    const void* k_cache,   /* as in paged_attention() of kernels.h */
    const void* v_cache,
    int cache_dtype,
    int64_t num_pages, int64_t page_size, int64_t num_kv_heads, int64_t head_dim,
    const int32_t* pages,  /* [ceil(num_keys / page_size)] */
    int64_t num_keys,
    uint16_t* keys,        /* float16 [num_kv_heads, num_keys, head_dim] */
    uint16_t* values,      /* the same */
    void* stream);

#ifdef __cplusplus
}
#endif
#endif
