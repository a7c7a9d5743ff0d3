/* The C contract of every kernel library: cpu/ and (later) cuda/ export the same functions.
 *
 * Raw pointers, 64-bit sizes and strides, a stream (null on the CPU) as the last argument. Each function
 * returns 0, or one of the error codes below and has then written nothing. Nothing here allocates device
 * memory, synchronizes or knows torch. The binding is model/kernels/__init__.py, the meaning of every
 * operation is model/kernels/reference.py.
 *
 * Notation: T tokens of a ragged batch, S sequences, D head_dim, Hq query heads, Hkv key/value heads,
 * P positions a page. All tensors are dense and row-major unless a stride (in elements) is an argument.
 */
#ifndef PARLOR_KERNELS_H
#define PARLOR_KERNELS_H

#include <stdint.h>

#if defined(_WIN32)
#define PARLOR_API __declspec(dllexport)
#else
#define PARLOR_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- error codes ------------------------------------------------------------------------------------ */
enum {
    PARLOR_OK = 0,
    PARLOR_ERROR_SIZE = 1,      /* a size, stride or count is negative, zero or too large */
    PARLOR_ERROR_POINTER = 2,   /* a pointer is null or not aligned as the function says */
    PARLOR_ERROR_DTYPE = 3,     /* a dtype code that this function does not take */
    PARLOR_ERROR_INDEX = 4,     /* a token id, position, slot or page lies outside its table */
    PARLOR_ERROR_ISA = 5,       /* this machine has no such instruction set */
    PARLOR_ERROR_MEMORY = 6,    /* scratch memory could not be allocated */
    PARLOR_ERROR_VALUE = 7,     /* another argument lies outside its range */
    PARLOR_ERROR_DRIVER = 35    /* cudaErrorInsufficientDriver: CUDA library without a driver */
};

/* ---- dtype codes ------------------------------------------------------------------------------------ */
enum { PARLOR_F32 = 0, PARLOR_F16 = 1, PARLOR_BF16 = 2 };

/* ---- instruction sets, ascending; each includes the ones before it ----------------------------------- */
enum {
    PARLOR_ISA_PLAIN = 0,   /* whatever the compiler's baseline is; any machine */
    PARLOR_ISA_AVX2 = 1,    /* AVX2, FMA, F16C */
    PARLOR_ISA_AVX512 = 2,  /* AVX-512 F, BW, VL, DQ, VNNI */
    PARLOR_ISA_AMX = 3      /* the former and AMX tile, int8, bf16, AVX-512 BF16; permission granted by the kernel */
};

/* ---- control ---------------------------------------------------------------------------------------- */
PARLOR_API const char* error_text(int code);   /* English, static */
PARLOR_API int supported_isas(void);           /* bit i set: PARLOR_ISA i can be forced here */
PARLOR_API int current_isa(void);              /* the set in use */
PARLOR_API int force_isa(int isa);             /* for tests: use this set from the next call on; -1 = best again */
PARLOR_API int set_threads(int num_threads);   /* size of the thread team, 1..256; the caller is one of them */
PARLOR_API int get_threads(void);

/* ---- linear: y = x @ W^T (owned by cpu/linear*.cpp) --------------------------------------------------- */

/* ---- end of linear ---------------------------------------------------------------------------------- */

#ifdef __cplusplus
}
#endif
#endif
