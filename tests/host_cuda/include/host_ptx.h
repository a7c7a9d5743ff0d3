// What cuda/ptx.cuh writes in PTX, on the CPU.
#pragma once

#include "cuda_fp16.h"
#include "host_cuda.h"

#define SHARED_ARRAY(type, name, count) \
    type* const name = static_cast<type*>(host_cuda::shared_array(sizeof(type) * (count), 16, HOST_CUDA_SITE))
#define DYNAMIC_SHARED(type, name) type* const name = static_cast<type*>(host_cuda::dynamic_shared())

#define mma_m16n8k16(d, a, b0, b1) host_cuda::mma(d, a, {b0, b1}, HOST_CUDA_SITE)
#define load_matrices_turned(m, row) host_cuda::load_turned(m, row, HOST_CUDA_SITE)

namespace host_cuda {

// Fragments of m16n8k16 as the PTX manual lays them out; products are exact, their sum is rounded once.
inline void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site) {
    float mine[12];
    for (int i = 0; i < 6; ++i) {
        const half2 pair = host_cuda_bits<half2>(i < 4 ? a[i] : b[i - 4]);
        mine[2 * i] = __low2float(pair), mine[2 * i + 1] = __high2float(pair);
    }
    publish(kAllLanes, mine, sizeof mine, site);
    const int group = lane() >> 2, thread = lane() & 3;
    float of_a[2][16], of_b[2][16];  // the rows and columns of this lane's sums
    for (int k = 0; k < 16; k += 2) {
        const float* const a_pair = static_cast<const float*>(published(group * 4 + (k & 7) / 2)) + 4 * (k >> 3);
        for (int row = 0; row < 2; ++row) std::memcpy(of_a[row] + k, a_pair + 2 * row, 2 * sizeof(float));
        for (int column = 0; column < 2; ++column) {
            const void* const b_lane = published((thread * 2 + column) * 4 + (k & 7) / 2);
            std::memcpy(of_b[column] + k, static_cast<const float*>(b_lane) + 8 + 2 * (k >> 3), 2 * sizeof(float));
        }
    }
    for (int i = 0; i < 4; ++i) {
        double sum = d[i];
        for (int k = 0; k < 16; ++k) sum += double(of_a[i >> 1][k]) * of_b[i & 1][k];
        d[i] = static_cast<float>(sum);
    }
}

// Each lane shows the row that it points at.
inline void load_turned(uint32_t (&m)[4], const void* row, Site site) {
    publish(kAllLanes, row, 16, site);
    const int group = lane() >> 2, thread = lane() & 3;
    for (int i = 0; i < 4; ++i) {
        uint32_t pair[2];
        for (int j = 0; j < 2; ++j)
            pair[j] = static_cast<const uint16_t*>(published(8 * i + 2 * thread + j))[group];
        m[i] = pair[0] | pair[1] << 16;
    }
}

}  // namespace host_cuda

inline uint32_t subtract_pairs(uint32_t a, uint32_t b) {
    return host_cuda_bits<uint32_t>(__hsub2(host_cuda_bits<half2>(a), host_cuda_bits<half2>(b)));
}
inline uint32_t fma_pairs(uint32_t a, uint32_t b, uint32_t c) {
    return host_cuda_bits<uint32_t>(
        __hfma2(host_cuda_bits<half2>(a), host_cuda_bits<half2>(b), host_cuda_bits<half2>(c)));
}
inline uint32_t masked_or(uint32_t a, uint32_t mask, uint32_t bits) { return (a & mask) | bits; }
inline int unknown(int number) { return number; }
inline void copy_async_16(void* shared, const void* global) { host_cuda::copy_async(shared, global, 16, 16); }
inline void commit_copies() { host_cuda::commit_async(); }
template <int kGroupsLeft>
void wait_for_copies() { host_cuda::wait_async(kGroupsLeft); }
inline void prefetch_l2(const void*) {}
inline void wait_for_previous_kernel() { host_cuda::wait_for_previous_kernel(); }
inline void let_next_kernel_start() {}
