// What cuda/ptx.cuh writes in PTX, on the CPU.
#pragma once

#include "cuda_fp16.h"
#include "host_cuda.h"

#define SHARED_ARRAY(type, name, count) \
    type* const name = static_cast<type*>(host_cuda::shared_array(sizeof(type) * (count), 16, HOST_CUDA_SITE))
#define DYNAMIC_SHARED(type, name) type* const name = static_cast<type*>(host_cuda::dynamic_shared())

#define mma_m16n8k16(d, a, b) host_cuda::mma(d, a, b, HOST_CUDA_SITE)

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
    for (int i = 0; i < 4; ++i) {
        const int row = group + (i >> 1) * 8, column = thread * 2 + (i & 1);
        double sum = d[i];
        for (int k = 0; k < 16; ++k) {
            const float* const of_a = static_cast<const float*>(published((row & 7) * 4 + (k & 7) / 2));
            const float* const of_b = static_cast<const float*>(published(column * 4 + (k & 7) / 2));
            sum += double(of_a[2 * ((row >> 3) + 2 * (k >> 3)) + (k & 1)]) * of_b[8 + 2 * (k >> 3) + (k & 1)];
        }
        d[i] = static_cast<float>(sum);
    }
}

}  // namespace host_cuda

inline void copy_async_16(void* shared, const void* global) { host_cuda::copy_async(shared, global, 16, 16); }
inline void commit_copies() { host_cuda::commit_async(); }
template <int kGroupsLeft>
void wait_for_copies() { host_cuda::wait_async(kGroupsLeft); }
inline void prefetch_l2(const void*) {}
inline void wait_for_previous_kernel() { host_cuda::wait_for_previous_kernel(); }
inline void let_next_kernel_start() {}
