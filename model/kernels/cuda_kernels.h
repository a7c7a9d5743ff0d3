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

#ifdef __cplusplus
}
#endif
#endif
