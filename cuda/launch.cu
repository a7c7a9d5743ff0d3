// What the driver says of a kernel on a GPU, asked once; see launch.cuh.
#include <map>
#include <mutex>
#include <set>
#include <tuple>
#include <utility>

#include "launch.cuh"

namespace parlor {
namespace {

constexpr size_t kWithoutAsking = 48 * 1024;  // bytes of dynamic memory that any kernel may have

std::mutex mutex;
std::set<std::pair<const void*, int>> allowed;                         // kernel, GPU
std::map<std::tuple<const void*, int, int, size_t>, int> found_blocks;  // kernel, GPU, threads, bytes

}  // namespace

// Always the same limit, however much a launch takes: a graph that was captured with more must not find the kernel's limit
// lowered by a later launch.
int allow_shared(const Device& device, const void* kernel, size_t shared_bytes) {
    if (shared_bytes <= kWithoutAsking) return PARLOR_OK;
    const int limit = device.shared_bytes - kMaxStaticShared;
    if (shared_bytes > static_cast<size_t>(limit)) return PARLOR_ERROR_MEMORY;
    const std::lock_guard<std::mutex> lock(mutex);
    if (allowed.count({kernel, device.number})) return PARLOR_OK;
    const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, limit);
    if (error == cudaSuccess) allowed.insert({kernel, device.number});
    return error_code(error);
}

int blocks_of_multiprocessor(const Device& device, const void* kernel, int threads, size_t shared_bytes, int* blocks) {
    if (const int error = allow_shared(device, kernel, shared_bytes)) return error;
    const std::lock_guard<std::mutex> lock(mutex);
    const auto key = std::make_tuple(kernel, device.number, threads, shared_bytes);
    if (const auto known = found_blocks.find(key); known != found_blocks.end()) {
        *blocks = known->second;
        return PARLOR_OK;
    }
    const cudaError_t error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, kernel, threads, shared_bytes);
    if (error == cudaSuccess) found_blocks[key] = *blocks;
    return error_code(error);
}

}  // namespace parlor
