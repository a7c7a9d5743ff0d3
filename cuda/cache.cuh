// The pages of the key/value cache: where a number lies, and how heads are rotated and rounded. Layout: kernels.h.
#pragma once

#include "launch.cuh"

namespace parlor {

constexpr int kScaleGroup = 32;  // dimensions of a head that share a scale
constexpr int kMaxHeadDim = 1024;

struct Cache {
    void* keys;
    void* values;  // or null: the keys are
    int64_t num_pages, page_size, num_kv_heads, head_dim;
    int64_t block_bytes;  // of one page and head
};

__host__ __device__ constexpr bool is_rounded(int kind) { return kind == PARLOR_Q8 || kind == PARLOR_Q4; }
__host__ __device__ constexpr int codes_of_word(int kind) { return kind == PARLOR_Q8 ? 4 : 8; }

inline int64_t cache_block_bytes(int kind, int64_t page_size, int64_t head_dim) {
    const int64_t scales = 2 * divide_up(head_dim, kScaleGroup);
    switch (kind) {
        case PARLOR_F32: return page_size * head_dim * 4;
        case PARLOR_F16: return page_size * head_dim * 2;
        case PARLOR_Q8: return page_size * (head_dim + scales);
        default: return page_size * (head_dim / 2 + scales);
    }
}

inline int check_cache(const void* k_cache, const void* v_cache, int kind, int64_t num_pages, int64_t page_size,
                       int64_t num_kv_heads, int64_t head_dim) {
    if (kind != PARLOR_F32 && kind != PARLOR_F16 && !is_rounded(kind)) return PARLOR_ERROR_DTYPE;
    if (num_pages < 1 || page_size < 1 || page_size > (1 << 20) || num_kv_heads < 1 || head_dim < 2 ||
        head_dim > kMaxHeadDim || head_dim % 2 != 0 || num_kv_heads > kMaxGridY / 8)
        return PARLOR_ERROR_SIZE;
    if (is_rounded(kind) && (head_dim % 8 != 0 || page_size % 8 != 0)) return PARLOR_ERROR_SIZE;
    const uintptr_t alignment = kind == PARLOR_F16 ? 2 : 4;
    if (!k_cache || !is_aligned(k_cache, alignment) || !is_aligned(v_cache, alignment))
        return PARLOR_ERROR_POINTER;
    return PARLOR_OK;
}

// The block of one page and head in one of the two caches.
__device__ __forceinline__ char* block_of(const Cache& c, void* cache, int64_t page, int64_t head) {
    return static_cast<char*>(cache) + (page * c.num_kv_heads + head) * c.block_bytes;
}
// Scale of group g and the key or value in `slot` of a block.
template <int kKind>
__device__ __forceinline__ half* scale_of(const Cache& c, char* block, int64_t group, int64_t slot) {
    half* const scales = reinterpret_cast<half*>(block + c.page_size * c.head_dim / (kKind == PARLOR_Q8 ? 1 : 2));
    return scales + group * c.page_size + slot;
}

template <int kKind>
__device__ __forceinline__ float number_of(uint32_t word, int index) {
    if (kKind == PARLOR_Q8) return static_cast<float>(static_cast<int8_t>(word >> (8 * index)));
    return static_cast<float>(word >> (4 * index) & 15u) - 7.5f;
}

// `values` [head_dim] in shared memory times the normalized Hadamard matrix, by all threads of the block.
__device__ __forceinline__ void rotate_head(float* values, int head_dim) {
    const int block = head_dim & -head_dim;
    for (int step = 1; step < block; step *= 2) {
        __syncthreads();
        for (int i = threadIdx.x; i < head_dim / 2; i += blockDim.x) {
            const int low = i / step * 2 * step + i % step;
            const float a = values[low], b = values[low + step];
            values[low] = a + b;
            values[low + step] = a - b;
        }
    }
    __syncthreads();
    const float scale = static_cast<float>(1.0 / sqrt(static_cast<double>(block)));
    for (int i = threadIdx.x; i < head_dim; i += blockDim.x) values[i] *= scale;
    __syncthreads();
}

}  // namespace parlor
