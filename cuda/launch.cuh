// How the C functions of this library start kernels and say what went wrong.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "cuda_kernels.h"
#include "ptx.cuh"

namespace parlor {

inline int error_code(cudaError_t error) {
    if (error == cudaSuccess) return PARLOR_OK;
    if (error == cudaErrorInsufficientDriver) return PARLOR_ERROR_DRIVER;
    return PARLOR_ERROR_CUDA + static_cast<int>(error);
}

// The properties of the present GPU that decide how a kernel is started.
struct Device {
    int number = 0;
    int multiprocessors = 0;
    int major = 0;
    int shared_bytes = 0;  // the most that a block can have
    int l2_bytes = 0;

    int read() {
        cudaError_t error = cudaGetDevice(&number);
        if (error == cudaSuccess)
            error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, number);
        if (error == cudaSuccess) error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, number);
        if (error == cudaSuccess)
            error = cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, number);
        if (error == cudaSuccess) error = cudaDeviceGetAttribute(&l2_bytes, cudaDevAttrL2CacheSize, number);
        return error_code(error);
    }
};

// Bytes of the largest SHARED_ARRAYs of a kernel with more than 48 KB of dynamic memory, and what CUDA takes for itself.
constexpr int kMaxStaticShared = 2048;

// Let a kernel have that much dynamic memory, and find out how many of its blocks a multiprocessor has room for then. The
// driver is asked once; see launch.cu.
int allow_shared(const Device& device, const void* kernel, size_t shared_bytes);
int blocks_of_multiprocessor(const Device& device, const void* kernel, int threads, size_t shared_bytes, int* blocks);

// Start a kernel on a cuda_queue; from compute capability 9.0 on as a dependent launch, see wait_for_previous_kernel().
template <class... Parameters, class... Arguments>
int launch(const Device& device, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
           void* stream, const Arguments&... arguments) {
    const auto* const queue = static_cast<const cuda_queue*>(stream);
    if (!queue) return PARLOR_ERROR_POINTER;
    if (const int error = allow_shared(device, reinterpret_cast<const void*>(kernel), shared_bytes)) return error;
    cudaLaunchAttribute attribute;
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = static_cast<cudaStream_t>(queue->stream);
    config.attrs = &attribute;
    config.numAttrs = queue->is_dependent && device.major >= 9 ? 1 : 0;
    return error_code(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
}

inline int64_t divide_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit; }

inline bool is_aligned(const void* pointer, uintptr_t bytes) {
    return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

constexpr int64_t kMaxGridX = 0x7fffffff;
constexpr int64_t kMaxGridY = 65535;

// Sum over the warp, the same in every lane and in the same order always.
__device__ __forceinline__ float warp_sum(float value) {
    for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
    return value;
}
__device__ __forceinline__ float warp_max(float value) {
    for (int offset = 16; offset > 0; offset /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
    return value;
}

}  // namespace parlor
