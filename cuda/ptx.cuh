// What CUDA C++ has no words for, in functions: inline PTX, and shared arrays. The tests that run the kernels on a CPU
// put tests/host_cuda/include/host_ptx.h in the place of this file's second half.
#pragma once

#include <cstdint>

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#ifndef __CUDACC__
#include <host_ptx.h>
#else

// An array of the block. Nothing is known of its contents before a thread has written them.
#define SHARED_ARRAY(type, name, count) __shared__ __align__(16) type name[count]
// The block's memory whose size the launch gives; one a kernel.
#define DYNAMIC_SHARED(type, name)                                        \
    extern __shared__ __align__(16) unsigned char parlor_dynamic_shared[]; \
    type* const name = reinterpret_cast<type*>(parlor_dynamic_shared)

// d += a * b: 16 x 8 += 16 x 16 * 16 x 8, float16 in, float32 sums. With g = lane / 4 and t = lane % 4, a lane holds
//   a  rows g, g + 8, g, g + 8 at the columns 2t, 2t, 2t + 8, 2t + 8 (and the next)
//   b  column g at the rows 2t, 2t + 8 (and the next)
//   d  rows g, g, g + 8, g + 8 at the columns 2t, 2t + 1, 2t, 2t + 1
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else  // Turing multiplies half as many columns at once
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b0));
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
}

// Four 8 x 8 float16 of shared memory, of each the rows that the lanes 8 * i .. 8 * i + 7 point at, 16 bytes each. Turned: lane
// (g, t) gets of each the rows 2t and 2t + 1 of column g.
__device__ __forceinline__ void load_matrices_turned(uint32_t (&m)[4], const void* row) {
    const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(address)
                 : "memory");
}

// Pairs of float16 as the words that they are in. The types of cuda_fp16.h would cost shifts and permutations for each.
__device__ __forceinline__ uint32_t subtract_pairs(uint32_t a, uint32_t b) {
    uint32_t difference;
    asm("sub.f16x2 %0, %1, %2;" : "=r"(difference) : "r"(a), "r"(b));
    return difference;
}
__device__ __forceinline__ uint32_t fma_pairs(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t sum;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
    return sum;
}
// (a & mask) | bits, in one instruction.
__device__ __forceinline__ uint32_t masked_or(uint32_t a, uint32_t mask, uint32_t bits) {
    uint32_t word;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(word) : "r"(a), "r"(mask), "r"(bits));
    return word;
}

// The same number, of which the compiler knows nothing: what follows from it is computed anew rather than kept in registers.
__device__ __forceinline__ int unknown(int number) {
    asm volatile("" : "+r"(number));
    return number;
}

// Copy 16 bytes to shared memory behind the thread's back; they are there after commit_copies(), wait_for_copies() and
// a barrier. Turing copies at once.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global) {
#if __CUDA_ARCH__ >= 800
    const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global) : "memory");
#else
    *static_cast<uint4*>(shared) = *static_cast<const uint4*>(global);
#endif
}
__device__ __forceinline__ void commit_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int kGroupsLeft>
__device__ __forceinline__ void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(kGroupsLeft) : "memory");
#endif
}
__device__ __forceinline__ void prefetch_l2(const void* address) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

// Dependent launches (compute capability 9.0 on): a kernel may start before the one in front of it has ended. It must
// not touch what other kernels write or read before wait_for_previous_kernel(), and every thread of every kernel calls
// that, so that having waited for one kernel means having waited for all before it.
__device__ __forceinline__ void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void let_next_kernel_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

#endif
