// See workspace.cuh.
#include "workspace.cuh"

namespace parlor {
namespace {

constexpr int kMaxDevices = 64;
constexpr int kThreads = 256;
constexpr int64_t kFewestBytes = kTickets * static_cast<int64_t>(sizeof(unsigned)) + (int64_t{1} << 20);

Workspace workspaces[kMaxDevices];

__global__ void __launch_bounds__(kThreads) clear(unsigned* tickets) {
    wait_for_previous_kernel();
    tickets[blockIdx.x * kThreads + threadIdx.x] = 0;
}

}  // namespace

Workspace Workspace::of(int device) {
    return device >= 0 && device < kMaxDevices ? workspaces[device] : Workspace{};
}

}  // namespace parlor

using namespace parlor;

extern "C" int set_workspace(void* memory, int64_t bytes, void* stream) {
    if (!memory || !is_aligned(memory, 256)) return PARLOR_ERROR_POINTER;
    if (bytes < kFewestBytes) return PARLOR_ERROR_SIZE;
    Device device;
    if (const int error = device.read()) return error;
    if (device.number < 0 || device.number >= kMaxDevices) return PARLOR_ERROR_VALUE;
    workspaces[device.number] = {static_cast<char*>(memory), bytes};
    return launch(device, clear, dim3(kTickets / kThreads), dim3(kThreads), 0, stream, static_cast<unsigned*>(memory));
}
