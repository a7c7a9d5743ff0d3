// CUDA kernels on the CPU: the threads of a block are fibers of one OS thread, blocks run one after the other.
//
// What it finds: threads that wait at different barriers or at one that others never reach, values that depend on
// the order of threads or blocks (run a test in both orders), reads of shared memory that nothing wrote (it holds NaN
// patterns at the start of every block), asynchronous copies that nobody waited for (the copy happens at the wait),
// kernels of a dependent launch that do not wait for the one before and, under AddressSanitizer, every access out of
// bounds. What it cannot do: blocks that wait for each other, wgmma, TMA, and real races within one access.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#if !defined(__GNUC__)
#error "the stand-in for CUDA needs g++ or clang++"
#endif

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static_assert(false, "use SHARED_ARRAY or extern dynamic memory: see cuda/ptx.cuh")
#define __forceinline__ inline __attribute__((always_inline))
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct uint3 {
    unsigned x, y, z;
};
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// Those of the running thread.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace host_cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

struct Site {
    const char* file;
    int line;
};

struct Thread;
Thread& current();
int lane();

void sync_threads(Site site);
// Publish `bytes` (at most 64) to the lanes of `mask` and wait for them; their values stay readable by published()
// until the calling lane publishes again.
void publish(unsigned mask, const void* value, size_t bytes, Site site);
const void* published(int lane);
void* shared_array(size_t bytes, size_t alignment, Site site);
void* dynamic_shared();
void copy_async(void* target, const void* source, size_t bytes, size_t filled);
void commit_async();
void wait_async(int groups_left);
void wait_for_previous_kernel();
int launch(const std::function<void()>& kernel, const void* function, dim3 grid, dim3 block, size_t dynamic_bytes,
           bool is_dependent);

template <class T>
T from_lane(int lane) {
    T value;
    std::memcpy(&value, published(lane), sizeof(T));
    return value;
}

}  // namespace host_cuda

#define HOST_CUDA_SITE (host_cuda::Site{__FILE__, __LINE__})
#define __syncthreads() host_cuda::sync_threads(HOST_CUDA_SITE)
#define __syncwarp(...) host_cuda::publish(host_cuda::kAllLanes, nullptr, 0, HOST_CUDA_SITE)
#define __shfl_xor_sync(mask, value, offset) host_cuda::shuffle(mask, value, host_cuda::lane() ^ (offset), HOST_CUDA_SITE)
#define __shfl_sync(mask, value, source) host_cuda::shuffle(mask, value, (source) & 31, HOST_CUDA_SITE)
#define __shfl_up_sync(mask, value, delta) host_cuda::shuffle_by(mask, value, -static_cast<int>(delta), HOST_CUDA_SITE)
#define __shfl_down_sync(mask, value, delta) host_cuda::shuffle_by(mask, value, static_cast<int>(delta), HOST_CUDA_SITE)
#define __ballot_sync(mask, predicate) host_cuda::ballot(mask, predicate, HOST_CUDA_SITE)
#define __any_sync(mask, predicate) (host_cuda::ballot(mask, predicate, HOST_CUDA_SITE) != 0)
#define __all_sync(mask, predicate) (host_cuda::ballot(mask, predicate, HOST_CUDA_SITE) == (mask))

namespace host_cuda {

template <class T>
T shuffle(unsigned mask, T value, int source, Site site) {
    publish(mask, &value, sizeof(T), site);
    return from_lane<T>(source);
}
template <class T>
T shuffle_by(unsigned mask, T value, int delta, Site site) {
    const int source = lane() + delta;
    return shuffle(mask, value, source < 0 || source >= kWarp ? lane() : source, site);
}
inline unsigned ballot(unsigned mask, bool predicate, Site site) {
    publish(mask, &predicate, sizeof predicate, site);
    unsigned bits = 0;
    for (int i = 0; i < kWarp; ++i)
        if (mask >> i & 1 && from_lane<bool>(i)) bits |= 1u << i;
    return bits;
}
template <class T, class Change>
T atomic(T* address, Change change) {
    const T old = *address;
    *address = change(old);
    return old;
}

}  // namespace host_cuda

// Integers only: a float sum whose order is left to chance has no place in the kernels.
#define HOST_CUDA_ATOMIC(name, expression)                                         \
    template <class T, class U>                                                    \
    T name(T* address, U value) {                                                  \
        static_assert(static_cast<T>(0.5) == 0, "atomics on integers only");       \
        return host_cuda::atomic(address, [&](T old) -> T { return expression; }); \
    }
HOST_CUDA_ATOMIC(atomicAdd, old + static_cast<T>(value))
HOST_CUDA_ATOMIC(atomicMax, old > static_cast<T>(value) ? old : static_cast<T>(value))
HOST_CUDA_ATOMIC(atomicMin, old < static_cast<T>(value) ? old : static_cast<T>(value))
HOST_CUDA_ATOMIC(atomicAnd, old & static_cast<T>(value))
HOST_CUDA_ATOMIC(atomicOr, old | static_cast<T>(value))
HOST_CUDA_ATOMIC(atomicExch, static_cast<T>(value))

template <class T>
T __ldg(const T* address) { return *address; }
template <class T>
T __ldcg(const T* address) { return *address; }
template <class T>
void __stcg(T* address, T value) { *address = value; }
template <class T>
T __ldcs(const T* address) { return *address; }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline void __threadfence() {}
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(unsigned bits) { return __builtin_ffs(static_cast<int>(bits)); }
inline int __clz(int bits) { return bits ? __builtin_clz(static_cast<unsigned>(bits)) : 32; }
template <class To, class From>
To host_cuda_bits(From value) {
    static_assert(sizeof(To) == sizeof(From), "");
    To bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}
// Bytes of x (0 to 3) and y (4 to 7), as the four digits of `selector` say.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    const uint64_t both = static_cast<uint64_t>(y) << 32 | x;
    unsigned chosen = 0;
    for (int i = 0; i < 4; ++i) chosen |= static_cast<unsigned>(both >> (selector >> 4 * i & 7) * 8 & 0xff) << 8 * i;
    return chosen;
}
inline int __float_as_int(float value) { return host_cuda_bits<int>(value); }
inline unsigned __float_as_uint(float value) { return host_cuda_bits<unsigned>(value); }
inline float __int_as_float(int value) { return host_cuda_bits<float>(value); }
inline float __uint_as_float(unsigned value) { return host_cuda_bits<float>(value); }
inline long long __double_as_longlong(double value) { return host_cuda_bits<long long>(value); }
inline double __longlong_as_double(long long value) { return host_cuda_bits<double>(value); }
